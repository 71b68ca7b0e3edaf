//! Command: a frame whose parts are owned, for clients, tools and commands that are not hot.
//!
//! Header without fields and without a body are written as absent, as RocketMQ's encoder does.
//! The hot commands of a server read `HeaderView` and write through `Answers` instead.

use bytes::{Bytes, BytesMut};

use crate::codes::{RequestCode, ResponseCode};
use crate::ext::{ExtMap, Header, HeaderError};
use crate::frame::{Frame, FrameError};
use crate::header::{
    Encoding, FLAG_ONE_WAY, FLAG_RESPONSE, HeaderView, ParseError, ReplyTo,
};
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
    pub fn with_ext(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
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
        let members =
            HeaderMembers { encoding, code, language, version, opaque, flag, remark };
        let mut writer = FrameWriter::begin(out, members);
        for (key, value) in self.ext.iter() {
            writer.field(key, value);
        }
        Ok(writer.finish(&self.body)?)
    }

    /// Reads the header of a frame and keeps its body.
    pub fn from_frame(frame: Frame) -> Result<Self, ParseError> {
        let encoding = Encoding::from_code(frame.encoding)?;
        Ok(Self::from_view(&HeaderView::parse(encoding, &frame.header)?, frame.body))
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
