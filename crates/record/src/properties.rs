//! Properties of a message in their stored form: `key 0x01 value 0x02`, repeated, without escapes.
//! Invariant: `edit` and `put` write only entries that every decoder reads back, each ended by 0x02.
//! Leaves the meaning of keys to the callers and the checksum entry to `encode`.
//!
//! Decoding follows RocketMQ's `MessageDecoder`: a missing last 0x02 is accepted; an entry without 0x01,
//! with an empty key or with an empty value is skipped; the value is all that follows the first 0x01;
//! of entries with the same key the last one counts.

use gantry_model::{limits::PROPERTIES_BYTES_MAX, properties::CRC32};
use memchr::{memchr, memchr2, memrchr};

/// Ends a key.
pub const KEY_END: u8 = 1;
/// Ends a value.
pub const VALUE_END: u8 = 2;
/// Bytes of the checksum entry that ends each record: key, 0x01, ten digits, 0x02.
pub const CHECKSUM_BYTES: usize = CRC32.len() + 1 + 10 + 1;
/// Largest properties that `encode` takes: what clients may send in all, less the checksum entry.
/// A client's own string is thus limited to this less what the broker puts.
pub const PROPERTIES_UNSEALED_BYTES_MAX: usize = PROPERTIES_BYTES_MAX - CHECKSUM_BYTES;

/// Why an entry cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// The key is empty.
    #[error("a property has an empty key")]
    EmptyKey,
    /// The key or value has one of the two bytes that separate entries.
    #[error("the {part} of property {key:?} has the separator {byte:#04x} at byte {at}")]
    Separator {
        /// `key` or `value`.
        part: &'static str,
        /// Key of the property.
        key: String,
        /// The separator found.
        byte: u8,
        /// Where it was found.
        at: usize,
    },
}

/// All readable entries of `raw`, in stored order.
pub fn entries(raw: &[u8]) -> Entries<'_> {
    Entries { rest: raw }
}

/// Iterator over key and value of stored properties.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (entry, rest) = split_entry(self.rest);
            self.rest = rest;
            if let Some(pair) = split_key(entry) {
                return Some(pair);
            }
        }
        None
    }
}

/// Value of `key` in `raw`; of several the last, as decoders into a map see it.
pub fn find<'a>(raw: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut rest = raw;
    while !rest.is_empty() {
        // The byte before the entry's end is a separator only if it ends the entry before.
        let end = if rest.ends_with(&[VALUE_END]) { rest.len() - 1 } else { rest.len() };
        let start = memrchr(VALUE_END, &rest[..end]).map_or(0, |at| at + 1);
        match split_key(&rest[start..end]) {
            Some((found, value)) if found == key.as_bytes() => return Some(value),
            _ => rest = &rest[..start],
        }
    }
    None
}

/// Appends the readable entries of `raw` to `out`, without those whose key is in `drop`.
///
/// The checksum entry is always dropped: `encode` writes the one that counts. Entries that no decoder
/// reads are dropped too. Runs of kept entries are copied at once.
pub fn edit(raw: &[u8], drop: &[&str], out: &mut Vec<u8>) {
    let mut rest = raw;
    let mut run_start = 0;
    while !rest.is_empty() {
        let entry_start = raw.len() - rest.len();
        let (entry, after) = split_entry(rest);
        let kept = split_key(entry).is_some_and(|(key, _)| {
            key != CRC32.as_bytes() && !drop.iter().any(|name| name.as_bytes() == key)
        });
        rest = after;
        if !kept {
            out.extend_from_slice(&raw[run_start..entry_start]);
            run_start = raw.len() - rest.len();
        }
    }
    out.extend_from_slice(&raw[run_start..]);
    if run_start < raw.len() && !raw.ends_with(&[VALUE_END]) {
        out.push(VALUE_END);
    }
}

/// Appends one entry. An empty value writes nothing, since decoders skip such an entry.
pub fn put(out: &mut Vec<u8>, key: &str, value: &str) -> Result<(), PropertyError> {
    if key.is_empty() {
        return Err(PropertyError::EmptyKey);
    }
    check_part("key", key, key)?;
    check_part("value", key, value)?;
    if !value.is_empty() {
        put_checked(out, key, value.as_bytes());
    }
    Ok(())
}

/// Appends one entry whose value is a decimal number.
pub fn put_number(out: &mut Vec<u8>, key: &str, value: i64) -> Result<(), PropertyError> {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    if key.is_empty() {
        return Err(PropertyError::EmptyKey);
    }
    check_part("key", key, key)?;
    put_checked(out, key, &digits[at..]);
    Ok(())
}

/// Appends the checksum entry with digits of zero; `Slot::seal` fills them in.
pub(crate) fn put_checksum(out: &mut Vec<u8>) {
    put_checked(out, CRC32, &[b'0'; 10]);
}

/// Ten decimal digits of `crc`, the least significant first.
pub(crate) fn checksum_digits(crc: u32) -> [u8; 10] {
    let mut rest = crc;
    std::array::from_fn(|_| {
        let digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        digit
    })
}

/// The digits of the checksum entry at the end of `raw`, if there is one.
pub(crate) fn checksum_entry(raw: &[u8]) -> Option<&[u8; 10]> {
    let (_, entry) = raw.split_last_chunk::<CHECKSUM_BYTES>()?;
    let rest = entry.strip_prefix(CRC32.as_bytes())?.strip_prefix(&[KEY_END])?;
    rest.strip_suffix(&[VALUE_END])?.try_into().ok()
}

fn put_checked(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.reserve(key.len() + value.len() + 2);
    out.extend_from_slice(key.as_bytes());
    out.push(KEY_END);
    out.extend_from_slice(value);
    out.push(VALUE_END);
}

fn check_part(part: &'static str, key: &str, text: &str) -> Result<(), PropertyError> {
    match memchr2(KEY_END, VALUE_END, text.as_bytes()) {
        None => Ok(()),
        Some(at) => {
            let byte = text.as_bytes()[at];
            Err(PropertyError::Separator { part, key: key.to_owned(), byte, at })
        }
    }
}

/// The first entry of `raw` without its end, and what follows.
fn split_entry(raw: &[u8]) -> (&[u8], &[u8]) {
    match memchr(VALUE_END, raw) {
        Some(end) => (&raw[..end], &raw[end + 1..]),
        None => (raw, &[]),
    }
}

/// Key and value of an entry that decoders read.
fn split_key(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    // Keys are shorter than what a call of a vectorized search costs.
    let end = entry.iter().position(|byte| *byte == KEY_END)?;
    let (key, value) = (&entry[..end], &entry[end + 1..]);
    (!key.is_empty() && !value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn decoded(raw: &[u8]) -> BTreeMap<&[u8], &[u8]> {
        entries(raw).collect()
    }

    #[test]
    fn decoding_follows_the_reference_in_every_odd_case() {
        let raw = b"a\x011\x02skipped\x02b\x01\x02\x01x\x02c\x01x\x01y\x02d\x01e";
        let all: Vec<_> = entries(raw).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"c", b"x\x01y"), (b"d", b"e")];
        assert_eq!(all, expected);
        assert_eq!(find(raw, "c"), Some(&b"x\x01y"[..]));
        assert_eq!(find(raw, "d"), Some(&b"e"[..]));
        assert_eq!(find(raw, "b"), None);
        assert_eq!(find(raw, "skipped"), None);
        assert_eq!(find(raw, ""), None);
    }

    #[test]
    fn find_returns_the_last_entry_that_decoders_read() {
        assert_eq!(find(b"a\x011\x02a\x012\x02a\x01\x02", "a"), Some(&b"2"[..]));
        assert_eq!(find(b"aa\x011\x02", "a"), None);
    }

    #[test]
    fn edit_drops_given_keys_the_checksum_and_unreadable_entries() {
        let mut out = Vec::new();
        edit(b"a\x011\x02junk\x02b\x012\x02__CRC32#\x010123456789\x02c\x013", &["b"], &mut out);
        assert_eq!(out, b"a\x011\x02c\x013\x02");
        out.clear();
        edit(b"a\x011\x02b\x012", &["b"], &mut out);
        assert_eq!(out, b"a\x011\x02");
    }

    #[test]
    fn put_refuses_separators_and_writes_no_empty_value() {
        let mut out = Vec::new();
        for (key, value) in
            [("a\u{1}", "x"), ("a\u{2}", "x"), ("a", "x\u{1}"), ("a", "x\u{2}"), ("", "x")]
        {
            assert!(put(&mut out, key, value).is_err(), "{key:?} {value:?}");
        }
        put(&mut out, "a", "").unwrap();
        assert!(out.is_empty());
        put(&mut out, "a", "b").unwrap();
        put_number(&mut out, "n", i64::MIN).unwrap();
        put_number(&mut out, "z", 0).unwrap();
        assert_eq!(out, b"a\x01b\x02n\x01-9223372036854775808\x02z\x010\x02");
    }

    #[test]
    fn checksum_digits_stand_with_the_least_significant_first() {
        assert_eq!(&checksum_digits(1_234_567_890), b"0987654321");
        assert_eq!(&checksum_digits(7), b"7000000000");
        assert_eq!(&checksum_digits(u32::MAX), b"5927694924");
    }

    proptest! {
        #[test]
        fn edit_keeps_exactly_what_decoders_read_less_the_dropped(
            raw in proptest::collection::vec(prop_oneof![Just(1_u8), Just(2), b'a'..=b'c'], 0..60),
        ) {
            let mut out = Vec::new();
            edit(&raw, &["a", "bb"], &mut out);
            let mut expected = decoded(&raw);
            expected.retain(|key, _| *key != b"a" && *key != b"bb");
            prop_assert_eq!(decoded(&out), expected);
            prop_assert!(out.is_empty() || out.ends_with(&[VALUE_END]));
        }

        #[test]
        fn find_agrees_with_decoding_into_a_map(
            raw in proptest::collection::vec(prop_oneof![Just(1_u8), Just(2), b'a'..=b'b'], 0..40),
        ) {
            let map = decoded(&raw);
            for key in ["a", "b", "ab", "aa", ""] {
                prop_assert_eq!(find(&raw, key), map.get(key.as_bytes()).copied());
            }
        }
    }
}
