//! How the writer comes by the files of new segments, and when it refuses messages because there are none.
//! Invariant: once a file for messages cannot be had, messages are refused until upkeep has one ready; state goes on
//! for as long as the reserve lasts, and a file of the reserve is never written with messages before it is whole again.
//! Leaves to upkeep when to look, and making files ahead, which takes long, to a moment without the log's lock.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::PhysicalOffset;

use super::{
    AppendError, Log, LogWriter,
    files::{Files, LogFile, is_out_of_space},
    segment::{free_path, segment_path},
    spare::{Purpose, Shortage},
};

impl LogWriter {
    /// Refuses messages while there is no room for another segment.
    pub(super) fn check_shortage(&self, purpose: Purpose) -> Result<(), AppendError> {
        match (purpose, self.log.shortage()) {
            (Purpose::Messages, Some(shortage)) => Err(shortage.into()),
            _ => Ok(()),
        }
    }

    /// A file for the segment at `base`: one that was made before, one to be written again, a new one, or, for state
    /// alone, one of the reserve.
    pub(super) fn next_file(
        &mut self,
        base: u64,
        purpose: Purpose,
    ) -> Result<Arc<dyn LogFile>, AppendError> {
        if let Some((_, file)) = self.prepared.take_if(|(prepared, _)| *prepared == base) {
            return Ok(file);
        }
        if purpose == Purpose::Messages {
            self.complete_reserve(base)?;
        }
        let path = segment_path(&self.log.0.dir, base);
        let spare = self.spares.take(self.log.segment_count());
        if let Some(file) = spare.and_then(|spare| self.rename_spare(&spare, &path)) {
            return Ok(file);
        }
        let error = match self.make_segment(base, &path) {
            Err(error @ (AppendError::Full { .. } | AppendError::Short(_))) => error,
            outcome => return outcome,
        };
        if purpose == Purpose::State
            && let Some(spare) = self.spares.take_reserved()
            && let Some(file) = self.rename_spare(&spare, &path)
        {
            return Ok(file);
        }
        Err(error)
    }

    /// Makes what the reserve lacks before messages get another segment: a writer that is fast could otherwise fill the
    /// disk before upkeep looks. That happens while the log has few segments; later the reserve lacks something only
    /// when messages are refused.
    fn complete_reserve(&mut self, base: u64) -> Result<(), AppendError> {
        while self.spares.lack_reserve(self.log.segment_count()) {
            let path = self.next_spare_path();
            self.make_segment(base, &path)?;
            self.spares.push(path);
        }
        Ok(())
    }

    /// Files that were segments are named by their bases, which count from the other end.
    fn next_spare_path(&mut self) -> PathBuf {
        free_path(&self.log.0.dir, u64::MAX - self.spares.next_number())
    }

    /// A spare file under its new name; a new one does as well, so one that cannot be had is given up.
    fn rename_spare(&self, spare: &Path, path: &Path) -> Option<Arc<dyn LogFile>> {
        let files = &*self.log.0.files;
        let open = || {
            let file = files.open(path)?;
            if file.len()? != self.segment_bytes {
                file.set_len(0)?;
                file.allocate(self.segment_bytes)?;
            }
            Ok::<_, io::Error>(file)
        };
        files.rename(spare, path).ok()?;
        let opened = open();
        if opened.is_err() {
            let _ = files.remove(path);
        }
        opened.ok()
    }

    /// Makes a new file; when there is no room for one, messages are refused from here on.
    fn make_segment(&self, base: u64, path: &Path) -> Result<Arc<dyn LogFile>, AppendError> {
        let shared = &self.log.0;
        if let Err(shortage) = self.check_limit() {
            shared.shortage.set(Some(shortage));
            return Err(shortage.into());
        }
        make_file(&*shared.files, path, self.segment_bytes).map_err(|source| {
            if is_out_of_space(&source) {
                shared.shortage.set(Some(self.spares.no_room()));
                let (position, bytes) = (PhysicalOffset(base), self.segment_bytes);
                return AppendError::Full { position, bytes, source };
            }
            AppendError::NewSegment { path: path.to_owned(), source }
        })
    }

    /// Whether the log may have another file. One that is about to go takes its place until it is gone.
    fn check_limit(&self) -> Result<(), Shortage> {
        self.spares.check_limit(self.log.file_bytes() + self.leaving_bytes())
    }

    /// Looks how much room there is, and says which file has to be made so that the reserve is whole and messages go
    /// on, if there is room for it. To be asked again after each file.
    ///
    /// `free_bytes` is what the file system has left: with less than a segment and what the reserve lacks, messages
    /// are refused, and the rest is for the views.
    pub fn look_for_room(&mut self, free_bytes: u64) -> Option<PathBuf> {
        let shared = &self.log.0;
        let missing = self.spares.missing(self.log.segment_count()) as u64;
        if missing == 0 {
            shared.shortage.set(None);
            return None;
        }
        let limit = self.check_limit();
        if free_bytes < missing * self.segment_bytes {
            shared.shortage.set(Some(self.spares.no_room()));
        } else if let (Some(_), Err(shortage)) = (shared.shortage.get(), limit) {
            shared.shortage.set(Some(shortage));
        }
        // Without a shortage the next segment's file is made when the segment begins.
        let is_wanted = missing > 1 || shared.shortage.get().is_some();
        let has_room = limit.is_ok() && free_bytes >= self.segment_bytes;
        (is_wanted && has_room).then(|| self.next_spare_path())
    }

    /// Takes a file that [`LogWriter::look_for_room`] asked for and [`Log::make_spare`] has made.
    pub fn add_spare(&mut self, path: PathBuf) {
        self.spares.push(path);
    }

    /// Files that wait to become segments.
    pub fn spare_files(&self) -> usize {
        self.spares.len()
    }
}

impl Log {
    /// Makes a file that waits to become a segment, without the log's lock.
    ///
    /// # Errors
    /// There is no room, or the system refuses for another reason; no file is left behind.
    pub fn make_spare(&self, path: &Path, segment_bytes: u64) -> io::Result<()> {
        make_file(&*self.0.files, path, segment_bytes).map(|_| ())
    }

    /// Messages are refused from here on: [`Log::make_spare`] found no room where the system had told of some.
    pub(crate) fn note_no_room(&self, segment_bytes: u64) {
        self.0.shortage.set(Some(Shortage::Disk { segment_bytes }));
    }

    pub(super) fn segment_count(&self) -> usize {
        self.0.segments.read().len()
    }
}

fn make_file(files: &dyn Files, path: &Path, bytes: u64) -> io::Result<Arc<dyn LogFile>> {
    let made = files.create(path).and_then(|file| {
        file.allocate(bytes)?;
        Ok(file)
    });
    if made.is_err() {
        // Half-made, it would be taken for a segment at the next start; that it is empty tells recovery enough.
        let _ = files.remove(path);
    }
    made
}
