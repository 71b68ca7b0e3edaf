//! State image: all state as of one log position, as a run of records in the log itself.
//! Invariant: an image counts only when its begin, each part and its end are there, in order, with the right sums.
//! Messages may be forgotten once an image behind them is synced; state may not.
//! Leaves what state is to `tables`, and when an image is due to `retention`.
//!
//! ```text
//! begin: | version u8 (1) | 1 | position u64 |
//! part:  | version u8 (1) | 2 | position u64 | number u32 from 0 | state body |
//! end:   | version u8 (1) | 3 | position u64 | parts u32 | crc u32 of all state bodies |
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use gantry_model::{PhysicalOffset, QueueId};
use gantry_record::{Draft, RecordView};

use crate::{
    log::{Log, ReadError, Walked},
    state::{self, StateBody, StateEntry, StateError},
    tables::image_entries,
    views::{ViewError, ViewRead},
};

/// Topic of image records.
pub const IMAGE_TOPIC: &str = "rmq_sys_gantry_image";

const VERSION: u8 = 1;
const BEGIN: u8 = 1;
const PART: u8 = 2;
const END: u8 = 3;
const HEAD_BYTES: usize = 10;
/// State body at which a part ends. An entry adds at most a definition of some kilobytes.
const PART_BYTES: usize = 32 * 1024;

/// A complete image in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageAt {
    /// Where its first record is.
    pub begin: PhysicalOffset,
    /// Behind its last record.
    pub end: PhysicalOffset,
    /// It holds all state of the records before this position.
    pub position: PhysicalOffset,
    /// Bytes of its records' bodies.
    pub bytes: u64,
}

/// Why an image was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The state could not be read.
    #[error("read the state")]
    Views(#[from] ViewError),
    /// A record could not be appended. What is there of the image does not count.
    #[error("append a record of the image")]
    Append(#[source] E),
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The log could not be read.
    #[error("read the state image")]
    Read(#[from] ReadError),
    /// An entry cannot be understood.
    #[error("decode the state image")]
    State(#[from] StateError),
    /// The image was complete, and is not any more.
    #[error("the state image at {begin} is incomplete")]
    Incomplete {
        /// Where it begins.
        begin: PhysicalOffset,
    },
    /// A newer release wrote it.
    #[error("the state image at {position} has layout version {found}, expected {VERSION}")]
    Version {
        /// Where the record is.
        position: PhysicalOffset,
        /// Its version.
        found: u8,
    },
}

/// Where a record of an image was appended: its position, and the one behind it.
pub(crate) type Span = (PhysicalOffset, PhysicalOffset);

/// Writes the state that `snapshot` holds, applied up to `position`, through `append`, one record's body at a time.
///
/// The image counts once its end is synced.
pub(crate) fn write<E>(
    snapshot: &dyn ViewRead,
    position: PhysicalOffset,
    append: &mut dyn FnMut(&[u8]) -> Result<Span, E>,
) -> Result<ImageAt, WriteError<E>> {
    let mut writer = Writer::new(position, append);
    let begin = writer.put(&head(BEGIN, position)).map_err(WriteError::Append)?;
    let mut outcome = Ok(());
    image_entries(snapshot, &mut |entry| {
        if outcome.is_ok() {
            outcome = writer.push(&entry);
        }
    })?;
    outcome.and_then(|()| writer.end_part()).map_err(WriteError::Append)?;
    let end = writer.end().map_err(WriteError::Append)?;
    Ok(ImageAt { begin: begin.0, end: end.1, position, bytes: writer.bytes })
}

struct Writer<'a, E> {
    position: PhysicalOffset,
    append: &'a mut dyn FnMut(&[u8]) -> Result<Span, E>,
    part: StateBody,
    parts: u32,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<'a, E> Writer<'a, E> {
    fn new(position: PhysicalOffset, append: &'a mut dyn FnMut(&[u8]) -> Result<Span, E>) -> Self {
        let crc = crc32fast::Hasher::new();
        Self { position, append, part: StateBody::new(), parts: 0, crc, bytes: 0 }
    }

    fn put(&mut self, body: &[u8]) -> Result<Span, E> {
        self.bytes += body.len() as u64;
        (self.append)(body)
    }

    fn push(&mut self, entry: &StateEntry) -> Result<(), E> {
        self.part.push(entry);
        if self.part.bytes().len() < PART_BYTES { Ok(()) } else { self.end_part() }
    }

    fn end_part(&mut self) -> Result<(), E> {
        let part = std::mem::take(&mut self.part);
        if part.bytes() == StateBody::new().bytes() {
            return Ok(());
        }
        self.crc.update(part.bytes());
        let mut body = head(PART, self.position);
        body.extend_from_slice(&self.parts.to_be_bytes());
        body.extend_from_slice(part.bytes());
        self.parts += 1;
        self.put(&body).map(|_| ())
    }

    fn end(&mut self) -> Result<Span, E> {
        let mut body = head(END, self.position);
        body.extend_from_slice(&self.parts.to_be_bytes());
        body.extend_from_slice(&self.crc.clone().finalize().to_be_bytes());
        self.put(&body)
    }
}

fn head(kind: u8, position: PhysicalOffset) -> Vec<u8> {
    let mut body = vec![VERSION, kind];
    body.extend_from_slice(&position.0.to_be_bytes());
    body
}

/// The record that carries `body` on one of the store's own topics.
pub(crate) fn own_draft<'a>(topic: &'a str, body: &'a [u8]) -> Draft<'a> {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    Draft {
        topic,
        queue: QueueId(0),
        flag: 0,
        sys_flag: 0,
        born_time_ms: 0,
        born_host: nowhere,
        store_host: nowhere,
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        properties: &[],
    }
}

/// One record of an image, taken apart.
pub(crate) enum Piece<'a> {
    Begin,
    Part { number: u32, state: &'a [u8] },
    End { parts: u32, crc: u32 },
}

/// The piece that a record is, and the position up to which the image holds all state.
pub(crate) fn piece_of<'a>(
    record: &RecordView<'a>,
) -> Result<Option<(PhysicalOffset, Piece<'a>)>, ImageError> {
    let body = record.body();
    if record.topic() != IMAGE_TOPIC || body.is_empty() {
        return Ok(None);
    }
    if body[0] != VERSION {
        return Err(ImageError::Version { position: record.position(), found: body[0] });
    }
    Ok(parse_piece(body))
}

fn parse_piece(body: &[u8]) -> Option<(PhysicalOffset, Piece<'_>)> {
    let (head, rest) = body.split_first_chunk::<HEAD_BYTES>()?;
    let [_, kind, position @ ..] = *head;
    let number_at = |at: usize| Some(u32::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let piece = match kind {
        BEGIN => Piece::Begin,
        PART => Piece::Part { number: number_at(0)?, state: rest.get(4..)? },
        END => Piece::End { parts: number_at(0)?, crc: number_at(4)? },
        _ => return None,
    };
    Some((PhysicalOffset(u64::from_be_bytes(position)), piece))
}

/// An image of which not all was seen.
struct Partial {
    begin: PhysicalOffset,
    position: PhysicalOffset,
    parts: u32,
    crc: crc32fast::Hasher,
    bytes: u64,
}

/// Follows the records of images and tells when one is complete.
#[derive(Default)]
pub(crate) struct Follower {
    partial: Option<Partial>,
}

impl Follower {
    /// The image that `record` completes.
    pub(crate) fn follow(
        &mut self,
        record: &RecordView<'_>,
    ) -> Result<Option<ImageAt>, ImageError> {
        let Some((position, piece)) = piece_of(record)? else {
            return Ok(None);
        };
        if let Piece::Begin = piece {
            let begin = record.position();
            let crc = crc32fast::Hasher::new();
            self.partial = Some(Partial { begin, position, parts: 0, crc, bytes: 0 });
        }
        let Some(partial) = self.partial.as_mut().filter(|partial| partial.position == position)
        else {
            return Ok(None);
        };
        partial.bytes += record.body().len() as u64;
        match piece {
            Piece::Begin => {}
            Piece::Part { number, state } if number == partial.parts => {
                partial.parts += 1;
                partial.crc.update(state);
            }
            Piece::End { parts, crc }
                if parts == partial.parts && crc == partial.crc.clone().finalize() =>
            {
                let Partial { begin, position, bytes, .. } = *partial;
                let end = record.position().plus(record.size().into());
                self.partial = None;
                return Ok(Some(ImageAt { begin, end, position, bytes }));
            }
            Piece::Part { .. } | Piece::End { .. } => self.partial = None,
        }
        Ok(None)
    }
}

/// The newest complete image among the records from `from` up to `to`.
///
/// `from` is where an image begins that a segment's header names, or the start of the log.
pub fn newest(
    log: &Log,
    from: PhysicalOffset,
    to: PhysicalOffset,
) -> Result<Option<ImageAt>, ImageError> {
    let (mut follower, mut newest) = (Follower::default(), None);
    let mut cursor = log.records(from, to);
    while let Some(walked) = cursor.next()? {
        // A damaged place may have been part of an image: its sums will tell.
        if let Walked::Record { record, .. } = walked {
            newest = follower.follow(&record)?.or(newest);
        }
    }
    Ok(newest)
}

/// The image that begins at `begin`, if it is complete: what a segment's header names.
pub fn at(log: &Log, begin: PhysicalOffset) -> Result<Option<ImageAt>, ImageError> {
    let mut follower = Follower::default();
    let mut cursor = log.records(begin, log.written());
    while let Some(walked) = cursor.next()? {
        if let Walked::Record { record, .. } = walked {
            if let Some(image) = follower.follow(&record)? {
                return Ok(Some(image).filter(|image| image.begin == begin));
            }
            let is_begun = follower.partial.as_ref().is_some_and(|partial| partial.begin == begin);
            if !is_begun {
                return Ok(None);
            }
        }
    }
    Ok(None)
}

/// Gives every entry of a complete image to `emit`, in the order in which state must be applied.
pub fn load(
    log: &Log,
    image: &ImageAt,
    emit: &mut dyn FnMut(StateEntry),
) -> Result<(), ImageError> {
    // First all of it is checked, so that nothing is emitted of an image that is not whole.
    let whole = newest(log, image.begin, image.end)?;
    if whole.as_ref() != Some(image) {
        return Err(ImageError::Incomplete { begin: image.begin });
    }
    let mut cursor = log.records(image.begin, image.end);
    while let Some(walked) = cursor.next()? {
        let Walked::Record { record, .. } = walked else { continue };
        if let Some((position, Piece::Part { state, .. })) = piece_of(&record)?
            && position == image.position
        {
            state::decode(state)?.into_iter().for_each(&mut *emit);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use gantry_model::QueueOffset;

    use super::*;
    use crate::{
        apply,
        log::{
            self, AppendError, LogOptions, LogWriter, RecordBatch, StoreId,
            memory_files::MemoryFiles,
        },
        state::Counters,
        views::{MemoryViews, ViewBatch, ViewStore as _},
    };

    struct World {
        disk: MemoryFiles,
        writer: LogWriter,
        log: Log,
        views: MemoryViews,
    }

    fn open(disk: MemoryFiles) -> (LogWriter, Log) {
        let options = LogOptions {
            dir: "/log".into(),
            segment_bytes: 256 * 1024,
            new_store_id: StoreId([3; 16]),
            epoch: 0,
            scan_from: PhysicalOffset(0),
            room: crate::log::RoomOptions::default(),
            block_bytes: 16 << 20,
        };
        let (writer, log, _) = log::open(&options, Arc::new(disk)).unwrap();
        (writer, log)
    }

    fn entries(count: u32) -> Vec<StateEntry> {
        let next = |queue| StateEntry::NextOffset {
            topic: gantry_model::TopicId(7),
            queue: QueueId(queue),
            next: QueueOffset(1000 + u64::from(queue)),
        };
        (0..count).map(next).collect()
    }

    impl World {
        fn new(count: u32) -> Self {
            let disk = MemoryFiles::new();
            let (writer, log) = open(disk.clone());
            let views = MemoryViews::new();
            let (mut batch, mut counters) = (ViewBatch::new(), Counters::default());
            for entry in entries(count) {
                apply::put_state(&mut batch, &mut counters, &entry, &views).unwrap();
            }
            batch.set_applied(PhysicalOffset(500));
            views.apply(&batch).unwrap();
            Self { disk, writer, log, views }
        }

        /// Appends records of the image until `records` are there.
        fn write(&mut self, records: usize) -> Result<ImageAt, WriteError<AppendError>> {
            let mut left = records;
            let writer = &mut self.writer;
            write(&*self.views.snapshot(), PhysicalOffset(500), &mut |body| {
                if left == 0 {
                    return Err(AppendError::TooLarge { bytes: 0, bytes_max: 0 });
                }
                left -= 1;
                let mut batch = RecordBatch::new();
                batch.push(&own_draft(IMAGE_TOPIC, body)).unwrap();
                let appended = writer.append(&mut batch, 1)?;
                // Messages go on between the records of an image.
                batch.clear();
                batch.push(&own_draft("orders", b"between")).unwrap();
                writer.append(&mut batch, 1)?;
                Ok((appended.start, appended.end))
            })
        }

        fn newest(&self) -> Option<ImageAt> {
            newest(&self.log, self.log.start(), self.log.written()).unwrap()
        }

        fn loaded(&self, image: &ImageAt) -> Result<Vec<StateEntry>, ImageError> {
            let mut all = Vec::new();
            load(&self.log, image, &mut |entry| all.push(entry)).map(|()| all)
        }
    }

    #[test]
    fn image_of_many_parts_comes_back_entry_by_entry() {
        let mut world = World::new(6000);
        let image = world.write(usize::MAX).unwrap();
        assert!(image.bytes > 3 * PART_BYTES as u64, "{image:?}");
        assert_eq!(world.newest(), Some(image));
        assert_eq!(world.loaded(&image).unwrap(), entries(6000));
    }

    #[test]
    fn image_is_found_where_a_header_says_that_it_begins_and_nowhere_else() {
        let mut world = World::new(4000);
        let first = world.write(usize::MAX).unwrap();
        let second = world.write(usize::MAX).unwrap();
        world.write(1).unwrap_err();
        for image in [first, second] {
            assert_eq!(at(&world.log, image.begin).unwrap(), Some(image));
        }
        assert_eq!(at(&world.log, second.end).unwrap(), None);
        assert_eq!(at(&world.log, PhysicalOffset(0)).unwrap(), None);
    }

    #[test]
    fn image_of_no_state_counts_as_well() {
        let mut world = World::new(0);
        let image = world.write(usize::MAX).unwrap();
        assert_eq!(world.newest(), Some(image));
        assert_eq!(world.loaded(&image).unwrap(), []);
    }

    #[test]
    fn image_that_stops_after_any_record_does_not_count_and_the_one_before_does() {
        for records in 0..5 {
            let mut world = World::new(4000);
            let first = world.write(usize::MAX).unwrap();
            world.write(records).unwrap_err();
            assert_eq!(world.newest(), Some(first), "{records}");
            let second = world.write(usize::MAX).unwrap();
            assert_eq!(world.newest(), Some(second), "{records}");
        }
    }

    #[test]
    fn image_with_a_damaged_part_does_not_count() {
        let mut world = World::new(4000);
        let first = world.write(usize::MAX).unwrap();
        let second = world.write(usize::MAX).unwrap();
        let at = second.begin.0 + 5000;
        let base = at / (256 * 1024) * 256 * 1024;
        let path = Path::new("/log").join(format!("{base:020}"));
        world.disk.damage(&path, |bytes| bytes[(at - base) as usize] ^= 4);
        assert_eq!(world.newest(), Some(first));
        let error = world.loaded(&second).unwrap_err();
        assert!(matches!(error, ImageError::Incomplete { .. }), "{error}");
    }
}
