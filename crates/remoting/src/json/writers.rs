//! Forms in which JSON is written besides the usual one: RocketMQ's own, and ASCII alone.
//! Invariant: all output is compact.
//! Leaves which form a command uses to the commands.

use std::io;

use serde_json::ser::{CharEscape, Formatter};

/// Writes numeric keys without quotes, and keys that are the JSON of an object as that object.
#[derive(Default)]
pub(super) struct LegacyFormatter {
    key: KeyState,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum KeyState {
    #[default]
    NotAKey,
    /// A key has begun; its quote is held back until its kind is known.
    Begun,
    Text,
    /// A number or an object: no quotes, no escapes.
    Bare,
}

impl LegacyFormatter {
    fn begin_text<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.key = KeyState::Text;
        writer.write_all(b"\"")
    }
}

impl Formatter for LegacyFormatter {
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.key = KeyState::Begun;
        if first { Ok(()) } else { writer.write_all(b",") }
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _writer: &mut W) -> io::Result<()> {
        self.key = KeyState::NotAKey;
        Ok(())
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == KeyState::Begun { Ok(()) } else { writer.write_all(b"\"") }
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        match self.key {
            // Nothing came between the quotes, or only a number, which left the state alone.
            KeyState::Begun | KeyState::Bare => Ok(()),
            KeyState::Text | KeyState::NotAKey => writer.write_all(b"\""),
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if self.key == KeyState::Begun {
            if fragment.starts_with('{') {
                self.key = KeyState::Bare;
            } else {
                self.begin_text(writer)?;
            }
        }
        writer.write_all(fragment.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match (self.key, &escape) {
            (KeyState::Bare, CharEscape::Quote) => return writer.write_all(b"\""),
            (KeyState::Bare, CharEscape::ReverseSolidus) => return writer.write_all(b"\\"),
            (KeyState::Begun, _) => self.begin_text(writer)?,
            _ => {}
        }
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// Escapes every character outside ASCII.
pub(super) struct AsciiFormatter;

impl Formatter for AsciiFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for part in fragment.split_inclusive(|c: char| !c.is_ascii()) {
            let ascii = part.trim_end_matches(|c: char| !c.is_ascii());
            writer.write_all(ascii.as_bytes())?;
            for character in part[ascii.len()..].chars() {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04X}")?;
                }
            }
        }
        Ok(())
    }
}
