//! Messages as an application sees them: one to send, one received, and the queue between.
//! Invariant: what is sent has valid properties and an id of its own; a received one owns its bytes.
//! Leaves routes and retries to `producer` and `consumer`.

use std::{collections::BTreeMap, fmt, io::Read, net::SocketAddr};

use bytes::Bytes;
use gantry_model::{PhysicalOffset, QueueOffset, TopicName, properties as keys};
use gantry_record::{PropertyError, RecordView, properties, sys_flag};

/// Largest body after decompression, in bytes: 16 times the largest body that clients send, so that
/// a small message cannot take all memory.
const INFLATED_BYTES_MAX: u64 = 16 * gantry_model::limits::BODY_BYTES_MAX as u64;

/// One queue of a topic on one broker group. Ordered as all clients order queues for rebalancing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct MessageQueue {
    /// The topic.
    pub topic: String,
    /// Name of the broker group.
    pub broker_name: String,
    /// Number of the queue there.
    pub queue_id: u32,
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.broker_name, self.queue_id)
    }
}

impl From<gantry_remoting::json::MessageQueue> for MessageQueue {
    fn from(queue: gantry_remoting::json::MessageQueue) -> Self {
        // Answers name single queues; -1 stands for all of them in requests alone.
        let queue_id = queue.queue_id.max(0) as u32;
        Self { topic: queue.topic, broker_name: queue.broker_name, queue_id }
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: TopicName,
    /// The payload.
    pub body: Bytes,
    /// The application's number, never interpreted.
    pub flag: i32,
    /// Properties, reserved ones among them.
    pub properties: BTreeMap<String, String>,
}

impl Message {
    /// A message without tag and keys.
    pub fn new(topic: TopicName, body: impl Into<Bytes>) -> Self {
        Self { topic, body: body.into(), flag: 0, properties: BTreeMap::new() }
    }

    /// With a tag, by which consumers may choose.
    #[must_use]
    pub fn with_tag(self, tag: &str) -> Self {
        self.with_property(keys::TAGS, tag)
    }

    /// With keys, by which the message can be found; a key has no spaces.
    #[must_use]
    pub fn with_keys<'k>(self, keys: impl IntoIterator<Item = &'k str>) -> Self {
        let joined = keys.into_iter().collect::<Vec<_>>().join(" ");
        if joined.is_empty() { self } else { self.with_property(keys::KEYS, &joined) }
    }

    /// Delivered after the time of one of the 18 delay levels, counted from 1.
    #[must_use]
    pub fn with_delay_level(self, level: u32) -> Self {
        self.with_property(keys::DELAY, &level.to_string())
    }

    /// Delivered at a time, in milliseconds since 1970.
    #[must_use]
    pub fn with_delivery_at(self, time_ms: u64) -> Self {
        self.with_property(keys::TIMER_DELIVER_MS, &time_ms.to_string())
    }

    /// With a property of the application.
    #[must_use]
    pub fn with_property(mut self, key: &str, value: &str) -> Self {
        self.properties.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The properties as they are sent, with `unique_id` if they have none.
    pub(crate) fn encode_properties(&self, unique_id: &str) -> Result<Vec<u8>, PropertyError> {
        let mut out = Vec::with_capacity(128);
        for (key, value) in self.properties.iter().filter(|(_, value)| !value.is_empty()) {
            properties::put(&mut out, key, value)?;
        }
        for (key, value) in [(keys::UNIQ_KEY, unique_id), (keys::WAIT, "true")] {
            if !self.properties.contains_key(key) {
                properties::put(&mut out, key, value)?;
            }
        }
        Ok(out)
    }
}

/// A message that came from a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Where it was read. Of a message that is tried again it is a queue of the retry topic.
    pub queue: MessageQueue,
    /// The topic to which it was sent.
    pub topic: String,
    /// Place in the queue.
    pub offset: QueueOffset,
    /// Position in the broker's log.
    pub position: PhysicalOffset,
    /// The payload, decompressed where ZLIB compressed it.
    pub body: Bytes,
    /// How the body is still compressed.
    pub compression: Compression,
    /// The application's number.
    pub flag: i32,
    /// All properties.
    pub properties: BTreeMap<String, String>,
    /// When the producer made it, in milliseconds since 1970.
    pub born_time_ms: i64,
    /// When the broker stored it, in milliseconds since 1970.
    pub store_time_ms: u64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// The broker's address.
    pub store_host: SocketAddr,
    /// Failed attempts before this one.
    pub reconsume_times: u32,
    /// The id made from its place.
    pub offset_message_id: String,
}

/// A compression that the receiver has to undo by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None is left.
    None,
    /// LZ4, frame format.
    Lz4,
    /// ZSTD.
    Zstd,
    /// The bytes are marked as ZLIB and are not, or inflate beyond all measure.
    Broken,
}

impl ReceivedMessage {
    /// Takes over what a broker's answer holds. `broker_name` says whose answer it was.
    pub fn of_record(record: &RecordView<'_>, broker_name: &str) -> Self {
        let properties: BTreeMap<String, String> =
            record.properties().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (body, compression) = plain_body(record);
        let retried = properties.get(keys::RETRY_TOPIC);
        Self {
            queue: MessageQueue {
                topic: record.topic().to_owned(),
                broker_name: broker_name.to_owned(),
                queue_id: record.queue().0,
            },
            topic: retried.map_or(record.topic(), String::as_str).to_owned(),
            offset: record.queue_offset(),
            position: record.position(),
            body,
            compression,
            flag: record.flag(),
            born_time_ms: record.born_time_ms(),
            store_time_ms: record.store_time_ms(),
            born_host: record.born_host(),
            store_host: record.store_host(),
            reconsume_times: record.reconsume_times().max(0) as u32,
            offset_message_id: record.offset_message_id().to_string(),
            properties,
        }
    }

    /// The id that its producer gave, or that of its place.
    pub fn id(&self) -> &str {
        self.properties.get(keys::UNIQ_KEY).unwrap_or(&self.offset_message_id)
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.properties.get(keys::TAGS).map(String::as_str)
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.properties.get(keys::KEYS).map_or("", String::as_str);
        keys.split(' ').filter(|key| !key.is_empty())
    }
}

fn plain_body(record: &RecordView<'_>) -> (Bytes, Compression) {
    let stored = || Bytes::copy_from_slice(record.body());
    if record.sys_flag() & sys_flag::COMPRESSED == 0 {
        return (stored(), Compression::None);
    }
    match record.sys_flag() & sys_flag::COMPRESSION {
        sys_flag::COMPRESSION_LZ4 => (stored(), Compression::Lz4),
        sys_flag::COMPRESSION_ZSTD => (stored(), Compression::Zstd),
        _ => match inflate(record.body()) {
            Some(body) => (body.into(), Compression::None),
            None => (stored(), Compression::Broken),
        },
    }
}

fn inflate(body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut inflater = flate2::read::ZlibDecoder::new(body).take(INFLATED_BYTES_MAX + 1);
    inflater.read_to_end(&mut out).ok()?;
    (out.len() as u64 <= INFLATED_BYTES_MAX).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn record(sys_flag: i32, body: &[u8], properties: &[u8]) -> Vec<u8> {
        let host = "127.0.0.1:10911".parse().unwrap();
        let draft = gantry_record::Draft {
            topic: "%RETRY%g",
            queue: 3.into(),
            flag: 7,
            sys_flag,
            born_time_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 2,
            prepared_offset: 0,
            body,
            properties,
        };
        let mut bytes = Vec::new();
        let slot = gantry_record::encode(&draft, &mut bytes).unwrap();
        slot.seal(&mut bytes, 5.into(), 100.into(), 9);
        bytes
    }

    fn received(bytes: &[u8]) -> ReceivedMessage {
        ReceivedMessage::of_record(&RecordView::parse(bytes).unwrap(), "broker-a")
    }

    #[test]
    fn retried_message_shows_the_topic_to_which_it_was_sent() {
        let message = received(&record(
            0,
            b"x",
            b"RETRY_TOPIC\x01orders\x02UNIQ_KEY\x01U\x02KEYS\x01a b\x02",
        ));
        assert_eq!(message.topic, "orders");
        assert_eq!(message.queue.to_string(), "%RETRY%g/broker-a/3");
        assert_eq!(message.id(), "U");
        assert_eq!(message.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((message.reconsume_times, message.offset.0), (2, 5));
    }

    #[test]
    fn message_without_unique_id_is_known_by_its_place() {
        let message = received(&record(0, b"x", b""));
        assert_eq!(message.id(), "7F00000100002A9F0000000000000064");
    }

    #[test]
    fn zlib_bodies_are_inflated_and_broken_ones_kept() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(b"hello hello hello").unwrap();
        let zlib = zlib.finish().unwrap();
        let message = received(&record(sys_flag::COMPRESSED, &zlib, b""));
        assert_eq!(&message.body[..], b"hello hello hello");
        let message = received(&record(sys_flag::COMPRESSED, b"nonsense", b""));
        assert_eq!(message.compression, Compression::Broken);
        assert_eq!(&message.body[..], b"nonsense");
    }

    #[test]
    fn sent_properties_have_an_id_and_refuse_separators() {
        let message =
            Message::new(TopicName::new("t").unwrap(), "x").with_tag("a").with_keys(["k"]);
        let encoded = message.encode_properties("U1").unwrap();
        let expected = b"KEYS\x01k\x02TAGS\x01a\x02UNIQ_KEY\x01U1\x02WAIT\x01true\x02";
        assert_eq!(encoded, expected);
        assert!(message.with_property("a\x02b", "c").encode_properties("U").is_err());
    }
}
