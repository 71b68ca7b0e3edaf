//! The custom resources of Gantry: `BrokerCluster`, `Topic` and `ConsumerGroup`, group `gantry.dev`, version `v1alpha1`.
//! Invariant: what can be checked without looking elsewhere is checked by the API server: every rule is in the schema,
//! as a range, a default or a CEL rule with a sentence that says what to change.
//! Knows no Kubernetes client. Unknown fields are refused by the API server's strict validation, not here, so that an
//! older operator still reads newer objects.

#![expect(unreachable_pub, reason = "the schema derive repeats each struct inside a function")]

// The derives speak of `::kube`: this crate stands in for that facade, which would bring the client along.
extern crate self as kube;
#[doc(hidden)]
pub use {kube_core as core, kube_derive::KubeSchema};

mod broker_cluster;
mod common;
mod consumer_group;
mod topic;

pub use broker_cluster::{
    AutoCreate, BrokerCluster, BrokerClusterSpec, BrokerClusterStatus, BrokerStatus, Endpoints,
    Flush, NameServers, OnFull, Retention, Storage, WhenDeleted,
};
pub use common::{ClusterRef, Duration, DurationError};
pub use consumer_group::{
    ConsumerGroup, ConsumerGroupSpec, ConsumerGroupStatus, Retry, Scaling, ScalingStatus,
    StartFrom, TargetRef, TopicRef,
};
pub use topic::{
    BrokerTopicStatus, DeletionPolicy, Topic, TopicRetention, TopicSpec, TopicStatus, TopicType,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt as _;

/// API group of all kinds.
pub const GROUP: &str = "gantry.dev";

/// Every kind's definition, in the order in which they are installed.
pub fn definitions() -> [CustomResourceDefinition; 3] {
    [BrokerCluster::crd(), Topic::crd(), ConsumerGroup::crd()]
}

/// A definition as YAML, as it stands in `crds/`.
///
/// # Errors
/// Never for the definitions of this crate.
pub fn to_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(definition)
}
