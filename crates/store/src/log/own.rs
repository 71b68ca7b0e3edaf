//! The records that the log writes for itself: segment header, mark, filler.
//! Invariant: header and mark are ordinary records on internal topics, and carry the store's id, which no client learns,
//! so that a forged one in a message's body is never taken for one of ours.
//! Leaves to writer and recovery when they are written and what follows from them.
//!
//! ```text
//! header body: | format u32 | store id 16 | epoch u64 | newest image u64 | segment bytes u64 | synced u64 | last time u64 |
//! mark body:   | store id 16 | synced u64 |
//! filler:      | size u32 | blank magic u32 | position u64 | crc u32 of these 16 bytes and the store id | undefined |
//! ```

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use gantry_model::{PhysicalOffset, QueueId};
use gantry_record::{
    CHECKSUM_BYTES, Draft, MAGIC_BLANK, RECORD_BYTES_MIN, RecordView, Slot, blank_header, encode,
};

/// Topic of the record that begins each segment.
pub const SEGMENT_TOPIC: &str = "rmq_sys_gantry_segment";
/// Topic of the records that say up to where the log was synced.
pub const MARK_TOPIC: &str = "rmq_sys_gantry_mark";
/// Format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Room in front of a batch for one header (91 fixed, topic 22, body 60, checksum 20: 193) or mark.
pub(super) const HEADROOM_BYTES: usize = 256;
/// Bytes that are kept free at a segment's end, so that a filler always fits.
pub(super) const FILLER_BYTES_MIN: u64 = 20;

const NONE: u64 = u64::MAX;
const HEADER_BODY_BYTES: usize = 60;
const MARK_BODY_BYTES: usize = 24;

/// Which store a log belongs to: drawn once, when the folder is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl std::fmt::Debug for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Display for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What a segment says about itself and about the log before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store.
    pub store_id: StoreId,
    /// Epoch in which the segment was begun.
    pub epoch: u64,
    /// Position where the newest complete state image begins, as known then.
    pub newest_image: Option<PhysicalOffset>,
    /// Length of the segment's file.
    pub segment_bytes: u64,
    /// Everything before was synced then.
    pub synced: PhysicalOffset,
    /// Store time of the last record before, in milliseconds since 1970.
    pub last_time_ms: u64,
}

/// A record of the log's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    Header(SegmentHeader),
    Mark {
        store_id: StoreId,
        synced: PhysicalOffset,
    },
    /// A header of a format that this code does not know.
    Newer {
        format: u32,
    },
}

impl Own {
    /// Reads a verified record as one of the log's own, if it is one.
    pub(crate) fn of(record: &RecordView<'_>) -> Option<Self> {
        match record.topic() {
            SEGMENT_TOPIC => header_of(record.body()),
            MARK_TOPIC => mark_of(record.body()),
            _ => None,
        }
    }

    /// Store and synced position, which header and mark both tell.
    pub(super) fn witness(&self) -> Option<(StoreId, PhysicalOffset)> {
        match self {
            Self::Header(header) => Some((header.store_id, header.synced)),
            Self::Mark { store_id, synced } => Some((*store_id, *synced)),
            Self::Newer { .. } => None,
        }
    }
}

/// Whether a topic holds only records that the log writes for itself.
pub(super) fn is_own_topic(topic: &str) -> bool {
    topic == SEGMENT_TOPIC || topic == MARK_TOPIC
}

/// Appends a header record to `out`, to be sealed for its position.
pub(super) fn put_header(header: &SegmentHeader, out: &mut Vec<u8>) -> Slot {
    let mut body = [0; HEADER_BODY_BYTES];
    body[..4].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    body[4..20].copy_from_slice(&header.store_id.0);
    let numbers = [
        header.epoch,
        header.newest_image.map_or(NONE, |position| position.0),
        header.segment_bytes,
        header.synced.0,
        header.last_time_ms,
    ];
    for (slot, number) in body[20..].chunks_exact_mut(8).zip(numbers) {
        slot.copy_from_slice(&number.to_be_bytes());
    }
    put(SEGMENT_TOPIC, &body, out)
}

/// Appends a mark record to `out`, to be sealed for its position.
pub(super) fn put_mark(store_id: StoreId, synced: PhysicalOffset, out: &mut Vec<u8>) -> Slot {
    let mut body = [0; MARK_BODY_BYTES];
    body[..16].copy_from_slice(&store_id.0);
    body[16..].copy_from_slice(&synced.0.to_be_bytes());
    put(MARK_TOPIC, &body, out)
}

fn put(topic: &str, body: &[u8], out: &mut Vec<u8>) -> Slot {
    let nobody = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    let draft = Draft {
        topic,
        queue: QueueId(0),
        flag: 0,
        sys_flag: 0,
        born_time_ms: 0,
        born_host: nobody,
        store_host: nobody,
        reconsume_times: 0,
        prepared_offset: 0,
        body,
        properties: &[],
    };
    encode(&draft, out).expect("topic and body are of fixed, small size")
}

fn header_of(body: &[u8]) -> Option<Own> {
    let format = u32::from_be_bytes(*body.first_chunk()?);
    if format > FORMAT_VERSION {
        return Some(Own::Newer { format });
    }
    let number = |index: usize| number_at(body, 20 + 8 * index);
    Some(Own::Header(SegmentHeader {
        store_id: StoreId(*body.get(4..20)?.first_chunk()?),
        epoch: number(0)?,
        newest_image: Some(number(1)?).filter(|at| *at != NONE).map(PhysicalOffset),
        segment_bytes: number(2)?,
        synced: PhysicalOffset(number(3)?),
        last_time_ms: number(4)?,
    }))
}

fn mark_of(body: &[u8]) -> Option<Own> {
    let store_id = StoreId(*body.first_chunk()?);
    Some(Own::Mark { store_id, synced: PhysicalOffset(number_at(body, 16)?) })
}

fn number_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The defined bytes of a filler at `position` that takes the `size` bytes left in its segment.
pub(super) fn filler(
    store_id: StoreId,
    position: PhysicalOffset,
    size: u32,
) -> [u8; FILLER_BYTES_MIN as usize] {
    let mut filler = [0; FILLER_BYTES_MIN as usize];
    filler[..8].copy_from_slice(&blank_header(size));
    filler[8..16].copy_from_slice(&position.0.to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&filler[..16]);
    crc.update(&store_id.0);
    filler[16..].copy_from_slice(&crc.finalize().to_be_bytes());
    filler
}

/// Whether `bytes` begin with the filler that belongs at `position` with `left` bytes left in the segment.
pub(super) fn is_filler(
    bytes: &[u8],
    store_id: StoreId,
    position: PhysicalOffset,
    left: u64,
) -> bool {
    let size = u32::try_from(left).ok().filter(|_| left >= FILLER_BYTES_MIN);
    let expected = size.map(|size| filler(store_id, position, size));
    expected.is_some() && bytes.first_chunk() == expected.as_ref()
}

/// Whether a peeked magic is that of a filler.
pub(super) fn is_blank_magic(magic: u32) -> bool {
    magic == MAGIC_BLANK
}

/// Bytes of each header record.
pub(super) const fn header_record_bytes() -> u64 {
    (RECORD_BYTES_MIN + SEGMENT_TOPIC.len() + HEADER_BODY_BYTES + CHECKSUM_BYTES) as u64
}

/// Bytes of each mark record.
pub(super) const fn mark_record_bytes() -> u64 {
    (RECORD_BYTES_MIN + MARK_TOPIC.len() + MARK_BODY_BYTES + CHECKSUM_BYTES) as u64
}

const _: () = assert!(header_record_bytes() <= HEADROOM_BYTES as u64);
const _: () = assert!(mark_record_bytes() <= HEADROOM_BYTES as u64);

#[cfg(test)]
mod tests {
    use gantry_model::QueueOffset;

    use super::*;

    #[test]
    fn header_and_mark_round_trip_and_fit_the_headroom() {
        let header = SegmentHeader {
            store_id: StoreId([7; 16]),
            epoch: 3,
            newest_image: Some(PhysicalOffset(99)),
            segment_bytes: 1 << 30,
            synced: PhysicalOffset(1234),
            last_time_ms: 5,
        };
        let mark = Own::Mark { store_id: StoreId([7; 16]), synced: PhysicalOffset(88) };
        for own in
            [Own::Header(header), Own::Header(SegmentHeader { newest_image: None, ..header }), mark]
        {
            let mut out = Vec::new();
            let slot = match own {
                Own::Header(header) => put_header(&header, &mut out),
                _ => put_mark(StoreId([7; 16]), PhysicalOffset(88), &mut out),
            };
            slot.seal(&mut out, QueueOffset(0), PhysicalOffset(4096), 17);
            let record = RecordView::verify(&out, PhysicalOffset(4096)).unwrap();
            assert_eq!(Own::of(&record), Some(own));
            let bytes = match own {
                Own::Header(_) => header_record_bytes(),
                _ => mark_record_bytes(),
            };
            assert!(is_own_topic(record.topic()) && out.len() as u64 == bytes);
        }
    }

    #[test]
    fn filler_of_another_store_position_or_size_is_none_of_ours() {
        let (ours, other) = (StoreId([7; 16]), StoreId([8; 16]));
        let bytes = filler(ours, PhysicalOffset(500), 24);
        assert!(is_filler(&bytes, ours, PhysicalOffset(500), 24));
        assert!(!is_filler(&bytes, other, PhysicalOffset(500), 24));
        assert!(!is_filler(&bytes, ours, PhysicalOffset(1500), 24));
        assert!(!is_filler(&bytes, ours, PhysicalOffset(500), 25));
        assert!(!is_filler(&bytes, ours, PhysicalOffset(500), 8));
        assert!(!is_filler(&bytes[..19], ours, PhysicalOffset(500), 24));
    }
}
