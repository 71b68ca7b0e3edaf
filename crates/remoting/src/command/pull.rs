//! Pulling: request codes 11 and 361, and the answer.
//!
//! A negative offset is valid: the answer corrects it. A newer client's decoder fails on an answer
//! without its four mandatory fields, also when nothing was found, so the type has them all.

use crate::ext::header;

/// Bits of [`PullRequest::sys_flag`].
pub mod pull_flag {
    /// `commit_offset` is to be committed.
    pub const COMMIT_OFFSET: i32 = 1;
    /// The answer may wait for a message.
    pub const SUSPEND: i32 = 2;
    /// The request carries its own expression.
    pub const SUBSCRIPTION: i32 = 4;
    /// Class filter; obsolete.
    pub const CLASS_FILTER: i32 = 8;
    /// Lite pull.
    pub const LITE_PULL: i32 = 16;
}

header! {
    /// Fields of a pull.
    pub struct PullRequest<'a> {
        /// Who reads.
        pub consumer_group: &'a str = "consumerGroup",
        /// What is read.
        pub topic: &'a str = "topic",
        /// Which queue.
        pub queue_id: i32 = "queueId",
        /// First wanted offset.
        pub queue_offset: i64 = "queueOffset",
        /// Most messages wanted.
        pub max_messages: i32 = "maxMsgNums",
        /// Bits, see [`pull_flag`].
        pub sys_flag: i32 = "sysFlag",
        /// Offset to commit on the way.
        pub commit_offset: i64 = "commitOffset",
        /// How long the answer may wait for a message, in milliseconds.
        pub suspend_timeout_ms: i64 = "suspendTimeoutMillis",
        /// Expression, when the flag says that there is one.
        pub subscription: Option<&'a str> = "subscription",
        /// Version of the consumer's subscription; 0 from some clients.
        pub sub_version: i64 = "subVersion",
        /// `TAG` or `SQL92`; absent means `TAG`.
        pub expression_type: Option<&'a str> = "expressionType",
        /// Bytes wanted.
        pub max_bytes: Option<i32> = "maxMsgBytes",
        /// Who asks: -1 an SDK, 0 and above a proxy.
        pub request_source: Option<i32> = "requestSource",
        /// Client for which a proxy asks.
        pub proxy_forward_client_id: Option<&'a str> = "proxyFrowardClientId",
        /// Name of the broker group that the client believes it talks to.
        pub broker_name: Option<&'a str> = "bname",
    }
}

header! {
    /// Fields of an answer to a pull.
    pub struct PullAnswer {
        /// Broker id that the client asks next.
        pub suggested_broker_id: u64 = "suggestWhichBrokerId",
        /// Offset from which the client pulls next.
        pub next_begin_offset: i64 = "nextBeginOffset",
        /// Smallest offset of the queue.
        pub min_offset: i64 = "minOffset",
        /// Next offset to be written to the queue.
        pub max_offset: i64 = "maxOffset",
        /// Unit bits of the topic.
        pub topic_sys_flag: Option<i32> = "topicSysFlag",
        /// Unit bits of the group.
        pub group_sys_flag: Option<i32> = "groupSysFlag",
        /// Static topics: added to each queue offset by the client.
        pub offset_delta: Option<i64> = "offsetDelta",
        /// Why reading is forbidden, with code 16.
        pub forbidden_type: Option<i32> = "forbiddenType",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::assert_round_trips;
    use crate::ext::{ExtMap, Header, HeaderError};

    #[test]
    fn pull_round_trips() {
        let request = PullRequest {
            consumer_group: "g",
            topic: "t",
            queue_offset: -1,
            max_messages: 32,
            sys_flag: pull_flag::SUSPEND | pull_flag::COMMIT_OFFSET,
            suspend_timeout_ms: 15_000,
            subscription: Some("TagA || TagB"),
            ..PullRequest::default()
        };
        assert_round_trips!(request, PullRequest<'_>);
        let answer = PullAnswer { next_begin_offset: 5, max_offset: 5, ..PullAnswer::default() };
        assert_round_trips!(answer, PullAnswer);
    }

    #[test]
    fn mandatory_field_of_an_answer_is_named_when_missing() {
        let mut ext = ExtMap::new();
        PullAnswer::default().to_ext(&mut ext);
        let without: ExtMap = ext.iter().filter(|(key, _)| *key != "minOffset").collect();
        let error = HeaderError::Missing { field: "minOffset" };
        assert_eq!(PullAnswer::from_ext(&without), Err(error));
    }
}
