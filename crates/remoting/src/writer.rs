//! Writes one frame straight into a buffer: header members, fields, then the body.
//!
//! The JSON members come in alphabetical order, as RocketMQ's own encoder writes them.
//! A writer that is dropped before it is finished leaves the buffer as it was.

use bytes::{BufMut, BytesMut};

use crate::codes::ResponseCode;
use crate::ext::{ExtSink, Header};
use crate::frame::{FrameError, check_size};
use crate::header::{Encoding, FLAG_RESPONSE, ReplyTo};
use crate::language::Language;
use crate::scan;

/// Protocol version that Gantry's frames carry: that of release 5.3.3.
pub const VERSION: i32 = 479;

/// Bytes of a frame before its header.
const PREFIX_BYTES: usize = 8;

/// Header members that every frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderMembers<'w> {
    /// Header encoding.
    pub encoding: Encoding,
    /// Request or response code; the compact encoding holds 16 bits of it.
    pub code: i32,
    /// Language of the sender.
    pub language: Language,
    /// Protocol version of the sender; the compact encoding holds 16 bits of it.
    pub version: i32,
    /// Correlation id.
    pub opaque: i32,
    /// Flag bits.
    pub flag: i32,
    /// Error text, written when there is one.
    pub remark: Option<&'w str>,
}

/// One frame under construction at the end of a buffer.
#[derive(Debug)]
#[must_use = "a writer that is not finished writes nothing"]
pub struct FrameWriter<'w> {
    out: &'w mut BytesMut,
    /// Where the frame begins in `out`.
    start: usize,
    members: HeaderMembers<'w>,
    /// JSON: whether `extFields` is open. Compact: always.
    ext_open: bool,
    /// Compact: where the length of the fields stands.
    ext_length_at: usize,
    finished: bool,
}

impl<'w> FrameWriter<'w> {
    /// Begins a frame.
    pub fn begin(out: &'w mut BytesMut, members: HeaderMembers<'w>) -> Self {
        let start = out.len();
        out.reserve(512);
        out.put_bytes(0, PREFIX_BYTES);
        let mut ext_length_at = 0;
        match members.encoding {
            Encoding::Json => {
                out.put_slice(b"{\"code\":");
                put_integer(out, members.code);
            }
            Encoding::Compact => {
                put_compact_members(out, &members);
                ext_length_at = out.len();
                out.put_i32(0);
            }
        }
        Self { out, start, members, ext_open: false, ext_length_at, finished: false }
    }

    /// Begins the answer to `reply`.
    pub fn answer(
        out: &'w mut BytesMut,
        reply: ReplyTo,
        code: ResponseCode,
        remark: Option<&'w str>,
    ) -> Self {
        let members = HeaderMembers {
            encoding: reply.encoding,
            code: code.0,
            language: Language::Java,
            version: VERSION,
            opaque: reply.opaque,
            flag: FLAG_RESPONSE,
            remark,
        };
        Self::begin(out, members)
    }

    /// Makes the field map present even when no field follows.
    pub fn open_ext(&mut self) {
        if self.ext_open || self.members.encoding == Encoding::Compact {
            return;
        }
        self.ext_open = true;
        self.out.put_slice(b",\"extFields\":{");
    }

    /// Adds one field, whatever its key is.
    pub fn field(&mut self, key: &str, value: &str) {
        self.put_field(key, put_json_text, value, put_json_text);
    }

    /// Adds one field, whose key and value have their own ways into a JSON string.
    fn put_field(
        &mut self,
        key: &str,
        put_key: impl FnOnce(&mut BytesMut, &str),
        value: &str,
        put_value: impl FnOnce(&mut BytesMut, &str),
    ) {
        if self.members.encoding == Encoding::Compact {
            return self.put_compact_field(key, value);
        }
        self.open_ext();
        // A value ends with a quote, so only the first field follows the brace.
        if self.out.last() != Some(&b'{') {
            self.out.put_u8(b',');
        }
        self.out.put_u8(b'"');
        put_key(self.out, key);
        self.out.put_slice(b"\":\"");
        put_value(self.out, value);
        self.out.put_u8(b'"');
    }

    fn put_compact_field(&mut self, key: &str, value: &str) {
        debug_assert!(i16::try_from(key.len()).is_ok(), "keys are names of the protocol");
        self.out.put_i16(key.len() as i16);
        self.out.put_slice(key.as_bytes());
        self.out.put_i32(value.len() as i32);
        self.out.put_slice(value.as_bytes());
    }

    /// Adds every field of a typed header.
    pub fn header<'h>(&mut self, header: &impl Header<'h>) {
        header.to_ext(self);
    }

    /// Ends the frame with a body that `body` appends; on its error nothing is written.
    pub fn finish_with<R, E: From<FrameError>>(
        mut self,
        body: impl FnOnce(&mut BytesMut) -> Result<R, E>,
    ) -> Result<R, E> {
        let header_bytes = self.end_header();
        let result = body(self.out)?;
        let size = check_size(self.out.len() - self.start - 4)?;
        self.end_frame(size, header_bytes);
        Ok(result)
    }

    fn end_frame(&mut self, size: usize, header_bytes: usize) {
        let prefix = &mut self.out[self.start..self.start + PREFIX_BYTES];
        prefix[..4].copy_from_slice(&(size as u32).to_be_bytes());
        prefix[4..].copy_from_slice(&(header_bytes as u32).to_be_bytes());
        prefix[4] = self.members.encoding.code();
        self.finished = true;
    }

    /// Ends the frame with a body that cannot fail; one above the limit is replaced by an answer
    /// with a system error, and that error is returned as well.
    pub(crate) fn finish_or_refuse(
        mut self,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<(), FrameError> {
        let header_bytes = self.end_header();
        body(self.out);
        match check_size(self.out.len() - self.start - 4) {
            Ok(size) => {
                self.end_frame(size, header_bytes);
                Ok(())
            }
            Err(error) => {
                self.out.truncate(self.start);
                self.finished = true;
                let remark = error.to_string();
                let code = ResponseCode::SYSTEM_ERROR.0;
                let members = HeaderMembers { code, remark: Some(&remark), ..self.members };
                FrameWriter::begin(self.out, members).finish(&[])?;
                Err(error)
            }
        }
    }

    /// Ends the frame.
    pub fn finish(self, body: &[u8]) -> Result<(), FrameError> {
        self.finish_with(|out| {
            out.put_slice(body);
            Ok(())
        })
    }

    fn end_header(&mut self) -> usize {
        let HeaderMembers { encoding, language, version, opaque, flag, remark, .. } = self.members;
        if encoding == Encoding::Compact {
            let length = (self.out.len() - self.ext_length_at - 4) as u32;
            self.out[self.ext_length_at..self.ext_length_at + 4]
                .copy_from_slice(&length.to_be_bytes());
            return self.out.len() - self.start - PREFIX_BYTES;
        }
        let out = &mut *self.out;
        out.put_slice(if self.ext_open { b"},\"flag\":" } else { b",\"flag\":" });
        put_integer(out, flag);
        out.put_slice(b",\"language\":\"");
        out.put_slice(language.name().as_bytes());
        out.put_slice(b"\",\"opaque\":");
        put_integer(out, opaque);
        if let Some(remark) = remark {
            out.put_slice(b",\"remark\":\"");
            put_json_text(out, remark);
            out.put_u8(b'"');
        }
        out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        put_integer(out, version);
        out.put_u8(b'}');
        out.len() - self.start - PREFIX_BYTES
    }
}

impl ExtSink for FrameWriter<'_> {
    fn put(&mut self, key: &'static str, value: &str) {
        self.put_field(key, put_plain_text, value, put_json_text);
    }

    fn put_plain(&mut self, key: &'static str, value: &str) {
        self.put_field(key, put_plain_text, value, put_plain_text);
    }
}

impl Drop for FrameWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

fn put_compact_members(out: &mut BytesMut, members: &HeaderMembers<'_>) {
    out.put_i16(members.code as i16);
    out.put_u8(members.language.code());
    out.put_i16(members.version as i16);
    out.put_i32(members.opaque);
    out.put_i32(members.flag);
    let remark = members.remark.unwrap_or_default();
    out.put_i32(remark.len() as i32);
    out.put_slice(remark.as_bytes());
}

fn put_integer(out: &mut BytesMut, value: i32) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends what stands between the quotes of a JSON string; text without anything to escape is copied in one piece.
fn put_json_text(out: &mut BytesMut, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = scan::to_escape(rest) {
        out.put_slice(&rest[..at]);
        put_escape(out, rest[at]);
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
}

/// [`put_json_text`] for what is known to have nothing to escape.
fn put_plain_text(out: &mut BytesMut, text: &str) {
    debug_assert_eq!(
        scan::to_escape(text.as_bytes()),
        None,
        "{text} is a name, a number or a word of the protocol"
    );
    out.put_slice(text.as_bytes());
}

fn put_escape(out: &mut BytesMut, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.put_slice(b"\\\""),
        b'\\' => out.put_slice(b"\\\\"),
        b'\n' => out.put_slice(b"\\n"),
        b'\r' => out.put_slice(b"\\r"),
        b'\t' => out.put_slice(b"\\t"),
        control => {
            let (high, low) = (HEX[usize::from(control >> 4)], HEX[usize::from(control & 15)]);
            out.put_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Frame};

    const REPLY: ReplyTo = ReplyTo { opaque: 7, encoding: Encoding::Json, one_way: false };

    fn header_text(wire: &mut BytesMut) -> String {
        let frame = Frame::decode(wire).unwrap().unwrap();
        String::from_utf8(frame.header.to_vec()).unwrap()
    }

    #[test]
    fn answer_to_a_send_matches_the_reference() {
        let mut out = BytesMut::new();
        let mut writer = FrameWriter::answer(&mut out, REPLY, ResponseCode::SUCCESS, None);
        for (key, value) in [
            ("queueId", "1"),
            ("transactionId", "X"),
            ("msgId", "7F00000100002A9F0000000000000000"),
            ("TRACE_ON", "true"),
            ("MSG_REGION", "DefaultRegion"),
            ("queueOffset", "0"),
        ] {
            writer.field(key, value);
        }
        writer.finish(b"").unwrap();
        let vector = r#"{"code":0,"extFields":{"queueId":"1","transactionId":"X","msgId":"7F00000100002A9F0000000000000000","TRACE_ON":"true","MSG_REGION":"DefaultRegion","queueOffset":"0"},"flag":1,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}"#;
        assert_eq!(header_text(&mut out), vector);
    }

    #[test]
    fn values_of_names_and_keys_of_peers_are_escaped() {
        let odd = "a\"b\\c\n\u{1}é𝄞\u{7f}";
        let mut out = BytesMut::new();
        let mut writer = FrameWriter::answer(&mut out, REPLY, ResponseCode::SUCCESS, Some(odd));
        writer.put("name", odd);
        writer.field(odd, odd);
        writer.put_number("number", i64::MIN);
        writer.put_plain("word", "true");
        writer.finish(b"").unwrap();
        let header: serde_json::Value = serde_json::from_str(&header_text(&mut out)).unwrap();
        let fields = serde_json::json!({"name": odd, odd: odd, "number": "-9223372036854775808", "word": "true"});
        assert_eq!((&header["extFields"], &header["remark"]), (&fields, &odd.into()));
    }

    #[test]
    fn opened_field_map_without_fields_matches_the_reference() {
        let mut out = BytesMut::new();
        let members = HeaderMembers {
            encoding: Encoding::Json,
            code: 34,
            language: Language::Java,
            version: VERSION,
            opaque: 2,
            flag: 0,
            remark: None,
        };
        let mut writer = FrameWriter::begin(&mut out, members);
        writer.open_ext();
        writer.finish(b"").unwrap();
        let vector = r#"{"code":34,"extFields":{},"flag":0,"language":"JAVA","opaque":2,"serializeTypeCurrentRPC":"JSON","version":479}"#;
        assert_eq!(header_text(&mut out), vector);
    }

    #[test]
    fn dropped_or_failed_frame_leaves_the_buffer_as_it_was() {
        for encoding in [Encoding::Json, Encoding::Compact] {
            let reply = ReplyTo { encoding, ..REPLY };
            let mut out = BytesMut::from("kept");
            let mut writer = FrameWriter::answer(&mut out, reply, ResponseCode::SUCCESS, None);
            writer.field("k", "v");
            drop(writer);
            let writer = FrameWriter::answer(&mut out, reply, ResponseCode::SUCCESS, Some("r"));
            let failed: Result<(), FrameError> = writer.finish_with(|out| {
                out.put_slice(b"half a body");
                Err(FrameError::Size { size: 1 })
            });
            assert!(failed.is_err());
            assert_eq!(&out[..], b"kept");
        }
    }

    #[test]
    fn answer_above_the_limit_is_replaced_by_a_system_error() {
        let mut out = BytesMut::from("");
        let writer = FrameWriter::answer(&mut out, REPLY, ResponseCode::SUCCESS, None);
        assert!(writer.finish_or_refuse(|out| out.put_bytes(0, 16 << 20)).is_err());
        let answer = Command::from_frame(Frame::decode(&mut out).unwrap().unwrap()).unwrap();
        assert_eq!((answer.response_code(), answer.opaque), (ResponseCode::SYSTEM_ERROR, 7));
        assert!(answer.remark.unwrap().contains("accepted range"));
    }
}
