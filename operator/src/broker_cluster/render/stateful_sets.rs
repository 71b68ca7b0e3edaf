//! `StatefulSet`s: one for the name servers, one for each broker group.
//! Invariant: fields that cannot change (selector, Service, claim template) are the same for a name for ever; pods are
//! replaced by the operator alone.
//! Leaves the pod to `pod`, and which pod is replaced when to `roll`.

use std::collections::BTreeMap;

use gantry_resources::WhenDeleted;
use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
            StatefulSetUpdateStrategy,
        },
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};

use super::{
    meta,
    pod::{self, Server},
    settings::{BROKER_FILE, File, NAME_SERVER_FILE, Settings},
};
use crate::{
    broker_cluster::{
        names,
        validate::{DATA_DIR, Valid},
    },
    labels::{self, Component},
};

pub(super) fn render(cluster: &Valid<'_>, settings: &Settings) -> Vec<StatefulSet> {
    let files = settings.brokers.iter().zip(&cluster.claim_sizes);
    let groups = (0..).zip(files).map(|(group, (file, size))| of_group(cluster, group, file, size));
    std::iter::once(name_servers(cluster, &settings.name_server)).chain(groups).collect()
}

fn name_servers(cluster: &Valid<'_>, settings: &File) -> StatefulSet {
    let name = names::name_servers(&cluster.name);
    let labels = labels::of_component(&cluster.name, Component::NameServer);
    let pod = Server {
        container: "nameserver",
        image: &cluster.nameserver_image,
        resources: &cluster.nameserver_resources,
        ports: &[("remoting", names::NAME_SERVER_PORT), ("http", names::HTTP_PORT)],
        spread: labels.clone(),
        labels: labels.clone(),
        settings: (name.clone(), NAME_SERVER_FILE, &settings.revision),
        data_dir: None,
    };
    let spec = StatefulSetSpec {
        replicas: Some(cluster.spec.name_servers.replicas),
        service_name: Some(names::name_server_pods(&cluster.name)),
        template: pod::render(cluster, pod),
        ..common(&labels)
    };
    StatefulSet { metadata: meta(cluster, name, labels), spec: Some(spec), status: None }
}

fn of_group(
    cluster: &Valid<'_>,
    group: i32,
    settings: &File,
    claim_size: &Quantity,
) -> StatefulSet {
    let name = names::group(&cluster.name, group);
    let labels = labels::of_group(&cluster.name, group);
    let pod = Server {
        container: "broker",
        image: &cluster.broker_image,
        resources: &cluster.broker_resources,
        ports: &[
            ("remoting", names::REMOTING_PORT),
            ("remoting-vip", names::VIP_PORT),
            ("grpc", names::GRPC_PORT),
            ("http", names::HTTP_PORT),
        ],
        spread: labels::of_component(&cluster.name, Component::Broker),
        labels: labels.clone(),
        settings: (name.clone(), BROKER_FILE, &settings.revision),
        data_dir: Some(DATA_DIR),
    };
    let spec = StatefulSetSpec {
        replicas: Some(cluster.spec.replicas_per_group),
        service_name: Some(names::broker_pods(&cluster.name)),
        template: pod::render(cluster, pod),
        volume_claim_templates: Some(vec![claim(cluster, labels.clone(), claim_size.clone())]),
        persistent_volume_claim_retention_policy: Some(
            StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some(when_deleted(cluster.spec.storage.when_deleted).into()),
                when_scaled: Some("Retain".into()),
            },
        ),
        ..common(&labels)
    };
    StatefulSet { metadata: meta(cluster, name, labels), spec: Some(spec), status: None }
}

fn when_deleted(policy: WhenDeleted) -> &'static str {
    match policy {
        WhenDeleted::Retain => "Retain",
        WhenDeleted::Delete => "Delete",
    }
}

fn common(labels: &BTreeMap<String, String>) -> StatefulSetSpec {
    StatefulSetSpec {
        selector: LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() },
        pod_management_policy: Some("Parallel".into()),
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some("OnDelete".into()),
            ..StatefulSetUpdateStrategy::default()
        }),
        ..StatefulSetSpec::default()
    }
}

fn claim(
    cluster: &Valid<'_>,
    labels: BTreeMap<String, String>,
    size: Quantity,
) -> PersistentVolumeClaim {
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".into()]),
        storage_class_name: cluster.spec.storage.storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: Some([("storage".to_owned(), size)].into()),
            ..VolumeResourceRequirements::default()
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    let metadata = ObjectMeta {
        name: Some(names::CLAIM.into()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    PersistentVolumeClaim { metadata, spec: Some(spec), status: None }
}
