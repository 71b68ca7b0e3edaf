//! `ConsumerGroup`: a consumer group of a cluster, its backlog, and the scaling of its consumers.
//! Invariant: nothing that arrives after the declaration is skipped, consumers or not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ClusterRef;

/// A consumer group of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "ConsumerGroup",
    namespaced,
    status = "ConsumerGroupStatus",
    derive = "PartialEq",
    shortname = "mqg",
    category = "gantry",
    doc = "A consumer group of a BrokerCluster: its settings, where it starts, its backlog, and the scaling of its consumers.",
    selectable = ".spec.clusterRef.name",
    validation = Rule::new("has(self.spec.name) || (self.metadata.name.size() <= 120 && self.metadata.name.matches('^[-a-z0-9]+$'))")
        .message("metadata.name cannot be a group name (at most 120 characters, no '.'): set spec.name"),
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name"),
    printcolumn(name = "Group", type_ = "string", json_path = ".status.name", description = "name that clients use"),
    printcolumn(name = "Backlog", type_ = "integer", json_path = ".status.backlog", description = "messages not consumed yet, retries included"),
    printcolumn(name = "Oldest", type_ = "date", json_path = ".status.oldestMessageTime", description = "age of the oldest message not consumed yet"),
    printcolumn(name = "Consumers", type_ = "integer", json_path = ".status.scaling.replicas"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) == has(oldSelf.name)").message("spec.name cannot be set or removed later: offsets belong to the name"),
    validation = Rule::new("!has(self.scaling) || (has(self.topics) && self.topics.size() > 0)").message("scaling needs topics: without consumers a broker does not know what the group reads")
)]
pub struct ConsumerGroupSpec {
    /// The cluster. It cannot be changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("clusterRef cannot be changed: create another ConsumerGroup"))]
    pub cluster_ref: ClusterRef,

    /// Name that clients use; default: `metadata.name`. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120))]
    #[x_kube(
        validation = Rule::new("self.matches('^[-_a-zA-Z0-9%|]+$')").message("spec.name may hold letters, digits and - _ % | only"),
        validation = Rule::new("self == oldSelf").message("spec.name cannot be changed: offsets belong to the name"),
        validation = Rule::new("!self.startsWith('CID_RMQ_SYS_')").message("spec.name is one that brokers use themselves: choose another")
    )]
    pub name: Option<String>,

    /// Topics that the group reads. Its backlog is counted over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub topics: Vec<TopicRef>,

    /// Where the group starts to read a queue that it has never read. `Latest`: with messages that arrive after this
    /// declaration; `Earliest`: with the oldest message there is.
    #[serde(default)]
    pub start_from: StartFrom,

    /// What happens to messages that a consumer failed to handle.
    #[serde(default)]
    pub retry: Retry,

    /// Scales the consumers by the backlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
}

/// A topic that a group reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct TopicRef {
    /// The topic's name, as clients use it.
    #[schemars(length(min = 1, max = 127))]
    #[x_kube(validation = Rule::new("self.matches('^[-_a-zA-Z0-9%|]+$')").message("topics[].name may hold letters, digits and - _ % | only: it is the name that clients use"))]
    pub name: String,
}

/// Where a group starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StartFrom {
    /// With messages that arrive after the group was declared.
    #[default]
    Latest,
    /// With the oldest message there is.
    Earliest,
}

/// What happens to messages that a consumer failed to handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Failed attempts after which a message goes to the dead-letter topic.
    #[serde(default = "max_attempts")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_attempts: i32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: max_attempts() }
    }
}

/// Scales consumers by the backlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minReplicas <= self.maxReplicas").message("scaling.minReplicas must not be above scaling.maxReplicas"))]
pub struct Scaling {
    /// The workload that consumes, in the same namespace.
    pub target_ref: TargetRef,

    /// Fewest replicas; with 0 nothing runs while there is nothing to do.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: i32,

    /// Most replicas. More than there are queues would be idle and are not started.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,

    /// Messages that one replica is to have before it.
    #[serde(default = "backlog_per_replica")]
    #[schemars(range(min = 1))]
    pub backlog_per_replica: i64,
}

/// A workload with a `scale` subresource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.apiVersion.startsWith('gantry.dev/')").message("scaling.targetRef must be the workload that consumes, not a resource of Gantry"))]
pub struct TargetRef {
    /// Its API version.
    #[serde(default = "apps")]
    #[schemars(length(min = 1, max = 253))]
    pub api_version: String,
    /// Its kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How a group is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerGroupStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Name that clients use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Messages not consumed yet, over all its topics, those in flight and retries that wait included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// When the oldest of them was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_message_time: Option<Time>,
    /// How its consumers are scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingStatus>,
    /// What is so, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How consumers are scaled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// Replicas that the target has been set to.
    pub replicas: i32,
}

fn max_attempts() -> i32 {
    16
}

fn backlog_per_replica() -> i64 {
    1000
}

fn apps() -> String {
    "apps/v1".into()
}
