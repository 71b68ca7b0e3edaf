//! JSON form of the header, scanned in one pass.
//!
//! Accepts members in any order, unknown ones with any value, absent ones and `null`; field values
//! that are numbers, booleans or whole objects are taken as their text.
//! Nothing nests deeper than [`DEPTH_MAX`], so no input can exhaust the stack.

use std::borrow::Cow;

use super::{HeaderView, ParseError};
use crate::ext::{Ext, FIELDS_MAX, Text};
use crate::language::Language;
use crate::scan::quote_or_backslash;

/// Deepest nesting accepted below a member.
const DEPTH_MAX: usize = 32;
/// First capacity for strings with escapes: the properties of a usual message.
const COPIED_BYTES: usize = 512;
/// Longest part of a refused value that an error repeats, in characters.
const VALUE_SHOWN_MAX: usize = 32;

/// Reads into an empty `view`.
pub(super) fn read<'a>(bytes: &'a [u8], view: &mut HeaderView<'a>) -> Result<(), ParseError> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| ParseError::NotUtf8 { at: e.valid_up_to() })?;
    let mut scanner = Scanner { text, at: 0, copied: std::mem::take(&mut view.ext.copied) };
    view.ext.source = text;
    scanner.members(|scanner, key| scanner.header_member(key, view))?;
    scanner.skip_space();
    let bytes = text.len() - scanner.at;
    if bytes > 0 {
        return Err(ParseError::TrailingBytes { bytes });
    }
    view.ext.copied = scanner.copied;
    Ok(())
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Strings with escapes, as they read without them.
    copied: String,
}

impl<'a> Scanner<'a> {
    fn header_member(&mut self, key: Text, view: &mut HeaderView<'a>) -> Result<(), ParseError> {
        match key.bytes_of(self.text, &self.copied) {
            b"code" => view.code = self.integer("code")?,
            b"version" => view.version = self.integer("version")?,
            b"opaque" => view.opaque = self.integer("opaque")?,
            b"flag" => view.flag = self.integer("flag")?,
            b"language" => view.language = self.language()?,
            b"remark" => view.remark = self.remark()?,
            b"extFields" => self.ext_fields(&mut view.ext)?,
            _ => self.skip_value(0)?,
        }
        Ok(())
    }

    fn ext_fields(&mut self, ext: &mut Ext<'a>) -> Result<(), ParseError> {
        if self.peek() != Some(b'{') {
            return self.literal("null", "an object or null");
        }
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            if let Some(field) = self.any_field()? {
                if ext.len() == FIELDS_MAX {
                    return Err(ParseError::TooManyFields { limit: FIELDS_MAX });
                }
                ext.fields.push(field);
            }
            if self.take(b',') {
                continue;
            }
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "`,` or `}`")?;
        }
    }

    /// One field; nothing when its value is `null`.
    #[inline]
    fn any_field(&mut self) -> Result<Option<(Text, Text)>, ParseError> {
        let key = match self.letter_key() {
            Some(key) => key,
            None => self.key()?,
        };
        // Nearly every value is a string.
        if self.take(b'"') {
            let value = self.at;
            self.at = self.quote_or_backslash()?;
            return Ok(Some((key, self.string_rest(value)?)));
        }
        Ok(self.optional_text()?.map(|value| (key, value)))
    }

    /// `"a":"`, as in the sends of usual clients; the scanner stays where it is before any other key.
    #[inline]
    fn letter_key(&mut self) -> Option<Text> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let [b'"', b'a'..=b'z', b'"', b':', b'"', ..] = rest else { return None };
        let key = Text::in_source(self.at + 1, self.at + 2);
        self.at += 4;
        Some(key)
    }

    /// An object whose members `each` consumes, from before its brace to after its last one.
    fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, Text) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.skip_space();
        self.expect(b'{', "`{`")?;
        self.object_rest(|scanner| {
            let key = scanner.key()?;
            each(scanner, key)
        })
    }

    /// The rest of an object after its opening brace; `member` consumes one key and value, and white space before them.
    fn object_rest(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            member(self)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "`,` or `}`")?;
        }
    }

    /// White space, a key and its colon; afterwards the scanner stands on the value.
    fn key(&mut self) -> Result<Text, ParseError> {
        match self.usual_key() {
            Some(key) => Ok(key),
            None => self.any_key(),
        }
    }

    /// `"key":` without white space and escapes; the scanner stays where it is before any other key.
    #[inline]
    fn usual_key(&mut self) -> Option<Text> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let end = quote_or_backslash(bytes, start)?;
        let [b'"', b':', b'!'..=u8::MAX, ..] = bytes[end..] else { return None };
        self.at = end + 2;
        Some(Text::in_source(start, end))
    }

    /// Any other, out of the way of the usual ones.
    #[inline(never)]
    fn any_key(&mut self) -> Result<Text, ParseError> {
        self.skip_space();
        let key = self.string()?;
        self.skip_space();
        self.expect(b':', "`:`")?;
        self.skip_space();
        Ok(key)
    }

    #[inline]
    fn integer(&mut self, member: &'static str) -> Result<i32, ParseError> {
        match self.plain_integer() {
            Some(number) => Ok(number),
            None => self.any_integer(member),
        }
    }

    /// Any other, out of the way of the usual ones.
    #[inline(never)]
    fn any_integer(&mut self, member: &'static str) -> Result<i32, ParseError> {
        let Some(text) = self.optional_text()? else { return Ok(0) };
        let text = self.read(text);
        text.parse().map_err(|_| ParseError::Number {
            member,
            value: text.chars().take(VALUE_SHOWN_MAX).collect(),
        })
    }

    /// Up to nine digits that end their member; the scanner stays where it is before any other.
    #[inline]
    fn plain_integer(&mut self) -> Option<i32> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let mut number = 0;
        for (digits, byte) in rest.iter().take(10).enumerate() {
            match byte {
                b'0'..=b'9' if digits < 9 => number = number * 10 + i32::from(byte - b'0'),
                b',' | b'}' if digits == 1 || (digits > 1 && rest[0] != b'0') => {
                    self.at += digits;
                    return Some(number);
                }
                _ => return None,
            }
        }
        None
    }

    fn language(&mut self) -> Result<Language, ParseError> {
        Ok(match self.optional_text()? {
            None => Language::Other,
            Some(text) => match self.read(text) {
                name if name.starts_with(|c: char| c.is_ascii_uppercase()) => {
                    Language::from_name(name)
                }
                number => number.parse().map_or(Language::Other, Language::from_code),
            },
        })
    }

    fn remark(&mut self) -> Result<Option<Cow<'a, str>>, ParseError> {
        Ok(self.optional_text()?.map(|remark| {
            if remark.is_copied() {
                Cow::Owned(self.read(remark).to_owned())
            } else {
                Cow::Borrowed(remark.of(self.text, ""))
            }
        }))
    }

    #[inline]
    fn read(&self, text: Text) -> &str {
        text.of(self.text, &self.copied)
    }

    /// A value as text: the content of a string, the source of anything else, nothing for `null`.
    fn optional_text(&mut self) -> Result<Option<Text>, ParseError> {
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b'n') => self.literal("null", "a value").map(|()| None),
            _ => {
                let start = self.at;
                self.skip_value(0)?;
                Ok(Some(Text::in_source(start, self.at)))
            }
        }
    }

    /// A string, from before its opening quote to after its closing one.
    fn string(&mut self) -> Result<Text, ParseError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        self.at = self.quote_or_backslash()?;
        self.string_rest(start)
    }

    /// The rest of a string that began at `start` and whose first quote or backslash the scanner stands on.
    #[inline]
    fn string_rest(&mut self, start: usize) -> Result<Text, ParseError> {
        if self.text.as_bytes()[self.at] == b'"' {
            self.at += 1;
            return Ok(Text::in_source(start, self.at - 1));
        }
        self.escaped_string(start)
    }

    /// The rest of a string that began at `start` and whose first escape the scanner stands on.
    ///
    /// Never inlined, so that the strings without escapes, nearly all, do not pay for it.
    #[inline(never)]
    fn escaped_string(&mut self, start: usize) -> Result<Text, ParseError> {
        if self.copied.capacity() == 0 {
            self.copied.reserve((self.text.len() - start).min(COPIED_BYTES));
        }
        let copied_start = self.copied.len();
        self.copied.push_str(&self.text[start..self.at]);
        while self.text.as_bytes()[self.at] == b'\\' {
            let character = self.escape()?;
            self.copied.push(character);
            let run = self.at;
            self.at = self.quote_or_backslash()?;
            self.copied.push_str(&self.text[run..self.at]);
        }
        self.at += 1;
        Ok(Text::in_copied(copied_start, self.copied.len()))
    }

    /// One escape sequence; a lone half of a surrogate pair becomes the replacement character.
    fn escape(&mut self) -> Result<char, ParseError> {
        if let Some(control) = self.control_escape() {
            return Ok(control);
        }
        self.at += 1;
        let Some(kind) = self.peek() else { return self.fail("an escape") };
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => return self.unicode_escape(),
            _ => return self.fail("an escape"),
        })
    }

    /// `\u000x`, the escape of the separators between properties.
    #[inline]
    fn control_escape(&mut self) -> Option<char> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let [b'\\', b'u', b'0', b'0', b'0', digit @ b'0'..=b'9'] = *rest.first_chunk()? else {
            return None;
        };
        self.at += 6;
        Some(char::from(digit - b'0'))
    }

    fn unicode_escape(&mut self) -> Result<char, ParseError> {
        let first = self.hex4()?;
        if !(0xD800..0xDC00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let before_second = self.at;
        self.at += 2;
        let second = self.hex4()?;
        if !(0xDC00..0xE000).contains(&second) {
            self.at = before_second;
            return Ok(char::REPLACEMENT_CHARACTER);
        }
        let joined = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
        Ok(char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    #[inline]
    fn hex4(&mut self) -> Result<u32, ParseError> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = match self.peek() {
                Some(digit @ b'0'..=b'9') => digit - b'0',
                Some(letter @ (b'a'..=b'f' | b'A'..=b'F')) => (letter | 0x20) - b'a' + 10,
                _ => return self.fail("a hexadecimal digit"),
            };
            value = value << 4 | u32::from(digit);
            self.at += 1;
        }
        Ok(value)
    }

    /// Position of the next quote or backslash at or after the scanner.
    #[inline]
    fn quote_or_backslash(&self) -> Result<usize, ParseError> {
        let bytes = self.text.as_bytes();
        quote_or_backslash(bytes, self.at)
            .ok_or(ParseError::Syntax { at: bytes.len(), expected: "end of the string" })
    }

    /// Passes one value of any kind.
    fn skip_value(&mut self, depth: usize) -> Result<(), ParseError> {
        if depth > DEPTH_MAX {
            return Err(ParseError::TooDeep { at: self.at, limit: DEPTH_MAX });
        }
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => {
                self.at += 1;
                self.object_rest(|scanner| {
                    scanner.key()?;
                    scanner.skip_value(depth + 1)
                })
            }
            Some(b'[') => self.skip_array(depth),
            Some(b't') => self.literal("true", "a value"),
            Some(b'f') => self.literal("false", "a value"),
            Some(b'n') => self.literal("null", "a value"),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            _ => self.fail("a value"),
        }
    }

    fn skip_array(&mut self, depth: usize) -> Result<(), ParseError> {
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.skip_space();
            self.skip_value(depth + 1)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',', "`,` or `]`")?;
        }
    }

    fn skip_number(&mut self) -> Result<(), ParseError> {
        self.take(b'-');
        // Nothing follows a leading zero but a fraction or an exponent.
        if !self.take(b'0') && !self.skip_digits() {
            return self.fail("a digit");
        }
        if self.take(b'.') && !self.skip_digits() {
            return self.fail("a digit");
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.skip_digits() {
                return self.fail("a digit");
            }
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    fn literal(&mut self, word: &str, expected: &'static str) -> Result<(), ParseError> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        self.fail(expected)
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), ParseError> {
        if self.take(byte) { Ok(()) } else { self.fail(expected) }
    }

    #[inline]
    fn skip_space(&mut self) {
        // Compact headers have none, so one comparison is the usual case.
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek().filter(|&byte| byte <= b' ') {
            self.at += 1;
        }
    }

    #[cold]
    fn fail<T>(&self, expected: &'static str) -> Result<T, ParseError> {
        Err(ParseError::Syntax { at: self.at, expected })
    }
}
