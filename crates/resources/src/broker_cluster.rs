//! `BrokerCluster`: name servers and broker groups that make one RocketMQ cluster.
//! Invariant: `{storage: {size: 10Gi}}` is a complete spec; every other field has a default.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, common::resource_requirements};

/// A message queue cluster that RocketMQ clients can use: name servers, and broker groups that store messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "gantry.dev",
    version = "v1alpha1",
    kind = "BrokerCluster",
    namespaced,
    status = "BrokerClusterStatus",
    derive = "PartialEq",
    shortname = "bc",
    category = "gantry",
    doc = "A message queue cluster that RocketMQ clients can use: name servers, and broker groups that store messages.",
    scale(
        spec_replicas_path = ".spec.groups",
        status_replicas_path = ".status.groups"
    ),
    validation = Rule::new("self.metadata.name.size() <= 30 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be at most 30 characters of a-z, 0-9 and '-', and begin with a letter: Services and pods are named after it"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Groups", type_ = "integer", json_path = ".spec.groups", description = "broker groups asked for"),
    printcolumn(name = "Serving", type_ = "integer", json_path = ".status.groups", description = "broker groups that serve"),
    printcolumn(name = "Name servers", type_ = "string", json_path = ".status.endpoints.nameServers", description = "what clients connect to"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.retention.size) || !isQuantity(string(self.retention.size)) || !isQuantity(string(self.storage.size)) || quantity(string(self.retention.size)).compareTo(quantity(string(self.storage.size))) < 0").message("retention.size must be less than storage.size: a broker's volume must hold it"))]
pub struct BrokerClusterSpec {
    /// Number of broker groups. Topics have their queues on each of them. It may only grow: a group that is taken away
    /// would have to be drained first.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("groups may only grow: a broker group cannot be drained yet"))]
    pub groups: i32,

    /// Brokers in each group that hold the same messages. Only 1 in this version.
    #[serde(default = "one")]
    #[x_kube(validation = Rule::new("self == 1").message("replicasPerGroup must be 1: brokers do not replicate yet"))]
    pub replicas_per_group: i32,

    /// The name servers, which tell clients where topics are.
    #[serde(default)]
    pub name_servers: NameServers,

    /// When an answered message is safe: `Sync`: it is on disk; `Async`: it is on disk within half a second.
    #[serde(default)]
    pub flush: Flush,

    /// Where messages are kept.
    pub storage: Storage,

    /// How long messages are kept, read or not.
    #[serde(default)]
    pub retention: Retention,

    /// What comes to be by its first use.
    #[serde(default)]
    pub auto_create: AutoCreate,

    /// Processor and memory of each broker. The broker derives its caches from the memory limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resource_requirements")]
    pub resources: Option<ResourceRequirements>,

    /// Image of brokers, and with its name changed of name servers; default: the ones that belong to the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^[-a-zA-Z0-9._:/@]+$')").message("image must be the name of an image, such as registry.example/gantry-broker:1.0"))]
    pub image: Option<String>,

    /// Secrets for pulling the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// Labels of the nodes that pods may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,

    /// Affinity of pods; default: brokers of a cluster keep apart where they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How pods spread over nodes and zones; default: evenly over both, where that is possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// The name servers of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameServers {
    /// How many. They share nothing: one is enough to serve, two to survive the loss of one.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,

    /// Processor and memory of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resource_requirements")]
    pub resources: Option<ResourceRequirements>,
}

impl Default for NameServers {
    fn default() -> Self {
        Self { replicas: 1, resources: None }
    }
}

/// When an answered message is safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Flush {
    /// It is on disk.
    #[default]
    Sync,
    /// It is on disk within half a second.
    Async,
}

/// Where messages are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName)").message("storage.storageClassName cannot be set or removed later: volumes keep the class they were made with"))]
pub struct Storage {
    /// Size of each broker's volume. It may only grow.
    #[x_kube(
        validation = Rule::new("isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1Gi')) >= 0").message("storage.size must be a quantity of at least 1Gi, such as 10Gi"),
        validation = Rule::new("!isQuantity(string(self)) || !isQuantity(string(oldSelf)) || quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0").message("storage.size may only grow")
    )]
    pub size: Quantity,

    /// Storage class of the volumes; default: the cluster's default class. It cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("storage.storageClassName cannot be changed: volumes keep the class they were made with"))]
    pub storage_class_name: Option<String>,

    /// What becomes of the volumes when the cluster's resource is deleted. With `Retain` a cluster of the same name finds
    /// its messages again.
    #[serde(default)]
    pub when_deleted: WhenDeleted,

    /// What happens when a broker's log has its part of the volume. With `Refuse` senders are told to try another
    /// broker until retention has made room.
    #[serde(default)]
    pub on_full: OnFull,
}

/// What happens when a log has its size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFull {
    /// Messages are refused.
    #[default]
    Refuse,
    /// The oldest messages are deleted, whatever their age, read or not.
    DeleteOldest,
}

/// What becomes of volumes when their cluster is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDeleted {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted, and all messages with them.
    Delete,
}

/// How long messages are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.time.matches('^0*([0-5]?[0-9]s|0[mhd])$')").message("retention.time must be at least 1m"))]
pub struct Retention {
    /// Age at which messages may be deleted.
    #[serde(default = "retention_time")]
    pub time: Duration,

    /// Size of a broker's log above which its oldest messages are deleted; default: only age counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("isQuantity(string(self))").message("retention.size must be a quantity, such as 8Gi"))]
    pub size: Option<Quantity>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: retention_time(), size: None }
    }
}

/// What comes to be by its first use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoCreate {
    /// Whether a message to an unknown topic creates it.
    #[serde(default)]
    pub topics: bool,

    /// Whether a consumer of an unknown group creates it.
    #[serde(default = "yes")]
    pub groups: bool,
}

impl Default for AutoCreate {
    fn default() -> Self {
        Self { topics: false, groups: true }
    }
}

/// How a cluster is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Number of broker groups that serve.
    #[serde(default)]
    pub groups: i32,

    /// What clients connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// Each broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub brokers: Vec<BrokerStatus>,

    /// What is so, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What clients connect to, ready to paste.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// Name server address for most SDKs, by name.
    pub name_servers: String,
    /// The same by address, for clients that cannot resolve cluster names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_servers_ip: Option<String>,
    /// The form that the Go SDK wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_servers_http: Option<String>,
    /// Access point for gRPC SDKs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
}

/// How one broker is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatus {
    /// Name of its pod.
    pub name: String,
    /// Its broker name in routes.
    pub broker_name: String,
    /// Whether it serves.
    pub ready: bool,
    /// Whether the name servers know it.
    pub registered: bool,
    /// Address in routes and message ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Image that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

fn one() -> i32 {
    1
}

fn yes() -> bool {
    true
}

fn retention_time() -> Duration {
    Duration::from_hours(72)
}
