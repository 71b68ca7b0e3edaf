//! Header of a frame: one borrowed view for both encodings, read without building a tree.
//!
//! Text is borrowed from the header's bytes; only JSON strings with escapes are copied.
//! A view never outlives its bytes, and an absent number reads as 0, as in RocketMQ's own decoder.
//! What the fields of a command mean is left to `command`.

mod compact;
mod json;

use std::borrow::Cow;

use crate::codes::RequestCode;
use crate::ext::{Ext, Header, HeaderError};
use crate::language::Language;

/// Bit of `flag` that marks a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Bit of `flag` that marks a request that is never answered.
pub const FLAG_ONE_WAY: i32 = 2;

/// How the header of a frame is encoded; an answer uses the encoding of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// A JSON object.
    #[default]
    Json,
    /// The binary form that the protocol calls `ROCKETMQ`.
    Compact,
}

impl Encoding {
    /// The encoding byte of a frame.
    pub const fn code(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Compact => 1,
        }
    }

    /// The encoding of that byte.
    pub const fn from_code(code: u8) -> Result<Self, ParseError> {
        match code {
            0 => Ok(Self::Json),
            1 => Ok(Self::Compact),
            code => Err(ParseError::UnknownEncoding { code }),
        }
    }
}

/// Why the bytes of a header could not be read; the connection that brought them is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The encoding byte of the frame is neither JSON nor compact.
    #[error("header encoding {code} is not known")]
    UnknownEncoding {
        /// The byte.
        code: u8,
    },
    /// Text is not UTF-8.
    #[error("header is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset in the header, in bytes.
        at: usize,
    },
    /// JSON syntax.
    #[error("header byte {at}: expected {expected}")]
    Syntax {
        /// Offset in the header, in bytes.
        at: usize,
        /// What would have been accepted there.
        expected: &'static str,
    },
    /// Values are nested deeper than a header ever needs.
    #[error("header byte {at}: nested deeper than {limit}")]
    TooDeep {
        /// Offset in the header, in bytes.
        at: usize,
        /// Accepted depth.
        limit: usize,
    },
    /// More fields than [`crate::ext::FIELDS_MAX`].
    #[error("header has more than {limit} fields")]
    TooManyFields {
        /// Accepted number.
        limit: usize,
    },
    /// One of the header's own members is no 32-bit integer.
    #[error("header member {member} is {value:?}, expected a 32-bit integer")]
    Number {
        /// Name of the member.
        member: &'static str,
        /// What the peer sent, cut to a length fit for logs.
        value: String,
    },
    /// Bytes follow the end of the header.
    #[error("{bytes} bytes follow the header")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A length inside a compact header is negative or overruns it.
    #[error("{part} of a compact header announces {length} bytes, {held} are left")]
    Overrun {
        /// Which part.
        part: &'static str,
        /// The announced length.
        length: i64,
        /// Bytes that are left.
        held: usize,
    },
    /// A response came where a request is expected and no call waits for it.
    #[error("response with opaque {opaque} answers no call")]
    UnexpectedResponse {
        /// Correlation id of the response.
        opaque: i32,
    },
}

/// A header, borrowed from the bytes of its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Encoding that the header came in.
    pub encoding: Encoding,
    /// Request code, or response code.
    pub code: i32,
    /// Language of the peer's client.
    pub language: Language,
    /// Protocol version of the peer; the ordinal of a release.
    pub version: i32,
    /// Correlation id chosen by the requester.
    pub opaque: i32,
    /// Bits: [`FLAG_RESPONSE`], [`FLAG_ONE_WAY`].
    pub flag: i32,
    /// Error text or trace remark.
    pub remark: Option<Cow<'a, str>>,
    /// The command's own fields.
    pub ext: Ext<'a>,
}

impl<'a> HeaderView<'a> {
    /// Reads a whole header.
    pub fn parse(encoding: Encoding, bytes: &'a [u8]) -> Result<Self, ParseError> {
        match encoding {
            Encoding::Json => json::parse(bytes),
            Encoding::Compact => compact::parse(bytes),
        }
    }

    /// A header without any member; the parsers fill it.
    fn empty(encoding: Encoding) -> Self {
        Self {
            encoding,
            code: 0,
            language: Language::Java,
            version: 0,
            opaque: 0,
            flag: 0,
            remark: None,
            ext: Ext::default(),
        }
    }

    /// The code of a request.
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// Whether this request is never answered.
    pub fn is_one_way(&self) -> bool {
        self.flag & FLAG_ONE_WAY != 0
    }

    /// What an answer needs to know of this request.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo { opaque: self.opaque, encoding: self.encoding, one_way: self.is_one_way() }
    }

    /// The command's own fields, typed.
    pub fn fields<'e, H: Header<'e>>(&'e self) -> Result<H, HeaderError> {
        H::from_ext(&self.ext)
    }
}

/// What an answer needs to know of its request; small enough to keep while the answer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    /// Correlation id of the request.
    pub opaque: i32,
    /// Encoding of the request, and so of the answer.
    pub encoding: Encoding,
    /// Whether the requester wants no answer; writers then write nothing.
    pub one_way: bool,
}
