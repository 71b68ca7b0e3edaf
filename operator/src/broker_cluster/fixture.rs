//! Clusters for tests.
//! Invariant: names, uids and images are the same in every test, so that golden files compare.
//! Leaves specs to the tests.

use gantry_resources::BrokerCluster;

use super::validate::Defaults;
use crate::Labels;

/// Cluster `shop` in namespace `demo`, with a spec in YAML.
pub(super) fn cluster(spec: &str) -> BrokerCluster {
    let spec = serde_yaml::from_str(spec).expect("a spec");
    let mut cluster = BrokerCluster::new("shop", spec);
    cluster.metadata.namespace = Some("demo".into());
    cluster.metadata.uid = Some("uid-1".into());
    cluster.metadata.generation = Some(1);
    cluster
}

/// What the operator of these tests was told.
pub(super) fn defaults() -> Defaults {
    Defaults {
        broker_image: "registry/gantry-broker:1".into(),
        nameserver_image: "registry/gantry-nameserver:1".into(),
        operator_namespace: "gantry-system".into(),
        monitoring: Labels([("monitoring".to_owned(), "yes".to_owned())].into()),
    }
}
