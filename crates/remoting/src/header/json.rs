//! JSON form of the header, scanned in one pass.
//!
//! Accepts members in any order, unknown ones with any value, absent ones and `null`; field values
//! that are numbers, booleans or whole objects are taken as their text.
//! Nothing nests deeper than [`DEPTH_MAX`], so no input can exhaust the stack.

use std::borrow::Cow;

use super::{Encoding, HeaderView, ParseError};
use crate::ext::{Ext, FIELDS_MAX};
use crate::language::Language;

/// Deepest nesting accepted below a member.
const DEPTH_MAX: usize = 32;
/// Strings up to this length are scanned byte by byte: a call of `memchr` costs more than it saves.
const INLINE_SCAN_BYTES: usize = 16;
/// Longest part of a refused value that an error repeats, in characters.
const VALUE_SHOWN_MAX: usize = 32;

pub(super) fn parse(bytes: &[u8]) -> Result<HeaderView<'_>, ParseError> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| ParseError::NotUtf8 { at: e.valid_up_to() })?;
    let mut scanner = Scanner { text, at: 0 };
    let mut view = HeaderView::empty(Encoding::Json);
    scanner.members(|scanner, key| scanner.header_member(key, &mut view))?;
    scanner.skip_space();
    match text.len() - scanner.at {
        0 => Ok(view),
        bytes => Err(ParseError::TrailingBytes { bytes }),
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn header_member(&mut self, key: &str, view: &mut HeaderView<'a>) -> Result<(), ParseError> {
        match key {
            "code" => view.code = self.integer("code")?,
            "version" => view.version = self.integer("version")?,
            "opaque" => view.opaque = self.integer("opaque")?,
            "flag" => view.flag = self.integer("flag")?,
            "language" => view.language = self.language()?,
            "remark" => view.remark = self.optional_text()?,
            "extFields" => self.ext_fields(&mut view.ext)?,
            _ => self.skip_value(0)?,
        }
        Ok(())
    }

    fn ext_fields(&mut self, ext: &mut Ext<'a>) -> Result<(), ParseError> {
        if self.peek() != Some(b'{') {
            return self.literal("null", "an object or null");
        }
        self.at += 1;
        self.object_rest(|scanner| {
            let key = scanner.key()?;
            if let Some(value) = scanner.optional_text()? {
                if ext.len() == FIELDS_MAX {
                    return Err(ParseError::TooManyFields { limit: FIELDS_MAX });
                }
                ext.push(key, value);
            }
            Ok(())
        })
    }

    /// An object whose members `each` consumes, from before its brace to after its last one.
    fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, &str) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.skip_space();
        self.expect(b'{', "`{`")?;
        self.object_rest(|scanner| {
            let key = scanner.key()?;
            each(scanner, &key)
        })
    }

    /// The rest of an object after its opening brace; `member` consumes one key and value.
    fn object_rest(
        &mut self,
        mut member: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.skip_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            member(self)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "`,` or `}`")?;
        }
    }

    /// A key and its colon; afterwards the scanner stands on the value.
    fn key(&mut self) -> Result<Cow<'a, str>, ParseError> {
        let key = self.string()?;
        self.skip_space();
        self.expect(b':', "`:`")?;
        self.skip_space();
        Ok(key)
    }

    fn integer(&mut self, member: &'static str) -> Result<i32, ParseError> {
        let Some(text) = self.optional_text()? else { return Ok(0) };
        text.parse().map_err(|_| ParseError::Number {
            member,
            value: text.chars().take(VALUE_SHOWN_MAX).collect(),
        })
    }

    fn language(&mut self) -> Result<Language, ParseError> {
        Ok(match self.optional_text()? {
            None => Language::Other,
            Some(text) => match text.parse() {
                Ok(code) => Language::from_code(code),
                Err(_) => Language::from_name(&text),
            },
        })
    }

    /// A value as text: the content of a string, the source of anything else, nothing for `null`.
    fn optional_text(&mut self) -> Result<Option<Cow<'a, str>>, ParseError> {
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b'n') => self.literal("null", "a value").map(|()| None),
            _ => {
                let start = self.at;
                self.skip_value(0)?;
                Ok(Some(Cow::Borrowed(&self.text[start..self.at])))
            }
        }
    }

    /// A string, from before its opening quote to after its closing one.
    fn string(&mut self) -> Result<Cow<'a, str>, ParseError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        self.at = self.quote_or_backslash()?;
        if self.text.as_bytes()[self.at] == b'"' {
            let content = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(content));
        }
        self.escaped_string(start).map(Cow::Owned)
    }

    /// The rest of a string that began at `start` and whose first escape the scanner stands on.
    fn escaped_string(&mut self, start: usize) -> Result<String, ParseError> {
        let mut content = String::with_capacity(self.at - start + 128);
        content.push_str(&self.text[start..self.at]);
        loop {
            if self.text.as_bytes()[self.at] == b'"' {
                self.at += 1;
                return Ok(content);
            }
            content.push(self.escape()?);
            let run = self.at;
            self.at = self.quote_or_backslash()?;
            content.push_str(&self.text[run..self.at]);
        }
    }

    /// One escape sequence; a lone half of a surrogate pair becomes the replacement character.
    fn escape(&mut self) -> Result<char, ParseError> {
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

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) else {
                return self.fail("a hexadecimal digit");
            };
            value = value << 4 | digit;
            self.at += 1;
        }
        Ok(value)
    }

    /// Position of the next quote or backslash at or after the scanner.
    #[inline]
    fn quote_or_backslash(&self) -> Result<usize, ParseError> {
        let rest = &self.text.as_bytes()[self.at..];
        let near = rest.len().min(INLINE_SCAN_BYTES);
        if let Some(found) = rest[..near].iter().position(|b| matches!(b, b'"' | b'\\')) {
            return Ok(self.at + found);
        }
        match memchr::memchr2(b'"', b'\\', &rest[near..]) {
            Some(found) => Ok(self.at + near + found),
            None => Err(ParseError::Syntax { at: self.text.len(), expected: "end of the string" }),
        }
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
        if !self.skip_digits() {
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
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    #[cold]
    fn fail<T>(&self, expected: &'static str) -> Result<T, ParseError> {
        Err(ParseError::Syntax { at: self.at, expected })
    }
}
