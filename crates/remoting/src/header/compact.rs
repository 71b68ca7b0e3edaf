//! Compact form of the header, which the protocol calls `ROCKETMQ`.
//!
//! ```text
//! | code i16 | language u8 | version i16 | opaque i32 | flag i32 |
//! | remark length i32 | remark | fields length i32 | (key length i16 | key | value length i32 | value)* |
//! ```
//!
//! An empty text is an absent one. Fields are copied together: the header as a whole is no text.
//! Every length is checked against the bytes that are left.

use std::borrow::Cow;

use bytes::Buf;

use super::{HeaderView, ParseError};
use crate::ext::{Ext, FIELDS_MAX, Text};
use crate::language::Language;

/// Bytes before the remark, without its length.
const FIXED_BYTES: usize = 13;

/// Reads into an empty `view`.
pub(super) fn read<'a>(bytes: &'a [u8], view: &mut HeaderView<'a>) -> Result<(), ParseError> {
    let mut rest = bytes;
    let mut fixed = take(&mut rest, FIXED_BYTES as i64, "fixed part")?;
    view.code = fixed.get_i16().into();
    view.language = Language::from_code(fixed.get_u8().into());
    view.version = fixed.get_i16().into();
    view.opaque = fixed.get_i32();
    view.flag = fixed.get_i32();
    let remark = long_text(&mut rest, bytes, "remark")?;
    view.remark = (!remark.is_empty()).then_some(Cow::Borrowed(remark));
    let length = take(&mut rest, 4, "length of the fields")?.get_i32();
    let fields = take(&mut rest, length.into(), "fields")?;
    if !rest.is_empty() {
        return Err(ParseError::TrailingBytes { bytes: rest.len() });
    }
    parse_fields(fields, bytes, &mut view.ext)
}

fn parse_fields<'a>(
    mut rest: &'a [u8],
    whole: &'a [u8],
    ext: &mut Ext<'_>,
) -> Result<(), ParseError> {
    ext.copied.reserve(rest.len());
    while !rest.is_empty() {
        let length = take(&mut rest, 2, "length of a key")?.get_i16();
        let key = text(take(&mut rest, length.into(), "key")?, whole)?;
        let value = long_text(&mut rest, whole, "value")?;
        if value.is_empty() {
            continue;
        }
        if ext.len() == FIELDS_MAX {
            return Err(ParseError::TooManyFields { limit: FIELDS_MAX });
        }
        let (key, value) = (copy(&mut ext.copied, key), copy(&mut ext.copied, value));
        ext.fields.push((key, value));
    }
    Ok(())
}

fn copy(copied: &mut String, text: &str) -> Text {
    let start = copied.len();
    copied.push_str(text);
    Text::in_copied(start, copied.len())
}

fn long_text<'a>(
    rest: &mut &'a [u8],
    whole: &'a [u8],
    part: &'static str,
) -> Result<&'a str, ParseError> {
    let length = take(rest, 4, part)?.get_i32();
    text(take(rest, length.into(), part)?, whole)
}

fn text<'a>(bytes: &'a [u8], whole: &'a [u8]) -> Result<&'a str, ParseError> {
    // `bytes` is a part of `whole`, so the difference of their addresses is its offset.
    let offset = bytes.as_ptr() as usize - whole.as_ptr() as usize;
    std::str::from_utf8(bytes).map_err(|e| ParseError::NotUtf8 { at: offset + e.valid_up_to() })
}

fn take<'a>(rest: &mut &'a [u8], length: i64, part: &'static str) -> Result<&'a [u8], ParseError> {
    let held = rest.len();
    let found = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) = found.ok_or(ParseError::Overrun { part, length, held })?;
    *rest = left;
    Ok(taken)
}
