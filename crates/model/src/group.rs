//! A consumer group's definition, in the JSON form that RocketMQ's tools read and write.
//! Invariant: every field has the reference's default, so that an older tool's partial JSON is complete.
//! Leaves offsets to the store and online members to the broker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::GroupName;

/// How long a failed message waits before it is delivered again, for POP consumers.
/// Consumers of the classic kind use the 18 delay levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// `CUSTOMIZED` (the delay levels, or a list of its own) or `EXPONENTIAL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Settings of the kind, passed through.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { kind: "CUSTOMIZED".into(), rest: BTreeMap::new() }
    }
}

/// A consumer group as administrators define it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the switches of the protocol's JSON form")]
pub struct GroupConfig {
    /// Key and value settings.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Broker to which healthy consumers are sent. Default 0, the primary.
    #[serde(default)]
    pub broker_id: u64,
    /// Whether broadcast consumers may read. Default true.
    #[serde(default = "yes")]
    pub consume_broadcast_enable: bool,
    /// Whether the group may consume at all. Default true.
    #[serde(default = "yes")]
    pub consume_enable: bool,
    /// Passed through; the reference does not act on it. Default true.
    #[serde(default = "yes")]
    pub consume_from_min_enable: bool,
    /// Whether POP and gRPC consumers get messages in order. Default false.
    #[serde(default)]
    pub consume_message_orderly: bool,
    /// How long a consumer may take for a message, in minutes; informative. Default 15.
    #[serde(default = "consume_timeout_minute")]
    pub consume_timeout_minute: i32,
    /// Its name.
    pub group_name: GroupName,
    /// Waiting time before each further attempt of POP consumers.
    #[serde(default)]
    pub group_retry_policy: RetryPolicy,
    /// Unit bits, passed through.
    #[serde(default)]
    pub group_sys_flag: i32,
    /// Whether members are told at once when another joins or leaves. Default true.
    #[serde(default = "yes")]
    pub notify_consumer_ids_changed_enable: bool,
    /// Failed attempts after which a message goes to the dead-letter topic. Default 16.
    #[serde(default = "retry_max_times")]
    pub retry_max_times: i32,
    /// Queues of the retry topic; 0 or less: failed messages are forgotten. Default 1.
    #[serde(default = "one_i32")]
    pub retry_queue_nums: i32,
    /// Broker to which slow consumers are sent. Default 1.
    #[serde(default = "one_u64")]
    pub which_broker_when_consume_slowly: u64,
}

fn yes() -> bool {
    true
}
fn consume_timeout_minute() -> i32 {
    15
}
fn retry_max_times() -> i32 {
    16
}
fn one_i32() -> i32 {
    1
}
fn one_u64() -> u64 {
    1
}

impl GroupConfig {
    /// A group with the reference's defaults.
    pub fn new(group_name: GroupName) -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: consume_timeout_minute(),
            group_name,
            group_retry_policy: RetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: retry_max_times(),
            retry_queue_nums: 1,
            which_broker_when_consume_slowly: 1,
        }
    }
}
