//! Routes, registration fields, key-value configuration and cluster information of a name server:
//! request codes 100 to 106, 205, 206, 216, 217, 219, 224, 304, 322, 327, 901 and 904.
//!
//! A route has two forms: the standard one for new clients and those that ask for it, the legacy
//! one for others. Cluster information always has the legacy form. Registration bodies are in
//! `register`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ext::header;
use crate::json::{body, to_ascii_json, to_legacy_json};

/// First protocol version whose clients get the standard form of a route: that of release 4.9.4.
pub const STANDARD_ROUTE_VERSION: i32 = 401;

header! {
    /// Fields of request codes 100, 101 and 102.
    pub struct KvRequest<'a> {
        /// The namespace.
        pub namespace: &'a str = "namespace",
        /// The key.
        pub key: &'a str = "key",
        /// The value, of code 100.
        pub value: Option<&'a str> = "value",
    }
}

header! {
    /// Fields of the answer to request code 101.
    pub struct KvAnswer<'a> {
        /// The value.
        pub value: Option<&'a str> = "value",
    }
}

header! {
    /// Fields of request code 219.
    pub struct KvListRequest<'a> {
        /// The namespace.
        pub namespace: &'a str = "namespace",
    }
}

header! {
    /// Fields of a registration: request code 103.
    pub struct RegisterBroker<'a> {
        /// Name of the broker group.
        pub broker_name: &'a str = "brokerName",
        /// Address of the broker, `ip:port`.
        pub broker_addr: &'a str = "brokerAddr",
        /// Name of the cluster.
        pub cluster_name: &'a str = "clusterName",
        /// Address for replication; empty or absent without one.
        pub ha_server_addr: Option<&'a str> = "haServerAddr",
        /// 0 is the primary.
        pub broker_id: u64 = "brokerId",
        /// How long the registration lives without a new one, in milliseconds.
        pub heartbeat_timeout_ms: Option<u64> = "heartbeatTimeoutMillis",
        /// Whether a replica may stand in for the primary; absent from brokers before 5.0.
        pub enable_acting_master: Option<bool> = "enableActingMaster",
        /// Whether the body is compressed.
        pub compressed: Option<bool> = "compressed",
        /// CRC of the body as sent, without its top bit; 0 or absent: not checked.
        pub body_crc32: Option<u32> = "bodyCrc32",
        /// Zone of the broker.
        pub zone_name: Option<&'a str> = "__ZONE_NAME",
        /// Whether the body is a part of the broker's table: what it does not name stays. An addition of Gantry,
        /// which other name servers pass over.
        pub partial: Option<bool> = "gantryPartial",
    }
}

header! {
    /// Fields of the answer to a registration; both absent unless a replica registers.
    pub struct RegisterAnswer<'a> {
        /// Address of the primary for replication.
        pub ha_server_addr: Option<&'a str> = "haServerAddr",
        /// Address of the primary.
        pub master_addr: Option<&'a str> = "masterAddr",
    }
}

header! {
    /// Fields of request codes 104 and 322.
    pub struct BrokerIdentity<'a> {
        /// Name of the broker group.
        pub broker_name: &'a str = "brokerName",
        /// Address of the broker, `ip:port`.
        pub broker_addr: &'a str = "brokerAddr",
        /// Name of the cluster.
        pub cluster_name: &'a str = "clusterName",
        /// 0 is the primary.
        pub broker_id: u64 = "brokerId",
    }
}

header! {
    /// Fields of the answer to request code 322; the body is the server's version.
    pub struct DataVersionAnswer {
        /// Whether the broker is to register again.
        pub changed: bool = "changed",
    }
}

header! {
    /// Fields of a query for a route: request code 105.
    pub struct RouteRequest<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// Whether the client wants the standard form, whatever its version.
        pub accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
        /// Whether only brokers of `zone_name` are wanted.
        pub zone_mode: Option<bool> = "__ZONE_MODE",
        /// Zone of the client.
        pub zone_name: Option<&'a str> = "__ZONE_NAME",
    }
}

impl RouteRequest<'_> {
    /// Whether a client of that protocol version gets the standard form.
    pub fn wants_standard_json(&self, version: i32) -> bool {
        self.accept_standard_json_only == Some(true) || version >= STANDARD_ROUTE_VERSION
    }
}

header! {
    /// Fields of request codes 205 and 327.
    pub struct WritePermission<'a> {
        /// Name of the broker group.
        pub broker_name: &'a str = "brokerName",
    }
}

header! {
    /// Fields of the answer to request code 205.
    pub struct WipeAnswer {
        /// Topics that were changed.
        pub wiped_topics: u32 = "wipeTopicCount",
    }
}

header! {
    /// Fields of the answer to request code 327.
    pub struct AddAnswer {
        /// Topics that were changed.
        pub added_topics: u32 = "addTopicCount",
    }
}

header! {
    /// Fields of request codes 216 and 217; the body of 217 is a [`TopicRoute`].
    pub struct NameserverTopic<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// Cluster from which it is deleted; absent: all.
        pub cluster_name: Option<&'a str> = "clusterName",
    }
}

header! {
    /// Fields of request code 224.
    pub struct ClusterTopics<'a> {
        /// Name of the cluster.
        pub cluster: &'a str = "cluster",
    }
}

header! {
    /// Fields of request code 901.
    pub struct MemberGroupRequest<'a> {
        /// Name of the cluster.
        pub cluster_name: &'a str = "clusterName",
        /// Name of the broker group.
        pub broker_name: &'a str = "brokerName",
    }
}

header! {
    /// Fields of a broker's sign of life: request code 904.
    pub struct BrokerHeartbeat<'a> {
        /// Name of the cluster.
        pub cluster_name: &'a str = "clusterName",
        /// Address of the broker, `ip:port`.
        pub broker_addr: &'a str = "brokerAddr",
        /// Name of the broker group.
        pub broker_name: &'a str = "brokerName",
        /// 0 is the primary.
        pub broker_id: Option<i64> = "brokerId",
        /// Replication epoch.
        pub epoch: Option<i64> = "epoch",
        /// End of the log.
        pub max_offset: Option<i64> = "maxOffset",
        /// Confirmed position of the log.
        pub confirm_offset: Option<i64> = "confirmOffset",
        /// How long the registration lives without another sign, in milliseconds.
        pub heartbeat_timeout_ms: Option<u64> = "heartbeatTimeoutMills",
        /// Preference in elections.
        pub election_priority: Option<i32> = "electionPriority",
    }
}

body! {
    /// Where a topic lives.
    pub struct TopicRoute: "route" {
        /// Broker groups of the topic.
        pub broker_datas: Vec<BrokerData>,
        /// Obsolete.
        pub filter_server_table: BTreeMap<String, Vec<String>>,
        /// Queues for ordered messages: `broker:queues;broker:queues`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub order_topic_conf: Option<String>,
        /// The topic's queues on each broker group.
        pub queue_datas: Vec<QueueData>,
        /// Static topics, passed through.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub topic_queue_mapping_by_broker: Option<serde_json::Value>,
    }
}

impl TopicRoute {
    /// The body, in the form that the client wants.
    pub fn write(&self, standard: bool) -> Bytes {
        if standard { to_ascii_json(self) } else { to_legacy_json(self) }
    }
}

body! {
    /// A broker group.
    #[derive(Eq)]
    pub struct BrokerData: "broker group" {
        /// Addresses by broker id; 0 is the primary.
        pub broker_addrs: BTreeMap<u64, String>,
        /// Name of the group.
        pub broker_name: String,
        /// Name of the cluster.
        pub cluster: String,
        /// Whether a replica may stand in for the primary.
        pub enable_acting_master: bool,
        /// Zone of the group.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub zone_name: Option<String>,
    }
}

body! {
    /// A topic's queues on one broker group.
    #[derive(Eq)]
    pub struct QueueData: "queue data" {
        /// Name of the broker group.
        pub broker_name: String,
        /// Permission bits.
        pub perm: u32,
        /// Queues that may be read.
        pub read_queue_nums: u32,
        /// Unit bits.
        pub topic_sys_flag: u32,
        /// Queues that are offered to producers.
        pub write_queue_nums: u32,
    }
}

body! {
    /// Answer to 106; always in the legacy form.
    #[derive(Eq)]
    pub struct ClusterInfo: "cluster information" {
        /// Broker groups by name.
        pub broker_addr_table: BTreeMap<String, BrokerData>,
        /// Names of broker groups by cluster.
        pub cluster_addr_table: BTreeMap<String, Vec<String>>,
    }
}

body! {
    /// Answer to 901; legacy form.
    #[derive(Eq)]
    pub struct MemberGroupBody: "member group" {
        /// The group; absent when it is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub broker_member_group: Option<MemberGroup>,
    }
}

body! {
    /// Members of a broker group.
    #[derive(Eq)]
    pub struct MemberGroup: "member group" {
        /// Addresses by broker id.
        pub broker_addrs: BTreeMap<u64, String>,
        /// Name of the group.
        pub broker_name: String,
        /// Name of the cluster.
        pub cluster: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{assert_round_trips, body_matches};

    #[test]
    fn route_matches_the_reference_in_both_forms() {
        let legacy = r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;
        let standard = legacy.replace("{0:\"", "{\"0\":\"").replace("\",1:\"", "\",\"1\":\"");
        let route: TopicRoute = body_matches(legacy);
        assert_eq!(route.write(true), standard);
        assert_eq!(route.write(false), legacy);
    }

    #[test]
    fn new_versions_and_those_who_ask_get_the_standard_form() {
        let plain = RouteRequest { topic: "T", ..RouteRequest::default() };
        assert!(plain.wants_standard_json(401));
        assert!(!plain.wants_standard_json(399));
        let asks = RouteRequest { accept_standard_json_only: Some(true), ..plain };
        assert!(asks.wants_standard_json(317));
    }

    #[test]
    fn cluster_information_matches_the_reference() {
        let _: ClusterInfo = body_matches(
            r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#,
        );
        let _: MemberGroupBody = body_matches(
            r#"{"brokerMemberGroup":{"brokerAddrs":{0:"1.1.1.1:10911"},"brokerName":"b","cluster":"c"}}"#,
        );
    }

    #[test]
    fn nameserver_commands_round_trip() {
        let kv = KvRequest { namespace: "n", key: "k", value: Some("v") };
        assert_round_trips!(kv, KvRequest<'_>);
        assert_round_trips!(KvAnswer { value: None }, KvAnswer<'_>);
        assert_round_trips!(KvListRequest { namespace: "n" }, KvListRequest<'_>);
        let register = RegisterBroker {
            broker_name: "b",
            broker_addr: "a",
            cluster_name: "c",
            body_crc32: Some(0x7fff_ffff),
            compressed: Some(true),
            ..RegisterBroker::default()
        };
        assert_round_trips!(register, RegisterBroker<'_>);
        assert_round_trips!(RegisterAnswer::default(), RegisterAnswer<'_>);
        let identity =
            BrokerIdentity { broker_name: "b", broker_addr: "a", cluster_name: "c", broker_id: 1 };
        assert_round_trips!(identity, BrokerIdentity<'_>);
        assert_round_trips!(DataVersionAnswer { changed: true }, DataVersionAnswer);
        assert_round_trips!(WritePermission { broker_name: "b" }, WritePermission<'_>);
        assert_round_trips!(WipeAnswer { wiped_topics: 3 }, WipeAnswer);
        assert_round_trips!(AddAnswer { added_topics: 3 }, AddAnswer);
        let topic = NameserverTopic { topic: "t", cluster_name: None };
        assert_round_trips!(topic, NameserverTopic<'_>);
        assert_round_trips!(ClusterTopics { cluster: "c" }, ClusterTopics<'_>);
        let member = MemberGroupRequest { cluster_name: "c", broker_name: "b" };
        assert_round_trips!(member, MemberGroupRequest<'_>);
        let alive = BrokerHeartbeat {
            cluster_name: "c",
            broker_addr: "a",
            broker_name: "b",
            heartbeat_timeout_ms: Some(10_000),
            ..BrokerHeartbeat::default()
        };
        assert_round_trips!(alive, BrokerHeartbeat<'_>);
    }
}
