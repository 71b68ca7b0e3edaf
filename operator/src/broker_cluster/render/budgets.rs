//! Disruption budgets: how many pods a drain may take at a time.
//! Invariant: at most one broker and one name server; a pod that is not healthy may always go, so that a broken cluster
//! never blocks a drain.
//! Leaves the operator's own replacing of pods to `roll`.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::meta;
use crate::{
    broker_cluster::{names, validate::Valid},
    labels::{self, Component},
};

pub(super) fn render(cluster: &Valid<'_>) -> Vec<PodDisruptionBudget> {
    let name = &cluster.name;
    vec![
        budget(cluster, names::name_servers(name), Component::NameServer),
        budget(cluster, names::brokers(name), Component::Broker),
    ]
}

fn budget(cluster: &Valid<'_>, name: String, component: Component) -> PodDisruptionBudget {
    let labels = labels::of_component(&cluster.name, component);
    let selector = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(selector),
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
        ..PodDisruptionBudgetSpec::default()
    };
    PodDisruptionBudget {
        metadata: meta(cluster, name, labels),
        spec: Some(spec),
        ..PodDisruptionBudget::default()
    }
}
