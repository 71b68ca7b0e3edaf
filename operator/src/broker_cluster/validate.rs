//! Checks a cluster's spec beyond what the API server can, and works out everything that rendering needs.
//! Invariant: what is `Valid` renders to settings that the servers accept.
//! Pure; leaves the objects to `render`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use gantry_model::settings::{
    self, BrokerSettings, BrokerSettingsError, Bytes, Duration, FlushMode, InvalidSetting,
    NameServerSettings,
};
use gantry_resources::{BrokerCluster, BrokerClusterSpec, Flush, OnFull};
use k8s_openapi::{
    api::core::v1::ResourceRequirements,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::{Resource, ResourceExt};

use super::names;
use crate::{Labels, quantity};

/// Folder of a broker's volume.
pub(super) const DATA_DIR: &str = "/var/lib/gantry";

/// What a cluster does not say itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defaults {
    /// Image of brokers.
    pub broker_image: String,
    /// Image of name servers.
    pub nameserver_image: String,
    /// Namespace of the operator, whose pods may reach the health ports.
    pub operator_namespace: String,
    /// Labels of further namespaces whose pods may reach them; empty for none.
    pub monitoring: Labels,
}

/// A cluster that can be rendered.
#[derive(Debug, Clone)]
pub(super) struct Valid<'a> {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it asks for.
    pub spec: &'a BrokerClusterSpec,
    /// Reference to it, as the controller of all its objects.
    pub owner: OwnerReference,
    /// Image of brokers.
    pub broker_image: String,
    /// Image of name servers.
    pub nameserver_image: String,
    /// Processor and memory of each broker.
    pub broker_resources: ResourceRequirements,
    /// Processor and memory of each name server.
    pub nameserver_resources: ResourceRequirements,
    /// Size of the volume claims that each group's `StatefulSet` makes, by group number.
    pub claim_sizes: Vec<Quantity>,
    /// Settings of each group's broker, by group number.
    pub brokers: Vec<BrokerSettings>,
    /// Settings of the name servers.
    pub name_server: NameServerSettings,
    /// Who may reach the health ports.
    pub defaults: &'a Defaults,
}

/// Why a spec cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidSpec {
    /// The object came without name, namespace or uid, which the API server never sends.
    #[error("the object has no identity")]
    Identity,
    /// A text is no quantity that can be used.
    #[error("{field} is {value:?}, which is no usable quantity")]
    Quantity {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// A time is too long.
    #[error("retention.time is {0}, which is too long")]
    Time(gantry_resources::Duration),
    /// A broker would refuse its settings.
    #[error("a broker cannot run with it: {0}")]
    Broker(#[from] BrokerSettingsError),
    /// A name server would refuse its settings.
    #[error("a name server cannot run with it: {0}")]
    NameServer(#[from] InvalidSetting),
}

/// Checks `cluster`. `made_with` are the volume sizes that its `StatefulSet`s were made with, by name: the claims that
/// these make cannot change any more, and what is derived from a size stays when the volume grows.
pub(super) fn validate<'a>(
    cluster: &'a BrokerCluster,
    defaults: &'a Defaults,
    made_with: &BTreeMap<String, Quantity>,
) -> Result<Valid<'a>, InvalidSpec> {
    let owner = cluster.controller_owner_ref(&()).ok_or(InvalidSpec::Identity)?;
    let namespace = cluster.namespace().ok_or(InvalidSpec::Identity)?;
    let (name, spec) = (cluster.name_any(), &cluster.spec);
    let broker_resources =
        spec.resources.clone().unwrap_or_else(|| resources("100m", "256Mi", "1Gi"));
    let nameserver_resources =
        spec.name_servers.resources.clone().unwrap_or_else(|| resources("50m", "64Mi", "256Mi"));
    let memory = memory_limit("resources.limits.memory", &broker_resources)?;
    let claim_sizes: Vec<Quantity> = (0..spec.groups)
        .map(|group| {
            made_with.get(&names::group(&name, group)).unwrap_or(&spec.storage.size).clone()
        })
        .collect();
    let brokers = (0..)
        .zip(&claim_sizes)
        .map(|(group, size)| broker_settings(&name, &namespace, spec, group, size, memory))
        .collect::<Result<Vec<_>, _>>()?;
    let name_server = name_server_settings(&name, spec)?;
    let broker_image = spec.image.clone().unwrap_or_else(|| defaults.broker_image.clone());
    let nameserver_image = nameserver_image(spec.image.as_deref(), defaults);
    Ok(Valid {
        name,
        namespace,
        spec,
        owner,
        broker_image,
        nameserver_image,
        broker_resources,
        nameserver_resources,
        claim_sizes,
        brokers,
        name_server,
        defaults,
    })
}

fn broker_settings(
    name: &str,
    namespace: &str,
    spec: &BrokerClusterSpec,
    group: i32,
    size: &Quantity,
    memory: Option<u64>,
) -> Result<BrokerSettings, InvalidSpec> {
    let seconds = u32::try_from(spec.retention.time.as_secs())
        .map_err(|_| InvalidSpec::Time(spec.retention.time))?;
    let size = bytes("storage.size", size)?;
    let retention_size =
        spec.retention.size.as_ref().map(|size| bytes("retention.size", size)).transpose()?;
    let name_servers = names::host(&names::name_server_pods(name), namespace);
    let settings = BrokerSettings {
        cluster_name: name.to_owned(),
        broker_name: names::broker_name(name, group),
        data_dir: PathBuf::from(DATA_DIR),
        bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        advertise: Some(names::host(&names::group(name, group), namespace)),
        name_servers: vec![format!("{name_servers}:{}", names::NAME_SERVER_PORT)],
        flush: match spec.flush {
            Flush::Sync => FlushMode::Sync,
            Flush::Async => FlushMode::Async,
        },
        retention: Duration::from_secs(seconds),
        retention_size: retention_size.map(Bytes::new),
        segment_size: segment_size(size),
        log_size_max: Some(log_size_max(
            bytes("storage.size", &spec.storage.size)?,
            size,
            retention_size,
        )),
        on_full: match spec.storage.on_full {
            OnFull::Refuse => settings::OnFull::Refuse,
            OnFull::DeleteOldest => settings::OnFull::DeleteOldest,
        },
        memory: memory.map(Bytes::new),
        auto_create_topics: spec.auto_create.topics,
        auto_create_groups: spec.auto_create.groups,
        ..BrokerSettings::default()
    };
    settings.validate()?;
    Ok(settings)
}

/// A 64th of the volume, so that deleting a segment frees little at a time, as a power of two between 16 MiB and 1 GiB.
fn segment_size(volume_bytes: u64) -> Bytes {
    let part = (volume_bytes / 64).clamp(16 << 20, 1 << 30);
    Bytes::new(1 << part.ilog2())
}

/// 85 % of the volume, the two segments in reserve among them: the rest is for views and key index, which take up to 12 %
/// of a log of messages of 128 bytes, and what the file system keeps for itself. Where that is too little, or retention
/// by size lets the log grow further, the file system has the last word, and sends are refused in the same way.
/// `made_with_bytes` is what segments follow from.
fn log_size_max(volume_bytes: u64, made_with_bytes: u64, retention_size: Option<u64>) -> Bytes {
    let beside = 4 * segment_size(made_with_bytes).get();
    let wished = retention_size.map_or(0, |size| size + beside);
    Bytes::new((volume_bytes / 20 * 17).max(wished))
}

fn name_server_settings(
    name: &str,
    spec: &BrokerClusterSpec,
) -> Result<NameServerSettings, InvalidSpec> {
    let expected_brokers = (0..spec.groups).map(|group| names::broker_name(name, group)).collect();
    let settings = NameServerSettings { expected_brokers, ..NameServerSettings::default() };
    settings.validate()?;
    Ok(settings)
}

/// The name server's image beside a broker image: the same with the product's name changed, where it has that name.
fn nameserver_image(broker_image: Option<&str>, defaults: &Defaults) -> String {
    let beside = broker_image.and_then(|image| {
        let at = image.rfind("gantry-broker")?;
        let (before, after) = (&image[..at], &image[at + "gantry-broker".len()..]);
        let is_name = !after.contains('/') && (before.is_empty() || before.ends_with('/'));
        // A digest names one image, and that is the broker's.
        (is_name && !after.contains('@')).then(|| format!("{before}gantry-nameserver{after}"))
    });
    beside.unwrap_or_else(|| defaults.nameserver_image.clone())
}

fn memory_limit(
    field: &'static str,
    resources: &ResourceRequirements,
) -> Result<Option<u64>, InvalidSpec> {
    let limit = resources.limits.as_ref().and_then(|limits| limits.get("memory"));
    limit.map(|limit| bytes(field, limit)).transpose()
}

fn bytes(field: &'static str, quantity: &Quantity) -> Result<u64, InvalidSpec> {
    let value = quantity::units(&quantity.0).filter(|bytes| *bytes > 0);
    value.ok_or_else(|| InvalidSpec::Quantity { field, value: quantity.0.clone() })
}

fn resources(cpu: &str, memory: &str, memory_limit: &str) -> ResourceRequirements {
    let quantity = |text: &str| Quantity(text.to_owned());
    let requests =
        [("cpu".to_owned(), quantity(cpu)), ("memory".to_owned(), quantity(memory))].into();
    let limits = [("memory".to_owned(), quantity(memory_limit))].into();
    ResourceRequirements { requests: Some(requests), limits: Some(limits), claims: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_cluster::fixture;

    fn invalid(spec: &str) -> String {
        let cluster = fixture::cluster(spec);
        let error =
            validate(&cluster, &fixture::defaults(), &BTreeMap::new()).map(|_| ()).unwrap_err();
        error.to_string()
    }

    #[test]
    fn smallest_spec_gives_settings_that_servers_accept() {
        let (cluster, defaults) =
            (fixture::cluster("{storage: {size: 10Gi}}"), fixture::defaults());
        let valid = validate(&cluster, &defaults, &BTreeMap::new()).unwrap();
        assert_eq!(valid.brokers.len(), 1);
        assert_eq!(valid.brokers[0].flush, FlushMode::Sync);
        assert_eq!(valid.brokers[0].segment_size, Bytes::mib(128));
        assert_eq!(valid.brokers[0].log_size_max, Some(Bytes::new((10 << 30) / 20 * 17)));
        assert_eq!(valid.brokers[0].on_full, settings::OnFull::Refuse);
        assert_eq!(valid.brokers[0].memory, Some(Bytes::gib(1)));
        assert_eq!(valid.nameserver_image, "registry/gantry-nameserver:1");
    }

    #[test]
    fn spec_that_no_broker_would_start_with_is_refused_by_its_field() {
        let refused = [
            ("{storage: {size: 10Gi}, retention: {size: 1Mi}}", "retention_size"),
            ("{storage: {size: 10Gi}, retention: {time: 1s}}", "retention"),
            ("{storage: {size: 10Gi}, retention: {time: 999999d}}", "retention.time"),
            (
                "{storage: {size: 10Gi}, resources: {limits: {memory: 1x}}}",
                "resources.limits.memory",
            ),
        ];
        for (spec, field) in refused {
            assert!(invalid(spec).contains(field), "{spec}: {}", invalid(spec));
        }
    }

    #[test]
    fn name_server_image_stands_beside_the_broker_image_or_is_the_default() {
        let cases = [
            (Some("localhost/gantry-broker:dev"), "localhost/gantry-nameserver:dev"),
            (Some("gantry-broker"), "gantry-nameserver"),
            (Some("r/gantry-broker@sha256:0"), "registry/gantry-nameserver:1"),
            (Some("r/gantry-broker/other:1"), "registry/gantry-nameserver:1"),
            (Some("mine:1"), "registry/gantry-nameserver:1"),
            (None, "registry/gantry-nameserver:1"),
        ];
        for (image, expected) in cases {
            assert_eq!(nameserver_image(image, &fixture::defaults()), expected, "{image:?}");
        }
    }

    #[test]
    fn log_takes_85_percent_of_the_volume_as_it_is_asked_for_and_what_retention_by_size_wants() {
        let gib = |count: u64| count << 30;
        assert_eq!(log_size_max(gib(100), gib(10), None), Bytes::gib(85));
        assert_eq!(log_size_max(gib(100), gib(64), Some(gib(80))), Bytes::gib(85));
        assert_eq!(log_size_max(gib(100), gib(64), Some(gib(95))), Bytes::gib(99));
    }

    #[test]
    fn segments_are_a_64th_of_the_volume_within_bounds() {
        let sizes = [(1, 16), (10, 128), (64, 1024), (1000, 1024)];
        for (volume_gib, segment_mib) in sizes {
            assert_eq!(segment_size(volume_gib << 30), Bytes::mib(segment_mib), "{volume_gib}");
        }
    }
}
