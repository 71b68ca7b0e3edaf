//! Services: the addresses of a cluster, which outlive its pods.
//! Invariant: headless Services also give pods that are not ready, so that servers find each other while they start;
//! those for clients give ready ones alone.
//! Leaves which pods are ready to the probes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::meta;
use crate::{
    broker_cluster::{names, validate::Valid},
    labels::{self, Component},
};

/// Label that Kubernetes gives to each pod of a `StatefulSet`.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";

pub(super) fn render(cluster: &Valid<'_>) -> Vec<Service> {
    let name = &cluster.name;
    let name_servers = labels::of_component(name, Component::NameServer);
    let brokers = labels::of_component(name, Component::Broker);
    let mut services = vec![
        headless(cluster, names::name_server_pods(name), name_servers.clone(), name_server_ports()),
        headless(cluster, names::broker_pods(name), brokers, broker_ports()),
        client(
            cluster,
            names::name_servers(name),
            name_servers.clone(),
            name_servers,
            name_server_ports(),
        ),
    ];
    for group in 0..cluster.spec.groups {
        services.extend(of_group(cluster, group));
    }
    services
}

/// The address of a group's primary, and that of each replica.
fn of_group(cluster: &Valid<'_>, group: i32) -> Vec<Service> {
    let name = &cluster.name;
    let labels = labels::of_group(name, group);
    let primary =
        client(cluster, names::group(name, group), labels.clone(), labels.clone(), broker_ports());
    let replica = |replica| {
        let service = names::broker(name, group, replica);
        let mut selector = labels.clone();
        // A pod and its Service have the same name.
        selector.insert(POD_NAME.to_owned(), service.clone());
        client(cluster, service, labels.clone(), selector, broker_ports())
    };
    std::iter::once(primary).chain((0..cluster.spec.replicas_per_group).map(replica)).collect()
}

fn headless(
    cluster: &Valid<'_>,
    name: String,
    labels: BTreeMap<String, String>,
    ports: Vec<ServicePort>,
) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".into()),
        publish_not_ready_addresses: Some(true),
        selector: Some(labels.clone()),
        ports: Some(ports),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(cluster, name, labels), spec: Some(spec), ..Service::default() }
}

fn client(
    cluster: &Valid<'_>,
    name: String,
    labels: BTreeMap<String, String>,
    selector: BTreeMap<String, String>,
    ports: Vec<ServicePort>,
) -> Service {
    let spec = ServiceSpec {
        type_: Some("ClusterIP".into()),
        selector: Some(selector),
        ports: Some(ports),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(cluster, name, labels), spec: Some(spec), ..Service::default() }
}

fn name_server_ports() -> Vec<ServicePort> {
    vec![port("remoting", names::NAME_SERVER_PORT)]
}

fn broker_ports() -> Vec<ServicePort> {
    vec![
        port("remoting", names::REMOTING_PORT),
        port("remoting-vip", names::VIP_PORT),
        port("grpc", names::GRPC_PORT),
    ]
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
