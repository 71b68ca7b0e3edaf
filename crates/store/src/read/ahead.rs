//! Entries of the views that are read ahead of a queue's readers. A reader of a backlog comes for the next ones soon, and
//! to begin a scan of the views costs as much as going through a hundred entries.
//! Invariant: what is kept are all entries that the views had from one offset of a queue up to another. Below the queue's
//! `base` they never change, but that the views drop those whose messages were let go; what reads those messages finds
//! out by itself. Bounded memory: what finds no place is forgotten.
//! Leaves bounds, and what a reader wants, to the read.

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{BuildHasher, BuildHasherDefault},
    ops::Range,
};

use gantry_model::{QueueId, QueueOffset, TopicId};
use parking_lot::Mutex;

use crate::{
    queues::scan_stored,
    views::{Step, ViewError, ViewRead, layout::Entry},
};

/// Entries that are read ahead: those of three pulls of 32 messages, and the one at which the last of them stops.
const ENTRIES: usize = 3 * 32 + 1;
/// Readers for which there are some at a time, roughly. All take less than 1 MiB.
const PLACES: usize = 256;

type Key = (TopicId, QueueId);

/// Called for each entry; the one at which it stops is not taken.
type Visit<'a> = dyn FnMut(QueueOffset, Entry) -> Step + 'a;

/// Entries of queues, each in the place that its queue and the offset give it at which a reader will come.
pub(crate) struct EntriesAhead {
    places: Vec<Mutex<Option<Piece>>>,
}

/// The entries of a part of a queue.
struct Piece {
    key: Key,
    range: Range<u64>,
    entries: VecDeque<(QueueOffset, Entry)>,
}

impl EntriesAhead {
    pub(crate) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }

    /// Visits the entries of a queue in the views in `range`, which ends at the queue's `base` at the latest.
    pub(super) fn visit(
        &self,
        key: Key,
        range: Range<u64>,
        views: &dyn ViewRead,
        visit: &mut Visit<'_>,
    ) -> Result<(), ViewError> {
        let mut piece = self.take(key, range.start);
        if piece.visit(range.end, visit) == Step::Stop {
            self.put(piece);
            return Ok(());
        }
        let mut stopped = false;
        let outcome =
            scan_stored(key, piece.range.start, range.end, views, &mut |offset, entry| {
                if !stopped && visit(offset, entry) == Step::Next {
                    piece.range.start = offset.0 + 1;
                    return Step::Next;
                }
                stopped = true;
                piece.entries.push_back((offset, entry));
                piece.range.end = offset.0 + 1;
                if piece.entries.len() < ENTRIES { Step::Next } else { Step::Stop }
            });
        if stopped {
            // An entry that cannot be read matters to those who want it.
            self.put(piece);
            return Ok(());
        }
        outcome
    }

    /// What was read ahead from `from` on; nothing if that is not known.
    fn take(&self, key: Key, from: u64) -> Piece {
        let found = self
            .place(key, from)
            .lock()
            .take_if(|piece| piece.key == key && piece.range.start == from);
        found.unwrap_or_else(|| Piece { key, range: from..from, entries: VecDeque::new() })
    }

    fn put(&self, piece: Piece) {
        let mut place = self.place(piece.key, piece.range.start).lock();
        *place = Some(piece);
    }

    fn place(&self, key: Key, from: u64) -> &Mutex<Option<Piece>> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((key, from));
        &self.places[hash as usize % PLACES]
    }
}

impl Piece {
    /// Visits the entries below `to` that are here, and forgets those that are taken.
    fn visit(&mut self, to: u64, visit: &mut Visit<'_>) -> Step {
        while let Some((offset, entry)) = self.entries.front() {
            if offset.0 >= to || visit(*offset, *entry) == Step::Stop {
                return Step::Stop;
            }
            self.range.start = offset.0 + 1;
            self.entries.pop_front();
        }
        self.range.start = self.range.end;
        Step::Next
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    use gantry_model::PhysicalOffset;

    use super::*;
    use crate::views::{
        Direction, MemoryViews, View, ViewBatch, ViewStore, Visit as VisitBytes, layout,
    };

    const KEY: Key = (TopicId(7), QueueId(3));
    const OTHER: Key = (TopicId(7), QueueId(4));
    const END: u64 = 1000;

    /// Views that count the scans that begin, and may fail at an entry.
    struct Counted {
        views: MemoryViews,
        scans: Cell<usize>,
        fails_at: Option<u64>,
    }

    impl ViewRead for Counted {
        fn get(&self, view: View, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
            self.views.get(view, key)
        }

        fn scan(
            &self,
            view: View,
            keys: Range<&[u8]>,
            direction: Direction,
            visit: &mut VisitBytes<'_>,
        ) -> Result<(), ViewError> {
            self.scans.set(self.scans.get() + usize::from(keys.start < keys.end));
            let failed = AtomicBool::new(false);
            self.views.scan(view, keys, direction, &mut |key, value| {
                let offset = layout::decode_queue_key(key).unwrap().2;
                if Some(offset.0) == self.fails_at {
                    failed.store(true, Relaxed);
                    return Step::Stop;
                }
                visit(key, value)
            })?;
            let source = "bad sector".into();
            if failed.load(Relaxed) {
                Err(ViewError::Store { action: "read", source })
            } else {
                Ok(())
            }
        }
    }

    /// Two queues with an entry at each offset but those that three divides.
    fn views() -> Counted {
        let views = MemoryViews::new();
        let mut batch = ViewBatch::new();
        for (topic, queue) in [KEY, OTHER] {
            for offset in (0..END).filter(|offset| offset % 3 > 0) {
                let key = layout::queue_key(topic, queue, QueueOffset(offset));
                batch.put(View::Queue, &key, &layout::encode_entry(&entry((topic, queue), offset)));
            }
        }
        views.apply(&batch).unwrap();
        Counted { views, scans: Cell::new(0), fails_at: None }
    }

    fn entry((_, queue): Key, offset: u64) -> Entry {
        let position = PhysicalOffset(offset * 1000 + u64::from(queue.0));
        Entry { position, size: 100, tag_hash: 0, store_time_ms: offset }
    }

    /// Takes so many entries from `from` on, and returns where the reader goes on.
    fn read(ahead: &EntriesAhead, views: &Counted, key: Key, from: u64, count: usize) -> u64 {
        let wanted: Vec<_> = (from..END).filter(|offset| offset % 3 > 0).take(count).collect();
        let (mut taken, mut next) = (Vec::new(), from);
        let visited = ahead.visit(key, from..END, views, &mut |offset, found| {
            if taken.len() == count {
                return Step::Stop;
            }
            assert_eq!(found, entry(key, offset.0));
            taken.push(offset.0);
            next = offset.0 + 1;
            Step::Next
        });
        visited.unwrap();
        assert_eq!(taken, wanted, "from {from}");
        next
    }

    #[test]
    fn readers_find_the_entries_that_a_scan_finds_wherever_they_are_and_however_many_they_take() {
        let (ahead, views) = (EntriesAhead::new(), views());
        let mut from = [0; 4];
        for (round, count) in
            [1, 32, 96, 5, 97, 64, 200, 33].into_iter().cycle().take(160).enumerate()
        {
            let reader = round % from.len();
            let key = if reader < 3 { KEY } else { OTHER };
            from[reader] = read(&ahead, &views, key, from[reader], count);
        }
        assert!(from.iter().all(|from| *from == END - 1), "{from:?}");
    }

    #[test]
    fn one_in_four_reads_of_a_reader_that_goes_on_scans_the_views() {
        let (ahead, views) = (EntriesAhead::new(), views());
        let mut from = 0;
        for _ in 0..16 {
            from = read(&ahead, &views, KEY, from, 32);
        }
        assert_eq!(views.scans.get(), 4);
        read(&ahead, &views, KEY, 0, 1);
        assert_eq!(views.scans.get(), 5, "what was read before is not kept");
    }

    #[test]
    fn entry_that_cannot_be_read_matters_to_those_who_want_it_alone() {
        let (ahead, views) = (EntriesAhead::new(), Counted { fails_at: Some(80), ..views() });
        let from = read(&ahead, &views, KEY, 0, 32);
        let read = |from| ahead.visit(KEY, from..END, &views, &mut |_, _| Step::Next);
        assert!(read(from).is_err());
        assert!(read(81).is_ok());
    }

    #[test]
    fn entries_of_no_more_readers_are_kept_than_there_are_places() {
        let (ahead, views) = (EntriesAhead::new(), views());
        for from in 0..END - 1 {
            read(&ahead, &views, KEY, from, 1);
        }
        let kept =
            ahead.places.iter().filter_map(|place| place.lock().as_ref().map(|p| p.entries.len()));
        let kept: Vec<_> = kept.collect();
        assert!(kept.len() <= PLACES && kept.iter().all(|count| *count <= ENTRIES), "{kept:?}");
        assert!(size_of::<(QueueOffset, Entry)>() * ENTRIES * PLACES < 1 << 20);
    }
}
