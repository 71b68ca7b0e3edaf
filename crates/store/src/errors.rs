//! Why operations of the store fail: one enum for each.
//! Invariant: after an error of one call the store is as it was before, unless the variant says otherwise.
//! Leaves response codes to the broker.

use std::path::PathBuf;

use gantry_model::{PhysicalOffset, QueueId, TopicName};

use crate::{
    image::ImageError, keys::KeyError, log, retention::RetentionError, space::RoomError,
    state::StateError, views::ViewError,
};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder open.
    #[error("the folder {dir} is in use by process {pid}")]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Process that holds the lock, 0 if it has not said so.
        pid: u32,
    },
    /// The folder was written by a newer version.
    #[error("the store has format {found}, this version knows formats up to {known}")]
    NewerFormat {
        /// Format of the folder.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// A file or folder could not be used.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The commit log could not be opened.
    #[error("open the commit log")]
    Log(#[source] log::OpenError),
    /// The views could not be opened or written.
    #[error("open the views")]
    Views(#[from] ViewError),
    /// The log could not be replayed.
    #[error("replay the log from {position}")]
    Replay {
        /// Where it stopped.
        position: PhysicalOffset,
        /// The cause.
        source: ReplayError,
    },
    /// The newest state image could not be loaded.
    #[error("load the state image")]
    Image(#[from] ImageError),
    /// The views are gone, and so is each state image that the log had. The messages in it are whole.
    #[error(
        "topics, groups and offsets are lost: the views are gone, the log begins at {start}, and no state image in it is \
         whole ({cause}); the messages are there. `gantry store verify {dir}` names each damaged place; \
         `gantry store repair {dir} --accept-lost-state` goes on with what is left of the state, and with the topics that \
         messages name", dir = dir.display()
    )]
    StateLost {
        /// The store's folder.
        dir: PathBuf,
        /// Where the log begins.
        start: PhysicalOffset,
        /// The first damaged place, as text with file and byte; or that there is none.
        cause: String,
    },
    /// Key index or retention could not be opened.
    #[error("open the upkeep")]
    Upkeep(#[source] RetentionError),
    /// What was recovered could not be synced.
    #[error("sync the recovered log")]
    Sync(#[from] SyncError),
    /// The reserve could not be made, for another reason than want of room.
    #[error("make the reserve of the log")]
    Room(#[from] RoomError),
}

impl OpenError {
    /// Whether views that begin empty would help.
    pub(crate) fn is_view_damage(&self) -> bool {
        matches!(
            self,
            Self::Views(ViewError::Damaged { .. })
                | Self::Replay { source: ReplayError::Views(ViewError::Damaged { .. }), .. }
        )
    }
}

/// Why the log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log could not be read.
    #[error("read the log")]
    Read(#[source] log::ReadError),
    /// A state record cannot be understood.
    #[error("decode a state record")]
    State(#[from] StateError),
    /// The views could not be written.
    #[error("write the views")]
    Views(#[from] ViewError),
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Too many entries wait for the views; try again soon.
    #[error("{ring_bytes} bytes of entries wait for the views, the limit is {ring_bytes_max}")]
    Busy {
        /// Bytes that wait.
        ring_bytes: usize,
        /// Most bytes that may wait.
        ring_bytes_max: usize,
    },
    /// The disk, or the log's share of it, is full.
    #[error("the log is full")]
    Full(#[source] log::AppendError),
    /// Pending timers hold so much of the log that no new one is taken.
    #[error(
        "timer messages that wait take {bytes} bytes of the log, no more are taken beyond {bytes_max}, \
         a quarter of its size"
    )]
    PendingFull {
        /// Bytes of their records.
        bytes: u64,
        /// Bytes beyond which new ones are refused.
        bytes_max: u64,
    },
    /// The writer has stopped: the store must be opened again.
    #[error("the log's writer has stopped")]
    Stopped(#[source] Option<log::AppendError>),
    /// The topic was deleted.
    #[error("the topic {topic} does not exist")]
    TopicGone {
        /// Its name.
        topic: TopicName,
    },
    /// What the record should end has ended already.
    #[error("the timer at {position}, due at {due_ms}, is not pending")]
    AlreadyEnded {
        /// Due time of the timer, in milliseconds since 1970.
        due_ms: u64,
        /// Its position.
        position: PhysicalOffset,
    },
    /// A batch does not fit into a segment.
    #[error("the batch does not fit into a segment")]
    RecordTooLarge(#[source] log::AppendError),
    /// A state record could not be made.
    #[error("encode a state record")]
    Encode(#[from] EncodeError),
    /// Views could not be read.
    #[error("read the views")]
    Views(#[from] ViewError),
}

/// Why a message did not enter a batch.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The record layout cannot hold it.
    #[error(transparent)]
    Record(#[from] gantry_record::EncodeError),
    /// No topic can have that queue.
    #[error("the queue is {queue}, the topic {topic} has {queues}")]
    Queue {
        /// Name of the topic.
        topic: TopicName,
        /// The refused queue.
        queue: QueueId,
        /// Number of queues that any topic may have.
        queues: u32,
    },
    /// The draft's topic is not the one given.
    #[error("the draft says topic {draft:?}, the batch was given {topic}")]
    OtherTopic {
        /// Topic of the draft.
        draft: String,
        /// Topic given.
        topic: TopicName,
    },
}

/// Why a sync failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncError {
    /// The log could not be synced: its writer has stopped.
    #[error("sync the log")]
    Log(#[source] std::sync::Arc<log::SyncError>),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log could not be read.
    #[error("read {bytes} bytes of the log at {position}")]
    Log {
        /// Where.
        position: PhysicalOffset,
        /// How much.
        bytes: u32,
        /// The cause.
        source: log::ReadError,
    },
    /// The record lies far behind the end of the log and is not in memory.
    #[error("the record at {position} is not in memory")]
    NotAtHand {
        /// Where.
        position: PhysicalOffset,
    },
    /// A view could not be read.
    #[error("read the views")]
    Views(#[from] ViewError),
    /// The key index could not be read.
    #[error("read the key index")]
    Keys(#[from] KeyError),
    /// Files of the key index are missing, and are made again from the log in the background.
    #[error("the key index lacks {missing} bytes of the log and is being made again")]
    Unindexed {
        /// Bytes of the log that no file covers.
        missing: u64,
    },
}

/// Why upkeep failed.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// Views could not be flushed.
    #[error("flush the views")]
    Views(#[from] ViewError),
    /// Keys could not be indexed, or the log not be shortened.
    #[error("index keys and let go of old messages")]
    Retention(#[from] RetentionError),
    /// Files could not be made ahead.
    #[error("find room for messages")]
    Room(#[from] RoomError),
}

/// Why the log of a store at rest was not ended with a mark.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The mark could not be written.
    #[error("write a mark")]
    Append(#[from] log::AppendError),
    /// The mark could not be synced.
    #[error("sync the log")]
    Sync(#[from] SyncError),
}

/// Why a store did not close cleanly. What was confirmed is safe: the next open replays it.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Staged offsets could not be written.
    #[error("write the staged offsets")]
    Append(#[from] AppendError),
    /// The log could not be synced.
    #[error("sync the log")]
    Sync(#[from] SyncError),
    /// Views could not be written.
    #[error("write the views")]
    Views(#[from] ViewError),
    /// The log could not be marked as synced, or the key index not be written.
    #[error("close the log and the key index")]
    Upkeep(#[from] RetentionError),
}
