//! Reads: queues, single records, times and keys, up to what is confirmed.
//! Invariant: every record given out was verified; a tail read never touches the views.
//! Leaves filters to its callers and the bytes' way to a socket to the broker.

mod ahead;
mod picked;

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use gantry_model::{PhysicalOffset, QueueId, QueueOffset};
use gantry_record::RecordView;

pub(crate) use self::{ahead::EntriesAhead, picked::Picked};
use crate::{
    errors::ReadError,
    log::{self, Patience, RECORD_BYTES_LIMIT},
    planted::verify,
    queues::{Queue, scan_stored},
    store::Store,
    topics::Topic,
    types::{Boundary, Bounds, Far, QueueRead, ReadLimits, ReadStatus},
    views::{Step, layout::Entry},
};

/// Bytes of a record that tell its size and its magic.
const HEAD_BYTES: usize = 8;

impl Store {
    /// First and next offset of a queue; both 0 for one that never had a message.
    pub fn queue_bounds(&self, topic: &Topic, queue: QueueId) -> Result<Bounds, ReadError> {
        match self.find_queue(topic, queue)? {
            Some(queue) => self.bounds_of(topic, &queue),
            None => Ok(Bounds { min: QueueOffset(0), max: QueueOffset(0) }),
        }
    }

    /// Appends messages of a queue to `out`, one record after another, as they are in the log.
    ///
    /// # Errors
    /// `out` may have got some of the messages. After [`ReadError::NotAtHand`] the caller reads again from a thread that
    /// may wait.
    pub fn read_queue(
        &self,
        topic: &Topic,
        queue: QueueId,
        from: QueueOffset,
        limits: ReadLimits,
        accept: &dyn Fn(i64) -> bool,
        out: &mut BytesMut,
    ) -> Result<QueueRead, ReadError> {
        let nothing = |status, next, Bounds { min, max }| QueueRead {
            status,
            next,
            min,
            max,
            messages: 0,
            last_position: None,
            in_cache: None,
        };
        let Some(queue) = self.find_queue(topic, queue)? else {
            let bounds = Bounds { min: QueueOffset(0), max: QueueOffset(0) };
            return Ok(nothing(ReadStatus::Empty, QueueOffset(0), bounds));
        };
        let bounds = self.bounds_of(topic, &queue)?;
        let (status, next) = match from {
            _ if bounds.max.0 == 0 => (ReadStatus::Empty, QueueOffset(0)),
            _ if from < bounds.min => (ReadStatus::TooSmall, bounds.min),
            _ if from == bounds.max => (ReadStatus::AtEnd, bounds.max),
            _ if from > bounds.max => (ReadStatus::BeyondEnd, bounds.max),
            _ => (ReadStatus::NoMatch, from),
        };
        let mut read = nothing(status, next, bounds);
        if status != ReadStatus::NoMatch {
            return Ok(read);
        }
        let mut picked = Picked::new(from, limits, accept);
        if self.read_within(topic, &queue, &mut picked, &mut read, out)? {
            return Ok(read);
        }
        // As if it had come a moment later: who misses messages is told so, and from where on they are there.
        let bounds = self.bounds_of(topic, &queue)?;
        Ok(nothing(ReadStatus::TooSmall, bounds.min, bounds))
    }

    /// Reads within the bounds that `read` has. Returns whether what lies there is still there: messages at its
    /// begin may have been let go since the bounds were found, and then nothing is read.
    pub(crate) fn read_within(
        &self,
        topic: &Topic,
        queue: &Queue,
        picked: &mut Picked<'_>,
        read: &mut QueueRead,
        out: &mut BytesMut,
    ) -> Result<bool, ReadError> {
        let from = picked.next;
        let ahead = Some(&self.entries_ahead);
        self.visit_entries(queue, from..read.max, ahead, &mut |offset, entry| {
            picked.look(offset, entry)
        })?;
        if !picked.is_full {
            // There may be a gap in front of the end.
            picked.next = read.max;
        }
        // Views drop the entries of what was let go.
        let has_gap = picked.next.0 - from.0 != u64::from(picked.scanned);
        if has_gap && from < self.bounds_of(topic, queue)?.min {
            return Ok(false);
        }
        self.deliver(picked, read, out)
    }

    /// Returns whether the first of the messages were still there.
    fn deliver(
        &self,
        picked: &Picked<'_>,
        read: &mut QueueRead,
        out: &mut BytesMut,
    ) -> Result<bool, ReadError> {
        (read.next, read.last_position) = (picked.next, picked.last);
        let mut entries = &picked.entries[..];
        let patience = self.patience_at(entries.first(), picked.limits);
        let ranges = entries.iter().map(|entry| entry.position..entry.end());
        read.in_cache = self.log.read_ahead(patience, ranges);
        let before = out.len();
        while !entries.is_empty() {
            let run = adjacent(entries);
            match self.read_run(&entries[..run], patience, out) {
                Ok(Some(messages)) => read.messages += messages,
                Ok(None) => return Ok(end_behind_given(read, &out[before..])),
                Err(error @ ReadError::Log { .. }) => {
                    let has_given = end_behind_given(read, &out[before..]);
                    return if has_given { Ok(true) } else { Err(error) };
                }
                Err(error) => return Err(error),
            }
            entries = &entries[run..];
        }
        read.status = if read.messages == 0 { ReadStatus::NoMatch } else { ReadStatus::Found };
        Ok(true)
    }

    /// A read that begins near the end of the log may wait: the disk is hardly ever asked for what was just written.
    fn patience_at(&self, first: Option<&Entry>, limits: ReadLimits) -> Patience {
        let behind = first.map_or(0, |first| self.written().0.saturating_sub(first.position.0));
        match limits.far {
            _ if behind <= limits.waits_within => Patience::Wait,
            Far::AtHand => Patience::AtHand,
            Far::Cold => Patience::Cold,
            Far::ColdFromCache => Patience::ColdFromCache,
        }
    }

    /// Reads records that lie one behind another; `None`: one is no longer there, and `out` has those before it.
    fn read_run(
        &self,
        run: &[Entry],
        patience: Patience,
        out: &mut BytesMut,
    ) -> Result<Option<u32>, ReadError> {
        let before = out.len();
        let position = run[0].position;
        let bytes: usize = run.iter().map(|entry| entry.size as usize).sum();
        match self.log.read(position, bytes, patience, out) {
            Ok(()) => {}
            Err(log::ReadError::BelowStart { .. }) => return Ok(None),
            Err(log::ReadError::NotAtHand { position }) => {
                return Err(ReadError::NotAtHand { position });
            }
            // A record that can be read alone should not be lost with its neighbour.
            Err(_) if run.len() > 1 => return self.read_each(run, patience, out),
            Err(error @ (log::ReadError::OutOfRange { .. } | log::ReadError::Truncated { .. })) => {
                self.note_damage(position..run[0].end(), error.to_string());
                return Ok(Some(0));
            }
            Err(source) => {
                return Err(ReadError::Log { position, bytes: bytes as u32, source });
            }
        }
        let mut at = before;
        for entry in run {
            let end = at + entry.size as usize;
            if let Err(error) = verify(&out[at..end], entry.position) {
                out.truncate(before);
                if run.len() > 1 {
                    return self.read_each(run, patience, out);
                }
                self.note_damage(entry.position..entry.end(), error.to_string());
                return Ok(Some(0));
            }
            at = end;
        }
        Ok(Some(run.len() as u32))
    }

    fn read_each(
        &self,
        run: &[Entry],
        patience: Patience,
        out: &mut BytesMut,
    ) -> Result<Option<u32>, ReadError> {
        let mut messages = 0;
        for entry in run {
            let alone = self.read_run(std::slice::from_ref(entry), patience, out)?;
            let Some(read) = alone else { return Ok(None) };
            messages += read;
        }
        Ok(Some(messages))
    }

    /// The entry of a message; `None` outside of the queue's bounds.
    pub fn entry(
        &self,
        topic: &Topic,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<Entry>, ReadError> {
        let Some(queue) = self.find_queue(topic, queue)? else { return Ok(None) };
        let Bounds { min, max } = self.bounds_of(topic, &queue)?;
        if !(min..max).contains(&offset) {
            return Ok(None);
        }
        let first = self.first_entry(&queue, offset, max)?;
        Ok(first.filter(|(found, _)| *found == offset).map(|(_, entry)| entry))
    }

    /// Offset of the message that a time means. `Lower`: the first stored at that time or later, the queue's end if
    /// there is none. `Upper`: the last stored at that time or earlier, 0 if there is none.
    pub fn search_time(
        &self,
        topic: &Topic,
        queue: QueueId,
        time_ms: u64,
        boundary: Boundary,
    ) -> Result<QueueOffset, ReadError> {
        let Some(queue) = self.find_queue(topic, queue)? else { return Ok(QueueOffset(0)) };
        let Bounds { min, max } = self.bounds_of(topic, &queue)?;
        if min == max {
            return Ok(min);
        }
        let is_before = |entry: &Entry| match boundary {
            Boundary::Lower => entry.store_time_ms < time_ms,
            Boundary::Upper => entry.store_time_ms <= time_ms,
        };
        let (mut low, mut high) = (min.0, max.0);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_entry(&queue, QueueOffset(middle), QueueOffset(high))? {
                Some((offset, entry)) if is_before(&entry) => low = offset.0 + 1,
                _ => high = middle,
            }
        }
        Ok(match boundary {
            Boundary::Lower => {
                self.first_entry(&queue, QueueOffset(low), max)?.map_or(max, |(offset, _)| offset)
            }
            Boundary::Upper if low == min.0 => QueueOffset(0),
            Boundary::Upper => QueueOffset(low - 1),
        })
    }

    /// The message at a position that a client names; `None` unless its queue holds it there:
    /// the position may be inside a body, and the body may look like a record.
    pub fn read_at(&self, position: PhysicalOffset) -> Result<Option<Bytes>, ReadError> {
        if position >= self.confirmed() {
            return Ok(None);
        }
        let Some(bytes) = self.read_verified(position, false)? else { return Ok(None) };
        // Verified just before, so it parses.
        let Ok(record) = RecordView::parse(&bytes) else { return Ok(None) };
        let topic = self.tables.topics.read().covering(record.topic(), position).cloned();
        let Some(topic) = topic else { return Ok(None) };
        let entry = self.entry(&topic, record.queue(), record.queue_offset())?;
        let holds =
            entry.is_some_and(|entry| (entry.position, entry.size) == (position, record.size()));
        Ok(holds.then_some(bytes))
    }

    /// The record at a position that a view or a timer gave; `None` if it is no longer there, or damaged.
    pub fn read_record(&self, position: PhysicalOffset) -> Result<Option<Bytes>, ReadError> {
        self.read_verified(position, true)
    }

    fn read_verified(
        &self,
        position: PhysicalOffset,
        expected: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        let mut out = BytesMut::new();
        let outcome = self.read_sized(position, &mut out);
        let reason = match outcome {
            Ok(()) => match verify(&out, position) {
                Ok(_) => return Ok(Some(out.freeze())),
                Err(error) => error.to_string(),
            },
            Err(log::ReadError::BelowStart { .. }) => return Ok(None),
            Err(source @ log::ReadError::Io { .. }) => {
                return Err(ReadError::Log { position, bytes: out.len() as u32, source });
            }
            Err(error) => error.to_string(),
        };
        if expected {
            self.note_damage(position..position.plus(1), reason);
        }
        Ok(None)
    }

    fn read_sized(
        &self,
        position: PhysicalOffset,
        out: &mut BytesMut,
    ) -> Result<(), log::ReadError> {
        self.log.read(position, HEAD_BYTES, Patience::Wait, out)?;
        let size = gantry_record::peek_size(out).map_or(0, |(size, _)| u64::from(size));
        if !(HEAD_BYTES as u64..=RECORD_BYTES_LIMIT).contains(&size) {
            return Err(log::ReadError::OutOfRange { position, bytes: size });
        }
        let rest = size as usize - HEAD_BYTES;
        self.log.read(position.plus(HEAD_BYTES as u64), rest, Patience::Wait, out)
    }

    /// Whether a group without an offset starts this queue at 0: it still has its first message, and that one lies
    /// within the last `young_bytes` of the log, or it is empty.
    pub fn is_young(&self, topic: &Topic, queue: QueueId) -> Result<bool, ReadError> {
        let Some(queue) = self.find_queue(topic, queue)? else { return Ok(true) };
        let Bounds { min, max } = self.bounds_of(topic, &queue)?;
        if min.0 > 0 {
            return Ok(false);
        }
        let first = self.first_entry(&queue, min, max)?;
        let young_from = self.written().0.saturating_sub(self.options.young_bytes);
        Ok(first.is_none_or(|(_, entry)| entry.position.0 >= young_from))
    }

    pub(crate) fn find_queue(
        &self,
        topic: &Topic,
        queue: QueueId,
    ) -> Result<Option<Arc<Queue>>, ReadError> {
        Ok(self.queues.find((topic.id, queue), &*self.views)?)
    }

    pub(crate) fn bounds_of(&self, topic: &Topic, queue: &Queue) -> Result<Bounds, ReadError> {
        let kept = (self.log_start(), topic.hidden_before_ms());
        let confirmed = self.confirmed();
        let (from, max) = {
            let state = queue.state.lock();
            let max = state.confirmed_end(confirmed);
            if state.min_for == Some(kept) {
                return Ok(Bounds { min: QueueOffset(state.min), max: QueueOffset(max) });
            }
            (state.min, max)
        };
        let (min, time_ms) = self.first_kept(queue, from, max, kept)?;
        let mut state = queue.state.lock();
        // Another reader may have looked for a later boundary meanwhile.
        if min >= state.min {
            state.min = min;
            state.min_for = Some(kept);
            state.min_time_ms = time_ms;
        }
        Ok(Bounds { min: QueueOffset(state.min), max: QueueOffset(max.max(state.min)) })
    }

    /// First offset in `from..to` whose record is neither before the log's start nor hidden, and its store time; or
    /// `to`. Positions and store times never go back along a queue, so halving finds it.
    fn first_kept(
        &self,
        queue: &Queue,
        from: u64,
        to: u64,
        (log_start, hidden_before_ms): (PhysicalOffset, u64),
    ) -> Result<(u64, Option<u64>), ReadError> {
        let is_gone =
            |entry: &Entry| entry.position < log_start || entry.store_time_ms < hidden_before_ms;
        let (mut low, mut high) = (from, to);
        while low < high {
            // The first probe is the first entry: nearly always it is kept.
            let middle = if low == from { low } else { low + (high - low) / 2 };
            match self.first_entry(queue, QueueOffset(middle), QueueOffset(high))? {
                Some((offset, entry)) if is_gone(&entry) => low = offset.0 + 1,
                Some((offset, entry)) if middle == low => {
                    return Ok((offset.0, Some(entry.store_time_ms)));
                }
                _ => high = middle,
            }
        }
        let kept = self.first_entry(queue, QueueOffset(low), QueueOffset(to))?;
        Ok(kept.map_or((to, None), |(offset, entry)| (offset.0, Some(entry.store_time_ms))))
    }

    /// The first entry in `from..to`.
    pub(crate) fn first_entry(
        &self,
        queue: &Queue,
        from: QueueOffset,
        to: QueueOffset,
    ) -> Result<Option<(QueueOffset, Entry)>, ReadError> {
        let mut first = None;
        self.visit_entries(queue, from..to, None, &mut |offset, entry| {
            first = Some((offset, entry));
            Step::Stop
        })?;
        Ok(first)
    }

    /// Visits the entries in `range`, first those of the views, then those of the ring. Those at which a reader goes on
    /// may be known already from `ahead`.
    fn visit_entries(
        &self,
        queue: &Queue,
        range: Range<QueueOffset>,
        ahead: Option<&EntriesAhead>,
        visit: &mut dyn FnMut(QueueOffset, Entry) -> Step,
    ) -> Result<(), ReadError> {
        let (key, views) = ((queue.topic, queue.id), &*self.views);
        let Range { start: QueueOffset(mut at), end: to } = range;
        let mut stopped = false;
        while at < to.0 && !stopped {
            let base = {
                let state = queue.state.lock();
                while at < to.0 && !stopped {
                    let Some(entry) = state.entry(at) else { break };
                    // A hole left by a damaged record is skipped.
                    stopped = entry.size > 0 && visit(QueueOffset(at), *entry) == Step::Stop;
                    at += 1;
                }
                state.base
            };
            if at >= base {
                break;
            }
            // Entries may move from the ring to the views between the two looks, so the ring is asked again behind it.
            let end = base.min(to.0);
            let mut visit = |offset, entry| {
                let step = visit(offset, entry);
                stopped = step == Step::Stop;
                step
            };
            match ahead {
                Some(ahead) => ahead.visit(key, at..end, views, &mut visit)?,
                None => scan_stored(key, at, end, views, &mut visit)?,
            }
            at = end;
        }
        Ok(())
    }
}

/// The next record cannot be read: those before it are given out, if there are any, and whoever goes on behind them
/// is told why. Returns whether there are any.
fn end_behind_given(read: &mut QueueRead, given: &[u8]) -> bool {
    read.messages = 0;
    // Each of them was verified when it was read.
    for record in gantry_record::records(given).map_while(Result::ok) {
        read.messages += 1;
        read.next = record.queue_offset().plus(1);
        read.last_position = Some(record.position());
    }
    if read.messages > 0 {
        read.status = ReadStatus::Found;
    }
    read.messages > 0
}

/// Number of entries at the front that lie one behind another in the log.
fn adjacent(entries: &[Entry]) -> usize {
    let pairs = entries.windows(2);
    1 + pairs.take_while(|pair| pair[0].end() == pair[1].position).count()
}
