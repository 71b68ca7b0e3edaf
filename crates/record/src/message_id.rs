//! The two ids of a message: the one made from its place, and the one its producer gave.
//! Invariant: both are upper-case hex of 32 characters with an IPv4 address, of 56 with IPv6.
//! Leaves clock, address and process number to the callers. Source: RocketMQ's `MessageDecoder` and
//! `MessageClientIDSetter`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::atomic::{AtomicU16, Ordering},
};

use gantry_model::PhysicalOffset;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Why a text is not a message id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageIdError {
    /// Neither length fits.
    #[error("the message id is {characters} bytes of text, expected 32 or 56")]
    Length {
        /// Bytes of the text.
        characters: usize,
    },
    /// A character is no hex digit.
    #[error("the message id has {character:?} at character {at}, expected a hex digit")]
    Digit {
        /// The character.
        character: char,
        /// Where it stands.
        at: usize,
    },
    /// The port is not one.
    #[error("the message id names port {port}, expected 0..=65535")]
    Port {
        /// What was found.
        port: u32,
    },
    /// The position is negative.
    #[error("the message id names position {position}, expected 0 or more")]
    Position {
        /// What was found.
        position: i64,
    },
}

/// The id made from a message's place: where its broker is reached, and its position in the log there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// The broker's advertised address.
    pub host: SocketAddr,
    /// Position in that broker's log.
    pub position: PhysicalOffset,
}

impl OffsetMessageId {
    /// Appends the last 16 characters of an id, which alone tell messages of one broker apart.
    pub fn put_position(position: PhysicalOffset, out: &mut String) {
        let digit = |at: usize| HEX[(position.0 >> (60 - 4 * at) & 0xF) as usize];
        out.push_str(hex_text(&std::array::from_fn::<u8, 16, _>(digit)));
    }
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(28);
        put_ip(self.host.ip(), &mut bytes);
        bytes.extend_from_slice(&u32::from(self.host.port()).to_be_bytes());
        bytes.extend_from_slice(&self.position.0.to_be_bytes());
        let mut text = Vec::with_capacity(56);
        put_hex(&bytes, &mut text);
        f.write_str(hex_text(&text))
    }
}

impl FromStr for OffsetMessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let id = parse_hex(text)?;
        let port = u32::from_be_bytes(id.part(0));
        let position = i64::from_be_bytes(id.part(4));
        if position < 0 {
            return Err(MessageIdError::Position { position });
        }
        let port = u16::try_from(port).map_err(|_| MessageIdError::Port { port })?;
        let host = SocketAddr::new(id.ip, port);
        Ok(Self { host, position: PhysicalOffset(position as u64) })
    }
}

/// Makes the unique ids (`UNIQ_KEY`) of one process.
///
/// An id is address, process number, seed, milliseconds since the month began and a counter. Ids of one
/// generator differ as long as fewer than 65,536 are made in a millisecond; those of two generators
/// differ by their seeds.
#[derive(Debug)]
pub struct UniqueIds {
    /// Hex of what stays the same.
    fixed: Vec<u8>,
    counter: AtomicU16,
}

impl UniqueIds {
    /// A generator for the process `pid` on `ip`. `seed` is a random number, drawn anew by each process:
    /// in containers neither address nor process number tells two of them apart.
    pub fn new(ip: IpAddr, pid: u32, seed: u32) -> Self {
        let mut bytes = Vec::with_capacity(22);
        put_ip(ip, &mut bytes);
        bytes.extend_from_slice(&(pid as u16).to_be_bytes());
        bytes.extend_from_slice(&seed.to_be_bytes());
        let mut fixed = Vec::with_capacity(44);
        put_hex(&bytes, &mut fixed);
        Self { fixed, counter: AtomicU16::new(0) }
    }

    /// The next id, at `now_ms` milliseconds since 1970.
    pub fn next(&self, now_ms: u64) -> String {
        let mut text = Vec::with_capacity(56);
        self.put_next(now_ms, &mut text);
        hex_text(&text).to_owned()
    }

    /// Appends the next id to `out` as text.
    pub fn put_next(&self, now_ms: u64, out: &mut Vec<u8>) {
        let now_ms = now_ms as i64;
        let span = (now_ms - month_start_ms(now_ms)) as u32;
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        out.extend_from_slice(&self.fixed);
        put_hex(&span.to_be_bytes(), out);
        put_hex(&count.to_be_bytes(), out);
    }
}

/// When a unique id was made, in milliseconds since 1970: in this month, or in the last if that would be
/// in the future of `now_ms`.
///
/// Months begin in UTC here and in local time in Java clients, so an id from there may be off by the zone.
pub fn unique_id_time_ms(id: &str, now_ms: u64) -> Result<u64, MessageIdError> {
    let span = i64::from(u32::from_be_bytes(parse_hex(id)?.part(6)));
    let month = month_start_ms(now_ms as i64);
    let time = month + span;
    let time = if time > now_ms as i64 { month_start_ms(month - 1) + span } else { time };
    Ok(time.max(0) as u64)
}

/// The 12 bytes behind the address of either id.
struct Id {
    ip: IpAddr,
    rest: [u8; 12],
}

impl Id {
    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.rest[at..at + N]);
        part
    }
}

fn parse_hex(text: &str) -> Result<Id, MessageIdError> {
    let mut bytes = [0; 28];
    let count = match text.len() {
        32 => 16,
        56 => 28,
        characters => return Err(MessageIdError::Length { characters }),
    };
    for (at, character) in text.chars().enumerate() {
        let digit = character.to_digit(16).ok_or(MessageIdError::Digit { character, at })?;
        bytes[at / 2] = bytes[at / 2] << 4 | digit as u8;
    }
    let (address, rest) = bytes[..count].split_at(count - 12);
    let ip = match <[u8; 4]>::try_from(address) {
        Ok(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|at| address[at]))),
    };
    Ok(Id { ip, rest: std::array::from_fn(|at| rest[at]) })
}

fn put_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
}

fn put_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 0xF)]);
    }
}

fn hex_text(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("hex digits are ASCII")
}

/// The first millisecond of the month of `time_ms`, in UTC.
fn month_start_ms(time_ms: i64) -> i64 {
    let day = time_ms.div_euclid(DAY_MS);
    (day - day_of_month(day)) * DAY_MS
}

/// Day of the month, from 0, of a day counted from 1970-01-01 in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last; lengths of months then follow
/// (153·m + 2) / 5, and 146,097 days make 400 years.
fn day_of_month(day: i64) -> i64 {
    let day_of_era = (day + 719_468).rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month + 2) / 5
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn offset_id_reads_back_for_both_kinds_of_address() {
        let v4 = OffsetMessageId {
            host: "127.0.0.1:10911".parse().unwrap(),
            position: PhysicalOffset(1024),
        };
        assert_eq!(v4.to_string(), "7F00000100002A9F0000000000000400");
        assert_eq!(v4.to_string().parse(), Ok(v4));
        let v6 = OffsetMessageId { host: "[2001:db8::1]:10911".parse().unwrap(), ..v4 };
        assert_eq!(v6.to_string().len(), 56);
        assert_eq!(v6.to_string().parse(), Ok(v6));
        assert_eq!(v6.to_string().to_lowercase().parse(), Ok(v6));
    }

    #[test]
    fn text_that_is_no_id_is_refused_with_the_reason() {
        let parse = |text: &str| text.parse::<OffsetMessageId>().unwrap_err();
        assert_eq!(parse(""), MessageIdError::Length { characters: 0 });
        assert_eq!(
            parse("7F00000100002A9F000000000000040G"),
            MessageIdError::Digit { character: 'G', at: 31 }
        );
        // 32 bytes that are fewer characters.
        assert!(matches!(parse(&"é".repeat(16)), MessageIdError::Digit { at: 0, .. }));
        assert_eq!(
            parse("7F000001000100000000000000000400"),
            MessageIdError::Port { port: 65_536 }
        );
        assert_eq!(
            parse("7F00000100002A9FFFFFFFFFFFFFFFFF"),
            MessageIdError::Position { position: -1 }
        );
    }

    #[test]
    fn unique_ids_differ_within_one_millisecond_and_tell_their_time() {
        let now = 1_700_000_000_123;
        let ids = UniqueIds::new("10.0.0.1".parse().unwrap(), 0x1_2345, 0xCAFE_F00D);
        let made: HashSet<String> = (0..65_536).map(|_| ids.next(now)).collect();
        assert_eq!(made.len(), 65_536);
        let id = made.iter().next().unwrap();
        assert_eq!(id.len(), 32);
        assert!(id.starts_with("0A0000012345CAFEF00D"), "{id}");
        assert_eq!(unique_id_time_ms(id, now), Ok(now));
        assert_eq!(unique_id_time_ms(id, now + 1), Ok(now));
        let v6 = UniqueIds::new("2001:db8::1".parse().unwrap(), 1, 2).next(now);
        assert_eq!(v6.len(), 56);
        assert_eq!(unique_id_time_ms(&v6, now), Ok(now));
    }

    #[test]
    fn unique_id_of_last_month_is_not_in_the_future() {
        let ids = UniqueIds::new("10.0.0.1".parse().unwrap(), 1, 2);
        let november_30 = 1_701_388_799_000; // 2023-11-30T23:59:59Z
        let december_1 = november_30 + 2_000;
        assert_eq!(unique_id_time_ms(&ids.next(november_30), december_1), Ok(november_30));
    }

    #[test]
    fn months_start_on_their_first_day() {
        for (time, start) in [
            (0, 0),
            (951_825_600_000, 949_363_200_000), // 2000-02-29 → 2000-02-01
            (1_709_208_000_000, 1_706_745_600_000), // 2024-02-29T12:00 → 2024-02-01
            (1_709_251_200_000, 1_709_251_200_000), // 2024-03-01 itself
            (1_704_067_199_999, 1_701_388_800_000), // 2023-12-31T23:59:59.999 → 2023-12-01
        ] {
            assert_eq!(month_start_ms(time), start, "{time}");
        }
    }
}
