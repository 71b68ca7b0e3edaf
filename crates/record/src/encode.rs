//! Turns a message into a record: first all that is known outside the log's lock, then the rest.
//! Invariant: `encode` leaves `out` unchanged on error; after `seal` the record passes `RecordView::verify`.
//! Leaves to its callers which properties a message gets and how large a body may be.

use std::net::{IpAddr, SocketAddr};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, limits::INTERNAL_TOPIC_BYTES_MAX};

use crate::{
    crc,
    layout::{
        BODY_CRC_AT, BORN_HOST_AT, BORN_TIME_AT, FLAG_AT, HEADER_BYTES_MAX, Layout, MAGIC_AT,
        MAGIC_V1, MAGIC_V2, POSITION_AT, QUEUE_AT, QUEUE_OFFSET_AT, RECORD_BYTES_MAX, SYS_FLAG_AT,
        TOPIC_V1_BYTES_MAX,
    },
    properties::{
        CHECKSUM_BYTES, PROPERTIES_UNSEALED_BYTES_MAX, VALUE_END, checksum_digits, put_checksum,
    },
    sys_flag,
};

/// What becomes a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft<'a> {
    /// Name of the topic, at most 255 bytes.
    pub topic: &'a str,
    /// Queue within the topic.
    pub queue: QueueId,
    /// The application's flag, never interpreted.
    pub flag: i32,
    /// Bits of [`sys_flag`]; the two host bits are set from the addresses.
    pub sys_flag: i32,
    /// When the producer made the message, in milliseconds since 1970 by its clock.
    pub born_time_ms: i64,
    /// The producer's address as the broker sees it.
    pub born_host: SocketAddr,
    /// The broker's advertised address.
    pub store_host: SocketAddr,
    /// Failed attempts so far.
    pub reconsume_times: i32,
    /// Position of the half message that this record decides, else 0.
    pub prepared_offset: u64,
    /// The body, possibly compressed.
    pub body: &'a [u8],
    /// Properties as `properties::edit` and `properties::put` write them, without the checksum: at most
    /// [`PROPERTIES_UNSEALED_BYTES_MAX`] bytes, UTF-8. A missing last 0x02 is added.
    pub properties: &'a [u8],
}

/// Why a message cannot become a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The topic does not fit.
    #[error("the topic is {bytes} bytes, expected 1..={bytes_max}")]
    Topic {
        /// Length of the topic.
        bytes: usize,
        /// Longest topic.
        bytes_max: usize,
    },
    /// The properties do not fit beside the checksum.
    #[error("the properties are {bytes} bytes, the limit is {bytes_max}")]
    PropertiesTooLarge {
        /// Length of the properties, the last separator included.
        bytes: usize,
        /// Largest length accepted.
        bytes_max: usize,
    },
    /// The properties are not text.
    #[error("the properties are not UTF-8 from byte {at} on")]
    PropertiesNotUtf8 {
        /// First byte that is not part of a character.
        at: usize,
    },
    /// A number has no place in its signed field.
    #[error("{field} is {value}, the largest is {value_max}")]
    Number {
        /// Name of the field.
        field: &'static str,
        /// What was given.
        value: u64,
        /// Largest value accepted.
        value_max: u64,
    },
    /// The whole record does not fit.
    #[error("the record is {bytes} bytes, the limit is {bytes_max}")]
    RecordTooLarge {
        /// Length of the record.
        bytes: usize,
        /// Largest length accepted.
        bytes_max: usize,
    },
}

/// Where the values go that are known only under the log's lock, and the sums that make sealing cheap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where the record starts in the buffer given to `seal`; to be moved along with the bytes.
    pub start: usize,
    /// Bytes of the record.
    pub size: u32,
    store_time_at: u32,
    /// Sum of the bytes from behind the store time up to the checksum entry.
    tail_crc: u32,
    /// `crc::shift` of that tail's length.
    tail_shift: u32,
}

/// Appends one record to `out`. Queue offset, position, store time and checksum are zero until `Slot::seal`.
pub fn encode(draft: &Draft<'_>, out: &mut Vec<u8>) -> Result<Slot, EncodeError> {
    check(draft)?;
    let start = out.len();
    let layout = put_fields(draft, CHECKSUM_BYTES, out);
    put_checksum(out);

    let record = &out[start..];
    let tail = &record[layout.store_host_at..record.len() - CHECKSUM_BYTES];
    Ok(Slot {
        start,
        size: record.len() as u32,
        store_time_at: layout.store_time_at as u32,
        tail_crc: crc::checksum(tail),
        tail_shift: crc::shift(tail.len() as u32),
    })
}

impl Slot {
    /// Fills in what the log decides, and the checksum over it all. `buf` holds the record at `start`.
    ///
    /// Sums the 64 or 76 bytes up to the store time, whatever the record's size, and may be repeated with other values.
    pub fn seal(
        &self,
        buf: &mut [u8],
        queue_offset: QueueOffset,
        position: PhysicalOffset,
        store_time_ms: u64,
    ) {
        // Offsets, positions and times are counted up from 0 and never reach 2^63.
        assert!((queue_offset.0 | position.0 | store_time_ms) >> 63 == 0, "signed fields");
        // Callers hand the buffer that `encode` filled, or moved `start` along with the bytes.
        let record = &mut buf[self.start..self.start + self.size as usize];
        let store_time_at = self.store_time_at as usize;
        let store_time_end = store_time_at + 8;
        record[QUEUE_OFFSET_AT..POSITION_AT].copy_from_slice(&queue_offset.0.to_be_bytes());
        record[POSITION_AT..POSITION_AT + 8].copy_from_slice(&position.0.to_be_bytes());
        record[store_time_at..store_time_end].copy_from_slice(&store_time_ms.to_be_bytes());

        let front = crc::checksum(&record[..store_time_end]);
        let crc = crc::combine(front, self.tail_crc, self.tail_shift);
        let digits_end = record.len() - 1;
        record[digits_end - 10..digits_end].copy_from_slice(&checksum_digits(crc));
    }

    /// The same record at another place of the buffer.
    #[must_use]
    pub fn moved_to(self, start: usize) -> Self {
        Self { start, ..self }
    }
}

fn check(draft: &Draft<'_>) -> Result<(), EncodeError> {
    let (topic, bytes_max) = (draft.topic.len(), INTERNAL_TOPIC_BYTES_MAX);
    if topic == 0 || topic > bytes_max {
        return Err(EncodeError::Topic { bytes: topic, bytes_max });
    }
    let (bytes, bytes_max) = (properties_bytes(draft.properties), PROPERTIES_UNSEALED_BYTES_MAX);
    if bytes > bytes_max {
        return Err(EncodeError::PropertiesTooLarge { bytes, bytes_max });
    }
    if let Err(error) = std::str::from_utf8(draft.properties) {
        return Err(EncodeError::PropertiesNotUtf8 { at: error.valid_up_to() });
    }
    let layout = Layout::of_sys_flag(sys_flag_of(draft));
    let (bytes, bytes_max) = (record_bytes(draft, layout, CHECKSUM_BYTES), RECORD_BYTES_MAX);
    if bytes > bytes_max {
        return Err(EncodeError::RecordTooLarge { bytes, bytes_max });
    }
    check_signed("queue id", draft.queue.0.into(), i32::MAX as u64)?;
    check_signed("prepared offset", draft.prepared_offset, i64::MAX as u64)
}

/// On disk these are signed numbers, and negative ones mean nothing.
fn check_signed(field: &'static str, value: u64, value_max: u64) -> Result<(), EncodeError> {
    if value > value_max {
        return Err(EncodeError::Number { field, value, value_max });
    }
    Ok(())
}

/// Appends a checked record but for the last `suffix_bytes`, which its sizes already count.
fn put_fields(draft: &Draft<'_>, suffix_bytes: usize, out: &mut Vec<u8>) -> Layout {
    let layout = Layout::of_sys_flag(sys_flag_of(draft));
    let size = record_bytes(draft, layout, suffix_bytes);
    let properties = properties_bytes(draft.properties);
    out.reserve(size);
    put_header(draft, layout, size, out);
    out.extend_from_slice(draft.body);
    if topic_size_bytes(draft.topic) == 2 {
        out.extend_from_slice(&(draft.topic.len() as u16).to_be_bytes());
    } else {
        out.push(draft.topic.len() as u8);
    }
    out.extend_from_slice(draft.topic.as_bytes());
    out.extend_from_slice(&((properties + suffix_bytes) as u16).to_be_bytes());
    out.extend_from_slice(draft.properties);
    if properties != draft.properties.len() {
        out.push(VALUE_END);
    }
    layout
}

/// Appends all that stands before the body.
fn put_header(draft: &Draft<'_>, layout: Layout, size: usize, out: &mut Vec<u8>) {
    let magic = if topic_size_bytes(draft.topic) == 2 { MAGIC_V2 } else { MAGIC_V1 };
    let body_crc = crc::checksum(draft.body) & 0x7FFF_FFFF;
    let mut header = [0; HEADER_BYTES_MAX];
    let mut put = |at: usize, field: &[u8]| header[at..at + field.len()].copy_from_slice(field);
    put(0, &(size as u32).to_be_bytes());
    put(MAGIC_AT, &magic.to_be_bytes());
    put(BODY_CRC_AT, &body_crc.to_be_bytes());
    put(QUEUE_AT, &draft.queue.0.to_be_bytes());
    put(FLAG_AT, &draft.flag.to_be_bytes());
    put(SYS_FLAG_AT, &sys_flag_of(draft).to_be_bytes());
    put(BORN_TIME_AT, &draft.born_time_ms.to_be_bytes());
    put_host(BORN_HOST_AT, draft.born_host, &mut put);
    put_host(layout.store_host_at, draft.store_host, &mut put);
    put(layout.reconsume_times_at, &draft.reconsume_times.to_be_bytes());
    put(layout.prepared_offset_at, &draft.prepared_offset.to_be_bytes());
    put(layout.body_size_at, &(draft.body.len() as u32).to_be_bytes());
    out.extend_from_slice(&header[..layout.body_at]);
}

/// Puts address and port; an IPv4 address that arrived on an IPv6 socket is an IPv4 address, as in Java.
fn put_host(at: usize, host: SocketAddr, put: &mut impl FnMut(usize, &[u8])) {
    let port = u32::from(host.port()).to_be_bytes();
    match host.ip().to_canonical() {
        IpAddr::V4(ip) => {
            put(at, &ip.octets());
            put(at + 4, &port);
        }
        IpAddr::V6(ip) => {
            put(at, &ip.octets());
            put(at + 16, &port);
        }
    }
}

/// Bytes of the whole record; cannot overflow, since a slice has at most `isize::MAX` bytes.
fn record_bytes(draft: &Draft<'_>, layout: Layout, suffix_bytes: usize) -> usize {
    let topic = topic_size_bytes(draft.topic) + draft.topic.len();
    let properties = 2 + properties_bytes(draft.properties) + suffix_bytes;
    layout.body_at + draft.body.len() + topic + properties
}

/// Bytes of the properties with the last separator, without which the checksum would join the last value.
fn properties_bytes(properties: &[u8]) -> usize {
    let ended = properties.is_empty() || properties.ends_with(&[VALUE_END]);
    properties.len() + usize::from(!ended)
}

fn topic_size_bytes(topic: &str) -> usize {
    if topic.len() > TOPIC_V1_BYTES_MAX { 2 } else { 1 }
}

fn sys_flag_of(draft: &Draft<'_>) -> i32 {
    let bit = |host: SocketAddr, bit| if host.ip().to_canonical().is_ipv6() { bit } else { 0 };
    draft.sys_flag & !(sys_flag::BORN_HOST_V6 | sys_flag::STORE_HOST_V6)
        | bit(draft.born_host, sys_flag::BORN_HOST_V6)
        | bit(draft.store_host, sys_flag::STORE_HOST_V6)
}

#[cfg(test)]
mod tests;
