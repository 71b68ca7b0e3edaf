//! Lets go of segments' files, which may take the disk long: planned and noted under the writer's lock, done without it.
//! Invariant: files go one by one from the oldest on, each name made to survive before the next, so that no crash
//! leaves a gap between segments; a file that has lost its segment's name is a segment no more.
//! Leaves to its caller which segments go, and who holds the lock.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use gantry_model::PhysicalOffset;

use super::{
    Log, LogWriter, UnlinkError,
    files::{Files, LogFile},
    segment::{Segment, free_path},
};

/// Bytes that are given back at once: a file system that frees a GiB in one step, or step upon step without a pause,
/// lets every sync wait for it.
const STEP_BYTES: u64 = 64 * 1024 * 1024;

/// One file to let go of.
pub struct Unlink {
    log: Log,
    segment: Arc<Segment>,
    /// Name that makes it a file that waits to be written again.
    free: PathBuf,
    is_kept: bool,
}

/// What became of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlinked {
    /// It waits to be written again.
    Kept,
    /// It is gone.
    Gone,
}

impl std::fmt::Debug for Unlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unlink").field("path", &self.segment.path).finish_non_exhaustive()
    }
}

impl Unlink {
    /// Does it, with a pause between two steps of a large file. After an error the next try goes on where this one ended.
    pub fn run(&self, pause: Duration) -> Result<Unlinked, UnlinkError> {
        let path = &self.segment.path;
        self.try_run(pause).map_err(|source| UnlinkError { path: path.clone(), source })
    }

    fn try_run(&self, pause: Duration) -> io::Result<Unlinked> {
        let shared = &self.log.0;
        match shared.files.rename(&self.segment.path, &self.free) {
            // An earlier try came further.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => outcome?,
        }
        shared.files.sync_dir(&shared.dir)?;
        // One that an earlier try has begun to cut is of no use any more.
        if self.is_kept && self.segment.file.len()? == self.segment.capacity {
            return Ok(Unlinked::Kept);
        }
        // Cut before it is removed: whoever still reads has it open, and the last one to close it would free all of it.
        shrink(&*self.segment.file, STEP_BYTES, pause)?;
        remove(&*shared.files, &self.free)?;
        Ok(Unlinked::Gone)
    }
}

/// Cuts a file step by step, down to one step.
fn shrink(file: &dyn LogFile, step_bytes: u64, pause: Duration) -> io::Result<()> {
    let mut bytes = file.len()?;
    while bytes > step_bytes {
        bytes -= step_bytes;
        file.set_len(bytes)?;
        thread::sleep(pause);
    }
    Ok(())
}

fn remove(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

impl LogWriter {
    /// Gives up the segments that lie wholly before `position`, never the one being written and none that is not synced.
    /// Their files go with [`LogWriter::next_unlink`].
    pub fn give_up_before(&mut self, position: PhysicalOffset) {
        while let Some(segment) = self.take_front(position.0) {
            self.doomed.push_back(segment);
        }
    }

    /// The oldest file of a segment that was given up. What the reserve lacks, and up to two files more, is kept to be
    /// written again.
    pub fn next_unlink(&self) -> Option<Unlink> {
        let segment = Arc::clone(self.doomed.front()?);
        let shared = &self.log.0;
        let has_place = self.spares.has_place(shared.segments.read().len());
        let is_kept = has_place && segment.capacity == self.segment_bytes;
        let free = free_path(&shared.dir, segment.base);
        Some(Unlink { log: self.log.clone(), segment, free, is_kept })
    }

    /// Notes what has become of the oldest file.
    pub fn unlinked(&mut self, unlink: &Unlink, outcome: Unlinked) {
        match outcome {
            Unlinked::Kept => self.spares.push(unlink.free.clone()),
            Unlinked::Gone => self.removed_bytes += unlink.segment.capacity,
        }
        // Not the last one to hold it, so nothing is closed here.
        self.doomed.pop_front();
    }

    /// Bytes of the files that were given up and are still there.
    pub fn leaving_bytes(&self) -> u64 {
        self.doomed.iter().map(|segment| segment.capacity).sum()
    }

    /// Bytes of the files that are gone since the log was opened; those that wait to be written again are not.
    pub fn removed_bytes(&self) -> u64 {
        self.removed_bytes
    }

    /// Gives up segments and lets go of their files at once; returns how many went. For those who hold no lock that
    /// anybody waits for.
    ///
    /// After an error the log goes on without the segments; their files go with the next call.
    pub fn unlink_before(&mut self, position: PhysicalOffset) -> Result<u64, UnlinkError> {
        self.give_up_before(position);
        let mut gone = 0;
        while let Some(unlink) = self.next_unlink() {
            let outcome = unlink.run(Duration::ZERO)?;
            self.unlinked(&unlink, outcome);
            gone += 1;
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory_files::{MemoryFiles, Operation};

    #[test]
    fn large_file_is_cut_in_steps_none_of_which_frees_more() {
        let disk = MemoryFiles::new();
        let file = disk.create(Path::new("/segment")).unwrap();
        file.allocate(1_000).unwrap();
        shrink(&*file, 300, Duration::ZERO).unwrap();
        let asked = disk.asked();
        let lengths: Vec<u64> = asked
            .iter()
            .filter(|asked| asked.operation == Operation::Resize)
            .map(|asked| asked.bytes)
            .collect();
        assert_eq!(lengths, [1_000, 700, 400, 100]);
    }
}
