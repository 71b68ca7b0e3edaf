//! Topics on a broker: request codes 17, 18, 21, 202, 215, 300, 305, 343 and 351.
//!
//! A topic's definition is `gantry_model::TopicConfig`. A header's numbers may be out of range:
//! the definition made of them is validated there.

use std::collections::BTreeMap;

use gantry_model::TopicConfig;

use crate::command::data_version::DataVersion;
use crate::ext::header;
use crate::json::{QueueTable, body, json_bodies};

json_bodies! {
    TopicConfig: "topic definition",
}

header! {
    /// Fields of a topic's creation or change: request code 17.
    pub struct CreateTopic<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// Template; not looked at.
        pub default_topic: Option<&'a str> = "defaultTopic",
        /// Queues that may be read.
        pub read_queues: u32 = "readQueueNums",
        /// Queues that are offered to producers.
        pub write_queues: u32 = "writeQueueNums",
        /// Permission bits.
        pub perm: u32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        pub topic_filter_type: Option<&'a str> = "topicFilterType",
        /// Unit bits.
        pub topic_sys_flag: Option<u32> = "topicSysFlag",
        /// Whether the topic is meant for ordered messages.
        pub order: Option<bool> = "order",
        /// Changes of attributes: `+key=value` and `-key`, separated by commas.
        pub attributes: Option<&'a str> = "attributes",
        /// Static topics.
        pub force: Option<bool> = "force",
    }
}

header! {
    /// Fields that are one topic: request codes 202, 215, 300 and 351.
    pub struct TopicRequest<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
    }
}

header! {
    /// Fields of a query for all topics: request code 21. All absent: everything is wanted.
    pub struct AllTopicsRequest<'a> {
        /// Number of the first wanted topic.
        pub topic_seq: Option<i32> = "topicSeq",
        /// Data version that the pages so far had, as JSON.
        pub data_version: Option<&'a str> = "dataVersion",
        /// Most topics wanted.
        pub max_topics: Option<i32> = "maxTopicNum",
    }
}

header! {
    /// Fields of the answer to request code 21.
    pub struct AllTopicsAnswer {
        /// Number of topics there are; a client asks on until it has them.
        pub total_topics: Option<u32> = "totalTopicNum",
    }
}

header! {
    /// Fields of a query for a group's topics: request code 343.
    pub struct TopicsOfGroup<'a> {
        /// The group.
        pub group: &'a str = "group",
    }
}

body! {
    /// Body of 18.
    #[derive(Eq)]
    pub struct TopicConfigs: "list of topic definitions" {
        /// The definitions.
        pub topic_config_list: Vec<TopicConfig>,
    }
}

body! {
    /// Topics of a broker with their data version: answer to 21, and part of a registration.
    pub struct TopicTable: "topic table" {
        /// Version of the table.
        pub data_version: DataVersion,
        /// Version of the static topics' mappings.
        pub mapping_data_version: DataVersion,
        /// Definitions by name.
        pub topic_config_table: BTreeMap<String, TopicConfig>,
        /// Static topics, passed through.
        pub topic_queue_mapping_detail_map: BTreeMap<String, serde_json::Value>,
        /// Static topics, passed through.
        pub topic_queue_mapping_info_map: BTreeMap<String, serde_json::Value>,
    }
}

body! {
    /// Answer to 202; written in the legacy form.
    pub struct TopicStats: "topic statistics" {
        /// One entry for each queue.
        pub offset_table: QueueTable<TopicOffset>,
        /// Messages sent per second.
        pub topic_put_tps: f64,
    }
}

body! {
    /// Bounds of one queue.
    #[derive(Copy, Eq)]
    pub struct TopicOffset: "bounds of a queue" {
        /// Store time of the newest message, in milliseconds since the epoch; 0 without one.
        pub last_update_timestamp: i64,
        /// Next offset to be written.
        pub max_offset: i64,
        /// Smallest offset.
        pub min_offset: i64,
    }
}

body! {
    /// Names of topics.
    #[derive(Eq)]
    pub struct TopicList: "list of topics" {
        /// Address of a broker that is to be asked as well.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub broker_addr: Option<String>,
        /// The names.
        pub topic_list: Vec<String>,
    }
}

body! {
    /// Answer to 300: groups that read a topic.
    #[derive(Eq)]
    pub struct GroupList: "list of groups" {
        /// The names.
        pub group_list: Vec<String>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};

    #[test]
    fn topic_commands_round_trip() {
        let create = CreateTopic {
            topic: "T",
            default_topic: Some("TBW102"),
            read_queues: 8,
            write_queues: 8,
            perm: 6,
            attributes: Some("+message.type=FIFO"),
            ..CreateTopic::default()
        };
        assert_round_trips!(create, CreateTopic<'_>);
        assert_round_trips!(TopicRequest { topic: "T" }, TopicRequest<'_>);
        assert_round_trips!(AllTopicsRequest::default(), AllTopicsRequest<'_>);
        assert_round_trips!(AllTopicsAnswer { total_topics: Some(3) }, AllTopicsAnswer);
        assert_round_trips!(TopicsOfGroup { group: "g" }, TopicsOfGroup<'_>);
    }

    #[test]
    fn topic_bodies_match_the_reference() {
        let list: TopicConfigs = body_matches(
            r#"{"topicConfigList":[{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T1","topicSysFlag":0,"writeQueueNums":8}]}"#,
        );
        assert_eq!(list.topic_config_list[0].write_queues, 8);
        let stats: TopicStats = body_matches(
            r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T1"}:{"lastUpdateTimestamp":1700000000000,"maxOffset":10,"minOffset":0}},"topicPutTps":0.0}"#,
        );
        assert_eq!(stats.offset_table.0[0].1.max_offset, 10);
        let _: TopicList = body_matches(r#"{"topicList":["T1"]}"#);
        let _: TopicList = body_matches(r#"{"brokerAddr":"1.1.1.1:10911","topicList":["T1"]}"#);
        let _: GroupList = body_matches(r#"{"groupList":["cg"]}"#);
        let _: TopicTable = body_matches(
            r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"T1":{"attributes":{"message.type":"NORMAL"},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T1","topicSysFlag":0,"writeQueueNums":8}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}"#,
        );
    }
}
