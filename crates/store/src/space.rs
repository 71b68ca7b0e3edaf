//! Room on the disk: whether messages are taken, and the files that are made ahead so that they are.
//! Invariant: a file is made without the log's lock; nothing that was refused for want of room has changed anything.
//! Leaves the rules to the log, and how often to look to the store's owner.

use std::io;

use crate::{
    errors::{AppendError, MaintainError},
    log::{self, Shortage, files::is_out_of_space},
    options::Now,
    retention::Forgotten,
    store::Store,
};

/// Why the store did not look for room, or did not take it. The next call tries again.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The file system does not say what it has left.
    #[error("ask for the free space of the log's folder")]
    FreeSpace(#[source] io::Error),
    /// A file could not be made, for another reason than want of room.
    #[error("make a file ahead")]
    Make(#[source] io::Error),
}

impl Store {
    /// Why messages are refused for want of room, if they are. Reads go on, and so does state while the reserve lasts.
    pub fn shortage(&self) -> Option<Shortage> {
        self.log.shortage()
    }

    /// Refuses messages while there is no room for them, as an append would.
    pub fn check_shortage(&self) -> Result<(), AppendError> {
        match self.shortage() {
            None => Ok(()),
            Some(shortage) => Err(AppendError::Full(log::AppendError::Short(shortage))),
        }
    }

    /// Lets go of what is too old or too much; when there is no room for messages, segment by segment.
    pub(crate) fn forget_and_find_room(&self, now: Now) -> Result<Forgotten, MaintainError> {
        let mut all = Forgotten::default();
        loop {
            let forgotten = self.forget_old(now)?;
            self.find_room()?;
            all += forgotten;
            if forgotten.segments == 0 {
                return Ok(all);
            }
        }
    }

    /// Makes what the reserve lacks, and if messages are refused for want of room, looks whether there is some now.
    ///
    /// To be called every second or so: it costs two system calls, and more only when there is a file to be made.
    pub fn find_room(&self) -> Result<(), RoomError> {
        loop {
            let free_bytes = self.log.free_space().map_err(RoomError::FreeSpace)?;
            let wanted = self.tail.lock().writer.look_for_room(free_bytes);
            let Some(path) = wanted else { return Ok(()) };
            match self.log.make_spare(&path, self.options.segment_bytes) {
                Ok(()) => self.tail.lock().writer.add_spare(path),
                Err(error) if is_out_of_space(&error) => {
                    self.log.note_no_room(self.options.segment_bytes);
                    return Ok(());
                }
                Err(error) => return Err(RoomError::Make(error)),
            }
        }
    }
}
