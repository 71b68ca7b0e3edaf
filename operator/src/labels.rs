//! Labels and annotations of all objects that the operator makes, and the selectors of each part of a cluster.
//! Invariant: a selector never changes for a cluster of a given name: a `StatefulSet` cannot change its own.
//! Leaves where they are put to `broker_cluster/render`.

use std::collections::BTreeMap;

/// Selects what the operator made.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=gantry-operator";
/// Label that names the cluster.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// Label that names the part of the cluster.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// Label that numbers the broker group.
pub const GROUP: &str = "gantry.dev/group";

/// A part of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Component {
    /// Its name servers.
    #[default]
    NameServer,
    /// Its brokers.
    Broker,
}

impl Component {
    /// Value of the component label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NameServer => "nameserver",
            Self::Broker => "broker",
        }
    }
}

/// Labels of everything that belongs to a cluster.
pub fn of_cluster(cluster: &str) -> BTreeMap<String, String> {
    let labels = [
        ("app.kubernetes.io/name", "gantry"),
        (INSTANCE, cluster),
        ("app.kubernetes.io/managed-by", "gantry-operator"),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Labels of a part of a cluster; they also select its pods.
pub fn of_component(cluster: &str, component: Component) -> BTreeMap<String, String> {
    let mut labels = of_cluster(cluster);
    labels.insert(COMPONENT.to_owned(), component.as_str().to_owned());
    labels
}

/// Labels of one broker group; they also select its pods.
pub fn of_group(cluster: &str, group: i32) -> BTreeMap<String, String> {
    let mut labels = of_component(cluster, Component::Broker);
    labels.insert(GROUP.to_owned(), group.to_string());
    labels
}
