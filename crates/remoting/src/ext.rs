//! Header fields: the string map that every header carries, and typed headers made of it.
//!
//! A value is text on the wire; a typed header is read in one pass and borrows its strings.
//! Numbers that cannot be negative are unsigned in the types, so a negative one is an error that
//! names its field. What an absent optional field means is left to the reader.

mod text;

use smallvec::SmallVec;

pub(crate) use text::Text;

/// Most fields a header may carry; a peer that sends more is broken or hostile.
pub const FIELDS_MAX: usize = 1024;

/// Fields borrowed from the bytes of a header; only text with escapes is copied.
#[derive(Debug, Clone, Default)]
pub struct Ext<'a> {
    /// The header.
    pub(crate) source: &'a str,
    /// Text that does not stand in the header as it is.
    pub(crate) copied: String,
    /// Keys and values. Kept small: a header is moved several times.
    pub(crate) fields: SmallVec<[(Text, Text); 16]>,
}

impl Ext<'_> {
    /// The value of `key`; of a repeated key the last one.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.fields.iter().rev().find(|(name, _)| self.text(*name) == key);
        found.map(|(_, value)| self.text(*value))
    }

    /// Fields in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|&(key, value)| (self.text(key), self.text(value)))
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Forgets the fields and keeps the memory.
    pub(crate) fn clear(&mut self) {
        let Self { source, copied, fields } = self;
        *source = "";
        copied.clear();
        fields.clear();
    }

    #[inline]
    fn text(&self, text: Text) -> &str {
        text.of(self.source, &self.copied)
    }
}

impl PartialEq for Ext<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Ext<'_> {}

/// Fields that own their text, for slow commands and clients. Equal when the fields are, in order.
#[derive(Debug, Clone, Default)]
pub struct ExtMap {
    /// Every key and value; one allocation for all of them.
    text: String,
    spans: Vec<Span>,
}

/// Where one field stands in the text: the key from `key` to `value`, then the value up to `end`.
#[derive(Debug, Clone, Copy)]
struct Span {
    key: usize,
    value: usize,
    end: usize,
}

impl ExtMap {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Sets `key`, replacing an earlier value.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        let earlier = self.iter().position(|(name, _)| name == key);
        let start = self.text.len();
        self.text.extend([key, value]);
        let span = Span { key: start, value: start + key.len(), end: self.text.len() };
        match earlier {
            Some(place) => self.spans[place] = span,
            None => self.spans.push(span),
        }
    }

    /// Fields in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |from, to| &self.text[from..to];
        self.spans.iter().map(move |span| (text(span.key, span.value), text(span.value, span.end)))
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.spans.len()
    }
}

impl PartialEq for ExtMap {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ExtMap {}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for ExtMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        let mut map = Self::new();
        for (key, value) in fields {
            map.insert(key, value);
        }
        map
    }
}

/// Where a typed header is read from.
pub trait ExtSource {
    /// All fields, the keys as bytes; of a repeated key the last one counts.
    fn fields(&self) -> impl Iterator<Item = (&[u8], &str)>;
}

impl ExtSource for Ext<'_> {
    fn fields(&self) -> impl Iterator<Item = (&[u8], &str)> {
        let bytes = |key: Text| key.bytes_of(self.source, &self.copied);
        self.fields.iter().map(move |&(key, value)| (bytes(key), self.text(value)))
    }
}

impl ExtSource for ExtMap {
    fn fields(&self) -> impl Iterator<Item = (&[u8], &str)> {
        self.iter().map(|(key, value)| (key.as_bytes(), value))
    }
}

/// Where a typed header is written to: a frame under construction, or an [`ExtMap`].
///
/// A key is a name of the protocol: nothing in it is ever escaped.
pub trait ExtSink {
    /// Adds one field.
    fn put(&mut self, key: &'static str, value: &str);

    /// Adds one field whose value has nothing to escape either.
    fn put_plain(&mut self, key: &'static str, value: &str);

    /// Adds one number.
    fn put_number(&mut self, key: &'static str, value: impl itoa::Integer)
    where
        Self: Sized,
    {
        self.put_plain(key, itoa::Buffer::new().format(value));
    }
}

impl ExtSink for ExtMap {
    fn put(&mut self, key: &'static str, value: &str) {
        self.insert(key, value);
    }

    fn put_plain(&mut self, key: &'static str, value: &str) {
        self.insert(key, value);
    }
}

/// Why fields do not make the header that a command needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A field that the command cannot do without is absent.
    #[error("header field {field} is missing")]
    Missing {
        /// Name of the field on the wire.
        field: &'static str,
    },
    /// A field does not hold what it should.
    #[error("header field {field} is {value:?}, expected {expected}")]
    Invalid {
        /// Name of the field on the wire.
        field: &'static str,
        /// What the peer sent, cut to a length fit for logs.
        value: String,
        /// What would have been accepted.
        expected: &'static str,
    },
}

/// Longest part of a refused value that an error repeats, in characters.
const VALUE_SHOWN_MAX: usize = 64;

impl HeaderError {
    /// An [`HeaderError::Invalid`] whose value is cut to a length fit for logs and remarks.
    pub fn invalid(field: &'static str, value: &str, expected: &'static str) -> Self {
        Self::Invalid { field, value: value.chars().take(VALUE_SHOWN_MAX).collect(), expected }
    }
}

/// A typed header: the fields of one command's request or answer.
pub trait Header<'a>: Sized {
    /// Reads the fields; unknown ones are ignored.
    fn from_ext<S: ExtSource>(ext: &'a S) -> Result<Self, HeaderError>;
    /// Writes every field that is set.
    fn to_ext<W: ExtSink>(&self, ext: &mut W);
}

/// One field of a typed header.
pub(crate) trait Field<'a>: Sized {
    fn read(field: &'static str, value: Option<&'a str>) -> Result<Self, HeaderError>;
    fn write<W: ExtSink>(&self, field: &'static str, ext: &mut W);
}

impl<'a> Field<'a> for &'a str {
    fn read(field: &'static str, value: Option<&'a str>) -> Result<Self, HeaderError> {
        value.ok_or(HeaderError::Missing { field })
    }

    fn write<W: ExtSink>(&self, field: &'static str, ext: &mut W) {
        ext.put(field, self);
    }
}

impl<'a> Field<'a> for Option<&'a str> {
    fn read(_field: &'static str, value: Option<&'a str>) -> Result<Self, HeaderError> {
        Ok(value)
    }

    fn write<W: ExtSink>(&self, field: &'static str, ext: &mut W) {
        if let Some(value) = self {
            ext.put(field, value);
        }
    }
}

/// Text of a value into a type: what `from_text` refuses becomes an error with `EXPECTED` in it.
trait Scalar: Sized + Copy {
    const EXPECTED: &'static str;
    fn from_text(text: &str) -> Option<Self>;
    fn put<W: ExtSink>(self, field: &'static str, ext: &mut W);
}

macro_rules! integer_fields {
    ($($type:ty: $expected:literal,)*) => {
        $(impl Scalar for $type {
            const EXPECTED: &'static str = $expected;
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn put<W: ExtSink>(self, field: &'static str, ext: &mut W) {
                ext.put_number(field, self);
            }
        }
        scalar_field!($type);)*
    };
}

macro_rules! scalar_field {
    ($type:ty) => {
        impl<'a> Field<'a> for $type {
            fn read(field: &'static str, value: Option<&'a str>) -> Result<Self, HeaderError> {
                let text = value.ok_or(HeaderError::Missing { field })?;
                Self::from_text(text)
                    .ok_or_else(|| HeaderError::invalid(field, text, Self::EXPECTED))
            }

            fn write<W: ExtSink>(&self, field: &'static str, ext: &mut W) {
                Scalar::put(*self, field, ext);
            }
        }

        impl<'a> Field<'a> for Option<$type> {
            /// An empty value is an absent one: the compact encoding cannot tell them apart.
            fn read(field: &'static str, value: Option<&'a str>) -> Result<Self, HeaderError> {
                match value {
                    None | Some("") => Ok(None),
                    value => <$type as Field>::read(field, value).map(Some),
                }
            }

            fn write<W: ExtSink>(&self, field: &'static str, ext: &mut W) {
                if let Some(value) = self {
                    Scalar::put(*value, field, ext);
                }
            }
        }
    };
}

integer_fields! {
    i32: "a 32-bit integer",
    i64: "a 64-bit integer",
    u32: "a 32-bit integer of at least 0",
    u64: "a 64-bit integer of at least 0",
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ if text.eq_ignore_ascii_case("true") => Some(true),
            _ if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    fn put<W: ExtSink>(self, field: &'static str, ext: &mut W) {
        ext.put_plain(field, if self { "true" } else { "false" });
    }
}
scalar_field!(bool);

/// Declares a typed header: each field with its name on the wire.
macro_rules! header {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<$life:lifetime> {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty = $key:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name<$life> { $($(#[$field_meta])* pub $field: $type,)* }

        impl<$life> $crate::ext::Header<$life> for $name<$life> {
            $crate::ext::header_body!($life, $($field: $type = $key,)*);
        }
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty = $key:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl<'a> $crate::ext::Header<'a> for $name {
            $crate::ext::header_body!('a, $($field: $type = $key,)*);
        }
    };
}

/// The two functions of [`Header`] for one list of fields.
macro_rules! header_body {
    ($life:lifetime, $($field:ident: $type:ty = $key:literal,)*) => {
        fn from_ext<S: $crate::ext::ExtSource>(
            ext: &$life S,
        ) -> Result<Self, $crate::ext::HeaderError> {
            $(let mut $field: Option<&$life str> = None;)*
            for (key, value) in ext.fields() {
                match key {
                    $(key if key == $key.as_bytes() => $field = Some(value),)*
                    _ => {}
                }
            }
            Ok(Self { $($field: <$type as $crate::ext::Field>::read($key, $field)?,)* })
        }

        fn to_ext<W: $crate::ext::ExtSink>(&self, ext: &mut W) {
            $($crate::ext::Field::write(&self.$field, $key, ext);)*
        }
    };
}

pub(crate) use {header, header_body};

#[cfg(test)]
mod tests {
    use super::*;

    header! {
        /// All kinds of fields.
        #[allow(unreachable_pub, reason = "the macro declares public types")]
        pub struct Sample<'a> {
            /// Text.
            pub name: &'a str = "n",
            /// Optional text.
            pub note: Option<&'a str> = "o",
            /// Count.
            pub count: u32 = "c",
            /// Position.
            pub position: Option<i64> = "p",
            /// Switch.
            pub on: bool = "b",
        }
    }

    fn fields(pairs: &[(&str, &str)]) -> ExtMap {
        pairs.iter().copied().collect()
    }

    #[test]
    fn header_round_trips_and_skips_absent_fields() {
        let sample = Sample { name: "x", note: None, count: 7, position: Some(-1), on: true };
        let mut map = ExtMap::new();
        sample.to_ext(&mut map);
        assert_eq!(map, fields(&[("n", "x"), ("c", "7"), ("p", "-1"), ("b", "true")]));
        assert_eq!(Sample::from_ext(&map), Ok(sample));
    }

    #[test]
    fn missing_field_is_named() {
        let map = fields(&[("n", "x"), ("b", "true")]);
        assert_eq!(Sample::from_ext(&map), Err(HeaderError::Missing { field: "c" }));
    }

    #[test]
    fn negative_or_unparsable_number_is_named_with_its_value() {
        for bad in ["-1", "seven", "4294967296", ""] {
            let map = fields(&[("n", "x"), ("b", "true"), ("c", bad)]);
            let expected = HeaderError::invalid("c", bad, "a 32-bit integer of at least 0");
            assert_eq!(Sample::from_ext(&map), Err(expected));
        }
    }

    #[test]
    fn empty_optional_number_is_absent_and_unknown_fields_are_ignored() {
        let map = fields(&[("n", ""), ("b", "False"), ("c", "1"), ("p", ""), ("zz", "top")]);
        let expected = Sample { name: "", note: None, count: 1, position: None, on: false };
        assert_eq!(Sample::from_ext(&map), Ok(expected));
    }

    #[test]
    fn long_refused_value_is_cut_in_the_error() {
        let HeaderError::Invalid { value, .. } = HeaderError::invalid("c", &"ä".repeat(500), "x")
        else {
            unreachable!()
        };
        assert_eq!(value.chars().count(), VALUE_SHOWN_MAX);
    }
}
