//! Progress of groups and reset of offsets: request codes 43, 45, 208, 220 to 223, 303, 307, 309,
//! 314 and 317.
//!
//! Tables keyed by queues and by numbers are written in the legacy form: clients parse it as text.

use std::collections::BTreeMap;

use crate::command::data_version::DataVersion;
use crate::ext::header;
use crate::json::{MessageQueue, QueueTable, body};

header! {
    /// Fields of a query for a group's progress: request code 208.
    pub struct ConsumeStatsRequest<'a> {
        /// The group.
        pub consumer_group: &'a str = "consumerGroup",
        /// One topic.
        pub topic: Option<&'a str> = "topic",
        /// Several topics, separated by semicolons.
        pub topic_list: Option<&'a str> = "topicList",
    }
}

header! {
    /// Fields of a query for every group's progress: request code 317.
    pub struct BrokerConsumeStatsRequest {
        /// Whether ordered topics are meant.
        pub is_order: Option<bool> = "isOrder",
    }
}

header! {
    /// Fields of request code 303.
    pub struct TimeSpanRequest<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// The group.
        pub group: &'a str = "group",
    }
}

header! {
    /// Fields of a reset: request code 222 of a tool, 220 of a broker to its clients.
    pub struct ResetOffset<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// The group.
        pub group: &'a str = "group",
        /// The queue; -1 or absent: all of them.
        pub queue_id: Option<i32> = "queueId",
        /// Offset wanted; -1 or absent: that of `timestamp`.
        pub offset: Option<i64> = "offset",
        /// Store time, in milliseconds since the epoch; -1: the newest.
        pub timestamp: i64 = "timestamp",
        /// Whether offsets may also move forward.
        pub is_force: bool = "isForce",
    }
}

header! {
    /// Fields of request codes 221 and 223.
    pub struct ConsumerStatusRequest<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// The group.
        pub group: &'a str = "group",
        /// Client that is meant.
        pub client_addr: Option<&'a str> = "clientAddr",
    }
}

header! {
    /// Fields of request code 314.
    pub struct CloneOffset<'a> {
        /// Group whose offsets are copied.
        pub source_group: &'a str = "srcGroup",
        /// Group that gets them.
        pub destination_group: &'a str = "destGroup",
        /// One topic; absent: all.
        pub topic: Option<&'a str> = "topic",
        /// Whether offsets of queues that are not read are meant.
        pub offline: Option<bool> = "offline",
    }
}

header! {
    /// Fields of request code 307.
    pub struct RunningInfoRequest<'a> {
        /// The group.
        pub consumer_group: &'a str = "consumerGroup",
        /// The client.
        pub client_id: &'a str = "clientId",
        /// Whether stacks of threads are wanted.
        pub jstack_enable: Option<bool> = "jstackEnable",
    }
}

header! {
    /// Fields of request code 309.
    pub struct ConsumeDirectly<'a> {
        /// The group.
        pub consumer_group: &'a str = "consumerGroup",
        /// The client.
        pub client_id: Option<&'a str> = "clientId",
        /// Offset id of the message.
        pub msg_id: Option<&'a str> = "msgId",
        /// The topic.
        pub topic: Option<&'a str> = "topic",
        /// Name of the broker group; set by the broker.
        pub broker_name: Option<&'a str> = "brokerName",
        /// Unit bits of the topic; set by the broker.
        pub topic_sys_flag: Option<i32> = "topicSysFlag",
        /// Unit bits of the group; set by the broker.
        pub group_sys_flag: Option<i32> = "groupSysFlag",
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

body! {
    /// Answer to 208; legacy form.
    pub struct ConsumeStats: "consume statistics" {
        /// Messages consumed per second.
        pub consume_tps: f64,
        /// Progress by queue.
        pub offset_table: QueueTable<QueueProgress>,
        /// Failed messages of the group that wait for their next attempt. Of Gantry; left out when 0.
        #[serde(skip_serializing_if = "is_zero")]
        pub waiting_retries: i64,
    }
}

body! {
    /// Progress of a group in one queue.
    #[derive(Copy, Eq)]
    pub struct QueueProgress: "progress of a queue" {
        /// Next offset to be written.
        pub broker_offset: i64,
        /// Next offset to be consumed.
        pub consumer_offset: i64,
        /// Store time of the last consumed message, in milliseconds since the epoch; 0 without.
        pub last_timestamp: i64,
        /// Next offset to be pulled.
        pub pull_offset: i64,
        /// Store time of the next message to be consumed, in milliseconds since the epoch. Of Gantry; left
        /// out when 0, without one.
        #[serde(skip_serializing_if = "is_zero")]
        pub next_timestamp: i64,
    }
}

body! {
    /// Answer to 317; legacy form.
    pub struct BrokerConsumeStats: "consume statistics of a broker" {
        /// Address of the broker.
        pub broker_addr: String,
        /// One map for each group.
        pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
        /// Messages that are not consumed.
        pub total_diff: i64,
        /// Messages that were pulled and are not consumed.
        pub total_inflight_diff: i64,
    }
}

body! {
    /// Answer to 222 and body of 220; legacy form.
    #[derive(Eq)]
    pub struct ResetOffsetBody: "table of offsets" {
        /// Offsets by queue.
        pub offset_table: QueueTable<i64>,
    }
}

body! {
    /// Body of 220 for C++ clients.
    #[derive(Eq)]
    pub struct ResetOffsetList: "list of offsets" {
        /// The offsets.
        pub offset_table: Vec<QueueOffsetEntry>,
    }
}

body! {
    /// One queue's offset.
    #[derive(Eq)]
    pub struct QueueOffsetEntry: "offset of a queue" {
        /// Name of the broker group.
        pub broker_name: String,
        /// The offset.
        pub offset: i64,
        /// The queue.
        pub queue_id: i32,
        /// The topic.
        pub topic: String,
    }
}

body! {
    /// Answers to 221 and 223; legacy form.
    #[derive(Eq)]
    pub struct ConsumerStatus: "status of consumers" {
        /// Offsets by client.
        pub consumer_table: BTreeMap<String, QueueTable<i64>>,
        /// Offsets of one client.
        pub message_queue_table: QueueTable<i64>,
    }
}

body! {
    /// Answer to 303.
    #[derive(Eq)]
    pub struct ConsumeTimeSpans: "list of time spans" {
        /// One for each queue.
        pub consume_time_span_set: Vec<ConsumeTimeSpan>,
    }
}

body! {
    /// Times of a group's progress in one queue, in milliseconds since the epoch.
    #[derive(Eq)]
    pub struct ConsumeTimeSpan: "time span" {
        /// Store time of the message that was consumed last.
        pub consume_time_stamp: i64,
        /// The same as text.
        pub consume_time_stamp_str: String,
        /// How far the group is behind, in milliseconds.
        pub delay_time: i64,
        /// Store time of the newest message.
        pub max_time_stamp: i64,
        /// The same as text.
        pub max_time_stamp_str: String,
        /// The queue.
        pub message_queue: MessageQueue,
        /// Store time of the oldest message.
        pub min_time_stamp: i64,
        /// The same as text.
        pub min_time_stamp_str: String,
    }
}

body! {
    /// Answer to 43; legacy form.
    #[derive(Eq)]
    pub struct ConsumerOffsets: "offsets of all groups" {
        /// Version of the table.
        pub data_version: DataVersion,
        /// `topic@group` to queue to offset.
        pub offset_table: BTreeMap<String, BTreeMap<u32, i64>>,
    }
}

body! {
    /// Answer to 45; legacy form.
    #[derive(Eq)]
    pub struct DelayOffsets: "offsets of delay levels" {
        /// Version of the table.
        pub data_version: DataVersion,
        /// Level to offset.
        pub offset_table: BTreeMap<u32, i64>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};

    #[test]
    fn progress_bodies_match_the_reference() {
        let stats = r#"{"consumeTps":1.5,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T1"}:{"brokerOffset":10,"consumerOffset":8,"lastTimestamp":1700000000000,"pullOffset":9}}}"#;
        let body: ConsumeStats = body_matches(stats);
        assert_eq!(body.offset_table.0[0].1.consumer_offset, 8);
        let _: BrokerConsumeStats = body_matches(&format!(
            r#"{{"brokerAddr":"1.1.1.1:10911","consumeStatsList":[{{"cg":[{stats}]}}],"totalDiff":0,"totalInflightDiff":0}}"#
        ));
        let reset: ResetOffsetBody = body_matches(
            r#"{"offsetTable":{{"brokerName":"broker-a","queueId":1,"topic":"T1"}:5,{"brokerName":"broker-a","queueId":0,"topic":"T1"}:100}}"#,
        );
        assert_eq!(reset.offset_table.0[1].1, 100);
        let _: ResetOffsetList = body_matches(
            r#"{"offsetTable":[{"brokerName":"broker-a","offset":100,"queueId":0,"topic":"T1"}]}"#,
        );
        let _: ConsumerStatus = body_matches(
            r#"{"consumerTable":{},"messageQueueTable":{{"brokerName":"b","queueId":0,"topic":"T"}:1}}"#,
        );
        let _: ConsumerStatus = body_matches(
            r#"{"consumerTable":{"cid":{{"brokerName":"b","queueId":0,"topic":"T"}:1}},"messageQueueTable":{}}"#,
        );
        let _: ConsumeTimeSpans = body_matches(
            r#"{"consumeTimeSpanSet":[{"consumeTimeStamp":0,"consumeTimeStampStr":"1970-01-01#00:00:00:000","delayTime":0,"maxTimeStamp":0,"maxTimeStampStr":"1970-01-01#00:00:00:000","messageQueue":{"brokerName":"b","queueId":0,"topic":"T"},"minTimeStamp":0,"minTimeStampStr":"1970-01-01#00:00:00:000"}]}"#,
        );
        let offsets: ConsumerOffsets = body_matches(
            r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1},"offsetTable":{"T@cg":{0:5}}}"#,
        );
        assert_eq!(offsets.offset_table["T@cg"][&0], 5);
        let _: DelayOffsets = body_matches(
            r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":1},"offsetTable":{1:100,2:7}}"#,
        );
    }

    #[test]
    fn progress_commands_round_trip() {
        let stats = ConsumeStatsRequest { consumer_group: "g", ..ConsumeStatsRequest::default() };
        assert_round_trips!(stats, ConsumeStatsRequest<'_>);
        let all = BrokerConsumeStatsRequest { is_order: Some(false) };
        assert_round_trips!(all, BrokerConsumeStatsRequest);
        assert_round_trips!(TimeSpanRequest { topic: "t", group: "g" }, TimeSpanRequest<'_>);
        let reset = ResetOffset {
            topic: "t",
            group: "g",
            queue_id: Some(-1),
            offset: None,
            timestamp: -1,
            is_force: true,
        };
        assert_round_trips!(reset, ResetOffset<'_>);
        let of_client = ConsumerStatusRequest { topic: "t", group: "g", client_addr: None };
        assert_round_trips!(of_client, ConsumerStatusRequest<'_>);
        let clone =
            CloneOffset { source_group: "a", destination_group: "b", ..CloneOffset::default() };
        assert_round_trips!(clone, CloneOffset<'_>);
        let info =
            RunningInfoRequest { consumer_group: "g", client_id: "c", jstack_enable: Some(true) };
        assert_round_trips!(info, RunningInfoRequest<'_>);
        let direct = ConsumeDirectly { consumer_group: "g", ..ConsumeDirectly::default() };
        assert_round_trips!(direct, ConsumeDirectly<'_>);
    }
}
