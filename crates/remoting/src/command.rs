//! Commands: the typed fields and bodies of each family of requests and answers.
//!
//! A request's fields are read in one pass and borrow their text; a body is read by `JsonBody`.
//! Names on the wire are the protocol's, misspellings included.
//! What a command does is left to the broker and the name server.

pub mod broker;
pub mod data_version;
pub mod groups;
pub mod heartbeat;
pub mod lock;
pub mod nameserver;
pub mod offsets;
pub mod progress;
pub mod pull;
pub mod query;
pub mod register;
pub mod send;
pub mod send_back;
pub mod topics;
pub mod transaction;

#[cfg(test)]
pub(crate) mod testing {
    //! What every typed header and body promises.

    use std::fmt::Debug;

    use bytes::{Bytes, BytesMut};

    use crate::ext::{ExtMap, Header};
    use crate::json::JsonBody;
    use crate::{Command, Encoding, Frame, HeaderView, RequestCode};

    /// The header survives both encodings, and the wire cut anywhere is never taken for a frame.
    pub(crate) fn round_trips<'h, H>(header: &H, read: impl for<'e> Fn(&'e ExtMap) -> Option<bool>)
    where
        H: Header<'h> + Debug,
    {
        for encoding in [Encoding::Json, Encoding::Compact] {
            let mut command = Command::request(RequestCode(1)).with_header(header);
            command.encoding = encoding;
            let mut wire = BytesMut::new();
            command.encode(&mut wire).unwrap();
            for cut in 0..wire.len() {
                let decoded = Frame::decode(&mut BytesMut::from(&wire[..cut]));
                assert_eq!(decoded, Ok(None), "cut at {cut}");
            }
            let frame = Frame::decode(&mut wire).unwrap().unwrap();
            for cut in 0..frame.header.len() {
                assert!(HeaderView::parse(encoding, &frame.header[..cut]).is_err(), "cut at {cut}");
            }
            let decoded = Command::from_frame(frame).unwrap();
            assert_eq!(read(&decoded.ext), Some(true), "{header:?} in {encoding:?}");
        }
    }

    /// The body is written as the vector says, is read back, and no truncation of it is read.
    pub(crate) fn body_matches<B: JsonBody + PartialEq + Debug>(vector: &str) -> B {
        let body = B::from_json(vector.as_bytes()).unwrap();
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(text(body.to_legacy_json()), vector);
        assert_eq!(B::from_json(&body.to_json()).unwrap(), body, "standard form");
        for cut in 0..vector.len() {
            assert!(B::from_json(&vector.as_bytes()[..cut]).is_err(), "cut at {cut}");
        }
        body
    }

    /// Asserts [`round_trips`] for a header value of a type with or without borrowed text.
    macro_rules! assert_round_trips {
        ($header:expr, $type:ty) => {
            $crate::command::testing::round_trips(&$header, |ext| {
                use $crate::ext::Header as _;
                Some(<$type>::from_ext(ext).ok()? == $header)
            })
        };
    }
    pub(crate) use assert_round_trips;
}
