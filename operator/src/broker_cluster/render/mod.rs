//! Renders a valid cluster into the objects that make it.
//! Invariant: equal input gives equal objects; every object names the cluster as its controller.
//! Pure; one file for each kind of object. Leaves the API server to `apply`.

mod budgets;
mod pod;
mod policy;
mod services;
mod settings;
mod stateful_sets;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::validate::Valid;

/// Everything that a cluster consists of, in the order in which it is applied.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Objects {
    /// Settings of the servers.
    pub config_maps: Vec<ConfigMap>,
    /// Addresses.
    pub services: Vec<Service>,
    /// Who may reach which port.
    pub policies: Vec<NetworkPolicy>,
    /// How many pods an eviction may take.
    pub budgets: Vec<PodDisruptionBudget>,
    /// The servers.
    pub stateful_sets: Vec<StatefulSet>,
}

/// Why settings could not be rendered, which only a mistake in their type can cause.
#[derive(Debug, thiserror::Error)]
#[error("write the settings as YAML")]
pub(super) struct RenderError(#[from] serde_yaml::Error);

/// Renders `cluster`.
pub(super) fn render(cluster: &Valid<'_>) -> Result<Objects, RenderError> {
    let settings = settings::render(cluster)?;
    Ok(Objects {
        stateful_sets: stateful_sets::render(cluster, &settings),
        config_maps: settings.into_config_maps(),
        services: services::render(cluster),
        policies: vec![policy::render(cluster)],
        budgets: budgets::render(cluster),
    })
}

/// Metadata of an object of the cluster.
fn meta(cluster: &Valid<'_>, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![cluster.owner.clone()]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::settings::{BrokerSettings, Bytes, NameServerSettings, OnFull};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde::Serialize;

    use super::*;
    use crate::broker_cluster::{fixture, validate::validate};

    fn rendered(spec: &str, made_with: &BTreeMap<String, Quantity>) -> Objects {
        let (cluster, defaults) = (fixture::cluster(spec), fixture::defaults());
        render(&validate(&cluster, &defaults, made_with).unwrap()).unwrap()
    }

    fn yaml(objects: &[impl Serialize]) -> String {
        let documents = objects.iter().map(|object| serde_yaml::to_string(object).unwrap());
        documents.collect::<Vec<_>>().join("---\n")
    }

    const EVERYTHING: &str = "
groups: 2
nameServers: {replicas: 2, resources: {limits: {memory: 128Mi}}}
flush: Async
storage: {size: 100Gi, storageClassName: fast, whenDeleted: Delete, onFull: DeleteOldest}
retention: {time: 24h, size: 80Gi}
autoCreate: {topics: true, groups: false}
resources: {requests: {cpu: '1'}, limits: {memory: 4Gi}}
image: other/gantry-broker:2
imagePullSecrets: [{name: pull}]
nodeSelector: {disk: ssd}
tolerations: [{key: queue, operator: Exists}]
affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: rack}]}}
topologySpreadConstraints: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule}]
";

    #[test]
    fn smallest_cluster_renders_as_in_the_golden_files() {
        let objects = rendered("{storage: {size: 10Gi}}", &BTreeMap::new());
        insta::assert_snapshot!("smallest_stateful_sets", yaml(&objects.stateful_sets));
        insta::assert_snapshot!("smallest_services", yaml(&objects.services));
        insta::assert_snapshot!("smallest_config_maps", yaml(&objects.config_maps));
        insta::assert_snapshot!("smallest_budgets", yaml(&objects.budgets));
        insta::assert_snapshot!("smallest_policies", yaml(&objects.policies));
    }

    #[test]
    fn cluster_with_every_field_renders_as_in_the_golden_files() {
        let objects = rendered(EVERYTHING, &BTreeMap::new());
        insta::assert_snapshot!("everything_stateful_sets", yaml(&objects.stateful_sets));
        insta::assert_snapshot!("everything_services", yaml(&objects.services));
        insta::assert_snapshot!("everything_config_maps", yaml(&objects.config_maps));
    }

    #[test]
    fn more_groups_leave_the_objects_of_the_others_as_they_are() {
        let one = rendered("{storage: {size: 10Gi}}", &BTreeMap::new());
        let three = rendered("{groups: 3, storage: {size: 10Gi}}", &BTreeMap::new());
        assert_eq!(one.stateful_sets, three.stateful_sets[..2]);
        assert_eq!(three.stateful_sets.len(), 4);
        for service in &one.services {
            assert!(three.services.contains(service), "{:?}", service.metadata.name);
        }
    }

    #[test]
    fn grown_volume_changes_no_claim_template_and_gives_the_log_its_part() {
        let made = [("shop-broker-0".to_owned(), Quantity("1Gi".into()))].into();
        let objects = rendered("{groups: 2, storage: {size: 64Gi}}", &made);
        let sizes = objects.stateful_sets.iter().filter_map(|set| {
            let claim = set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?;
            claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
        });
        assert_eq!(sizes.map(|size| size.0).collect::<Vec<_>>(), ["1Gi", "64Gi"]);
        let limits = objects.config_maps.iter().filter_map(|map| {
            let text = map.data.as_ref()?.get("broker.yaml")?;
            serde_yaml::from_str::<BrokerSettings>(text).unwrap().log_size_max
        });
        let part = Bytes::new((64 << 30) / 20 * 17);
        assert_eq!(limits.collect::<Vec<_>>(), [part; 2]);
    }

    #[test]
    fn settings_are_those_that_the_servers_read() {
        let objects = rendered(EVERYTHING, &BTreeMap::new());
        for map in &objects.config_maps {
            for (file, text) in map.data.iter().flatten() {
                match file.as_str() {
                    "broker.yaml" => {
                        let settings: BrokerSettings = serde_yaml::from_str(text).unwrap();
                        assert_eq!(settings.validate(), Ok(()));
                        assert_eq!(settings.cluster_name, "shop");
                        assert_eq!(settings.on_full, OnFull::DeleteOldest);
                    }
                    "nameserver.yaml" => {
                        let settings: NameServerSettings = serde_yaml::from_str(text).unwrap();
                        assert_eq!(settings.expected_brokers, ["shop-0", "shop-1"]);
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }
}
