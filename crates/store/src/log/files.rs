//! The disk as the store sees it: folders of files, read and written at positions.
//! Invariant: nothing here maps memory or retries; an error reaches the caller with what it had already written.
//! Leaves what the bytes mean to the log; faults and crash states come from another implementation.

use std::{
    fs::{self, OpenOptions},
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use fs4::fs_std::FileExt as _;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

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
        Ok(Arc::new(StdFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(StdFile(
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
    Ok(Arc::new(StdFile(fs::File::open(path)?)))
}

struct StdFile(fs::File);

impl LogFile for StdFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.0.read_at(&mut out[done..], at + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        let mut done = 0;
        while done < out.len() {
            let mut rest = [IoSliceMut::new(&mut out[done..])];
            match preadv2(&self.0, &mut rest, at + done as u64, ReadWriteFlags::NOWAIT) {
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
            let failure = match self.0.write_at(&bytes[written..], at + written as u64) {
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
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match self.0.allocate(bytes) {
            // A file system that cannot reserve still can hold the file.
            Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported) => {
                self.0.set_len(bytes.max(self.len()?))
            }
            outcome => outcome,
        }
    }
}
