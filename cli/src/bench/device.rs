//! What the device itself can do, measured beside W5: a record written and made durable, one after the other.
//! Invariant: the file's blocks are allocated and written before the first measured write, as those of a log that is
//! written again are, so that a write that is made durable changes no metadata that it needs.
//! Leaves the scenario to `reuse`. Runs on the server's core, while no server runs.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::Ordering::Relaxed,
    thread,
};

use anyhow::Context as _;

use super::{
    WindowArgs,
    load::{Outcome, Shared},
    measure::{join, observe},
    process::pin_thread,
    report::Row,
    suite::{DataFolder, RECORD_BYTES},
};
use crate::progress::Progress;

/// Written again and again: larger than what a window writes only once would say nothing more.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
const FILL_BYTES: usize = 1024 * 1024;

/// Writes records to a file below `parent` and makes each durable before the next, on processor core `core`.
pub(super) fn measure(
    parent: Option<&Path>,
    core: u32,
    window: &WindowArgs,
) -> anyhow::Result<Row> {
    let folder = DataFolder::new(parent);
    let path = folder.path();
    std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
    let path = path.join("records");
    let file = filled(&path).with_context(|| format!("fill {}", path.display()))?;
    let (shared, progress) = (Shared::new(None), Progress::spinner());
    let (measured, outcome) = thread::scope(|scope| {
        let threads = vec![scope.spawn(|| {
            if let Err(error) = pin_thread(core) {
                tracing::warn!(%error, "the device is measured on any core");
            }
            write_durably(&file, &shared)
        })];
        let measured = observe(&shared, window.window(), None, &threads, &progress);
        io::Result::Ok((measured?, join(threads)?))
    })?;
    let what = format!("pwrite of {RECORD_BYTES} B and fdatasync, one at a time, written file");
    Ok(Row::of_load("W5 device", what, measured, &outcome))
}

/// A file all of whose blocks are on the device.
fn filled(path: &Path) -> io::Result<File> {
    let mut file = File::options().create_new(true).write(true).open(path)?;
    let bytes = vec![b'a'; FILL_BYTES];
    for _ in 0..FILE_BYTES / FILL_BYTES as u64 {
        file.write_all(&bytes)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// One record after the other until the run stops.
fn write_durably(file: &File, shared: &Shared) -> io::Result<Outcome> {
    let record = [b'b'; RECORD_BYTES as usize];
    let mut outcome = Outcome::new();
    let mut at = 0;
    while shared.take(1) > 0 {
        let start_ns = shared.clock.now_ns();
        file.write_all_at(&record, at)?;
        file.sync_data()?;
        if start_ns >= shared.measure_from_ns.load(Relaxed) {
            outcome.record(shared.clock.now_ns() - start_ns);
        }
        shared.done.fetch_add(1, Relaxed);
        at = (at + RECORD_BYTES) % (FILE_BYTES - RECORD_BYTES);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_written_and_none_beyond_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = filled(&folder.path().join("records")).unwrap();
        let shared = Shared::new(Some(40));
        shared.measure_from_ns.store(0, Relaxed);
        let outcome = write_durably(&file, &shared).unwrap();
        assert_eq!(outcome.latency.len(), 40);
        let bytes = std::fs::read(folder.path().join("records")).unwrap();
        assert_eq!(bytes.len() as u64, FILE_BYTES);
        let written = bytes.iter().take_while(|byte| **byte == b'b').count() as u64;
        assert_eq!(written, 40 * RECORD_BYTES);
    }
}
