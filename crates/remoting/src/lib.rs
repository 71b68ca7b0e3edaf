//! RocketMQ's remoting protocol: frames, headers, commands, and the tokio connection.
//!
//! Bytes become a frame, the frame's header a view, its fields a typed header; one file each.
//! Codecs are pure; only `server` and `client` know sockets and time.
//! What a command does is left to the broker and the name server.

pub mod client;
pub mod codes;
pub mod command;
pub mod envelope;
pub mod ext;
pub mod frame;
pub mod header;
pub mod json;
pub mod language;
mod outbound;
mod scan;
pub mod server;
pub mod writer;

pub use codes::{RequestCode, ResponseCode};
pub use envelope::{Command, EncodeError};
pub use ext::{Ext, ExtMap, ExtSink, ExtSource, Header, HeaderError};
pub use frame::{Frame, FrameError};
pub use header::{Encoding, HeaderView, ParseError, ReplyTo};
pub use language::Language;
