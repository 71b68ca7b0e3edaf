//! Durations and sizes as people write them: `72h`, `500ms`, `10Gi`.
//! Invariant: what is printed is read back as the same value; a number without its unit is no duration.
//! Leaves ranges to the settings that use them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why text is no duration or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not have the form.
    #[error("{text:?} is no {kind}, expected {expected}")]
    Form {
        /// `duration` or `size`.
        kind: &'static str,
        /// The refused text.
        text: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The value does not fit.
    #[error("{text:?} is too large a {kind}, the largest is {largest}")]
    TooLarge {
        /// `duration` or `size`.
        kind: &'static str,
        /// The refused text.
        text: String,
        /// The largest value, with its unit.
        largest: &'static str,
    },
}

/// A length of time in whole milliseconds: one or more of `d`, `h`, `m`, `s`, `ms`, as in `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(u64);

/// Units of a duration with their milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Duration {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u32) -> Self {
        Self(seconds as u64 * 1_000)
    }

    /// So many hours.
    pub const fn from_hours(hours: u32) -> Self {
        Self(hours as u64 * 3_600_000)
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// As the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.as_std()
    }
}

impl fmt::Display for Duration {
    /// In the largest unit that divides it: `72h` is `3d`, 1,500 milliseconds are `1500ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, millis): &&(&str, u64)| self.0.is_multiple_of(*millis);
        match DURATION_UNITS.iter().find(fits) {
            Some((unit, millis)) if self.0 > 0 => write!(f, "{}{unit}", self.0 / millis),
            _ => f.write_str("0s"),
        }
    }
}

impl FromStr for Duration {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let form = || QuantityError::Form {
            kind: "duration",
            text: text.into(),
            expected: "a whole number with its unit (ms, s, m, h or d), such as 500ms or 72h",
        };
        let large = || QuantityError::TooLarge {
            kind: "duration",
            text: text.into(),
            largest: "18446744073709551615ms",
        };
        let mut total = 0u64;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(form());
        }
        while !rest.is_empty() {
            let (number, tail) = split_digits(rest);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let (_, millis) =
                DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
            let number = parse_digits(number).map_err(|e| e.pick(form, large))?;
            let part = number.checked_mul(*millis).ok_or_else(large)?;
            total = total.checked_add(part).ok_or_else(large)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

/// A number of bytes: `10Gi`, `512Mi`, `64Ki`, or decimal `1G`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(u64);

/// Units of a size, as Kubernetes writes them.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
    ("", 1),
];

impl Bytes {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB.
    pub const fn kib(count: u32) -> Self {
        Self((count as u64) << 10)
    }

    /// So many MiB.
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// So many GiB.
    pub const fn gib(count: u32) -> Self {
        Self((count as u64) << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    /// In the largest binary unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = &BYTE_UNITS[..4];
        match binary.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(f, "{}{unit}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let form = || QuantityError::Form {
            kind: "size",
            text: text.into(),
            expected: "a whole number of bytes, or one with Ki, Mi, Gi, Ti, k, M, G or T, such as 10Gi",
        };
        let large = || QuantityError::TooLarge {
            kind: "size",
            text: text.into(),
            largest: "18446744073709551615 bytes",
        };
        let (number, unit) = split_digits(text.trim());
        let (_, bytes) = BYTE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(form)?;
        let number = parse_digits(number).map_err(|e| e.pick(form, large))?;
        number.checked_mul(*bytes).map(Self).ok_or_else(large)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Why digits are no number: there are none, or too many.
enum DigitsError {
    Empty,
    TooLarge,
}

impl DigitsError {
    fn pick<E>(self, empty: impl Fn() -> E, large: impl Fn() -> E) -> E {
        match self {
            Self::Empty => empty(),
            Self::TooLarge => large(),
        }
    }
}

fn parse_digits(digits: &str) -> Result<u64, DigitsError> {
    if digits.is_empty() {
        return Err(DigitsError::Empty);
    }
    digits.parse().map_err(|_| DigitsError::TooLarge)
}

/// Serialised as text; a size is also read from a plain number.
struct QuantityVisitor<T>(std::marker::PhantomData<T>);

impl de::Visitor<'_> for QuantityVisitor<Duration> {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, such as 500ms or 72h")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        text.parse().map_err(E::custom)
    }
}

impl de::Visitor<'_> for QuantityVisitor<Bytes> {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 64Ki or 10Gi, or a number of bytes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
        Ok(Bytes(bytes))
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor::<Self>(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor::<Self>(std::marker::PhantomData))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_written_and_print_in_their_largest_exact_unit() {
        for (text, millis, printed) in [
            ("72h", 259_200_000, "3d"),
            ("1h30m", 5_400_000, "90m"),
            ("500ms", 500, "500ms"),
            ("1s500ms", 1_500, "1500ms"),
            ("0s", 0, "0s"),
            (" 2s ", 2_000, "2s"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.as_millis(), millis, "{text}");
            assert_eq!(duration.to_string(), printed);
            assert_eq!(printed.parse(), Ok(duration));
        }
    }

    #[test]
    fn duration_without_unit_or_number_says_what_was_expected() {
        for text in ["", "5", "h", "5x", "-5s", "5 s", "1.5h"] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains("72h"), "{error}");
        }
        let error = "18446744073709551615d".parse::<Duration>().unwrap_err();
        assert!(matches!(error, QuantityError::TooLarge { .. }));
    }

    #[test]
    fn sizes_read_as_written_and_print_in_their_largest_binary_unit() {
        for (text, bytes, printed) in [
            ("10Gi", 10 << 30, "10Gi"),
            ("1024Ki", 1 << 20, "1Mi"),
            ("1G", 1_000_000_000, "1000000000"),
            ("512", 512, "512"),
            ("0", 0, "0"),
        ] {
            let size: Bytes = text.parse().unwrap();
            assert_eq!(size.get(), bytes, "{text}");
            assert_eq!(size.to_string(), printed);
            assert_eq!(printed.parse(), Ok(size));
        }
    }

    #[test]
    fn size_that_is_none_says_what_was_expected() {
        for text in ["", "Gi", "10GB", "-1", "1.5Gi", "10 Gi"] {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.contains("10Gi"), "{error}");
        }
        for text in ["99999999999999999999", "99999999Ti"] {
            let error = text.parse::<Bytes>().unwrap_err();
            assert!(matches!(error, QuantityError::TooLarge { .. }), "{error}");
        }
    }
}
