//! Clients and their groups: request codes 34, 35, 38, 40 and 46.
//!
//! Read leniently: hashes of tags may be text, and any member may be absent or null. Values of a
//! closed set stay text, since clients send unusual ones; see the constants.

use serde::{Deserialize, Deserializer};

use crate::ext::header;
use crate::json::body;

/// Values of [`ConsumerData::message_model`].
pub mod message_model {
    /// Members share the messages.
    pub const CLUSTERING: &str = "CLUSTERING";
    /// Every member gets every message.
    pub const BROADCASTING: &str = "BROADCASTING";
}

/// Values of [`ConsumerData::consume_type`].
pub mod consume_type {
    /// The application pulls.
    pub const ACTIVELY: &str = "CONSUME_ACTIVELY";
    /// The client library pulls and calls the application.
    pub const PASSIVELY: &str = "CONSUME_PASSIVELY";
    /// The client library pops.
    pub const POP: &str = "CONSUME_POP";
}

/// Values of [`ConsumerData::consume_from_where`].
pub mod consume_from_where {
    /// A new group starts with what comes next.
    pub const LAST_OFFSET: &str = "CONSUME_FROM_LAST_OFFSET";
    /// A new group starts with the oldest message.
    pub const FIRST_OFFSET: &str = "CONSUME_FROM_FIRST_OFFSET";
    /// A new group starts at a time that the client knows.
    pub const TIMESTAMP: &str = "CONSUME_FROM_TIMESTAMP";
}

/// Values of [`SubscriptionData::expression_type`].
pub mod expression_type {
    /// A list of tags.
    pub const TAG: &str = "TAG";
    /// An SQL expression over properties.
    pub const SQL92: &str = "SQL92";
}

body! {
    /// Body of a heartbeat.
    #[derive(Eq)]
    pub struct HeartbeatBody: "heartbeat" {
        /// Id of the client.
        #[serde(rename = "clientID")]
        pub client_id: String,
        /// Groups in which the client consumes.
        pub consumer_data_set: Vec<ConsumerData>,
        /// Hash of the subscriptions; 0 from clients that do not use it.
        pub heartbeat_fingerprint: i32,
        /// Groups in which the client produces.
        pub producer_data_set: Vec<ProducerData>,
        /// Whether the subscriptions were left out because they are known.
        pub without_sub: bool,
    }
}

body! {
    /// One group in which a client consumes.
    #[derive(Eq)]
    pub struct ConsumerData: "consumer data" {
        /// Where a new group starts, see [`consume_from_where`]; may be empty.
        pub consume_from_where: String,
        /// See [`consume_type`].
        pub consume_type: String,
        /// The group.
        pub group_name: String,
        /// See [`message_model`].
        pub message_model: String,
        /// What the group reads.
        pub subscription_data_set: Vec<SubscriptionData>,
        /// Unit mode.
        pub unit_mode: bool,
    }
}

body! {
    /// One group in which a client produces.
    #[derive(Eq)]
    pub struct ProducerData: "producer data" {
        /// The group.
        pub group_name: String,
    }
}

body! {
    /// What a group reads of one topic.
    #[derive(Eq)]
    pub struct SubscriptionData: "subscription" {
        /// Obsolete.
        pub class_filter_mode: bool,
        /// Hashes of the tags.
        #[serde(deserialize_with = "numbers_or_texts")]
        pub code_set: Vec<i32>,
        /// See [`expression_type`]; absent means tags.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub expression_type: Option<String>,
        /// The expression.
        pub sub_string: String,
        /// When it was last changed, in milliseconds since the epoch; the newest wins.
        pub sub_version: i64,
        /// The tags.
        pub tags_set: Vec<String>,
        /// The topic.
        pub topic: String,
    }
}

fn numbers_or_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum NumberOrText {
        Number(i32),
        Text(String),
    }
    let items: Option<Vec<NumberOrText>> = Option::deserialize(deserializer)?;
    let number = |item| match item {
        NumberOrText::Number(number) => Ok(number),
        NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
    };
    items.unwrap_or_default().into_iter().map(number).collect()
}

header! {
    /// Fields of the answer to a heartbeat. Both absent: the broker wants full heartbeats.
    pub struct HeartbeatAnswer {
        /// Whether heartbeats may leave known subscriptions out.
        pub supports_v2: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
        /// Whether the client is to send its subscriptions again.
        pub subscription_changed: Option<bool> = "IS_SUB_CHANGE",
    }
}

header! {
    /// Fields of a client's good-bye: request code 35.
    pub struct UnregisterClient<'a> {
        /// Id of the client.
        pub client_id: &'a str = "clientID",
        /// Group in which it produced.
        pub producer_group: Option<&'a str> = "producerGroup",
        /// Group in which it consumed.
        pub consumer_group: Option<&'a str> = "consumerGroup",
    }
}

header! {
    /// Fields that are one consumer group: request codes 38, 40 and 203.
    pub struct ConsumerGroup<'a> {
        /// The group.
        pub consumer_group: &'a str = "consumerGroup",
    }
}

body! {
    /// Answer to 38: the ids of a group's members.
    #[derive(Eq)]
    pub struct ConsumerIds: "list of consumer ids" {
        /// Ids of the clients.
        pub consumer_id_list: Vec<String>,
    }
}

body! {
    /// Body of 46: a subscription to be checked.
    #[derive(Eq)]
    pub struct CheckClientConfig: "client configuration" {
        /// Id of the client.
        pub client_id: String,
        /// The group.
        pub group: String,
        /// Namespace of the client.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub namespace: Option<String>,
        /// The subscription.
        pub subscription_data: SubscriptionData,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};
    use crate::json::JsonBody;

    #[test]
    fn heartbeat_matches_the_reference() {
        let body: HeartbeatBody = body_matches(
            r#"{"clientID":"10.0.0.1@123#456","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"cg","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"T1"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"pg"}],"withoutSub":false}"#,
        );
        assert_eq!(body.consumer_data_set[0].subscription_data_set[0].code_set[0], 2_598_919);
    }

    #[test]
    fn heartbeat_of_a_go_client_is_read() {
        let text = r#"{"clientID":"c","producerDataSet":null,"consumerDataSet":[{"groupName":"g","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"","subscriptionDataSet":[{"classFilterMode":false,"topic":"T","subString":"*","tagsSet":null,"codeSet":["2598919"],"subVersion":1}],"unitMode":false}]}"#;
        let body = HeartbeatBody::from_json(text.as_bytes()).unwrap();
        let subscription = &body.consumer_data_set[0].subscription_data_set[0];
        assert_eq!(subscription.code_set, [2_598_919]);
        assert_eq!((&subscription.expression_type, subscription.tags_set.len()), (&None, 0));
    }

    #[test]
    fn small_client_commands_round_trip() {
        let answer = HeartbeatAnswer { supports_v2: Some(true), subscription_changed: None };
        assert_round_trips!(answer, HeartbeatAnswer);
        let leave =
            UnregisterClient { client_id: "c", producer_group: None, consumer_group: Some("g") };
        assert_round_trips!(leave, UnregisterClient<'_>);
        assert_round_trips!(ConsumerGroup { consumer_group: "g" }, ConsumerGroup<'_>);
        let _: ConsumerIds = body_matches(r#"{"consumerIdList":["c1","c2"]}"#);
        let check = CheckClientConfig::from_json(
            br#"{"clientId":"c","group":"g","namespace":"ns","subscriptionData":{"topic":"T"}}"#,
        );
        assert_eq!(check.unwrap().subscription_data.topic, "T");
    }
}
