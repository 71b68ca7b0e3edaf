//! The disk as the store sees it: folders of files, read and written at positions.
//! Invariant: nothing here maps memory or retries; an error reaches the caller with what it had already written.
//! Leaves what the bytes mean to the log; faults and crash states come from another implementation.

use std::{
    fs::{self, OpenOptions},
    io::{self, IoSliceMut},
    ops::Range,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::Path,
    sync::{Arc, OnceLock},
};

use fs4::fs_std::FileExt as _;
use rustix::{
    fs::OFlags,
    io::{Errno, ReadWriteFlags, preadv2},
};

/// A folder tree. Object-safe, so that a simulator can put its own disk below the store.
pub trait Files: Send + Sync {
    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Makes a new empty file; a file of that name is an error.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>>;
    /// Gives a file another name, replacing what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names of the files in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder and those above it, if they are not there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes names in the folder survive a crash.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that the file system of the folder has left for us.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;
}

/// One open file.
pub trait LogFile: Send + Sync {
    /// Reads up to `out.len()` bytes; less only where the file ends.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize>;
    /// Fills `out` if the system has all of it in memory; `false` when it has not, or does not say.
    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool>;
    /// Reads `bytes` bytes from `at` on into `out` and says where in it they lie; fewer only where the file ends. Where
    /// the system allows it they do not go through its cache: bytes that are read once push out nothing, and cost no
    /// pages.
    fn read_past_cache(
        &self,
        out: &mut Vec<u8>,
        at: u64,
        bytes: usize,
    ) -> io::Result<Range<usize>> {
        out.resize(bytes, 0);
        Ok(0..self.read_at(out, at)?)
    }
    /// Writes all bytes, or says how many of them may have reached the file.
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), WriteFailure>;
    /// Makes all written bytes, and the length, survive a crash.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Reserves disk space for the first `bytes`, and makes the file at least that long.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Bytes, from a multiple of them on, that the system has to read from the device if only a part of them is written
    /// and it no longer has them in memory. Default: what ext4 and XFS are made with, unless asked otherwise.
    fn block_bytes(&self) -> u64 {
        4096
    }
    /// Whether the file has no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A write that did not do all it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{written} bytes written")]
pub struct WriteFailure {
    /// Bytes that are in the file for sure; of the others, nothing is when `is_known` holds.
    pub written: usize,
    /// What the system said.
    pub source: io::Error,
}

impl WriteFailure {
    /// Whether the file's content is known: the system refused for want of space and wrote no more.
    pub fn is_known(&self) -> bool {
        is_out_of_space(&self.source)
    }
}

/// Whether an error says that there is no room, and nothing else is wrong.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// The real disk.
#[derive(Debug, Default, Clone, Copy)]
pub struct StdFiles;

impl Files for StdFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(StdFile::new(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(StdFile::new(
            OpenOptions::new().read(true).write(true).create_new(true).open(path)?,
        )))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours.
            if let (true, Ok(name)) =
                (entry.file_type()?.is_file(), entry.file_name().into_string())
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        fs4::available_space(dir)
    }
}

/// Opens a file of the real disk for reading alone: the system refuses to change it.
pub(super) fn open_for_reading(path: &Path) -> io::Result<Arc<dyn LogFile>> {
    Ok(Arc::new(StdFile::new(fs::File::open(path)?)))
}

/// What a read past the cache begins and ends at, in the file and in memory: no device has larger blocks.
const ALIGNED: usize = 4096;

struct StdFile {
    file: fs::File,
    /// The same file, opened for reads past the cache when the first is asked for; `None` where that is not possible.
    uncached: OnceLock<Option<fs::File>>,
}

impl StdFile {
    fn new(file: fs::File) -> Self {
        Self { file, uncached: OnceLock::new() }
    }

    fn uncached(&self) -> Option<&fs::File> {
        let open = || {
            // By the open file, not by its name, which may be another's by now.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = OFlags::DIRECT.bits() as i32;
            OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
        };
        self.uncached.get_or_init(open).as_ref()
    }

    /// Like [`LogFile::read_past_cache`]; `None` where only the cache can give the bytes.
    fn read_uncached(
        &self,
        out: &mut Vec<u8>,
        at: u64,
        bytes: usize,
    ) -> io::Result<Option<Range<usize>>> {
        let Some(file) = self.uncached() else { return Ok(None) };
        let before = at as usize % ALIGNED;
        let wanted = (before + bytes).next_multiple_of(ALIGNED);
        out.resize(wanted + ALIGNED, 0);
        let start = out.as_ptr().align_offset(ALIGNED);
        // One call: a second one would begin at a place that is not aligned, where the file ends.
        match file.read_at(&mut out[start..start + wanted], at - before as u64) {
            Ok(read) if read == wanted || at - before as u64 + read as u64 >= self.len()? => {
                let first = start + before.min(read);
                Ok(Some(first..start + read.min(before + bytes)))
            }
            // Interrupted, or a file system that opens such files and does not read them.
            Ok(_) => Ok(None),
            Err(e)
                if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Reads up to `out.len()` bytes; less only where the file ends.
fn read_all(file: &fs::File, out: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

impl LogFile for StdFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        read_all(&self.file, out, at)
    }

    fn read_past_cache(
        &self,
        out: &mut Vec<u8>,
        at: u64,
        bytes: usize,
    ) -> io::Result<Range<usize>> {
        if let Some(range) = self.read_uncached(out, at, bytes)? {
            return Ok(range);
        }
        out.resize(bytes, 0);
        Ok(0..read_all(&self.file, out, at)?)
    }

    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        let mut done = 0;
        while done < out.len() {
            let mut rest = [IoSliceMut::new(&mut out[done..])];
            match preadv2(&self.file, &mut rest, at + done as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), WriteFailure> {
        let mut written = 0;
        while written < bytes.len() {
            let failure = match self.file.write_at(&bytes[written..], at + written as u64) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(more) => {
                    written += more;
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            return Err(WriteFailure { written, source: failure });
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self.file.allocate(bytes) {
            // A file system that cannot reserve still can hold the file.
            Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported) => {
                self.file.set_len(bytes.max(self.len()?))
            }
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_the_cache_give_the_files_bytes_at_every_alignment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = StdFiles.create(&path).unwrap();
        let bytes: Vec<u8> = (0..20_001u32).map(|at| (at / 7 % 251) as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        // Other bytes may have been read into it before.
        let mut out = vec![b'#'; 3];
        let places = [0, 1, 4095, 4096, 4097, 8192, 12_288, 16_384, 19_999, 20_000, 20_001, 30_000];
        for at in places {
            for wanted in [1, 100, 4096, 4097, 8192, 20_001, 65_536] {
                let range = file.read_past_cache(&mut out, at, wanted).unwrap();
                let from = bytes.len().min(at as usize);
                let expected = &bytes[from..bytes.len().min(from + wanted)];
                assert_eq!(&out[range], expected, "{wanted} bytes at {at}");
            }
        }
    }

    /// A read that the system refuses is made through the cache, so what it gives out does not show it.
    #[test]
    fn reads_past_the_cache_are_ones_that_the_system_takes_wherever_they_begin_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = fs::File::options().create_new(true).read(true).write(true).open(path);
        let file = StdFile::new(file.unwrap());
        let bytes: Vec<u8> = (0..20_001u32).map(|at| (at / 7 % 251) as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        if file.uncached().is_none() {
            eprintln!(
                "not tested: the temporary folder's file system always reads through the cache"
            );
            return;
        }
        // Buffers that begin anywhere.
        for room in [0, 1, 5_000, 70_000] {
            for (at, wanted) in [(0, 100), (1, 4_096), (4_095, 2), (5_000, 5_000), (19_999, 100)] {
                let mut out = Vec::with_capacity(room);
                let range = file.read_uncached(&mut out, at, wanted).unwrap();
                let range = range.unwrap_or_else(|| panic!("{wanted} bytes at {at} were refused"));
                let from = at as usize;
                assert_eq!(out[range], bytes[from..bytes.len().min(from + wanted)], "{at}");
            }
        }
    }

    #[test]
    fn reads_past_the_cache_see_what_was_written_last_and_follow_the_file_to_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        let file = StdFiles.create(&path).unwrap();
        let mut out = Vec::new();
        for round in 0..3u8 {
            file.write_at(&[round; 10_000], 0).unwrap();
            let range = file.read_past_cache(&mut out, 5_000, 5_000).unwrap();
            assert_eq!(out[range], [round; 5_000]);
            StdFiles.rename(&path, &other).unwrap();
            StdFiles.create(&path).unwrap();
            StdFiles.rename(&other, &path).unwrap();
        }
    }
}
