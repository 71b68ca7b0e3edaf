//! The lock of a store's folder: one broker at a time.
//! Invariant: a tool that asks who holds the lock keeps no broker out; a broker keeps every other one out at once.
//! Leaves asking without taking to `inspect`.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    path::Path,
    time::Duration,
};

use crate::errors::OpenError;

/// Tries beside tools that look. Each of them holds the lock for less than one pause, so that a second of them in a row
/// is not met.
const TRIES: u32 = 1_000;
const PAUSE: Duration = Duration::from_millis(1);

/// Locks the folder and leaves the process id in the lock file.
pub(crate) fn take(dir: &Path) -> Result<File, OpenError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { action, path, source }
    };
    std::fs::create_dir_all(dir).map_err(failed("make folder", dir))?;
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    let pause = &mut || std::thread::sleep(PAUSE);
    if !lock_beside_lookers(&file, pause).map_err(failed("lock", &path))? {
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(failed("read", &path))?;
        let pid = pid.trim().parse().unwrap_or(0);
        return Err(OpenError::InUse { dir: dir.to_owned(), pid });
    }
    file.set_len(0).map_err(failed("write", &path))?;
    write!(file, "{}", std::process::id()).map_err(failed("write", &path))?;
    Ok(file)
}

/// Locks `file`, or says that a broker has. Who looks locks as a reader for an instant, which another reader is not
/// refused; a broker locks alone.
fn lock_beside_lookers(file: &File, pause: &mut dyn FnMut()) -> io::Result<bool> {
    for _ in 0..TRIES {
        if is_taken(file.try_lock())? {
            return Ok(true);
        }
        if !is_taken(file.try_lock_shared())? {
            return Ok(false);
        }
        file.unlock()?;
        pause();
    }
    Ok(false)
}

fn is_taken(outcome: Result<(), TryLockError>) -> io::Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).open(dir.join("lock")).unwrap()
    }

    #[test]
    fn broker_waits_for_a_tool_that_looks() {
        let dir = tempfile::tempdir().unwrap();
        let (looker, own) = (file(dir.path()), file(dir.path()));
        looker.lock_shared().unwrap();
        let mut pauses = 0;
        let taken = lock_beside_lookers(&own, &mut || {
            pauses += 1;
            if pauses == 3 {
                looker.unlock().unwrap();
            }
        });
        assert!(taken.unwrap());
        assert_eq!(pauses, 3);
        assert!(matches!(looker.try_lock_shared(), Err(TryLockError::WouldBlock)));
    }

    #[test]
    fn broker_is_refused_at_once_while_another_has_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let _first = take(dir.path()).unwrap();
        let second = lock_beside_lookers(&file(dir.path()), &mut || panic!("nobody looks"));
        assert!(!second.unwrap());
        let refused = take(dir.path()).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { pid, .. } if pid == std::process::id()));
    }
}
