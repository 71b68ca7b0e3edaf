//! The pod of a server.
//! Invariant: it meets the `restricted` profile, has no API token, and writes to its volume alone.
//! Leaves how many there are, and their volumes, to `stateful_sets`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction,
        PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
        SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::broker_cluster::{names, validate::Valid};

/// User and group of every server, as in the images.
const USER: i64 = 65_532;
/// Time for a broker to unregister, drain and flush.
const GRACE_SECONDS: i64 = 60;
/// Folder of the settings file.
const SETTINGS_DIR: &str = "/etc/gantry";
/// Annotation that changes with the settings, so that pods are replaced.
const SETTINGS_REVISION: &str = "gantry.dev/settings";

/// What differs between servers.
pub(super) struct Server<'a> {
    /// Name of the container.
    pub(super) container: &'static str,
    pub(super) image: &'a str,
    pub(super) resources: &'a ResourceRequirements,
    pub(super) ports: &'a [(&'static str, i32)],
    /// Labels that the pods of all such servers of the cluster have: they are spread evenly.
    pub(super) spread: BTreeMap<String, String>,
    /// Labels of this pod.
    pub(super) labels: BTreeMap<String, String>,
    /// `ConfigMap` and file of its settings, and their revision.
    pub(super) settings: (String, &'static str, &'a str),
    /// Where the volume claim is mounted.
    pub(super) data_dir: Option<&'static str>,
}

pub(super) fn render(cluster: &Valid<'_>, server: Server<'_>) -> PodTemplateSpec {
    let spec = cluster.spec;
    let (config_map, file, revision) = &server.settings;
    let settings = Volume {
        name: "settings".into(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.clone(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    };
    let pod = PodSpec {
        containers: vec![container(&server, file)],
        volumes: Some(vec![settings]),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        // Variables of a Service named gantry would look like settings.
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            // A large volume is not walked at each start.
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: non_empty(&spec.image_pull_secrets),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: non_empty(&spec.tolerations),
        affinity: spec.affinity.clone(),
        topology_spread_constraints: Some(spread(cluster, &server.spread)),
        ..PodSpec::default()
    };
    let annotations = [(SETTINGS_REVISION.to_owned(), (*revision).to_owned())].into();
    let metadata = ObjectMeta {
        labels: Some(server.labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(pod) }
}

fn container(server: &Server<'_>, file: &str) -> Container {
    let settings = VolumeMount {
        name: "settings".into(),
        mount_path: SETTINGS_DIR.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let data = server.data_dir.map(|dir| VolumeMount {
        name: names::CLAIM.into(),
        mount_path: dir.into(),
        ..VolumeMount::default()
    });
    let port = |(name, port): &(&str, i32)| ContainerPort {
        name: Some((*name).to_owned()),
        container_port: *port,
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    Container {
        name: server.container.into(),
        image: Some(server.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(vec!["--config".into(), format!("{SETTINGS_DIR}/{file}")]),
        ports: Some(server.ports.iter().map(port).collect()),
        resources: Some(server.resources.clone()),
        volume_mounts: Some(std::iter::once(settings).chain(data).collect()),
        // Health is served while a log is still being recovered: only a process that hangs is started again.
        startup_probe: Some(probe("/healthz", 1, 300)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// As the cluster says, or else evenly over nodes and zones, where that is possible.
fn spread(cluster: &Valid<'_>, labels: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    if !cluster.spec.topology_spread_constraints.is_empty() {
        return cluster.spec.topology_spread_constraints.clone();
    }
    let over = |topology_key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        label_selector: Some(LabelSelector {
            match_labels: Some(labels.clone()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    };
    vec![over("kubernetes.io/hostname"), over("topology.kubernetes.io/zone")]
}

fn non_empty<T: Clone>(items: &[T]) -> Option<Vec<T>> {
    (!items.is_empty()).then(|| items.to_vec())
}
