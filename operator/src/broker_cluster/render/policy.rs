//! Network policy: which pods may reach which ports of a cluster.
//! Invariant: ports that clients use are open to everybody, the health port to the operator's namespace and to the
//! monitoring namespaces alone; every other port is closed. Egress is open.
//! Leaves enforcement to the cluster's network, which lets a node's own probes through.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
        NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::meta;
use crate::{
    broker_cluster::{names, validate::Valid},
    labels,
};

/// Label that Kubernetes gives to each namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

pub(super) fn render(cluster: &Valid<'_>) -> NetworkPolicy {
    let labels = labels::of_cluster(&cluster.name);
    let spec = NetworkPolicySpec {
        pod_selector: Some(selector(labels.clone())),
        policy_types: Some(vec!["Ingress".into()]),
        ingress: Some(vec![for_clients(), for_health(cluster)]),
        egress: None,
    };
    NetworkPolicy { metadata: meta(cluster, cluster.name.clone(), labels), spec: Some(spec) }
}

fn for_clients() -> NetworkPolicyIngressRule {
    let ports = [names::NAME_SERVER_PORT, names::REMOTING_PORT, names::VIP_PORT, names::GRPC_PORT]
        .map(port);
    NetworkPolicyIngressRule { ports: Some(ports.into()), from: None }
}

fn for_health(cluster: &Valid<'_>) -> NetworkPolicyIngressRule {
    let operator = cluster.defaults.operator_namespace.clone();
    let mut from = vec![namespaces([(NAMESPACE_NAME.to_owned(), operator)].into())];
    let monitoring = &cluster.defaults.monitoring.0;
    // An empty selector would select every namespace.
    if !monitoring.is_empty() {
        from.push(namespaces(monitoring.clone()));
    }
    NetworkPolicyIngressRule { ports: Some(vec![port(names::HTTP_PORT)]), from: Some(from) }
}

fn namespaces(labels: std::collections::BTreeMap<String, String>) -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(selector(labels)), ..NetworkPolicyPeer::default() }
}

fn selector(labels: std::collections::BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn port(port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Labels,
        broker_cluster::{fixture, validate::validate},
    };

    type Pairs = BTreeMap<String, String>;

    fn pairs(text: &str) -> Pairs {
        text.parse::<Labels>().unwrap().0
    }

    /// Whether `policies` let a pod in a namespace with these labels reach `port` of a pod with labels `target`, as the
    /// Kubernetes documentation of `NetworkPolicy` says: without a policy that selects the target, everything goes.
    fn allows(policy: &NetworkPolicy, target: &Pairs, source_namespace: &Pairs, to: i32) -> bool {
        let spec = policy.spec.as_ref().unwrap();
        let selected = spec.pod_selector.as_ref().is_none_or(|selector| matches(selector, target));
        if !selected {
            return true;
        }
        spec.ingress.iter().flatten().any(|rule| {
            let port = rule.ports.as_ref().is_none_or(|ports| {
                ports.iter().any(|port| port.port == Some(IntOrString::Int(to)))
            });
            let from = rule.from.as_ref().is_none_or(|peers| {
                peers.iter().any(|peer| {
                    assert!(peer.pod_selector.is_none() && peer.ip_block.is_none(), "unknown here");
                    let namespaces = peer.namespace_selector.as_ref().unwrap();
                    matches(namespaces, source_namespace)
                })
            });
            port && from
        })
    }

    fn matches(selector: &LabelSelector, labels: &Pairs) -> bool {
        assert!(selector.match_expressions.is_none(), "unknown to this evaluator");
        let wanted = selector.match_labels.iter().flatten();
        wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    #[test]
    fn policy_allows_and_refuses_as_in_the_table() {
        let (cluster, mut defaults) =
            (fixture::cluster("{storage: {size: 10Gi}}"), fixture::defaults());
        let policy = render(&validate(&cluster, &defaults, &BTreeMap::new()).unwrap());
        let broker = labels::of_group("shop", 0);
        let name_server = labels::of_component("shop", labels::Component::NameServer);
        let other_cluster = labels::of_group("other", 0);
        let operator = pairs("kubernetes.io/metadata.name=gantry-system");
        let monitoring = pairs("kubernetes.io/metadata.name=prometheus,monitoring=yes");
        let clients = pairs("kubernetes.io/metadata.name=demo");
        let table = [
            (&name_server, &clients, 9876, true),
            (&broker, &clients, 10_911, true),
            (&broker, &clients, 10_909, true),
            (&broker, &clients, 8081, true),
            (&broker, &clients, 8080, false),
            (&name_server, &clients, 8080, false),
            (&broker, &operator, 8080, true),
            (&name_server, &operator, 8080, true),
            (&broker, &monitoring, 8080, true),
            (&broker, &monitoring, 22, false),
            (&broker, &operator, 10_912, false),
            (&other_cluster, &clients, 8080, true),
        ];
        for (target, source, port, allowed) in table {
            assert_eq!(allows(&policy, target, source, port), allowed, "{source:?} to {port}");
        }
        defaults.monitoring = Labels::default();
        let without = render(&validate(&cluster, &defaults, &BTreeMap::new()).unwrap());
        assert!(
            !allows(&without, &broker, &monitoring, 8080),
            "no selector must not mean everybody"
        );
    }

    #[test]
    fn egress_is_open() {
        let (cluster, defaults) =
            (fixture::cluster("{storage: {size: 10Gi}}"), fixture::defaults());
        let spec = render(&validate(&cluster, &defaults, &BTreeMap::new()).unwrap()).spec.unwrap();
        assert_eq!(spec.policy_types, Some(vec!["Ingress".to_owned()]));
        assert_eq!(spec.egress, None);
    }
}
