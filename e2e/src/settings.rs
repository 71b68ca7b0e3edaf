//! What the tests are told from outside, by environment variables that `scripts/e2e` sets.
//! Invariant: no test finds a cluster by accident: without `GANTRY_E2E_KUBECONFIG` each fails and says how to run it.

use std::env;

use anyhow::{Context as _, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Client versions whose makers' Java clients the tests run.
pub const JAVA_CLIENTS: [&str; 2] = ["4.9.8", "5.3.3"];

/// Namespace that the chart is installed into.
pub const OPERATOR_NAMESPACE: &str = "gantry-system";

/// Name of the chart's release.
pub const OPERATOR_RELEASE: &str = "gantry";

/// A client of the cluster that the tests are to use.
///
/// # Errors
/// When no cluster was named, or its file cannot be used.
pub async fn client() -> Result<Client> {
    let path = kubeconfig()?;
    let file = Kubeconfig::read_from(&path).with_context(|| format!("read {path}"))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Path of the cluster's kubeconfig.
///
/// # Errors
/// When no cluster was named.
pub fn kubeconfig() -> Result<String> {
    env::var("GANTRY_E2E_KUBECONFIG")
        .context("GANTRY_E2E_KUBECONFIG names no cluster; these tests are run by `make e2e`")
}

/// Path of the `helm` program.
pub fn helm() -> String {
    env::var("GANTRY_E2E_HELM").unwrap_or_else(|_| "helm".into())
}

/// Reference of one of the project's images, as `scripts/images` made it.
pub fn image(name: &str) -> String {
    let registry = env::var("GANTRY_IMAGE_REGISTRY").unwrap_or_else(|_| "localhost".into());
    format!("{registry}/{name}:dev")
}

/// Whether to keep the namespace of a test that failed, to look at it.
pub fn keep_failed() -> bool {
    env::var_os("GANTRY_E2E_KEEP").is_some()
}
