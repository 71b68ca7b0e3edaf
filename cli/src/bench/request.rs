//! Send requests encoded once and patched in place, so that the generator costs less than a server.
//! Invariant: every frame of a `SendFrames` has its final length; patching changes digits only.
//! Opens no socket and reads no clock. Layout: RocketMQ remoting, request code 310 with a JSON header.

use std::ops::Range;

/// Added to a slot's number to make its `opaque`, so that all have ten digits.
pub(crate) const OPAQUE_BASE: u32 = 1_000_000_000;

/// Hexadecimal digits of the unique id that count messages.
const UNIQUE_DIGITS: usize = 12;
/// Decimal digits of the message key that count messages.
const KEY_DIGITS: usize = 12;

/// What all messages of one connection have in common.
#[derive(Debug, Clone)]
pub(crate) struct SendShape {
    /// Topics to which the messages go, in turn.
    pub topics: Vec<String>,
    /// Queues of each topic, used in turn.
    pub queues: u32,
    /// Broker that the frames name.
    pub broker_name: String,
    /// Bytes of each body; the first eight carry the intended send time when there is room.
    pub body_bytes: usize,
    /// Whether each message carries `KEYS` and `UNIQ_KEY`.
    pub keys: bool,
    /// Tells this connection's ids apart from all others.
    pub connection: u16,
    /// Tells this run's ids apart from all others.
    pub run: u32,
}

/// One frame, with the places of its changing parts.
#[derive(Debug)]
struct Slot {
    frame: Vec<u8>,
    born_at: Range<usize>,
    key_at: Option<Range<usize>>,
    unique_at: Option<Range<usize>>,
    body_at: usize,
}

/// Frames of the messages that may be in flight on one connection: slot `i` has opaque
/// [`OPAQUE_BASE`]` + i`.
#[derive(Debug)]
pub(crate) struct SendFrames {
    slots: Vec<Slot>,
    sequence: u64,
}

impl SendFrames {
    /// Encodes `count` frames.
    pub(crate) fn new(shape: &SendShape, count: usize) -> Self {
        Self { slots: (0..count).map(|slot| encode(shape, slot)).collect(), sequence: 0 }
    }

    /// Makes slot `slot` a new message, with new ids and the given times, and returns its number on the connection.
    pub(crate) fn renew(&mut self, slot: usize, born_ms: u64, intended_ns: u64) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        let Slot { frame, born_at, key_at, unique_at, body_at } = &mut self.slots[slot];
        write_decimal(&mut frame[born_at.clone()], born_ms);
        if let Some(at) = key_at {
            write_decimal(&mut frame[at.clone()], sequence);
        }
        if let Some(at) = unique_at {
            write_hex(&mut frame[at.clone()], sequence);
        }
        if let Some(stamp) = frame[*body_at..].first_chunk_mut::<8>() {
            *stamp = intended_ns.to_be_bytes();
        }
        sequence
    }

    /// The bytes of slot `slot`.
    pub(crate) fn frame(&self, slot: usize) -> &[u8] {
        &self.slots[slot].frame
    }
}

fn encode(shape: &SendShape, slot: usize) -> Slot {
    let topic = &shape.topics[slot % shape.topics.len()];
    let queue = (slot / shape.topics.len()) as u32 % shape.queues;
    let mut properties = String::new();
    if shape.keys {
        let SendShape { run, connection, .. } = shape;
        let unique = format!("{:08X}{run:08X}{connection:04X}", 0x7F00_0001_u32);
        let key = format!("k{run:08x}-{connection}-");
        properties = format!(
            "KEYS\\u0001{key}{:0KEY_DIGITS$}\\u0002UNIQ_KEY\\u0001{unique}{:0UNIQUE_DIGITS$X}\\u0002",
            0, 0,
        );
    }
    let opaque = OPAQUE_BASE + slot as u32;
    let header = format!(
        concat!(
            r#"{{"code":310,"extFields":{{"a":"gantry-bench","b":"{topic}","c":"TBW102","d":"4","#,
            r#""e":"{queue}","f":"0","g":"1700000000000","h":"0","i":"{properties}WAIT\u0001true\u0002","#,
            r#""j":"0","k":"false","m":"false","n":"{broker}"}},"flag":0,"language":"JAVA","#,
            r#""opaque":{opaque},"serializeTypeCurrentRPC":"JSON","version":479}}"#,
        ),
        topic = topic,
        queue = queue,
        properties = properties,
        broker = shape.broker_name,
        opaque = opaque,
    );
    let frame = frame(header.as_bytes(), &body(shape.body_bytes));
    let place = |after: &str, digits: usize| {
        let start = 8 + header.find(after).expect("the template has the text") + after.len();
        start..start + digits
    };
    let in_ids = |marker: &str, fixed: usize, digits: usize| {
        shape.keys.then(|| {
            let at = place(marker, digits);
            at.start + fixed..at.end + fixed
        })
    };
    let key_fixed = format!("k{:08x}-{}-", shape.run, shape.connection).len();
    Slot {
        born_at: place(r#""g":""#, 13),
        key_at: in_ids("KEYS\\u0001", key_fixed, KEY_DIGITS),
        unique_at: in_ids("UNIQ_KEY\\u0001", 20, UNIQUE_DIGITS),
        body_at: 8 + header.len(),
        frame,
    }
}

/// Connection and number that a unique id of `run` carries; `None` for other ids.
pub(crate) fn number_of(unique_id: &str, run: u32) -> Option<(u16, u64)> {
    let hex = |at: Range<usize>| u64::from_str_radix(unique_id.get(at)?, 16).ok();
    if unique_id.len() != 20 + UNIQUE_DIGITS || hex(8..16)? != u64::from(run) {
        return None;
    }
    Some((hex(16..20)? as u16, hex(20..20 + UNIQUE_DIGITS)?))
}

/// A body that compresses like text and not like zeros.
pub(crate) fn body(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| b'a' + ((at * 7 + at / 26) % 26) as u8).collect()
}

/// One remoting frame with a JSON header.
pub(crate) fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = 4 + header.len() + body.len();
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&(length as u32).to_be_bytes());
    // The top byte of this word is the encoding: 0 is JSON.
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header);
    frame.extend_from_slice(body);
    frame
}

fn write_decimal(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn write_hex(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value % 16) as usize];
        value /= 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> SendShape {
        SendShape {
            topics: vec!["bench".into()],
            queues: 4,
            broker_name: "broker-a".into(),
            body_bytes: 100,
            keys: true,
            connection: 3,
            run: 0xAB,
        }
    }

    fn header_of(frame: &[u8]) -> serde_json::Value {
        let length = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        serde_json::from_slice(&frame[8..8 + length]).unwrap()
    }

    #[test]
    fn renewed_frame_is_valid_json_with_new_ids_and_times() {
        let mut frames = SendFrames::new(&shape(), 6);
        frames.renew(5, 1_800_000_000_123, 77);
        frames.renew(5, 1_800_000_000_124, 78);
        let frame = frames.frame(5);
        assert_eq!(frame.len(), 4 + u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize);
        let header = header_of(frame);
        assert_eq!(header["opaque"], u64::from(OPAQUE_BASE) + 5);
        assert_eq!(header["extFields"]["e"], "1");
        assert_eq!(header["extFields"]["g"], "1800000000124");
        assert_eq!(
            header["extFields"]["i"],
            "KEYS\u{1}k000000ab-3-000000000001\u{2}UNIQ_KEY\u{1}7F000001000000AB0003000000000001\u{2}WAIT\u{1}true\u{2}"
        );
        let unique = "7F000001000000AB0003000000000001";
        assert_eq!((number_of(unique, 0xAB), number_of(unique, 0xAC)), (Some((3, 1)), None));
        let body = &frame[frame.len() - 100..];
        assert_eq!(body[..8], 78_u64.to_be_bytes());
    }

    #[test]
    fn frames_use_all_topics_and_queues_in_turn() {
        let shape = SendShape { topics: vec!["a".into(), "b".into()], queues: 2, ..shape() };
        let frames = SendFrames::new(&shape, 4);
        let targets: Vec<_> = (0..4)
            .map(|slot| {
                let header = header_of(frames.frame(slot));
                format!("{}{}", header["extFields"]["b"], header["extFields"]["e"])
            })
            .collect();
        assert_eq!(targets, [r#""a""0""#, r#""b""0""#, r#""a""1""#, r#""b""1""#]);
    }
}
