//! Remoting frame: the outermost envelope of every command.
//!
//! ```text
//! | length u32 | encoding u8 | header length u24 | header | body |
//! ```
//!
//! Integers are big-endian. `length` counts every byte after itself.
//! Pure codec: no I/O, no async. Peers choose the lengths, so each is checked before it is used.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Accepted values of `length`, in bytes. Any other value closes the connection.
pub const FRAME_BYTES: RangeInclusive<usize> = 4..=16 * 1024 * 1024 - 4;

/// One frame, header and body still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// How `header` is encoded. `0` is JSON, `1` is the compact binary form.
    pub encoding: u8,
    /// The encoded header.
    pub header: Bytes,
    /// The body; a missing and an empty body are the same on the wire.
    pub body: Bytes,
}

/// Why bytes are no frame; the connection that brought them is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is outside the accepted range.
    #[error("frame is {size} bytes, accepted range is {FRAME_BYTES:?}")]
    Size {
        /// Announced length, in bytes.
        size: usize,
    },
    /// The header is announced longer than the frame that holds it.
    #[error("header of {header} bytes overruns its frame of {frame} bytes")]
    HeaderOverrun {
        /// Announced header length, in bytes.
        header: usize,
        /// Announced frame length, in bytes.
        frame: usize,
    },
}

impl Frame {
    /// Appends the encoded frame to `out`; on error `out` is unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        // The size check also keeps the header below its 24-bit limit.
        let size = check_size(4 + self.header.len() + self.body.len())?;
        out.reserve(4 + size);
        out.put_u32(size as u32);
        out.put_u8(self.encoding);
        out.put_uint(self.header.len() as u64, 3);
        out.put_slice(&self.header);
        out.put_slice(&self.body);
        Ok(())
    }

    /// Takes one frame off the front of `buf`, or returns `None` until enough bytes arrive.
    ///
    /// On `None` and on error `buf` is unchanged.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        Self::decode_up_to(buf, *FRAME_BYTES.end())
    }

    /// [`Self::decode`] with a smaller limit of `length`.
    pub fn decode_up_to(buf: &mut BytesMut, size_max: usize) -> Result<Option<Self>, FrameError> {
        let Some((length, rest)) = buf.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let size = check_size(u32::from_be_bytes(*length) as usize)?;
        if size > size_max {
            return Err(FrameError::Size { size });
        }
        let Some((&[encoding, a, b, c], _)) = rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let header = u32::from_be_bytes([0, a, b, c]) as usize;
        if 4 + header > size {
            return Err(FrameError::HeaderOverrun { header, frame: size });
        }
        if rest.len() < size {
            return Ok(None);
        }
        let mut frame = buf.split_to(4 + size).freeze();
        frame.advance(8);
        Ok(Some(Self { encoding, header: frame.split_to(header), body: frame }))
    }
}

/// Checks a frame length, without the length field itself, against the accepted range.
pub(crate) fn check_size(size: usize) -> Result<usize, FrameError> {
    if FRAME_BYTES.contains(&size) { Ok(size) } else { Err(FrameError::Size { size }) }
}

const _: () = assert!(*FRAME_BYTES.end() - 4 < 1 << 24);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from);
        (any::<u8>(), bytes(), bytes()).prop_map(|(encoding, header, body)| Frame {
            encoding,
            header,
            body,
        })
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire).unwrap();
        wire
    }

    proptest! {
        #[test]
        fn frame_round_trips_and_every_truncation_waits(frame in any_frame()) {
            let mut wire = encoded(&frame);
            for cut in 0..wire.len() {
                prop_assert_eq!(Frame::decode(&mut BytesMut::from(&wire[..cut])), Ok(None));
            }
            prop_assert_eq!(Frame::decode(&mut wire), Ok(Some(frame)));
            prop_assert!(wire.is_empty());
        }

        #[test]
        fn decode_of_arbitrary_bytes_never_panics(bytes: Vec<u8>) {
            let _ = Frame::decode(&mut BytesMut::from(&bytes[..]));
        }
    }

    #[test]
    fn length_outside_the_accepted_range_is_an_error_before_the_body_arrives() {
        for size in [3, FRAME_BYTES.end() + 1] {
            let mut wire = BytesMut::from(&(size as u32).to_be_bytes()[..]);
            assert_eq!(Frame::decode(&mut wire), Err(FrameError::Size { size }));
        }
    }

    #[test]
    fn header_longer_than_its_frame_is_an_error() {
        let mut wire = BytesMut::from(&[0, 0, 0, 4, 0, 0, 0, 1][..]);
        let expected = FrameError::HeaderOverrun { header: 1, frame: 4 };
        assert_eq!(Frame::decode(&mut wire), Err(expected));
    }
}
