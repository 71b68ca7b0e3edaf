//! Who reads far behind the end of the log, and where each goes on: such a read waits for the disk, for the entries of
//! its queue as for the messages, so it is not tried on a thread that answers others.
//! Invariant: bounded memory; what is forgotten or mixed up costs a try, or a read on the slower threads, and no
//! message. From time to time a reader looks whether the system's cache has what it reads, ever more rarely while it has
//! not: looking makes the system read ahead for nothing.
//! Leaves to its callers what far is.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use gantry_model::QueueOffset;

use super::hold::QueueKey;

/// Readers that are remembered, roughly: two may have one place, of which the later one has it.
const PLACES: usize = 1024;
/// Messages between two of a reader that were missing in the system's cache from which on it is tried again: asked for
/// the first, the system reads it ahead. A reader of which the cache has nothing misses some each few reads.
const MISSES_APART: u64 = 1024;
/// Reads from one look to the next at most: of 32 messages of 1 KiB, some 150 MiB.
const READS_APART_MAX: u32 = 4096;

/// How a read far behind the end of the log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onset {
    /// Nothing was known of it: it was tried as everybody's is, and something was not there. It very probably will be in
    /// a moment.
    MissedOnce,
    /// The same, soon after another time.
    Missed,
    /// It goes on far behind, and is to look in the system's cache.
    Looks,
    /// It goes on far behind.
    GoesOn,
}

/// Where the readers go on that were far behind when they read last.
pub(super) struct Behind {
    /// By the hash of the reader.
    places: Box<[Place]>,
}

struct Place {
    /// Hash of a reader and of the offset at which it goes on.
    mark: AtomicU64,
    /// Reads to go until it looks.
    until_look: AtomicU32,
    /// Reads from its last look to the next one.
    apart: AtomicU32,
    /// First offset of the last read that missed something.
    missed_at: AtomicU64,
}

impl Behind {
    pub(super) fn new() -> Self {
        let place = || Place {
            mark: AtomicU64::new(0),
            until_look: AtomicU32::new(0),
            apart: AtomicU32::new(0),
            missed_at: AtomicU64::new(u64::MAX),
        };
        Self { places: (0..PLACES).map(|_| place()).collect() }
    }

    /// Notes that a group's read of a queue at `from`, which was tried as everybody's is, missed something.
    pub(super) fn missed(&self, group: &str, queue: QueueKey, from: QueueOffset) -> Onset {
        let before = self.place(group, queue).missed_at.swap(from.0, Relaxed);
        if from.0.abs_diff(before) < MISSES_APART { Onset::Missed } else { Onset::MissedOnce }
    }

    /// Notes that a group, which was not known to be so, is far behind in a queue and goes on at `next`. It looks at once:
    /// a single page that was not there costs a reader of messages in the cache two reads.
    pub(super) fn begin(&self, group: &str, queue: QueueKey, next: QueueOffset) {
        let place = self.place(group, queue);
        place.until_look.store(0, Relaxed);
        place.apart.store(1, Relaxed);
        place.mark.store(mark(group, queue, next), Relaxed);
    }

    /// Notes that a group's read of a queue, which went on far behind, goes on at `next`. `was_cached`: what a look found,
    /// if it looked and found out.
    pub(super) fn go_on(
        &self,
        group: &str,
        queue: QueueKey,
        next: QueueOffset,
        was_cached: Option<bool>,
    ) {
        let place = self.place(group, queue);
        match was_cached {
            // Its next read is tried as everybody's is.
            Some(true) => return place.mark.store(0, Relaxed),
            Some(false) => {
                let apart = place.apart.load(Relaxed).saturating_mul(2).min(READS_APART_MAX);
                place.apart.store(apart, Relaxed);
                place.until_look.store(apart - 1, Relaxed);
            }
            None => {
                let left = place.until_look.load(Relaxed).saturating_sub(1);
                place.until_look.store(left, Relaxed);
            }
        }
        place.mark.store(mark(group, queue, next), Relaxed);
    }

    /// Whether the last read of the group in the queue was far behind and ended in front of `from`, and how it is to
    /// go on.
    pub(super) fn goes_on(&self, group: &str, queue: QueueKey, from: QueueOffset) -> Option<Onset> {
        let place = self.place(group, queue);
        let goes_on = place.mark.load(Relaxed) == mark(group, queue, from);
        let looks = place.until_look.load(Relaxed) == 0;
        goes_on.then_some(if looks { Onset::Looks } else { Onset::GoesOn })
    }

    fn place(&self, group: &str, queue: QueueKey) -> &Place {
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

    const QUEUE: QueueKey = (TopicId(7), QueueId(3));

    #[test]
    fn reader_is_known_where_it_goes_on_and_nowhere_else() {
        let behind = Behind::new();
        let goes_on =
            |group, queue, from| behind.goes_on(group, queue, QueueOffset(from)).is_some();
        assert!(!goes_on("g", QUEUE, 0));
        behind.begin("g", QUEUE, QueueOffset(32));
        assert!(goes_on("g", QUEUE, 32));
        assert!(!goes_on("g", QUEUE, 33));
        assert!(!goes_on("h", QUEUE, 32));
        assert!(!goes_on("g", (TopicId(7), QueueId(2)), 32));
        behind.go_on("g", QUEUE, QueueOffset(64), None);
        assert!(!goes_on("g", QUEUE, 32), "it has read on");
        assert!(goes_on("g", QUEUE, 64));
    }

    #[test]
    fn reader_that_misses_something_is_tried_again_unless_it_missed_something_shortly_before() {
        let behind = Behind::new();
        let missed = |group, from| behind.missed(group, QUEUE, QueueOffset(from));
        assert_eq!(missed("g", 32), Onset::MissedOnce);
        assert_eq!(missed("g", 32), Onset::Missed, "what it asked for did not come");
        assert_eq!(missed("g", 31 + MISSES_APART), Onset::Missed);
        assert_eq!(missed("g", 31 + 2 * MISSES_APART), Onset::MissedOnce);
        assert_eq!(missed("g", 0), Onset::MissedOnce, "it was moved back");
        assert_eq!(missed("h", 0), Onset::MissedOnce);
    }

    #[test]
    fn reader_looks_ever_more_rarely_until_it_finds_its_messages_in_the_cache() {
        let behind = Behind::new();
        let next = QueueOffset(32);
        let onset = || behind.goes_on("g", QUEUE, next);
        // Reads up to and with the one that looks.
        let reads_until_look = || {
            let reads = (1..=2 * READS_APART_MAX).find(|_| {
                let looks = onset() == Some(Onset::Looks);
                if !looks {
                    assert_eq!(onset(), Some(Onset::GoesOn));
                    behind.go_on("g", QUEUE, next, None);
                }
                looks
            });
            reads.expect("it looks at last")
        };
        behind.begin("g", QUEUE, next);
        let mut apart = 1;
        while apart <= READS_APART_MAX {
            assert_eq!(reads_until_look(), apart);
            behind.go_on("g", QUEUE, next, None);
            assert_eq!(onset(), Some(Onset::Looks), "nothing was found out: it looks again");
            behind.go_on("g", QUEUE, next, Some(false));
            apart *= 2;
        }
        assert_eq!(reads_until_look(), READS_APART_MAX, "it never ceases");
        behind.go_on("g", QUEUE, next, Some(true));
        assert_eq!(onset(), None, "it has caught up with the cache");
        behind.begin("g", QUEUE, next);
        assert_eq!(reads_until_look(), 1);
    }
}
