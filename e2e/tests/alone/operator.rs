//! The operator's end, forced and wanted: another takes over, and clusters serve meanwhile.
//! Invariant: no broker is restarted because of what happens to the operator.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use gantry_e2e::{
    Stage, after, metrics, play,
    pods::is_ready,
    settings::{self, JAVA_CLIENTS, OPERATOR_NAMESPACE},
    topic, until,
    wait::{LATER, SOON},
};
use gantry_resources::Topic;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::process::Command;

/// The operator's Deployment, and its Lease.
const OPERATOR: &str = "gantry-operator";

/// Pods of the cluster, each with its uid.
async fn cluster_pods(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let pods = stage.api::<Pod>().list(&ListParams::default()).await?.items;
    let named = pods.into_iter().map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()));
    Ok(named.filter(|(name, _)| name.starts_with("shop-")).collect())
}

async fn scale_operator(stage: &Stage, replicas: usize) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    deployments.patch(OPERATOR, &PatchParams::default(), &patch).await?;
    until("the operator has its replicas", SOON, async || {
        let pods = metrics::operator_pods(&stage.client).await?;
        let there = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
        ensure!(there == replicas && pods.len() == replicas, "{} pods", pods.len());
        let running = pods.iter().all(|pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        });
        ensure!(running, "not all run");
        Ok(())
    })
    .await
}

/// Name of the operator's pod that works.
async fn leader(stage: &Stage) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
    let lease = leases.get(OPERATOR).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let pods = metrics::operator_pods(&stage.client).await?;
    let names = pods.iter().map(ResourceExt::name_any);
    let mut leading = names.filter(|name| holder.starts_with(name.as_str()));
    leading.next().with_context(|| format!("no pod of the operator is \"{holder}\""))
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn another_operator_takes_over_when_the_one_that_works_is_killed() {
    play("leader", async |stage| {
        stage.shop(1, &["before"]).await?;
        let pods = cluster_pods(&stage).await?;
        scale_operator(&stage, 2).await?;
        let killed = leader(&stage).await?;
        let operators: Api<Pod> = Api::namespaced(stage.client.clone(), OPERATOR_NAMESPACE);
        operators.delete(&killed, &DeleteParams::default().grace_period(0)).await?;
        // The one that is killed may still do what is asked for before, so it is asked for after that.
        until("another operator works", LATER, async || {
            let now = leader(&stage).await?;
            ensure!(now != killed, "{killed} was killed and still works");
            Ok(())
        })
        .await?;
        stage.apply(&topic("after", 4)).await?;
        stage.ready::<Topic>("after", "True").await?;
        scale_operator(&stage, 1).await?;
        ensure!(cluster_pods(&stage).await? == pods, "pods of the cluster were replaced");
        Ok(())
    })
    .await;
}

/// Runs `scripts/operator`, which installs the chart or takes it away.
async fn run_script(action: &str) -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/operator");
    let kubeconfig = settings::kubeconfig()?;
    let output = Command::new(script)
        .arg(action)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("run {script}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script} {action}: {}: {text}", output.status);
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn cluster_serves_and_heals_after_helm_uninstall_and_is_found_by_the_next_install() {
    play("uninstall", async |stage| {
        stage.shop(1, &["orders"]).await?;
        let pods = cluster_pods(&stage).await?;
        run_script("uninstall").await?;
        let without = serve_without_operator(&stage, &pods).await;
        // Whatever came out, the tests after this one need an operator.
        run_script("install").await?;
        let broker = without?;
        stage.apply(&topic("later", 4)).await?;
        stage.ready::<Topic>("later", "True").await?;
        let now = cluster_pods(&stage).await?;
        ensure!(now.get(BROKER) == Some(&broker), "the new operator replaced the broker");
        Ok(())
    })
    .await;
}

const BROKER: &str = "shop-broker-0-0";

/// Sends, deletes the broker, reads; returns the uid of the broker that came instead.
async fn serve_without_operator(stage: &Stage, pods: &BTreeMap<String, String>) -> Result<String> {
    until("the operator is gone", SOON, async || {
        let left = metrics::operator_pods(&stage.client).await?;
        ensure!(left.is_empty(), "{} pods are left", left.len());
        Ok(())
    })
    .await?;
    ensure!(cluster_pods(stage).await? == *pods, "pods of the cluster were replaced");
    stage.api::<Topic>().get("orders").await.context("the resources are gone")?;
    let send = stage.workload(JAVA_CLIENTS[0], &["send", "orders", "m", "20"]);
    stage.run("send", &send).await?;
    stage.api::<Pod>().delete(BROKER, &DeleteParams::default()).await?;
    let broker = until("another broker is ready", LATER, async || {
        let pod = stage.api::<Pod>().get(BROKER).await?;
        let uid = pod.uid().unwrap_or_default();
        ensure!(pods.get(BROKER) != Some(&uid) && is_ready(&pod), "{:?}", pod.status);
        Ok(uid)
    })
    .await?;
    let read = stage.workload(JAVA_CLIENTS[1], &["read", "orders", "20"]);
    let printed = stage.run("read", &read).await?;
    ensure!(after(&printed, "body").len() == 20, "{printed}");
    Ok(broker)
}
