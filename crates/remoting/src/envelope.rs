//! Command: a frame whose parts are owned, for clients, tools and commands that are not hot.
//!
//! Header without fields and without a body are written as absent, as RocketMQ's encoder does.
//! The hot commands of a server read `HeaderView` and write through `Answers` instead.

use bytes::{Bytes, BytesMut};

use crate::codes::{RequestCode, ResponseCode};
use crate::ext::{ExtMap, Header, HeaderError};
use crate::frame::{Frame, FrameError};
use crate::header::{Encoding, FLAG_ONE_WAY, FLAG_RESPONSE, HeaderView, ParseError, ReplyTo};
use crate::language::Language;
use crate::writer::{FrameWriter, HeaderMembers, VERSION};

/// One request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Header encoding.
    pub encoding: Encoding,
    /// Request or response code.
    pub code: i32,
    /// Language of the sender.
    pub language: Language,
    /// Protocol version of the sender.
    pub version: i32,
    /// Correlation id; a [`crate::client::Channel`] chooses it for its requests.
    pub opaque: i32,
    /// Flag bits.
    pub flag: i32,
    /// Error text.
    pub remark: Option<String>,
    /// The command's own fields.
    pub ext: ExtMap,
    /// The body, still encoded.
    pub body: Bytes,
}

/// Why a command could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The compact header holds 16 bits of the code.
    #[error("code {code} does not fit into a compact header")]
    CodeTooLarge {
        /// The code.
        code: i32,
    },
    /// The frame is too large.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Command {
    /// A request without fields or body, in JSON, of version 479.
    pub fn request(code: RequestCode) -> Self {
        Self {
            encoding: Encoding::Json,
            code: code.0,
            language: Language::Java,
            version: VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            ext: ExtMap::new(),
            body: Bytes::new(),
        }
    }

    /// The answer to the request that `reply` describes.
    pub fn answer(reply: ReplyTo, code: ResponseCode) -> Self {
        let request = Self::request(RequestCode(code.0));
        Self { encoding: reply.encoding, opaque: reply.opaque, flag: FLAG_RESPONSE, ..request }
    }

    /// With the fields of a typed header.
    #[must_use]
    pub fn with_header<'h>(mut self, header: &impl Header<'h>) -> Self {
        header.to_ext(&mut self.ext);
        self
    }

    /// With one more field.
    #[must_use]
    pub fn with_ext(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.ext.insert(key, value);
        self
    }

    /// With a body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With an error text.
    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// As a request that is never answered.
    #[must_use]
    pub fn one_way(mut self) -> Self {
        self.flag |= FLAG_ONE_WAY;
        self
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether this is a request that is never answered.
    pub fn is_one_way(&self) -> bool {
        self.flag & FLAG_ONE_WAY != 0
    }

    /// The code of a response.
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// The code of a request.
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    /// What an answer needs to know of this request.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo { opaque: self.opaque, encoding: self.encoding, one_way: self.is_one_way() }
    }

    /// The command's own fields, typed.
    pub fn fields<'e, H: Header<'e>>(&'e self) -> Result<H, HeaderError> {
        H::from_ext(&self.ext)
    }

    /// Appends the encoded frame to `out`; on error `out` is unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_as(self.opaque, self.flag, out)
    }

    /// [`Self::encode`] with another correlation id and other flag bits.
    pub(crate) fn encode_as(
        &self,
        opaque: i32,
        flag: i32,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let &Self { encoding, code, language, version, .. } = self;
        if encoding == Encoding::Compact && i16::try_from(code).is_err() {
            return Err(EncodeError::CodeTooLarge { code });
        }
        let remark = self.remark.as_deref();
        let members = HeaderMembers { encoding, code, language, version, opaque, flag, remark };
        let mut writer = FrameWriter::begin(out, members);
        for (key, value) in self.ext.iter() {
            writer.field(key, value);
        }
        Ok(writer.finish(&self.body)?)
    }

    /// Reads the header of a frame and keeps its body.
    pub fn from_frame(frame: Frame) -> Result<Self, ParseError> {
        let encoding = Encoding::from_code(frame.encoding)?;
        // An empty body would hold on to the memory of the frame all the same.
        let body = if frame.body.is_empty() { Bytes::new() } else { frame.body };
        Ok(Self::from_view(&HeaderView::parse(encoding, &frame.header)?, body))
    }

    /// Copies what a view borrows.
    pub fn from_view(view: &HeaderView<'_>, body: Bytes) -> Self {
        Self {
            encoding: view.encoding,
            code: view.code,
            language: view.language,
            version: view.version,
            opaque: view.opaque,
            flag: view.flag,
            remark: view.remark.as_deref().map(str::to_owned),
            ext: view.ext.iter().collect(),
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), r#"[a-z\x00-\x20"\\éß日𝄞]{0,24}"#]
    }

    fn any_command() -> impl Strategy<Value = Command> {
        let encoding = prop_oneof![Just(Encoding::Json), Just(Encoding::Compact)];
        let language = (0i64..14).prop_map(Language::from_code);
        // The compact form has no empty texts, and 16 bits of code and version.
        let text = || any_text().prop_filter("not empty", |text| !text.is_empty());
        let ext = prop::collection::vec((any_text(), text()), 0..20);
        let body = prop::collection::vec(any::<u8>(), 0..64);
        let numbers = (any::<i16>(), any::<i16>(), any::<i32>(), any::<i32>());
        (encoding, numbers, language, prop::option::of(text()), ext, body).prop_map(
            |(encoding, (code, version, opaque, flag), language, remark, ext, body)| Command {
                encoding,
                code: code.into(),
                language,
                version: version.into(),
                opaque,
                flag,
                remark,
                ext: ext.into_iter().collect(),
                body: body.into(),
            },
        )
    }

    fn encoded(command: &Command) -> BytesMut {
        let mut wire = BytesMut::new();
        command.encode(&mut wire).unwrap();
        wire
    }

    proptest! {
        #[test]
        fn command_round_trips_in_both_encodings(command in any_command()) {
            let mut wire = encoded(&command);
            let frame = Frame::decode(&mut wire).unwrap().unwrap();
            prop_assert!(wire.is_empty());
            prop_assert_eq!(Command::from_frame(frame).unwrap(), command);
        }

        #[test]
        fn every_truncated_header_is_an_error(command in any_command()) {
            let frame = Frame::decode(&mut encoded(&command)).unwrap().unwrap();
            for cut in 0..frame.header.len() {
                prop_assert!(HeaderView::parse(command.encoding, &frame.header[..cut]).is_err());
            }
        }

        #[test]
        fn json_headers_are_json(command in any_command()) {
            let command = Command { encoding: Encoding::Json, ..command };
            let frame = Frame::decode(&mut encoded(&command)).unwrap().unwrap();
            let tree: serde_json::Value = serde_json::from_slice(&frame.header).unwrap();
            prop_assert_eq!(tree["opaque"].as_i64(), Some(command.opaque.into()));
            for (key, value) in command.ext.iter() {
                prop_assert_eq!(tree["extFields"][key].as_str(), Some(value));
            }
        }
    }

    #[test]
    fn compact_frame_matches_the_reference() {
        let mut command = Command::request(RequestCode::GET_BROKER_CLUSTER_INFO)
            .with_remark("r")
            .with_ext("k", "v");
        command.encoding = Encoding::Compact;
        command.opaque = 3;
        let vector = b"\x00\x00\x00\x22\x01\x00\x00\x1e\x00\x6a\x00\x01\xdf\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01r\x00\x00\x00\x08\x00\x01k\x00\x00\x00\x01v";
        assert_eq!(&encoded(&command)[..], vector);
    }

    #[test]
    fn json_frame_matches_the_reference() {
        let mut command = Command::request(RequestCode::SEND_MESSAGE_V2).with_body("hi");
        for (key, value) in [
            ("a", "pg"),
            ("b", "T"),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "1"),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", "KEYS\u{1}k1\u{2}"),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
            ("n", "broker-a"),
        ] {
            command.ext.insert(key, value);
        }
        command.opaque = 1;
        let header = r#"{"code":310,"extFields":{"a":"pg","b":"T","c":"TBW102","d":"4","e":"1","f":"0","g":"1700000000000","h":"0","i":"KEYS\u0001k1\u0002","j":"0","k":"false","m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":479}"#;
        let wire = encoded(&command);
        assert_eq!(wire[..8], [0, 0, 1, 0x0f, 0, 0, 1, 9]);
        assert_eq!(std::str::from_utf8(&wire[8..]).unwrap(), format!("{header}hi"));
    }

    #[test]
    fn header_without_fields_matches_the_reference() {
        let mut command = Command::request(RequestCode::GET_BROKER_CLUSTER_INFO);
        command.opaque = 4;
        let header = r#"{"code":106,"flag":0,"language":"JAVA","opaque":4,"serializeTypeCurrentRPC":"JSON","version":479}"#;
        assert_eq!(std::str::from_utf8(&encoded(&command)[8..]).unwrap(), header);
    }

    #[test]
    fn code_that_the_compact_header_cannot_hold_is_an_error() {
        let mut command = Command::request(RequestCode::POP_MESSAGE);
        command.encoding = Encoding::Compact;
        let mut out = BytesMut::from("kept");
        let error = EncodeError::CodeTooLarge { code: 200_050 };
        assert_eq!(command.encode(&mut out), Err(error));
        assert_eq!(&out[..], b"kept");
    }

    #[test]
    fn frame_above_the_limit_is_an_error_and_leaves_the_buffer() {
        let command = Command::request(RequestCode(1)).with_body(vec![0; 16 << 20]);
        let mut out = BytesMut::from("kept");
        assert!(matches!(command.encode(&mut out), Err(EncodeError::Frame(_))));
        assert_eq!(&out[..], b"kept");
    }
}
