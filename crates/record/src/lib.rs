//! The message record of RocketMQ: its layout, its properties and the ids made from it.
//! Invariant: bytes of any origin are parsed without a panic, and what `encode` and `seal` made is what `verify` accepts.
//! Knows no I/O, no clock and no threads: bytes, time and positions arrive as arguments.

pub mod batch;
pub mod crc;
mod encode;
mod layout;
pub mod message_id;
pub mod properties;
mod record;
pub mod sys_flag;
mod tag;

pub use batch::{BatchError, BatchItem, BatchItems, put_batch_item};
pub use encode::{Draft, EncodeError, Slot, encode};
pub use layout::{
    BLANK_HEADER_BYTES, MAGIC_BLANK, MAGIC_V1, MAGIC_V2, RECORD_BYTES_MAX, RECORD_BYTES_MIN,
    blank_header, peek_size,
};
pub use message_id::{MessageIdError, OffsetMessageId, UniqueIds, unique_id_time_ms};
pub use properties::{CHECKSUM_BYTES, PROPERTIES_UNSEALED_BYTES_MAX, PropertyError};
pub use record::{RecordError, RecordView, Records, records};
pub use tag::tag_hash;
