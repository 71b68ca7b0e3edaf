//! `Topic`: a topic on every broker group of a cluster.
//! Invariant: deleting the resource deletes no message unless its policy says so.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ClusterRef, Duration};

/// A topic of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "Topic",
    namespaced,
    status = "TopicStatus",
    derive = "PartialEq",
    shortname = "mqt",
    category = "gantry",
    doc = "A topic of a BrokerCluster. It is created on every broker group, and repaired when it is changed behind the resource's back.",
    scale(
        spec_replicas_path = ".spec.queues",
        status_replicas_path = ".status.queues"
    ),
    selectable = ".spec.clusterRef.name",
    validation = Rule::new("has(self.spec.name) || self.metadata.name.size() <= 127")
        .message("metadata.name is longer than a topic name may be: set spec.name, at most 127 characters"),
    validation = Rule::new("has(self.spec.name) || self.metadata.name.matches('^[-a-z0-9]+$')")
        .message("metadata.name has a '.', which a topic name may not: set spec.name"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Topic", type_ = "string", json_path = ".status.name", description = "name that clients use"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Queues", type_ = "integer", json_path = ".spec.queues", description = "on each broker group"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) == has(oldSelf.name)").message("spec.name cannot be set or removed later: messages belong to the name"))]
pub struct TopicSpec {
    /// The cluster. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterRef cannot be changed: create another Topic"))]
    pub cluster_ref: ClusterRef,

    /// Name that clients use; default: `metadata.name`. It cannot be changed. Names that brokers use themselves,
    /// and names of retry and dead-letter topics, are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    #[x_kube(
        validation = Rule::new("self.matches('^[-_a-zA-Z0-9%|]+$')").message("spec.name may hold letters, digits and - _ % | only"),
        validation = Rule::new("self == oldSelf").message("spec.name cannot be changed: messages belong to the name"),
        validation = Rule::new("!self.startsWith('%RETRY%') && !self.startsWith('%DLQ%') && !self.startsWith('rmq_sys_') && !(self in ['TBW102', 'SELF_TEST_TOPIC', 'OFFSET_MOVED_EVENT', 'SCHEDULE_TOPIC_XXXX', 'RMQ_SYS_TRACE_TOPIC', 'RMQ_SYS_TRANS_HALF_TOPIC', 'RMQ_SYS_TRANS_OP_HALF_TOPIC', 'TRANS_CHECK_MAX_TIME_TOPIC', 'BenchmarkTest'])").message("spec.name is one that brokers use themselves: choose another")
    )]
    pub name: Option<String>,

    /// What messages it takes.
    #[serde(default, rename = "type")]
    pub kind: TopicType,

    /// Queues on each broker group: as many consumers of a group can read at once.
    #[serde(default = "queues")]
    #[schemars(range(min = 1, max = 65536))]
    pub queues: i32,

    /// How long its messages are visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<TopicRetention>,

    /// What becomes of the topic and its messages when this resource is deleted. `Retain`: they stay; `Delete`: they are
    /// deleted; `DeleteIfEmpty`: the topic is deleted if it holds no message, else it stays.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What messages a topic takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TopicType {
    /// Messages without order.
    #[default]
    Normal,
    /// Messages in order within their message group.
    Fifo,
}

/// How long a topic's messages are visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicRetention {
    /// Age from which messages are hidden; at most the cluster's retention time.
    pub time: Duration,
}

/// What becomes of a topic when its resource is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays, with its messages.
    #[default]
    Retain,
    /// It is deleted, with its messages.
    Delete,
    /// It is deleted if it has no message.
    DeleteIfEmpty,
}

/// How a topic is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name that clients use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Queues that every broker group has.
    #[serde(default)]
    pub queues: i32,
    /// The topic on each broker group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub brokers: Vec<BrokerTopicStatus>,
    /// What is so, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A topic on one broker group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerTopicStatus {
    /// The broker's name in routes.
    pub name: String,
    /// Queues that it has there.
    pub queues: i32,
}

fn queues() -> i32 {
    8
}
