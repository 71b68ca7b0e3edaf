//! Reads single fields of a record.
//! Invariant: a length that a peer or a disk chose is checked before it is followed.
//! Leaves the order of the fields to `RecordView::parse`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::RecordError;
use crate::layout::{
    Layout, MAGIC_V1, MAGIC_V2, POSITION_AT, QUEUE_AT, QUEUE_OFFSET_AT, RECORD_BYTES_MAX,
    RECORD_BYTES_MIN, SYS_FLAG_AT, peek_size,
};

/// Walks the fields of variable length.
pub(super) struct Fields<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn take(
        &mut self,
        field: &'static str,
        needed: i64,
    ) -> Result<&'a [u8], RecordError> {
        let (at, size) = (self.at, self.bytes.len());
        let end = usize::try_from(needed).ok().and_then(|needed| at.checked_add(needed));
        match end.and_then(|end| self.bytes.get(at..end)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(RecordError::Length { field, needed, at, size }),
        }
    }

    pub(super) fn text(
        &mut self,
        field: &'static str,
        needed: i16,
    ) -> Result<&'a str, RecordError> {
        let bytes = self.take(field, i64::from(needed))?;
        std::str::from_utf8(bytes)
            .map_err(|error| RecordError::NotUtf8 { field, at: error.valid_up_to() })
    }
}

/// Checks size and magic; afterwards the fields of fixed place are there for IPv4 hosts.
pub(super) fn check_frame(bytes: &[u8]) -> Result<u32, RecordError> {
    let (size, magic) =
        peek_size(bytes).ok_or(RecordError::Size { size: 0, available: bytes.len() })?;
    if !matches!(magic, MAGIC_V1 | MAGIC_V2) {
        return Err(RecordError::Magic { magic });
    }
    if size as usize != bytes.len() || !(RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&bytes.len())
    {
        return Err(RecordError::Size { size, available: bytes.len() });
    }
    Ok(magic)
}

/// Refuses negative numbers where a type of this workspace has none.
pub(super) fn check_numbers(bytes: &[u8]) -> Result<(), RecordError> {
    let layout = Layout::of_sys_flag(i32_at(bytes, SYS_FLAG_AT));
    if layout.body_at > bytes.len() {
        let (needed, size) = (layout.body_at as i64, bytes.len());
        return Err(RecordError::Length { field: "header", needed, at: 0, size });
    }
    let numbers = [
        ("queue id", i64::from(i32_at(bytes, QUEUE_AT))),
        ("queue offset", i64_at(bytes, QUEUE_OFFSET_AT)),
        ("position", i64_at(bytes, POSITION_AT)),
        ("store time", i64_at(bytes, layout.store_time_at)),
        ("prepared offset", i64_at(bytes, layout.prepared_offset_at)),
    ];
    match numbers.into_iter().find(|(_, value)| *value < 0) {
        Some((field, value)) => Err(RecordError::Value { field, value, expected: "0 or more" }),
        None => Ok(()),
    }
}

pub(super) fn host_at(
    bytes: &[u8],
    field: &'static str,
    start: usize,
    end: usize,
) -> Result<SocketAddr, RecordError> {
    let host = &bytes[start..end];
    let (address, port) = host.split_at(host.len() - 4);
    let port = i32_at(port, 0);
    let ip = match <[u8; 4]>::try_from(address) {
        Ok(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(array::<16>(address, 0))),
    };
    match u16::try_from(port) {
        Ok(port) => Ok(SocketAddr::new(ip, port)),
        Err(_) => Err(RecordError::Value { field, value: port.into(), expected: "0..=65535" }),
    }
}

/// Callers have checked that the bytes are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(super) fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array(bytes, at))
}
