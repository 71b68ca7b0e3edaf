//! Send requests encoded once and patched in place, so that the generator costs less than a server.
//! Invariant: every frame of a `SendFrames` has its final length; patching changes digits, and topics for topics of the
//! same length.
//! Opens no socket and reads no clock. Layout: RocketMQ remoting, request codes 310 and 320 with a JSON header.

use std::{fmt::Write as _, ops::Range};

use gantry_record::{BatchItem, put_batch_item};

/// Added to a slot's number to make its `opaque`, so that all have ten digits.
pub(crate) const OPAQUE_BASE: u32 = 1_000_000_000;

/// Hexadecimal digits of the unique id that count messages.
const UNIQUE_DIGITS: usize = 12;
/// Decimal digits of the message key that count messages.
const KEY_DIGITS: usize = 12;
/// Decimal digits of a tag.
const TAG_DIGITS: usize = 4;
/// Bytes of the intended send time at the start of a body.
const STAMP_BYTES: usize = 8;
/// Bytes of a batch's item before its body: size, magic, checksum, flag and the body's length, of four bytes each.
const ITEM_HEAD_BYTES: usize = 20;

/// What all messages of one connection have in common.
#[derive(Debug, Clone)]
pub(crate) struct SendShape {
    /// Topics to which the requests go, in turn; their names have the same length.
    pub topics: Vec<String>,
    /// Queues of each topic, used in turn.
    pub queues: u32,
    /// Broker that the frames name.
    pub broker_name: String,
    /// Bytes of each body; the first eight carry the intended send time when there is room.
    pub body_bytes: usize,
    /// Whether each message carries `KEYS` and `UNIQ_KEY`.
    pub keys: bool,
    /// Tags used in turn; none with 0.
    pub tags: u32,
    /// Messages of one request; more than one makes it a batch.
    pub batch: u32,
    /// Tells this connection's ids apart from all others.
    pub connection: u16,
    /// Tells this run's ids apart from all others.
    pub run: u32,
}

/// The tag of number `number`, as a subscription names it.
pub(crate) fn tag(number: u32) -> String {
    format!("t{number:0TAG_DIGITS$}")
}

/// One request, with the places of its changing parts.
#[derive(Debug)]
struct Slot {
    frame: Vec<u8>,
    topic_at: Range<usize>,
    queue_at: Range<usize>,
    born_at: Range<usize>,
    messages: Vec<Places>,
}

/// Where the changing parts of a message are.
#[derive(Debug, Clone, Default)]
struct Places {
    key: Option<Range<usize>>,
    unique: Option<Range<usize>>,
    tag: Option<Range<usize>>,
    /// Of the intended send time, in bodies with room for it.
    stamp: Option<Range<usize>>,
}

impl Places {
    /// The same, so many bytes later.
    fn later(self, bytes: usize) -> Self {
        let later = |at: Range<usize>| at.start + bytes..at.end + bytes;
        Self {
            key: self.key.map(later),
            unique: self.unique.map(later),
            tag: self.tag.map(later),
            stamp: self.stamp.map(later),
        }
    }
}

/// Frames of the requests that may be in flight on one connection: slot `i` has opaque
/// [`OPAQUE_BASE`]` + i`.
#[derive(Debug)]
pub(crate) struct SendFrames {
    slots: Vec<Slot>,
    topics: Vec<String>,
    queues: u32,
    tags: u32,
    /// Requests made.
    requests: u64,
    /// Messages made.
    sequence: u64,
}

impl SendFrames {
    /// Encodes `count` frames.
    pub(crate) fn new(shape: &SendShape, count: usize) -> Self {
        Self {
            slots: (0..count).map(|slot| encode(shape, slot)).collect(),
            topics: shape.topics.clone(),
            queues: shape.queues,
            tags: shape.tags,
            requests: 0,
            sequence: 0,
        }
    }

    /// Makes slot `slot` a new request, with new ids and the given times, and returns the number of its first message on
    /// the connection.
    pub(crate) fn renew(&mut self, slot: usize, born_ms: u64, intended_ns: u64) -> u64 {
        let first = self.sequence;
        let topics = self.topics.len() as u64;
        let topic = &self.topics[(self.requests % topics) as usize];
        let queue = self.requests / topics % u64::from(self.queues);
        self.requests += 1;
        let Slot { frame, topic_at, queue_at, born_at, messages } = &mut self.slots[slot];
        frame[topic_at.clone()].copy_from_slice(topic.as_bytes());
        write_decimal(&mut frame[queue_at.clone()], queue);
        write_decimal(&mut frame[born_at.clone()], born_ms);
        for message in messages {
            let sequence = self.sequence;
            self.sequence += 1;
            if let Some(at) = &message.key {
                write_decimal(&mut frame[at.clone()], sequence);
            }
            if let Some(at) = &message.unique {
                write_hex(&mut frame[at.clone()], sequence);
            }
            if let Some(at) = &message.tag {
                write_decimal(&mut frame[at.clone()], sequence % u64::from(self.tags));
            }
            if let Some(at) = &message.stamp {
                frame[at.clone()].copy_from_slice(&intended_ns.to_be_bytes());
            }
        }
        first
    }

    /// The bytes of slot `slot`.
    pub(crate) fn frame(&self, slot: usize) -> &[u8] {
        &self.slots[slot].frame
    }
}

/// Properties of a message with `is` between name and value and `end` behind each, and the places of what changes.
fn properties(shape: &SendShape, is: &str, end: &str) -> (String, Places) {
    let SendShape { run, connection, .. } = shape;
    let mut text = String::new();
    let mut put = |name: &str, fixed: &str, digits: usize| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{name}{is}{fixed}");
        let at = text.len()..text.len() + digits;
        let _ = write!(text, "{:0digits$}{end}", 0);
        at
    };
    let mut places = Places::default();
    if shape.keys {
        places.key = Some(put("KEYS", &format!("k{run:08x}-{connection}-"), KEY_DIGITS));
        let unique = format!("{:08X}{run:08X}{connection:04X}", 0x7F00_0001_u32);
        places.unique = Some(put("UNIQ_KEY", &unique, UNIQUE_DIGITS));
    }
    if shape.tags > 0 {
        places.tag = Some(put("TAGS", "t", TAG_DIGITS));
    }
    let _ = write!(text, "WAIT{is}true{end}");
    (text, places)
}

/// The place of the intended send time in a body at `body_at`.
fn stamp(shape: &SendShape, body_at: usize) -> Option<Range<usize>> {
    (shape.body_bytes >= STAMP_BYTES).then_some(body_at..body_at + STAMP_BYTES)
}

/// One message of a batch.
fn item(shape: &SendShape) -> (Vec<u8>, Places) {
    let (properties, places) = properties(shape, "\u{1}", "\u{2}");
    let body = body(shape.body_bytes);
    let mut item = Vec::new();
    let parts = BatchItem { flag: 0, body: &body, properties: properties.as_bytes() };
    put_batch_item(&parts, &mut item).expect("a generator's properties are short");
    let places = places.later(item.len() - properties.len());
    (item, Places { stamp: stamp(shape, ITEM_HEAD_BYTES), ..places })
}

fn encode(shape: &SendShape, slot: usize) -> Slot {
    let topic = &shape.topics[0];
    let queue = format!("{:0digits$}", 0, digits = (shape.queues - 1).to_string().len());
    let (code, is_batch) = if shape.batch > 1 { (320, "true") } else { (310, "false") };
    let (own, places) = properties(shape, "\\u0001", "\\u0002");
    let properties = if shape.batch > 1 { "WAIT\\u0001true\\u0002".into() } else { own };
    let opaque = OPAQUE_BASE + slot as u32;
    let header = format!(
        concat!(
            r#"{{"code":{code},"extFields":{{"a":"gantry-bench","b":"{topic}","c":"TBW102","d":"4","#,
            r#""e":"{queue}","f":"0","g":"1700000000000","h":"0","i":"{properties}","#,
            r#""j":"0","k":"false","m":"{is_batch}","n":"{broker}"}},"flag":0,"language":"JAVA","#,
            r#""opaque":{opaque},"serializeTypeCurrentRPC":"JSON","version":479}}"#,
        ),
        code = code,
        topic = topic,
        queue = queue,
        properties = properties,
        is_batch = is_batch,
        broker = shape.broker_name,
        opaque = opaque,
    );
    let place = |after: &str, digits: usize| {
        let start = 8 + header.find(after).expect("the template has the text") + after.len();
        start..start + digits
    };
    let body_at = 8 + header.len();
    let (body, messages) = if shape.batch > 1 {
        let (item, places) = item(shape);
        let starts = (0..shape.batch as usize).map(|number| body_at + number * item.len());
        (item.repeat(shape.batch as usize), starts.map(|at| places.clone().later(at)).collect())
    } else {
        let places = places.later(place(r#""i":""#, 0).start);
        (body(shape.body_bytes), vec![Places { stamp: stamp(shape, body_at), ..places }])
    };
    Slot {
        topic_at: place(r#""b":""#, topic.len()),
        queue_at: place(r#""e":""#, queue.len()),
        born_at: place(r#""g":""#, 13),
        messages,
        frame: frame(header.as_bytes(), &body),
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
            tags: 0,
            batch: 1,
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
        assert_eq!(frames.renew(4, 1_800_000_000_125, 79), 2, "the number of the message");
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
    fn requests_use_all_topics_and_queues_in_turn() {
        let shape = SendShape { topics: vec!["a".into(), "b".into()], queues: 12, ..shape() };
        // Fewer slots than topics and queues: what is used must not depend on the slot.
        let mut frames = SendFrames::new(&shape, 1);
        let mut targets: Vec<_> = (0..24)
            .map(|_| {
                frames.renew(0, 1_800_000_000_123, 77);
                let header = header_of(frames.frame(0));
                let field = |name: &str| header["extFields"][name].as_str().unwrap().to_owned();
                (field("b"), field("e").parse::<u32>().unwrap())
            })
            .collect();
        assert_eq!(targets[..3], [("a".into(), 0), ("b".into(), 0), ("a".into(), 1)]);
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), 24);
    }

    #[test]
    fn batch_has_messages_with_numbers_and_tags_of_their_own() {
        let shape = SendShape { batch: 3, tags: 2, ..shape() };
        let mut frames = SendFrames::new(&shape, 2);
        frames.renew(0, 1_800_000_000_123, 77);
        assert_eq!(frames.renew(1, 1_800_000_000_123, 78), 3);
        let frame = frames.frame(1);
        let header = header_of(frame);
        assert_eq!((&header["code"], &header["extFields"]["m"]), (&320.into(), &"true".into()));
        let header_bytes = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        let items: Vec<_> = gantry_record::BatchItems::new(&frame[8 + header_bytes..], 9)
            .map(|item| item.unwrap())
            .collect();
        assert_eq!(items.len(), 3);
        for (at, item) in items.iter().enumerate() {
            assert_eq!((item.body.len(), &item.body[..8]), (100, &78_u64.to_be_bytes()[..]));
            let number = 3 + at;
            let expected = format!(
                "KEYS\u{1}k000000ab-3-{number:012}\u{2}UNIQ_KEY\u{1}7F000001000000AB0003{number:012X}\u{2}TAGS\u{1}{}\u{2}WAIT\u{1}true\u{2}",
                tag(number as u32 % 2),
            );
            assert_eq!(String::from_utf8_lossy(item.properties), expected);
        }
    }
}
