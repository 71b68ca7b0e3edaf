//! Settings of the servers, in `ConfigMap`s.
//! Invariant: a file holds only what differs from the server's own defaults, so that a server of another version is not
//! given keys that it does not know; a pod's revision changes with its settings, but not with the number of groups.
//! Leaves the settings to the types in `gantry-model`.

use std::collections::BTreeMap;

use gantry_model::settings::NameServerSettings;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::Serialize;
use serde_yaml::{Mapping, Value};

use super::{RenderError, meta};
use crate::{
    apply::fingerprint,
    broker_cluster::{names, validate::Valid},
    labels::{self, Component},
};

/// File of a broker's settings.
pub(super) const BROKER_FILE: &str = "broker.yaml";
/// File of a name server's settings.
pub(super) const NAME_SERVER_FILE: &str = "nameserver.yaml";

/// The settings of all servers.
pub(super) struct Settings {
    pub(super) name_server: File,
    /// By group number.
    pub(super) brokers: Vec<File>,
}

/// Settings of one `StatefulSet`.
pub(super) struct File {
    config_map: ConfigMap,
    /// Changes when the pods have to be replaced.
    pub(super) revision: String,
}

impl Settings {
    pub(super) fn into_config_maps(self) -> Vec<ConfigMap> {
        let files = std::iter::once(self.name_server).chain(self.brokers);
        files.map(|file| file.config_map).collect()
    }
}

pub(super) fn render(cluster: &Valid<'_>) -> Result<Settings, RenderError> {
    // The brokers to wait for matter at the next start alone.
    let lasting =
        NameServerSettings { expected_brokers: Vec::new(), ..cluster.name_server.clone() };
    let name_server = File {
        revision: revision(&differences(&lasting)?),
        config_map: config_map(
            cluster,
            names::name_servers(&cluster.name),
            labels::of_component(&cluster.name, Component::NameServer),
            NAME_SERVER_FILE,
            differences(&cluster.name_server)?,
        ),
    };
    let broker = |(group, settings)| {
        let (group, text) = (group as i32, differences(settings)?);
        Ok(File {
            revision: revision(&text),
            config_map: config_map(
                cluster,
                names::group(&cluster.name, group),
                labels::of_group(&cluster.name, group),
                BROKER_FILE,
                text,
            ),
        })
    };
    let brokers =
        cluster.brokers.iter().enumerate().map(broker).collect::<Result<_, RenderError>>()?;
    Ok(Settings { name_server, brokers })
}

/// What in `settings` is not the default, as YAML.
fn differences<T: Serialize + Default>(settings: &T) -> Result<String, RenderError> {
    let (own, defaults) = (serde_yaml::to_value(settings)?, serde_yaml::to_value(T::default())?);
    let differing = match (own, defaults) {
        (Value::Mapping(own), Value::Mapping(defaults)) => {
            let differing = own.into_iter().filter(|(key, value)| defaults.get(key) != Some(value));
            differing.collect::<Mapping>()
        }
        _ => Mapping::new(),
    };
    Ok(serde_yaml::to_string(&differing)?)
}

fn revision(text: &str) -> String {
    format!("{:016x}", fingerprint(text.as_bytes()))
}

fn config_map(
    cluster: &Valid<'_>,
    name: String,
    labels: BTreeMap<String, String>,
    file: &str,
    text: String,
) -> ConfigMap {
    ConfigMap {
        metadata: meta(cluster, name, labels),
        data: Some([(file.to_owned(), text)].into()),
        ..ConfigMap::default()
    }
}
