//! Consumer groups on a broker: request codes 200, 201, 203, 204, 207, 225, 328, 345, 352, 353.
//!
//! A group's definition is `gantry_model::GroupConfig`; what an older tool leaves out has its default.

use std::collections::BTreeMap;

use gantry_model::GroupConfig;

use crate::command::data_version::DataVersion;
use crate::command::heartbeat::SubscriptionData;
use crate::ext::header;
use crate::json::{body, json_bodies};

json_bodies! {
    GroupConfig: "group definition",
}

header! {
    /// Fields of a query for all groups: request code 201. All absent: everything is wanted.
    pub struct AllGroupsRequest<'a> {
        /// Number of the first wanted group.
        pub group_seq: Option<i32> = "groupSeq",
        /// Data version that the pages so far had, as JSON.
        pub data_version: Option<&'a str> = "dataVersion",
        /// Most groups wanted.
        pub max_groups: Option<i32> = "maxGroupNum",
    }
}

header! {
    /// Fields of the answer to request code 201.
    pub struct AllGroupsAnswer {
        /// Number of groups there are; a client asks on until it has them.
        pub total_groups: Option<u32> = "totalGroupNum",
    }
}

header! {
    /// Fields of a query for one group: request code 352.
    pub struct GroupRequest<'a> {
        /// The group.
        pub group: &'a str = "group",
    }
}

header! {
    /// Fields of a deletion: request code 207.
    pub struct DeleteGroup<'a> {
        /// The group.
        pub group_name: &'a str = "groupName",
        /// Whether its offsets are forgotten as well.
        pub clean_offset: Option<bool> = "cleanOffset",
    }
}

header! {
    /// Fields of a query for a producer group's connections: request code 204.
    pub struct ProducerGroup<'a> {
        /// The group.
        pub producer_group: &'a str = "producerGroup",
    }
}

header! {
    /// Fields of request codes 345 and 353.
    pub struct GroupAndTopic<'a> {
        /// The group.
        pub group: &'a str = "group",
        /// The topic.
        pub topic: Option<&'a str> = "topic",
        /// Code 353: whether the group may read the topic.
        pub readable: Option<bool> = "readable",
    }
}

body! {
    /// Body of 225.
    #[derive(Eq)]
    pub struct GroupConfigs: "list of group definitions" {
        /// The definitions.
        pub group_config_list: Vec<GroupConfig>,
    }
}

body! {
    /// Answer to 201.
    #[derive(Eq)]
    pub struct GroupTable: "group table" {
        /// Version of the table.
        pub data_version: DataVersion,
        /// Group to topic to a bit mask: 4 forbids reading.
        pub forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
        /// Definitions by name.
        pub subscription_group_table: BTreeMap<String, GroupConfig>,
    }
}

body! {
    /// One connection of a client.
    #[derive(Eq)]
    pub struct ClientConnection: "connection" {
        /// Address of the client, `ip:port`.
        pub client_addr: String,
        /// Id of the client.
        pub client_id: String,
        /// Name of its language.
        pub language: String,
        /// Its protocol version.
        pub version: i32,
    }
}

body! {
    /// Answer to 203.
    #[derive(Eq)]
    pub struct ConsumerConnections: "consumer connections" {
        /// The members.
        pub connection_set: Vec<ClientConnection>,
        /// Where a new group starts.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub consume_from_where: Option<String>,
        /// How members consume.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub consume_type: Option<String>,
        /// Whether members share the messages.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub message_model: Option<String>,
        /// Subscriptions by topic.
        pub subscription_table: BTreeMap<String, SubscriptionData>,
    }
}

body! {
    /// Answer to 204.
    #[derive(Eq)]
    pub struct ProducerConnections: "producer connections" {
        /// The producers.
        pub connection_set: Vec<ClientConnection>,
    }
}

body! {
    /// Answer to 328.
    #[derive(Eq)]
    pub struct AllProducers: "table of producers" {
        /// Producers by group.
        pub data: BTreeMap<String, Vec<ProducerInfo>>,
    }
}

body! {
    /// One producer of [`AllProducers`].
    #[derive(Eq)]
    pub struct ProducerInfo: "producer" {
        /// Id of the client.
        pub client_id: String,
        /// Name of its language.
        pub language: String,
        /// Time of its last heartbeat, in milliseconds since the epoch.
        pub last_update_timestamp: i64,
        /// Address of the client, `ip:port`.
        #[serde(rename = "remoteIP")]
        pub remote_ip: String,
        /// Its protocol version.
        pub version: i32,
    }
}

body! {
    /// Answer to 345.
    #[derive(Eq)]
    pub struct GroupSubscription: "subscription of a group" {
        /// The group.
        pub group: String,
        /// Its subscription.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub subscription_data: Option<SubscriptionData>,
        /// The topic.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub topic: Option<String>,
    }
}

body! {
    /// Answer to 353.
    #[derive(Eq)]
    pub struct GroupForbidden: "permission of a group" {
        /// The group.
        pub group: String,
        /// Whether it may read the topic.
        pub readable: bool,
        /// The topic.
        pub topic: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};
    use crate::json::JsonBody;

    const GROUP: &str = r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"cg","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;

    #[test]
    fn group_bodies_match_the_reference() {
        let _: GroupConfig = body_matches(GROUP);
        let _: GroupConfigs = body_matches(&format!(r#"{{"groupConfigList":[{GROUP}]}}"#));
        let _: GroupTable = body_matches(&format!(
            r#"{{"dataVersion":{{"counter":0,"stateVersion":0,"timestamp":1}},"forbiddenTable":{{}},"subscriptionGroupTable":{{"cg":{GROUP}}}}}"#,
        ));
        let _: ConsumerConnections = body_matches(
            r#"{"connectionSet":[{"clientAddr":"1.1.1.1:5000","clientId":"cid","language":"JAVA","version":479}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"T1":{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"T1"}}}"#,
        );
        let _: ProducerConnections = body_matches(
            r#"{"connectionSet":[{"clientAddr":"1.1.1.1:5000","clientId":"cid","language":"JAVA","version":479}]}"#,
        );
        let _: AllProducers = body_matches(
            r#"{"data":{"pg":[{"clientId":"cid","language":"JAVA","lastUpdateTimestamp":1,"remoteIP":"1.1.1.1:1","version":479}]}}"#,
        );
        let _: GroupForbidden = body_matches(r#"{"group":"g","readable":true,"topic":"t"}"#);
        let _: GroupSubscription = body_matches(r#"{"group":"g","topic":"t"}"#);
    }

    #[test]
    fn definition_of_an_older_tool_is_completed_by_defaults() {
        let text = br#"{"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"groupName":"cg","notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;
        let full = GroupConfig::from_json(GROUP.as_bytes()).unwrap();
        assert_eq!(GroupConfig::from_json(text).unwrap(), full);
    }

    #[test]
    fn group_commands_round_trip() {
        let all = AllGroupsRequest { group_seq: Some(0), ..AllGroupsRequest::default() };
        assert_round_trips!(all, AllGroupsRequest<'_>);
        assert_round_trips!(AllGroupsAnswer::default(), AllGroupsAnswer);
        assert_round_trips!(GroupRequest { group: "g" }, GroupRequest<'_>);
        let delete = DeleteGroup { group_name: "g", clean_offset: Some(true) };
        assert_round_trips!(delete, DeleteGroup<'_>);
        assert_round_trips!(ProducerGroup { producer_group: "g" }, ProducerGroup<'_>);
        let forbid = GroupAndTopic { group: "g", topic: None, readable: Some(false) };
        assert_round_trips!(forbid, GroupAndTopic<'_>);
    }
}
