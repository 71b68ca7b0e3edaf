//! A record read in place.
//! Invariant: a `RecordView` has been parsed: every length was checked, so accessors cannot fail.
//! Leaves to its callers which records to deliver and where a log ends.

mod error;
mod fields;

use std::net::SocketAddr;

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, properties::TAGS};

pub use error::RecordError;
use fields::{Fields, check_frame, check_numbers, host_at, i16_at, i32_at, i64_at};

use crate::{
    Draft, OffsetMessageId, crc,
    layout::{
        BODY_CRC_AT, BORN_HOST_AT, BORN_TIME_AT, FLAG_AT, Layout, MAGIC_AT, MAGIC_V1, POSITION_AT,
        QUEUE_AT, QUEUE_OFFSET_AT, SYS_FLAG_AT, peek_size,
    },
    properties::{self, CHECKSUM_BYTES, checksum_digits, checksum_entry},
    sys_flag,
    tag::tag_hash,
};

/// One record, read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    layout: Layout,
    born_host: SocketAddr,
    store_host: SocketAddr,
    body: &'a [u8],
    topic: &'a str,
    properties: &'a str,
}

impl<'a> RecordView<'a> {
    /// Reads the one record that `bytes` is. A reference broker's record is one, with or without checksum.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let magic = check_frame(bytes)?;
        check_numbers(bytes)?;
        let layout = Layout::of_sys_flag(i32_at(bytes, SYS_FLAG_AT));
        let mut fields = Fields { bytes, at: layout.body_size_at };
        let body_bytes = fields.take("body length", 4).map(|field| i32_at(field, 0))?;
        let body = fields.take("body", i64::from(body_bytes))?;
        let topic_bytes = if magic == MAGIC_V1 {
            fields.take("topic length", 1).map(|field| i16::from(field[0]))?
        } else {
            fields.take("topic length", 2).map(|field| i16_at(field, 0))?
        };
        let topic = fields.text("topic", topic_bytes)?;
        let properties_bytes = fields.take("properties length", 2).map(|field| i16_at(field, 0))?;
        let properties = fields.text("properties", properties_bytes)?;
        if fields.at != bytes.len() {
            return Err(RecordError::Trailing { end: fields.at, size: bytes.len() });
        }
        let born_host = host_at(bytes, "born port", BORN_HOST_AT, layout.store_time_at)?;
        let store_host =
            host_at(bytes, "store port", layout.store_host_at, layout.reconsume_times_at)?;
        Ok(Self { bytes, layout, born_host, store_host, body, topic, properties })
    }

    /// Reads the one record that `bytes` is, and checks that it is whole and belongs at `expected_position`.
    ///
    /// Only for records that `encode` and `Slot::seal` made: others have no checksum, or cannot be trusted.
    pub fn verify(bytes: &'a [u8], expected_position: PhysicalOffset) -> Result<Self, RecordError> {
        let view = Self::parse(bytes)?;
        let position = view.position();
        if position != expected_position {
            return Err(RecordError::Position { expected: expected_position, found: position });
        }
        let found = checksum_entry(view.properties.as_bytes())
            .ok_or(RecordError::ChecksumMissing { position })?;
        let computed = checksum_digits(crc::checksum(&bytes[..bytes.len() - CHECKSUM_BYTES]));
        if *found != computed {
            return Err(RecordError::Checksum {
                position,
                computed: String::from_utf8_lossy(&computed).into_owned(),
                found: String::from_utf8_lossy(found).into_owned(),
            });
        }
        Ok(view)
    }

    /// Checks the body alone, as consumers do, who get no other checksum from a reference broker.
    pub fn verify_body(&self) -> Result<(), RecordError> {
        let (computed, found) = (crc::checksum(self.body) & 0x7FFF_FFFF, self.body_crc());
        if computed == found { Ok(()) } else { Err(RecordError::BodyChecksum { computed, found }) }
    }

    /// The whole record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the whole record.
    pub fn size(&self) -> u32 {
        self.bytes.len() as u32
    }

    /// `MAGIC_V1` or `MAGIC_V2`.
    pub fn magic(&self) -> u32 {
        i32_at(self.bytes, MAGIC_AT) as u32
    }

    /// CRC-32 of the body, without its top bit.
    pub fn body_crc(&self) -> u32 {
        i32_at(self.bytes, BODY_CRC_AT) as u32
    }

    /// Queue within the topic.
    pub fn queue(&self) -> QueueId {
        QueueId(i32_at(self.bytes, QUEUE_AT) as u32)
    }

    /// The application's flag.
    pub fn flag(&self) -> i32 {
        i32_at(self.bytes, FLAG_AT)
    }

    /// Place in the queue.
    pub fn queue_offset(&self) -> QueueOffset {
        QueueOffset(i64_at(self.bytes, QUEUE_OFFSET_AT) as u64)
    }

    /// Position in the log.
    pub fn position(&self) -> PhysicalOffset {
        PhysicalOffset(i64_at(self.bytes, POSITION_AT) as u64)
    }

    /// Bits of [`sys_flag`].
    pub fn sys_flag(&self) -> i32 {
        i32_at(self.bytes, SYS_FLAG_AT)
    }

    /// The transaction bits of the sys flag.
    pub fn transaction(&self) -> i32 {
        self.sys_flag() & sys_flag::TRANSACTION
    }

    /// When the producer made the message, in milliseconds since 1970.
    pub fn born_time_ms(&self) -> i64 {
        i64_at(self.bytes, BORN_TIME_AT)
    }

    /// The producer's address.
    pub fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// When the broker stored the message, in milliseconds since 1970.
    pub fn store_time_ms(&self) -> u64 {
        i64_at(self.bytes, self.layout.store_time_at) as u64
    }

    /// The broker's advertised address.
    pub fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// Failed attempts so far.
    pub fn reconsume_times(&self) -> i32 {
        i32_at(self.bytes, self.layout.reconsume_times_at)
    }

    /// Position of the half message that this record decides, else 0.
    pub fn prepared_offset(&self) -> u64 {
        i64_at(self.bytes, self.layout.prepared_offset_at) as u64
    }

    /// The body as stored, possibly compressed.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Name of the topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The properties as stored, the checksum included.
    pub fn properties_raw(&self) -> &'a str {
        self.properties
    }

    /// The properties as stored, without the checksum that ends them.
    pub fn properties_unsealed(&self) -> &'a str {
        match checksum_entry(self.properties.as_bytes()) {
            Some(_) => &self.properties[..self.properties.len() - CHECKSUM_BYTES],
            None => self.properties,
        }
    }

    /// Key and value of each property, the checksum included.
    pub fn properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        properties::entries(self.properties.as_bytes()).map(|(key, value)| (text(key), text(value)))
    }

    /// Value of a property.
    pub fn property(&self, key: &str) -> Option<&'a str> {
        properties::find(self.properties.as_bytes(), key).map(text)
    }

    /// Hash of the tag, 0 without one.
    pub fn tag_hash(&self) -> i32 {
        self.property(TAGS).map_or(0, tag_hash)
    }

    /// The id that responses and tools show: the broker's address and the position.
    pub fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId { host: self.store_host, position: self.position() }
    }

    /// What `encode` would make this record of again: for copies to other queues or positions.
    pub fn draft(&self) -> Draft<'a> {
        Draft {
            topic: self.topic,
            queue: self.queue(),
            flag: self.flag(),
            sys_flag: self.sys_flag(),
            born_time_ms: self.born_time_ms(),
            born_host: self.born_host,
            store_host: self.store_host,
            reconsume_times: self.reconsume_times(),
            prepared_offset: self.prepared_offset(),
            body: self.body,
            properties: self.properties_unsealed().as_bytes(),
        }
    }
}

/// The records of which `bytes` is a concatenation, as a pull's answer is.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { rest: bytes }
}

/// Iterator over concatenated records. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let size = peek_size(self.rest).map_or(usize::MAX, |(size, _)| size as usize);
        let (record, rest) = self.rest.split_at_checked(size).unwrap_or((self.rest, &[]));
        let parsed = RecordView::parse(record);
        self.rest = if parsed.is_ok() { rest } else { &[] };
        Some(parsed)
    }
}

/// Pieces of text cut at ASCII separators are text.
fn text(piece: &[u8]) -> &str {
    std::str::from_utf8(piece).expect("parse checked the whole as UTF-8")
}
