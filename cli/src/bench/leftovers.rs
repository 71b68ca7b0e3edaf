//! What a benchmark that a signal stops would leave behind: servers that run, folders full of data.
//! Invariant: a server is noted from its start until just before it is waited for, so that no number here can be that of
//! a stranger.
//! Leaves starting and stopping to `server`, pages to their makers: those are written after each scenario.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};

/// Added to a signal's number to make the exit code that shells give it.
const SIGNAL_EXIT: i32 = 128;

static LEFTOVERS: Mutex<Leftovers> = Mutex::new(Leftovers { groups: vec![], folders: vec![] });

/// What there is to end and to remove.
#[derive(Debug)]
struct Leftovers {
    groups: Vec<Pid>,
    folders: Vec<PathBuf>,
}

impl Leftovers {
    fn clean(&mut self) {
        for group in self.groups.drain(..) {
            // A group that has ended by itself needs no end.
            let _ = kill_process_group(group, Signal::KILL);
        }
        for folder in self.folders.drain(..) {
            // A folder that is left behind wastes space and harms nothing.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn leftovers() -> MutexGuard<'static, Leftovers> {
    // Lists of numbers and names are whole whatever happened to a thread that held them.
    LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT and SIGTERM end what is noted and this process.
pub(crate) fn end_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the end: nothing new is started, and nobody else waits for what is killed here.
            let mut left = leftovers();
            left.clean();
            low_level::exit(SIGNAL_EXIT + signal);
        }
    });
    Ok(())
}

/// Notes a group of processes.
pub(crate) fn note_group(group: Pid) {
    leftovers().groups.push(group);
}

/// The group is about to be waited for.
pub(crate) fn forget_group(group: Pid) {
    leftovers().groups.retain(|known| *known != group);
}

/// Notes a folder.
pub(crate) fn note_folder(folder: &Path) {
    leftovers().folders.push(folder.to_owned());
}

/// The folder is about to be removed.
pub(crate) fn forget_folder(folder: &Path) {
    leftovers().folders.retain(|known| known != folder);
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::{CommandExt as _, ExitStatusExt as _},
        process::Command,
    };

    use super::*;

    #[test]
    fn cleaning_ends_servers_even_paused_ones_and_removes_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data");
        fs::create_dir(&inner).unwrap();
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&child);
        kill_process_group(group, Signal::STOP).unwrap();
        Leftovers { groups: vec![group], folders: vec![inner.clone()] }.clean();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!inner.exists());
    }
}
