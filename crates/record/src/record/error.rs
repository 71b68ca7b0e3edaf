//! Why bytes are not a record.
//! Invariant: each variant names the values that disagree.
//! Leaves the choice between a torn tail and rot to the store.

use gantry_model::PhysicalOffset;

use crate::layout::{MAGIC_V1, MAGIC_V2, RECORD_BYTES_MIN};

/// Why bytes are not the record that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The size is not that of the bytes given.
    #[error(
        "the record says {size} bytes, {available} are there, the smallest is {RECORD_BYTES_MIN}"
    )]
    Size {
        /// What the record says, if its first 8 bytes are there.
        size: u32,
        /// Bytes given.
        available: usize,
    },
    /// The magic is neither V1 nor V2.
    #[error("the magic is {magic:#010x}, expected {MAGIC_V1:#010x} or {MAGIC_V2:#010x}")]
    Magic {
        /// What was found.
        magic: u32,
    },
    /// A field overruns the record, or the fields end before it does.
    #[error("{field} needs {needed} bytes at byte {at} of a record of {size}")]
    Length {
        /// Name of the field.
        field: &'static str,
        /// Bytes that the field says it has; negative if it says so.
        needed: i64,
        /// Where the field starts.
        at: usize,
        /// Bytes of the record.
        size: usize,
    },
    /// The fields end before the record does.
    #[error("the fields end at byte {end} of a record of {size}")]
    Trailing {
        /// Where the last field ends.
        end: usize,
        /// Bytes of the record.
        size: usize,
    },
    /// A number is outside of its range.
    #[error("{field} is {value}, expected {expected}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What was found.
        value: i64,
        /// What is accepted.
        expected: &'static str,
    },
    /// The topic or the properties are not text.
    #[error("{field} is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// Name of the field.
        field: &'static str,
        /// First byte of the field that is not part of a character.
        at: usize,
    },
    /// The record belongs elsewhere, as one does that a reused file still holds.
    #[error("the record says position {found}, it was read at {expected}")]
    Position {
        /// Where it was read.
        expected: PhysicalOffset,
        /// What it says.
        found: PhysicalOffset,
    },
    /// The record does not end with a checksum.
    #[error("the record at {position} has no checksum")]
    ChecksumMissing {
        /// What the record says is its position.
        position: PhysicalOffset,
    },
    /// The record is not what was written.
    #[error("the record at {position} has the checksum {found:?}, computed {computed:?}")]
    Checksum {
        /// What the record says is its position.
        position: PhysicalOffset,
        /// Digits of the checksum of its bytes, least significant first.
        computed: String,
        /// Digits found.
        found: String,
    },
    /// The body is not what was written.
    #[error("the body has the checksum {computed:#010x}, the record says {found:#010x}")]
    BodyChecksum {
        /// Checksum of the body's bytes.
        computed: u32,
        /// What the record says.
        found: u32,
    },
}
