//! Looking messages up by key, by unique id and by place.
//! Invariant: what is found is exactly what was asked for: a hash that happens to be the same finds nothing, and a
//! place is one only where a queue has a message.
//! Leaves the way to a thread that may wait for the disk to its callers.

use std::sync::Arc;

use bytes::Bytes;
use gantry_model::PhysicalOffset;
use gantry_store::{ReadError, Store};

/// Most messages of one answer.
const MESSAGES_MAX: i32 = 64;
/// Most messages of one answer to a unique id: it names one message, and each of its retries.
const UNIQUE_MESSAGES_MAX: usize = 32;
/// Bytes of messages at which an answer ends, below the limit of a frame; one message always fits.
const BYTES_MAX: usize = 15 << 20;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyQuery {
    /// The topic.
    pub topic: String,
    /// The key, or the unique id.
    pub key: String,
    /// Whether `key` is a unique id.
    pub is_unique: bool,
    /// Most messages wanted, from the peer.
    pub messages_max: i32,
    /// Earliest store time, in milliseconds since 1970.
    pub begin_ms: i64,
    /// Latest store time, in milliseconds since 1970.
    pub end_ms: i64,
}

impl KeyQuery {
    fn messages_max(&self) -> usize {
        if self.is_unique {
            return UNIQUE_MESSAGES_MAX;
        }
        self.messages_max.clamp(1, MESSAGES_MAX) as usize
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The records, newest first.
    pub records: Vec<Bytes>,
    /// Where the part of the log ends that was looked through.
    pub looked_to: PhysicalOffset,
    /// Store time of the newest record, in milliseconds since 1970; 0 in an empty log.
    pub newest_ms: u64,
}

/// Finds messages.
pub struct Queries {
    pub(super) store: Arc<Store>,
}

impl Queries {
    /// The newest messages with a key. Blocks: it reads the log.
    pub fn by_key(&self, query: &KeyQuery) -> Result<Found, ReadError> {
        // Before the look: what comes in between may be missing.
        let (looked_to, newest_ms) = (self.store.confirmed(), self.store.newest_time_ms());
        let time = |ms: i64| u64::try_from(ms).unwrap_or(0);
        let (begin_ms, end_ms) = (time(query.begin_ms), time(query.end_ms));
        let messages_max = query.messages_max();
        let mut records =
            self.store.query_keys(&query.topic, &query.key, begin_ms, end_ms, messages_max)?;
        records.truncate(fitting(&records));
        Ok(Found { records, looked_to, newest_ms })
    }

    /// The message at a place; `None` if no queue has a message there. Blocks: it reads the log.
    pub fn at(&self, position: i64) -> Result<Option<Bytes>, ReadError> {
        let Ok(position) = u64::try_from(position) else { return Ok(None) };
        self.store.read_at(PhysicalOffset(position))
    }
}

/// How many of the first records fit into an answer, at least one.
fn fitting(records: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Bytes| {
        bytes += record.len();
        bytes <= BYTES_MAX
    };
    records.iter().take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_ends_before_it_outgrows_a_frame_and_has_one_message_at_least() {
        let mebibytes = |count: usize| Bytes::from(vec![0; count << 20]);
        assert_eq!(fitting(&[mebibytes(7), mebibytes(8), mebibytes(1)]), 2);
        assert_eq!(fitting(&[mebibytes(16)]), 1);
    }

    #[test]
    fn wanted_number_is_clamped_and_not_looked_at_for_a_unique_id() {
        let query = |is_unique, messages_max| KeyQuery {
            topic: "t".into(),
            key: "k".into(),
            is_unique,
            messages_max,
            begin_ms: 0,
            end_ms: i64::MAX,
        };
        for (wanted, given) in [(i32::MIN, 1), (0, 1), (7, 7), (64, 64), (i32::MAX, 64)] {
            assert_eq!(query(false, wanted).messages_max(), given);
        }
        assert_eq!(query(true, 1).messages_max(), 32);
    }
}
