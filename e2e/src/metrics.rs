//! Metrics of the operator, read through the API server.
//! Invariant: a sum is over every running pod of the operator, so that it does not matter who leads.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _, api::ListParams};

use crate::settings::OPERATOR_NAMESPACE;

/// Label that the chart gives the operator's pods.
const OPERATOR: &str = "app.kubernetes.io/name=gantry-operator";

/// The operator's pods.
///
/// # Errors
/// When the API server does not answer.
pub async fn operator_pods(client: &Client) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    Ok(pods.list(&ListParams::default().labels(OPERATOR)).await?.items)
}

/// Sample lines of the operator's metric `name`, over all its pods: labels in braces, and the value.
///
/// # Errors
/// When a pod does not answer.
pub async fn operator_samples(client: &Client, name: &str) -> Result<Vec<(String, f64)>> {
    let mut samples = Vec::new();
    for pod in operator_pods(client).await? {
        let path = format!(
            "/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{}:8080/proxy/metrics",
            pod.name_any()
        );
        let text = client.request_text(http::Request::get(path).body(Vec::new())?).await?;
        for line in text.lines().filter(|line| line.starts_with(name)) {
            let (labels, value) = line.rsplit_once(' ').context("a sample without a value")?;
            samples.push((labels.trim_start_matches(name).to_owned(), value.parse()?));
        }
    }
    Ok(samples)
}
