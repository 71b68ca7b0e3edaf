//! Body of a broker's registration, request code 103, plain and compressed.
//!
//! ```text
//! zlib( length i32 | data version JSON | topics i32 | (length i32 | topic text)*
//!       | length i32 | filter servers JSON | mappings i32 | (length i32 | mapping JSON)* )
//! ```
//!
//! The mappings are there from protocol version 413 on. A topic's text is
//! `name readQueues writeQueues perm filterType {attributes JSON}`, the last part from 5.0 on.
//! Inflating stops at the caller's limit; every length is checked against the bytes that are left.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::{Buf, BufMut, Bytes};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use gantry_model::{FilterType, Permission, TopicConfig, TopicName};

use crate::command::data_version::DataVersion;
use crate::command::topics::TopicTable;
use crate::json::{BodyError, JsonBody, body, to_json};

/// First protocol version whose compressed body ends with the mappings of static topics.
pub const MAPPINGS_VERSION: i32 = 413;
/// Protocol versions below this send the topic table alone.
pub const FULL_BODY_VERSION: i32 = 37;

body! {
    /// What a broker registers.
    pub struct RegisterBody: "registration" {
        /// Obsolete.
        pub filter_server_list: Vec<String>,
        /// The broker's topics.
        pub topic_config_serialize_wrapper: TopicTable,
    }
}

/// Why a registration's body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RegisterBodyError {
    /// A JSON part is not what it should be.
    #[error(transparent)]
    Json(#[from] BodyError),
    /// The compressed data is damaged.
    #[error("inflate a registration of {bytes} bytes")]
    Inflate {
        /// Size as sent.
        bytes: usize,
        /// The cause.
        source: std::io::Error,
    },
    /// The inflated data exceeds the limit.
    #[error("registration inflates to more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A length is negative or overruns the data.
    #[error("{part} of a registration announces {length}, {held} bytes are left")]
    Overrun {
        /// Which part.
        part: &'static str,
        /// The announced length or count.
        length: i64,
        /// Bytes that are left.
        held: usize,
    },
    /// A topic's text cannot be read.
    #[error("topic {text:?} of a registration: {reason}")]
    Topic {
        /// The text, cut to a length fit for logs.
        text: String,
        /// What is wrong.
        reason: String,
    },
}

impl RegisterBody {
    /// Reads a body as the fields of its request and the sender's protocol version say.
    pub fn read(
        body: &[u8],
        compressed: bool,
        version: i32,
        inflated_bytes_max: usize,
    ) -> Result<Self, RegisterBodyError> {
        if compressed {
            return read_inflated(&inflate(body, inflated_bytes_max)?, version);
        }
        if version < FULL_BODY_VERSION {
            let topic_config_serialize_wrapper = TopicTable::from_json(body)?;
            return Ok(Self { topic_config_serialize_wrapper, ..Self::default() });
        }
        Ok(Self::from_json(body)?)
    }

    /// Writes the compressed body, with mappings.
    pub fn write_compressed(&self) -> Bytes {
        let table = &self.topic_config_serialize_wrapper;
        let mut out = Vec::new();
        put_part(&mut out, &to_json(&table.data_version));
        out.put_i32(table.topic_config_table.len() as i32);
        for topic in table.topic_config_table.values() {
            put_part(&mut out, topic_text(topic).as_bytes());
        }
        put_part(&mut out, &to_json(&self.filter_server_list));
        out.put_i32(table.topic_queue_mapping_info_map.len() as i32);
        for mapping in table.topic_queue_mapping_info_map.values() {
            put_part(&mut out, &to_json(mapping));
        }
        deflate(&out)
    }
}

fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.put_i32(part.len() as i32);
    out.put_slice(part);
}

fn deflate(plain: &[u8]) -> Bytes {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("memory does not fail to be written").into()
}

fn inflate(body: &[u8], limit: usize) -> Result<Vec<u8>, RegisterBodyError> {
    let mut plain = Vec::new();
    let mut decoder = ZlibDecoder::new(body).take(limit as u64 + 1);
    decoder
        .read_to_end(&mut plain)
        .map_err(|source| RegisterBodyError::Inflate { bytes: body.len(), source })?;
    if plain.len() > limit {
        return Err(RegisterBodyError::TooLarge { limit });
    }
    Ok(plain)
}

fn read_inflated(plain: &[u8], version: i32) -> Result<RegisterBody, RegisterBodyError> {
    let mut rest = plain;
    let mut table = TopicTable {
        data_version: DataVersion::from_json(part(&mut rest, "data version")?)?,
        ..TopicTable::default()
    };
    for _ in 0..count(&mut rest, "topic count")? {
        let topic = parse_topic(part(&mut rest, "topic")?)?;
        table.topic_config_table.insert(topic.topic_name.to_string(), topic);
    }
    let filter_server_list = Names::from_json(part(&mut rest, "filter servers")?)?.0;
    if version >= MAPPINGS_VERSION && rest.has_remaining() {
        for _ in 0..count(&mut rest, "mapping count")? {
            let Mapping(mapping) = Mapping::from_json(part(&mut rest, "mapping")?)?;
            let topic = mapping.get("topic").and_then(serde_json::Value::as_str);
            let topic = topic.unwrap_or_default().to_owned();
            table.topic_queue_mapping_info_map.insert(topic, mapping);
        }
    }
    Ok(RegisterBody { filter_server_list, topic_config_serialize_wrapper: table })
}

/// A JSON list of names.
#[derive(serde::Serialize, serde::Deserialize)]
struct Names(Vec<String>);

/// The mapping of a static topic, passed through.
#[derive(serde::Serialize, serde::Deserialize)]
struct Mapping(serde_json::Value);

crate::json::json_bodies! {
    Names: "list of filter servers",
    Mapping: "queue mapping",
}

fn part<'b>(rest: &mut &'b [u8], name: &'static str) -> Result<&'b [u8], RegisterBodyError> {
    let length = number(rest, name)?;
    let held = rest.len();
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, left) =
        split.ok_or(RegisterBodyError::Overrun { part: name, length: length.into(), held })?;
    *rest = left;
    Ok(taken)
}

/// A number of parts, each of which takes four bytes at least.
fn count(rest: &mut &[u8], name: &'static str) -> Result<i32, RegisterBodyError> {
    let length = number(rest, name)?;
    let held = rest.len();
    match usize::try_from(length) {
        Ok(count) if count <= held / 4 => Ok(length),
        _ => Err(RegisterBodyError::Overrun { part: name, length: length.into(), held }),
    }
}

fn number(rest: &mut &[u8], name: &'static str) -> Result<i32, RegisterBodyError> {
    let held = rest.len();
    rest.try_get_i32().map_err(|_| RegisterBodyError::Overrun { part: name, length: 4, held })
}

fn topic_text(topic: &TopicConfig) -> String {
    let TopicConfig { topic_name, read_queues, write_queues, perm, .. } = topic;
    let filter_type = match topic.topic_filter_type {
        FilterType::SingleTag => "SINGLE_TAG",
        FilterType::MultiTag => "MULTI_TAG",
    };
    let attributes = to_json(&topic.attributes);
    let attributes = String::from_utf8_lossy(&attributes);
    format!("{topic_name} {read_queues} {write_queues} {} {filter_type} {attributes}", perm.0)
}

fn parse_topic(text: &[u8]) -> Result<TopicConfig, RegisterBodyError> {
    let text = String::from_utf8_lossy(text);
    let error = |reason: String| RegisterBodyError::Topic {
        text: text.chars().take(160).collect(),
        reason,
    };
    let mut words = text.splitn(6, ' ');
    let mut word = |name| words.next().ok_or_else(|| error(format!("{name} is missing")));
    let topic_name: TopicName = word("name")?.parse().map_err(|e| error(format!("{e}")))?;
    let number = |name, word: &str| {
        word.parse::<u32>().map_err(|e| error(format!("{name} is {word:?}: {e}")))
    };
    let read_queues = number("read queues", word("read queues")?)?;
    let write_queues = number("write queues", word("write queues")?)?;
    let perm = Permission(number("perm", word("perm")?)?);
    let topic_filter_type = match word("filter type")? {
        "MULTI_TAG" => FilterType::MultiTag,
        _ => FilterType::SingleTag,
    };
    let attributes: BTreeMap<String, String> = match words.next() {
        None | Some("" | "null") => BTreeMap::new(),
        Some(json) => serde_json::from_str(json).map_err(|e| error(format!("attributes: {e}")))?,
    };
    let config = TopicConfig::new(topic_name, read_queues).with_permission(perm);
    Ok(TopicConfig { attributes, topic_filter_type, write_queues, ..config })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::testing::body_matches;

    const PLAIN: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"T1":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T1","topicSysFlag":0,"writeQueueNums":8}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;
    const LIMIT: usize = 1 << 20;

    fn sample() -> RegisterBody {
        let topics = (0..20).map(|n| {
            let name: TopicName = format!("topic-{n}").parse().unwrap();
            let mut topic = TopicConfig::new(name, n + 1).with_permission(Permission(n % 8));
            topic.attributes.insert("message.type".to_owned(), "FIFO x".to_owned());
            (topic.topic_name.to_string(), topic)
        });
        let topic_config_serialize_wrapper = TopicTable {
            data_version: DataVersion { counter: 3, state_version: 1, timestamp: 9 },
            topic_config_table: topics.collect(),
            topic_queue_mapping_info_map: [(
                "topic-1".to_owned(),
                serde_json::json!({"topic": "topic-1", "bname": "b"}),
            )]
            .into(),
            ..TopicTable::default()
        };
        RegisterBody {
            filter_server_list: vec!["1.1.1.1:1".to_owned()],
            topic_config_serialize_wrapper,
        }
    }

    #[test]
    fn plain_body_matches_the_reference() {
        let body: RegisterBody = body_matches(PLAIN);
        let read = RegisterBody::read(PLAIN.as_bytes(), false, 479, LIMIT).unwrap();
        assert_eq!(read, body);
    }

    #[test]
    fn body_of_a_very_old_broker_is_the_topic_table_alone() {
        let table = to_json(&sample().topic_config_serialize_wrapper);
        let read = RegisterBody::read(&table, false, 36, LIMIT).unwrap();
        assert_eq!(read.topic_config_serialize_wrapper, sample().topic_config_serialize_wrapper);
    }

    #[test]
    fn repeated_data_version_may_be_a_reference() {
        let reference = r#""mappingDataVersion":{"$ref":"$.topicConfigSerializeWrapper.dataVersion"},"topicConfigTable""#;
        let version = r#"{"counter":0,"stateVersion":0,"timestamp":1700000000000}"#;
        let repeated = format!(r#""mappingDataVersion":{version},"topicConfigTable""#);
        let text = PLAIN.replace(&repeated, reference);
        assert_ne!(text, PLAIN);
        let read = RegisterBody::read(text.as_bytes(), false, 479, LIMIT).unwrap();
        assert_eq!(read, RegisterBody::from_json(PLAIN.as_bytes()).unwrap());
    }

    #[test]
    fn compressed_body_round_trips_and_every_truncation_is_an_error() {
        let body = sample().write_compressed();
        assert_eq!(RegisterBody::read(&body, true, 479, LIMIT).unwrap(), sample());
        for cut in 0..body.len() {
            assert!(RegisterBody::read(&body[..cut], true, 479, LIMIT).is_err(), "cut at {cut}");
        }
        let plain = inflate(&body, LIMIT).unwrap();
        let without_mappings = plain.len() - 4 - part_bytes(&sample());
        for cut in 0..plain.len() {
            // The mappings may be absent altogether, as they are from older brokers.
            let read = read_inflated(&plain[..cut], 479);
            assert_eq!(read.is_ok(), cut == without_mappings, "cut at {cut}");
        }
    }

    fn part_bytes(body: &RegisterBody) -> usize {
        let mappings = body.topic_config_serialize_wrapper.topic_queue_mapping_info_map.values();
        mappings.map(|mapping| 4 + to_json(mapping).len()).sum()
    }

    #[test]
    fn body_that_inflates_beyond_the_limit_is_refused() {
        let bomb = deflate(&vec![0; 8 << 20]);
        let error = RegisterBody::read(&bomb, true, 479, LIMIT).unwrap_err();
        assert!(matches!(error, RegisterBodyError::TooLarge { limit: LIMIT }), "{error}");
    }

    #[test]
    fn count_that_the_data_cannot_hold_is_refused() {
        let mut plain = Vec::new();
        put_part(&mut plain, br#"{"counter":0}"#);
        plain.put_i32(i32::MAX);
        let error = read_inflated(&plain, 479).unwrap_err().to_string();
        assert!(error.contains("topic count") && error.contains("2147483647"), "{error}");
    }

    #[test]
    fn topic_without_attributes_is_read() {
        let topic = parse_topic(b"T1 8 4 6 MULTI_TAG").unwrap();
        assert_eq!((topic.read_queues, topic.write_queues, topic.perm.0), (8, 4, 6));
        let error = parse_topic(b"T1 8 x 6 SINGLE_TAG").unwrap_err().to_string();
        assert!(error.contains("write queues") && error.contains("\"x\""), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = RegisterBody::read(&bytes, true, 479, LIMIT);
            let _ = RegisterBody::read(&bytes, false, 479, LIMIT);
            let _ = read_inflated(&bytes, 479);
        }
    }
}
