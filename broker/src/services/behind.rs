//! Who reads far behind the end of the log, and where each goes on: such a read waits for the disk, for the entries of
//! its queue as for the messages, so it is not tried on a thread that answers others.
//! Invariant: bounded memory; what is forgotten or mixed up costs a try, or a read on the slower threads, and no
//! message.
//! Leaves to its callers what far is.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::atomic::{AtomicU64, Ordering},
};

use gantry_model::QueueOffset;

use super::hold::QueueKey;

/// Readers that are remembered, roughly: two may have one place, of which the later one has it.
const PLACES: usize = 1024;

/// Where the readers go on that were far behind when they read last.
pub(super) struct Behind {
    /// Hash of a reader and of the offset at which it goes on, by the hash of the reader.
    places: Box<[AtomicU64]>,
}

impl Behind {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that a group's read of a queue, far behind, ended in front of `next`.
    pub(super) fn note(&self, group: &str, queue: QueueKey, next: QueueOffset) {
        self.place(group, queue).store(mark(group, queue, next), Ordering::Relaxed);
    }

    /// Whether the last read of the group in the queue was far behind and ended in front of `from`.
    pub(super) fn goes_on(&self, group: &str, queue: QueueKey, from: QueueOffset) -> bool {
        self.place(group, queue).load(Ordering::Relaxed) == mark(group, queue, from)
    }

    fn place(&self, group: &str, queue: QueueKey) -> &AtomicU64 {
        &self.places[hash((group, queue)) as usize % PLACES]
    }
}

/// Never 0, which is no reader's.
fn mark(group: &str, queue: QueueKey, offset: QueueOffset) -> u64 {
    hash((group, queue, offset)) | 1
}

fn hash(of: impl std::hash::Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}

#[cfg(test)]
mod tests {
    use gantry_model::{QueueId, TopicId};

    use super::*;

    #[test]
    fn reader_is_known_where_it_goes_on_and_nowhere_else() {
        let behind = Behind::new();
        let queue = (TopicId(7), QueueId(3));
        assert!(!behind.goes_on("g", queue, QueueOffset(0)));
        behind.note("g", queue, QueueOffset(32));
        assert!(behind.goes_on("g", queue, QueueOffset(32)));
        assert!(!behind.goes_on("g", queue, QueueOffset(33)));
        assert!(!behind.goes_on("h", queue, QueueOffset(32)));
        assert!(!behind.goes_on("g", (TopicId(7), QueueId(2)), QueueOffset(32)));
        behind.note("g", queue, QueueOffset(64));
        assert!(!behind.goes_on("g", queue, QueueOffset(32)), "it has read on");
        assert!(behind.goes_on("g", queue, QueueOffset(64)));
    }
}
