//! Looking messages up: request codes 12 (by key), 33 (by id) and 321 (a queue's index).

use crate::command::heartbeat::SubscriptionData;
use crate::ext::header;
use crate::json::body;

header! {
    /// Fields of a query by key.
    pub struct QueryMessage<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// Key, or unique id.
        pub key: &'a str = "key",
        /// Most messages wanted; not looked at for a unique id.
        pub max_messages: i32 = "maxNum",
        /// Earliest store time, in milliseconds since the epoch.
        pub begin_timestamp: i64 = "beginTimestamp",
        /// Latest store time, in milliseconds since the epoch.
        pub end_timestamp: i64 = "endTimestamp",
        /// Whether `key` is a unique id.
        pub unique_key: Option<bool> = "_UNIQUE_KEY_QUERY",
    }
}

header! {
    /// Fields of the answer to a query by key.
    pub struct QueryMessageAnswer {
        /// Store time up to which keys are indexed.
        pub index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        /// Physical offset up to which keys are indexed.
        pub index_last_update_offset: i64 = "indexLastUpdatePhyoffset",
    }
}

header! {
    /// Fields of a look-up by id.
    pub struct ViewMessage<'a> {
        /// Physical offset of the record.
        pub offset: i64 = "offset",
        /// The topic.
        pub topic: Option<&'a str> = "topic",
    }
}

header! {
    /// Fields of a look into a queue's index.
    pub struct QueryConsumeQueue<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// The queue.
        pub queue_id: i32 = "queueId",
        /// First wanted offset.
        pub index: i64 = "index",
        /// Most entries wanted.
        pub count: i32 = "count",
        /// Group whose filter is applied.
        pub consumer_group: Option<&'a str> = "consumerGroup",
    }
}

body! {
    /// Entries of a queue's index.
    pub struct ConsumeQueueBody: "consume queue" {
        /// Data of the filter, as text.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub filter_data: Option<String>,
        /// Next offset to be written.
        pub max_queue_index: i64,
        /// Smallest offset.
        pub min_queue_index: i64,
        /// The entries.
        pub queue_data: Vec<ConsumeQueueEntry>,
        /// The group's subscription.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subscription_data: Option<SubscriptionData>,
    }
}

body! {
    /// One entry of a queue's index.
    pub struct ConsumeQueueEntry: "consume queue entry" {
        /// Bits of the filter, as text.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bit_map: Option<String>,
        /// Whether the group's filter lets it pass.
        pub eval: bool,
        /// Further data, as text.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub extend_data_json: Option<String>,
        /// A word about the message.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub msg: Option<String>,
        /// Physical offset of the record.
        pub physic_offset: i64,
        /// Size of the record, in bytes.
        pub physic_size: i32,
        /// Hash of the tag.
        pub tags_code: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};

    #[test]
    fn query_commands_round_trip() {
        let query = QueryMessage { topic: "t", key: "k", ..QueryMessage::default() };
        assert_round_trips!(query, QueryMessage<'_>);
        assert_round_trips!(QueryMessageAnswer::default(), QueryMessageAnswer);
        assert_round_trips!(ViewMessage { offset: 7, topic: None }, ViewMessage<'_>);
        let look = QueryConsumeQueue { topic: "t", count: 10, ..QueryConsumeQueue::default() };
        assert_round_trips!(look, QueryConsumeQueue<'_>);
    }

    #[test]
    fn consume_queue_matches_the_reference() {
        let body: ConsumeQueueBody = body_matches(
            r#"{"maxQueueIndex":0,"minQueueIndex":0,"queueData":[{"eval":false,"physicOffset":0,"physicSize":0,"tagsCode":0}]}"#,
        );
        assert_eq!(body.queue_data.len(), 1);
    }
}
