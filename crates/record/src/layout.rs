//! Where each field of a record lies.
//!
//! ```text
//! | size i32 | magic i32 | body crc i32 | queue i32 | flag i32 | queue offset i64 | position i64 |
//! | sys flag i32 | born time i64 | born host 4 or 16 + port i32 | store time i64 |
//! | store host 4 or 16 + port i32 | reconsume times i32 | prepared offset i64 |
//! | body i32 + n | topic u8 (V1) or i16 (V2) + n | properties i16 + n |
//! ```
//!
//! Integers are big-endian. Source: RocketMQ's commit log, `MessageExtEncoder`.
//! Invariant: `Layout` is the only place that knows offsets; encoder and parser both ask it.
//! Leaves the meaning of the fields to `encode` and `record`.

use crate::sys_flag;

/// Magic of a record whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a record whose topic length is two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of the filler at the end of a log segment.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// Bytes of a filler that are defined: its size and its magic.
pub const BLANK_HEADER_BYTES: usize = 8;
/// Smallest record: V1, two IPv4 hosts, no body, no topic, no properties.
pub const RECORD_BYTES_MIN: usize = 91;
/// Largest record: its size is a signed 32-bit number.
pub const RECORD_BYTES_MAX: usize = i32::MAX as usize;

/// Longest topic that V1 can hold, since Java reads its length as a signed byte.
pub(crate) const TOPIC_V1_BYTES_MAX: usize = 127;

/// Bytes before the body with two IPv6 hosts.
pub(crate) const HEADER_BYTES_MAX: usize = 112;

pub(crate) const MAGIC_AT: usize = 4;
pub(crate) const BODY_CRC_AT: usize = 8;
pub(crate) const QUEUE_AT: usize = 12;
pub(crate) const FLAG_AT: usize = 16;
pub(crate) const QUEUE_OFFSET_AT: usize = 20;
pub(crate) const POSITION_AT: usize = 28;
pub(crate) const SYS_FLAG_AT: usize = 36;
pub(crate) const BORN_TIME_AT: usize = 40;
pub(crate) const BORN_HOST_AT: usize = 48;

/// Size and magic at the front of `bytes`, for walking a log: `None` if fewer than 8 bytes are there.
///
/// Nothing is checked: a size may be anything, `(0, 0)` is space never written.
pub fn peek_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let magic = rest.first_chunk::<4>()?;
    Some((u32::from_be_bytes(*size), u32::from_be_bytes(*magic)))
}

/// The defined part of a filler that takes `size` bytes, itself included, up to the end of a segment.
pub fn blank_header(size: u32) -> [u8; BLANK_HEADER_BYTES] {
    // A segment is filled only where 8 bytes are left for this header.
    assert!(
        size as usize >= BLANK_HEADER_BYTES,
        "filler of {size} bytes has no room for its header"
    );
    let mut header = [0; BLANK_HEADER_BYTES];
    header[..4].copy_from_slice(&size.to_be_bytes());
    header[4..].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
    header
}

/// Offsets of the fields behind the born host, which depend on the width of the addresses.
#[expect(clippy::struct_field_names, reason = "each is where a field is, not the field")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) store_time_at: usize,
    pub(crate) store_host_at: usize,
    pub(crate) reconsume_times_at: usize,
    pub(crate) prepared_offset_at: usize,
    pub(crate) body_size_at: usize,
    pub(crate) body_at: usize,
}

impl Layout {
    pub(crate) fn of_sys_flag(sys_flag: i32) -> Self {
        let host_bytes = |bit| if sys_flag & bit == 0 { 8 } else { 20 };
        let store_time_at = BORN_HOST_AT + host_bytes(sys_flag::BORN_HOST_V6);
        let store_host_at = store_time_at + 8;
        let reconsume_times_at = store_host_at + host_bytes(sys_flag::STORE_HOST_V6);
        Self {
            store_time_at,
            store_host_at,
            reconsume_times_at,
            prepared_offset_at: reconsume_times_at + 4,
            body_size_at: reconsume_times_at + 12,
            body_at: reconsume_times_at + 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_header_is_what_peek_size_sees() {
        assert_eq!(peek_size(&blank_header(4096)), Some((4096, MAGIC_BLANK)));
        assert_eq!(peek_size(&[0; 7]), None);
        assert_eq!(peek_size(&[0; 8]), Some((0, 0)));
    }

    #[test]
    fn body_of_two_ipv4_hosts_starts_at_88_and_each_ipv6_host_adds_12() {
        assert_eq!(Layout::of_sys_flag(0).body_at, 88);
        assert_eq!(Layout::of_sys_flag(0).store_time_at, 56);
        let born = Layout::of_sys_flag(sys_flag::BORN_HOST_V6);
        assert_eq!((born.store_time_at, born.body_at), (68, 100));
        let store = Layout::of_sys_flag(sys_flag::STORE_HOST_V6);
        assert_eq!((store.store_time_at, store.body_at), (56, 100));
        assert_eq!(Layout::of_sys_flag(-1).body_at, HEADER_BYTES_MAX);
    }
}
