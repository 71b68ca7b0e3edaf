//! What the operator is told at start: its arguments, each also as an environment variable.
//! Invariant: a value that parsed is one the operator can use; the program names the argument that is wrong.
//! Leaves what a cluster is to its `BrokerCluster`; nothing here is needed to serve messages.

use std::{collections::BTreeMap, net::SocketAddr, str::FromStr, time::Duration};

use clap::Parser;
use gantry_telemetry::LogFormat;

/// Settings of the operator.
#[derive(Debug, Clone, Parser)]
#[command(name = "gantry-operator", version, about)]
pub struct Settings {
    /// Namespace whose resources are reconciled; default: those of all namespaces.
    #[arg(long, env = "GANTRY_NAMESPACE")]
    pub namespace: Option<String>,

    /// Namespace of the operator itself: its Lease is kept there, and its pods may reach the health ports of
    /// clusters. Default: that of its service account or of the kubeconfig.
    #[arg(long, env = "GANTRY_OPERATOR_NAMESPACE")]
    pub operator_namespace: Option<String>,

    /// Name that holds the Lease, one for each process; default: host name and process id.
    #[arg(long, env = "GANTRY_OPERATOR_IDENTITY")]
    pub identity: Option<String>,

    /// Image of brokers whose cluster names none.
    #[arg(long, env = "GANTRY_BROKER_IMAGE", default_value = concat!("gantry-broker:", env!("CARGO_PKG_VERSION")))]
    pub broker_image: String,

    /// Image of name servers.
    #[arg(long, env = "GANTRY_NAMESERVER_IMAGE", default_value = concat!("gantry-nameserver:", env!("CARGO_PKG_VERSION")))]
    pub nameserver_image: String,

    /// Labels of namespaces whose pods may scrape the metrics of clusters, as `key=value` with commas between;
    /// default: none but the operator's own namespace.
    #[arg(long, env = "GANTRY_MONITORING_SELECTOR", default_value = "")]
    pub monitoring_selector: Labels,

    /// Address of `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, env = "GANTRY_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    pub http_addr: SocketAddr,

    /// Form of the log lines: text or json.
    #[arg(long, env = "GANTRY_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Least important log lines: error, warn, info, debug, trace, or a list of target=level.
    #[arg(long, env = "GANTRY_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// How long the backlog must ask for fewer consumers before their number is reduced, in seconds.
    #[arg(long, env = "GANTRY_SCALE_DOWN_SECONDS", default_value = "30", value_parser = seconds)]
    pub scale_down_after: Duration,
}

/// Labels that must all be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

/// Why a text names no labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{item:?} is no label: expected key=value")]
pub struct LabelsError {
    item: String,
}

impl FromStr for Labels {
    type Err = LabelsError;

    fn from_str(text: &str) -> Result<Self, LabelsError> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let pair = |item: &str| match item.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(LabelsError { item: item.to_owned() }),
        };
        items.map(pair).collect::<Result<_, _>>().map(Self)
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse::<u32>().map(|seconds| Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_default() {
        let settings = Settings::try_parse_from(["gantry-operator"]).unwrap();
        assert_eq!(settings.scale_down_after, Duration::from_secs(30));
        assert_eq!(settings.monitoring_selector, Labels::default());
    }

    #[test]
    fn labels_are_pairs_and_anything_else_is_refused_by_name() {
        let labels: Labels = "a=b, kubernetes.io/metadata.name=monitoring".parse().unwrap();
        assert_eq!(labels.0["kubernetes.io/metadata.name"], "monitoring");
        for wrong in ["a", "=b", "a=b,c"] {
            assert!(wrong.parse::<Labels>().is_err(), "{wrong}");
        }
    }
}
