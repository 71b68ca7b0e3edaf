//! Body of a registration (RocketMQ remoting, request code 103): JSON, or a compact form that is deflated.
//!
//! ```text
//! compact: | length i32, data version JSON | topic count i32 | topics | what follows is not needed |
//! topic:   | length i32, "name readQueues writeQueues perm filterType attributes" |
//! ```
//!
//! Invariant: no more than the limit is inflated, and no count or length is trusted before its bytes are there.
//! A topic that cannot be valid is left out and counted; the others of the table are served.

use std::{borrow::Cow, collections::BTreeMap, io::Read};

use bytes::Buf;
use flate2::read::ZlibDecoder;
use gantry_model::{Permission, TopicName, limits::QUEUES_MAX};
use gantry_remoting::{
    command::{data_version::DataVersion, register::FULL_BODY_VERSION},
    json::quote_keys,
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::routes::Queues;

/// Largest permission: priority, read, write and inherit bits.
const PERMISSION_MAX: u32 = 15;

/// How a body is encoded, as the header says.
#[derive(Debug, Clone, Copy)]
pub struct BodyForm {
    /// Protocol version of the broker.
    pub version: i32,
    /// Whether the body is in the compact form.
    pub compressed: bool,
    /// Checksum of the body as it was sent; 0 for none.
    pub crc: u32,
    /// Largest size after inflating.
    pub bytes_max: u64,
}

/// The topic table, or the changed part of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RegisterBody {
    /// Its state.
    pub data_version: DataVersion,
    /// Its topics.
    pub topics: Vec<(TopicName, Queues)>,
    /// Topics left out because they cannot be valid.
    pub skipped: u64,
}

/// Why a body was refused.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Damaged on the way.
    #[error("register broker failed: the body's checksum is {actual}, the header says {expected}")]
    Checksum {
        /// Of the bytes that came.
        actual: u32,
        /// In the header.
        expected: u32,
    },
    /// Would take too much memory.
    #[error("register broker failed: the body inflates to more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: u64,
    },
    /// No deflated bytes.
    #[error("register broker failed: the body cannot be inflated: {0}")]
    Inflate(#[source] std::io::Error),
    /// A part is announced longer than the bytes that are left, or negative.
    #[error("register broker failed: {part} announces {announced}, {left} bytes are left")]
    Overrun {
        /// Which part.
        part: &'static str,
        /// The announced number.
        announced: i32,
        /// Bytes that are left.
        left: usize,
    },
    /// A part is not the JSON that it should be.
    #[error("register broker failed: {part} is not what it should be: {source}")]
    Json {
        /// Which part.
        part: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WholeBody {
    topic_config_serialize_wrapper: TopicTable,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TopicTable {
    data_version: DataVersion,
    topic_config_table: BTreeMap<String, RawTopic>,
}

/// A topic as a broker may send it: any number, checked afterwards.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTopic {
    perm: i64,
    read_queue_nums: i64,
    topic_sys_flag: i64,
    write_queue_nums: i64,
}

impl Default for RawTopic {
    /// What the reference takes for a key that is absent.
    fn default() -> Self {
        Self { perm: 6, read_queue_nums: 16, topic_sys_flag: 0, write_queue_nums: 16 }
    }
}

impl RawTopic {
    fn check(&self) -> Option<Queues> {
        let number = |value: i64, max: u32| u32::try_from(value).ok().filter(|v| *v <= max);
        Some(Queues {
            perm: Permission(number(self.perm, PERMISSION_MAX)?),
            read_queues: number(self.read_queue_nums, QUEUES_MAX)?,
            sys_flag: number(self.topic_sys_flag, u32::MAX)?,
            write_queues: number(self.write_queue_nums, QUEUES_MAX)?,
        })
    }
}

impl RegisterBody {
    /// Reads a body; an empty one has no topics.
    pub fn decode(body: &[u8], form: BodyForm) -> Result<Self, BodyError> {
        check_crc(body, form.crc)?;
        if body.is_empty() {
            return Ok(Self::default());
        }
        if form.compressed {
            return Self::from_compact(&inflate(body, form.bytes_max)?);
        }
        let table = if form.version >= FULL_BODY_VERSION {
            from_json::<WholeBody>("the body", body)?.topic_config_serialize_wrapper
        } else {
            from_json("the topic table", body)?
        };
        let mut read = Self { data_version: table.data_version, ..Self::default() };
        for (name, topic) in table.topic_config_table {
            read.add(&name, topic.check());
        }
        Ok(read)
    }

    fn from_compact(mut rest: &[u8]) -> Result<Self, BodyError> {
        let version = take_block(&mut rest, "the data version")?;
        let data_version = from_json("the data version", version)?;
        let mut read = Self { data_version, ..Self::default() };
        let count = take_number(&mut rest, "the topic count")?;
        for _ in 0..count {
            let text = take_block(&mut rest, "a topic")?;
            let text = String::from_utf8_lossy(text);
            let mut parts = text.split(' ');
            let name = parts.next().unwrap_or_default();
            let mut number = || parts.next()?.parse::<i64>().ok();
            let topic = (|| {
                let (read_queue_nums, write_queue_nums) = (number()?, number()?);
                let perm = number()?;
                RawTopic { perm, read_queue_nums, topic_sys_flag: 0, write_queue_nums }.check()
            })();
            read.add(name, topic);
        }
        Ok(read)
    }

    fn add(&mut self, name: &str, queues: Option<Queues>) {
        match (TopicName::new(name), queues) {
            (Ok(name), Some(queues)) => self.topics.push((name, queues)),
            (name, _) => {
                let shown: String = name.map_or_else(|e| e.to_string(), |name| name.to_string());
                tracing::debug!(topic = shown, "left out of a registration: not valid");
                self.skipped += 1;
            }
        }
    }
}

fn check_crc(body: &[u8], expected: u32) -> Result<(), BodyError> {
    let actual = crc32fast::hash(body) & 0x7FFF_FFFF;
    if expected == 0 || actual == expected {
        return Ok(());
    }
    Err(BodyError::Checksum { actual, expected })
}

fn inflate(body: &[u8], bytes_max: u64) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    let mut limited = ZlibDecoder::new(body).take(bytes_max + 1);
    limited.read_to_end(&mut out).map_err(BodyError::Inflate)?;
    if out.len() as u64 > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    Ok(out)
}

fn take_number(rest: &mut &[u8], part: &'static str) -> Result<u32, BodyError> {
    let overrun = |announced, left| BodyError::Overrun { part, announced, left };
    let announced = rest.try_get_i32().map_err(|_| overrun(4, rest.len()))?;
    u32::try_from(announced).map_err(|_| overrun(announced, rest.len()))
}

fn take_block<'b>(rest: &mut &'b [u8], part: &'static str) -> Result<&'b [u8], BodyError> {
    let length = take_number(rest, part)?;
    let Some((block, after)) = rest.split_at_checked(length as usize) else {
        return Err(BodyError::Overrun { part, announced: length as i32, left: rest.len() });
    };
    *rest = after;
    Ok(block)
}

/// Reads JSON; the reference leaves number keys without quotes where a table has static topics.
fn from_json<T: DeserializeOwned>(part: &'static str, body: &[u8]) -> Result<T, BodyError> {
    serde_json::from_slice(body).or_else(|source| {
        let quoted: Option<Cow<'_, [u8]>> = quote_keys(body);
        let again = quoted.and_then(|quoted| serde_json::from_slice(&quoted).ok());
        again.ok_or(BodyError::Json { part, source })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    const FORM: BodyForm = BodyForm { version: 479, compressed: false, crc: 0, bytes_max: 1 << 20 };
    const COMPACT: BodyForm = BodyForm { compressed: true, ..FORM };
    /// As the reference serializer wrote it.
    const VECTOR: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"T1":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T1","topicSysFlag":0,"writeQueueNums":8}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;

    fn expected() -> RegisterBody {
        let queues =
            Queues { perm: Permission::READ_WRITE, read_queues: 8, sys_flag: 0, write_queues: 8 };
        RegisterBody {
            data_version: DataVersion { timestamp: 1_700_000_000_000, ..DataVersion::default() },
            topics: vec![(TopicName::new("T1").unwrap(), queues)],
            skipped: 0,
        }
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn block(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as i32).to_be_bytes());
        out.extend(text.as_bytes());
    }

    fn compact(topics: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        block(&mut out, r#"{"counter":0,"stateVersion":0,"timestamp":1700000000000}"#);
        out.extend((topics.len() as i32).to_be_bytes());
        for topic in topics {
            block(&mut out, topic);
        }
        block(&mut out, "[]");
        out.extend(0i32.to_be_bytes());
        out
    }

    #[test]
    fn all_forms_of_one_table_read_alike() {
        assert_eq!(RegisterBody::decode(VECTOR.as_bytes(), FORM).unwrap(), expected());
        let table = &VECTOR[VECTOR.find(r#"{"dataVersion""#).unwrap()..VECTOR.len() - 1];
        let old = BodyForm { version: 36, ..FORM };
        assert_eq!(RegisterBody::decode(table.as_bytes(), old).unwrap(), expected());
        for topic in ["T1 8 8 6 SINGLE_TAG {}", "T1 8 8 6 SINGLE_TAG"] {
            let body = deflated(&compact(&[topic]));
            assert_eq!(RegisterBody::decode(&body, COMPACT).unwrap(), expected());
        }
        assert_eq!(RegisterBody::decode(b"", FORM).unwrap(), RegisterBody::default());
    }

    #[test]
    fn unquoted_numbers_and_references_are_tolerated() {
        let body = VECTOR
            .replace(
                r#""mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000}"#,
                r#""mappingDataVersion":{"$ref":"$.topicConfigSerializeWrapper.dataVersion"}"#,
            )
            .replace(
                r#""topicQueueMappingInfoMap":{}"#,
                r#""topicQueueMappingInfoMap":{"T1":{"currIdMap":{0:1}}}"#,
            );
        assert_eq!(RegisterBody::decode(body.as_bytes(), FORM).unwrap(), expected());
    }

    #[test]
    fn wrong_checksum_is_refused_and_the_right_one_accepted() {
        let crc = crc32fast::hash(VECTOR.as_bytes()) & 0x7FFF_FFFF;
        let form = BodyForm { crc, ..FORM };
        assert_eq!(RegisterBody::decode(VECTOR.as_bytes(), form).unwrap(), expected());
        let form = BodyForm { crc: crc ^ 1, ..FORM };
        let error = RegisterBody::decode(VECTOR.as_bytes(), form).unwrap_err();
        assert!(matches!(error, BodyError::Checksum { .. }), "{error}");
    }

    #[test]
    fn topic_that_cannot_be_valid_is_left_out_and_counted() {
        let topics = ["T1 8 8 6 S {}", "a/b 8 8 6 S {}", "T2 -1 8 6 S {}", "T3 8 8", "T4 8 x 6 S"];
        let body = deflated(&compact(&topics));
        let read = RegisterBody::decode(&body, COMPACT).unwrap();
        assert_eq!(read, RegisterBody { skipped: 4, ..expected() });
        let json = VECTOR.replace(r#""T1":{"#, r#""bad name":{"perm":6},"T1":{"#);
        let read = RegisterBody::decode(json.as_bytes(), FORM).unwrap();
        assert_eq!(read, RegisterBody { skipped: 1, ..expected() });
    }

    #[test]
    fn body_that_inflates_beyond_the_limit_is_refused() {
        let bomb = deflated(&vec![0; 4 << 20]);
        assert!(bomb.len() < 1 << 20);
        let error = RegisterBody::decode(&bomb, COMPACT).unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { bytes_max: 1_048_576 }), "{error}");
    }

    #[test]
    fn garbage_and_every_truncation_are_refused_without_panic() {
        for (body, form) in [(&b"nonsense"[..], FORM), (b"nonsense", COMPACT), (b"[1]", FORM)] {
            RegisterBody::decode(body, form).unwrap_err();
        }
        let whole = compact(&["T1 8 8 6 SINGLE_TAG {}"]);
        let needed = whole.len() - 10;
        for cut in 0..needed {
            RegisterBody::decode(&deflated(&whole[..cut]), COMPACT).unwrap_err();
        }
    }

    #[test]
    fn announced_counts_and_lengths_are_not_trusted() {
        for number in [-1, i32::MAX] {
            let mut body = Vec::new();
            block(&mut body, "{}");
            body.extend(number.to_be_bytes());
            let error = RegisterBody::decode(&deflated(&body), COMPACT).unwrap_err();
            assert!(matches!(error, BodyError::Overrun { .. }), "{error}");
            let length = deflated(&number.to_be_bytes());
            let error = RegisterBody::decode(&length, COMPACT).unwrap_err();
            assert!(matches!(error, BodyError::Overrun { .. }), "{error}");
        }
    }
}
