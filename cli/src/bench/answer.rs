//! Answers as the generator reads them: code, opaque and body, nothing else is looked at.
//! Invariant: a frame is handed out only when it is complete and its lengths fit each other.
//! Opens no socket: bytes come from any reader.

use std::io::{self, Read};

/// Longest frame accepted, as in the remoting protocol.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room for one read: some hundred send answers, or one full pull answer.
const BUFFER_BYTES: usize = 512 * 1024;

/// One answer, or a request of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub code: i32,
    pub opaque: u32,
    /// Whether bit 0 of the flag says that this answers a request.
    pub response: bool,
    pub header: &'a [u8],
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// The remark of a JSON header: why a request was refused.
    pub(crate) fn remark(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Header {
            remark: Option<String>,
        }
        serde_json::from_slice::<Header>(self.header).ok()?.remark
    }
}

/// Splits a byte stream into answers.
pub(crate) struct AnswerReader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl AnswerReader {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    /// Reads once; the next calls of [`Self::next`] hand out what is complete.
    pub(crate) fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            // Only a frame longer than the buffer comes here; `next` has checked its length.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match from.read(&mut self.buffer[self.end..])? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            )),
            bytes => {
                self.end += bytes;
                Ok(())
            }
        }
    }

    /// The next complete answer among the bytes already read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Answer<'_>>> {
        let bytes = &self.buffer[self.start..self.end];
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(4..=FRAME_BYTES_MAX).contains(&length) {
            return Err(invalid("frame length out of range"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.start += 4 + length;
        decode(&rest[..length]).map(Some)
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn decode(frame: &[u8]) -> io::Result<Answer<'_>> {
    let (word, rest) = frame.split_first_chunk::<4>().ok_or_else(|| invalid("frame too short"))?;
    let word = u32::from_be_bytes(*word);
    let header_bytes = (word & 0x00FF_FFFF) as usize;
    if header_bytes > rest.len() {
        return Err(invalid("header longer than its frame"));
    }
    let (header, body) = rest.split_at(header_bytes);
    let (code, opaque, flag) = match word >> 24 {
        0 => json_fields(header),
        1 => binary_fields(header),
        _ => None,
    }
    .ok_or_else(|| invalid("header without code, opaque and flag"))?;
    Ok(Answer { code: code as i32, opaque: opaque as u32, response: flag & 1 == 1, header, body })
}

fn json_fields(header: &[u8]) -> Option<(i64, i64, i64)> {
    // A server writes the fixed fields outside `extFields`; the last occurrence is the right one
    // for `flag` and `opaque` in every order in which servers write them, the first for `code`.
    Some((
        number_after(header, br#""code":"#)?,
        number_after(header, br#""opaque":"#)?,
        number_after(header, br#""flag":"#)?,
    ))
}

fn binary_fields(header: &[u8]) -> Option<(i64, i64, i64)> {
    let int = |at: usize| {
        let bytes = header.get(at..at + 4)?.try_into().ok()?;
        Some(i64::from(i32::from_be_bytes(bytes)))
    };
    let code = i16::from_be_bytes(header.get(..2)?.try_into().ok()?);
    Some((i64::from(code), int(5)?, int(9)?))
}

/// The number that follows `key` in `header`.
pub(crate) fn number_after(header: &[u8], key: &[u8]) -> Option<i64> {
    let at = memchr::memmem::find(header, key)? + key.len();
    let rest = &header[at..];
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
    let (negative, rest) = rest.strip_prefix(b"-").map_or((false, rest), |rest| (true, rest));
    let mut digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).peekable();
    digits.peek()?;
    let value = digits
        .try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')))?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::request::frame;

    const HEADER: &[u8] = br#"{"code":0,"extFields":{"queueOffset":"12"},"flag":1,"language":"JAVA","opaque":1000000007,"version":479}"#;

    #[test]
    fn answers_are_handed_out_when_complete_however_the_bytes_arrive() {
        let wire = [frame(HEADER, b"one"), frame(HEADER, b"")].concat();
        for piece in [1, 7, wire.len()] {
            let (mut reader, mut bodies) = (AnswerReader::new(), Vec::new());
            for mut chunk in wire.chunks(piece) {
                reader.fill(&mut chunk).unwrap();
                while let Some(answer) = reader.next().unwrap() {
                    assert_eq!(
                        (answer.code, answer.opaque, answer.response),
                        (0, 1_000_000_007, true)
                    );
                    bodies.push(answer.body.to_vec());
                }
            }
            assert_eq!(bodies, [b"one".to_vec(), b"".to_vec()]);
        }
    }

    #[test]
    fn compact_header_is_read_too() {
        let mut wire = vec![0, 0, 0, 25, 1, 0, 0, 21, 0, 17, 0, 1, 0xDF];
        wire.extend_from_slice(&7_i32.to_be_bytes());
        wire.extend_from_slice(&1_i32.to_be_bytes());
        wire.extend_from_slice(&[0; 8]);
        let mut reader = AnswerReader::new();
        reader.fill(&mut &wire[..]).unwrap();
        let answer = reader.next().unwrap().unwrap();
        assert_eq!((answer.code, answer.opaque, answer.response), (17, 7, true));
    }

    #[test]
    fn wrong_lengths_end_the_connection_instead_of_taking_memory() {
        for wire in [[0xFF, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 4, 0, 0, 0, 9]] {
            let mut reader = AnswerReader::new();
            reader.fill(&mut &wire[..]).unwrap();
            assert!(reader.next().is_err());
        }
    }

    #[test]
    fn remark_is_found_with_its_escapes_and_absent_without_one() {
        let wire = [
            frame(br#"{"code":2,"flag":1,"opaque":7,"remark":"busy: \"x\""}"#, b""),
            frame(HEADER, b""),
        ]
        .concat();
        let mut reader = AnswerReader::new();
        reader.fill(&mut &wire[..]).unwrap();
        let mut remark = || reader.next().unwrap().unwrap().remark();
        assert_eq!((remark().as_deref(), remark()), (Some(r#"busy: "x""#), None));
    }

    #[test]
    fn quoted_and_negative_numbers_are_found() {
        assert_eq!(number_after(HEADER, br#""queueOffset":"#), Some(12));
        assert_eq!(number_after(br#"{"a":-3}"#, br#""a":"#), Some(-3));
        assert_eq!(number_after(HEADER, br#""none":"#), None);
    }
}
