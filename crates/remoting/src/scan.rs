//! Finds the bytes that JSON strings treat differently, eight at a time.
//!
//! Most strings of a header are shorter than what a call of a vectorized search costs.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const TOPS: u64 = ONES << 7;

/// Position of the first quote or backslash in `bytes` from `at` on.
#[inline]
pub(crate) fn quote_or_backslash(bytes: &[u8], at: usize) -> Option<usize> {
    first(bytes.get(at..)?, quotes_and_backslashes).map(|found| at + found)
}

/// Position of the first byte of `text` that cannot stand in a JSON string as it is.
#[inline]
pub(crate) fn to_escape(text: &[u8]) -> Option<usize> {
    first(text, |word| quotes_and_backslashes(word) | controls(word))
}

/// Position of the first byte that `marks` marks by its top bit. Bytes above it in the word may be marked wrongly.
#[inline]
fn first(bytes: &[u8], marks: impl Fn(u64) -> u64) -> Option<usize> {
    let (mut at, mut rest) = (0, bytes);
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let found = marks(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        rest = after;
        at += 8;
    }
    let last = match bytes.last_chunk::<8>() {
        // Once more what was looked at before it and has no mark.
        Some(word) => {
            at = bytes.len() - 8;
            u64::from_le_bytes(*word)
        }
        // A copy of so few bytes costs a call.
        None => rest.iter().rev().fold(BLANKS, |word, byte| word << 8 | u64::from(*byte)),
    };
    let found = marks(last);
    (found != 0).then(|| at + found.trailing_zeros() as usize / 8)
}

/// What stands behind the last byte: nothing that is ever marked.
const BLANKS: u64 = ONES * b' ' as u64;

#[inline]
fn quotes_and_backslashes(word: u64) -> u64 {
    let zero_bytes = |x: u64| x.wrapping_sub(ONES) & !x & TOPS;
    zero_bytes(word ^ (ONES * u64::from(b'"'))) | zero_bytes(word ^ (ONES * u64::from(b'\\')))
}

#[inline]
fn controls(word: u64) -> u64 {
    word.wrapping_sub(BLANKS) & !word & TOPS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_byte_is_found_at_each_place_or_never() {
        for byte in 0..=u8::MAX {
            let escaped = byte < 0x20 || byte == b'"' || byte == b'\\';
            let quote = byte == b'"' || byte == b'\\';
            for len in 1..20 {
                for at in 0..len {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    assert_eq!(to_escape(&text), escaped.then_some(at), "{byte} at {at} of {len}");
                    let found = quote_or_backslash(&text, 0);
                    assert_eq!(found, quote.then_some(at), "{byte} at {at} of {len}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_first_one_is_found(text: Vec<u8>, from in 0..40_usize) {
            let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
            prop_assert_eq!(to_escape(&text), text.iter().position(special));
            let rest = text.get(from..).unwrap_or_default();
            let quote = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_backslash(&text, from), quote.map(|found| from + found));
        }
    }
}
