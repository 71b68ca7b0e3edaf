//! Consumers that run only while there is something to consume.
//! Invariant: nobody but the `ConsumerGroup` sets their number; messages that found no consumer are not skipped.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use gantry_e2e::{
    Stage, after, play,
    pods::Restart,
    settings::JAVA_CLIENTS,
    until,
    wait::{LATER, SOON},
};
use gantry_resources::ConsumerGroup;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::PostParams;
use serde_json::json;

/// Replicas at most.
const CONSUMERS_MAX: i32 = 3;

/// Messages sent while nobody consumes; two messages for each replica are enough to ask for all.
const MESSAGES: usize = 30;

/// Messages of those whose first attempt fails.
const STUBBORN: usize = 3;

const GROUP: &str = "apiVersion: gantry.dev/v1alpha1
kind: ConsumerGroup
metadata: { name: billing }
spec:
  clusterRef: { name: shop }
  topics: [ { name: orders } ]
  scaling:
    targetRef: { apiVersion: apps/v1, kind: Deployment, name: billing }
    minReplicas: 0
    maxReplicas: 3
    backlogPerReplica: 2
";

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn consumers_go_from_zero_to_their_maximum_and_back_and_skip_no_message() {
    play("scaling", async |stage| {
        stage.shop(1, &["orders", "copies"]).await?;
        deploy(&stage).await?;
        stage.apply(GROUP).await?;
        stage.ready::<ConsumerGroup>("billing", "True").await?;
        ensure!(replicas(&stage).await? == 0, "there were consumers before there was a message");
        let sent = send(&stage).await?;
        until("all consumers are there", SOON, async || {
            let now = replicas(&stage).await?;
            ensure!(now == CONSUMERS_MAX, "{now} of {CONSUMERS_MAX} are asked for");
            Ok(())
        })
        .await?;
        let received = copies(&stage, sent.len()).await?;
        ensure!(received == sent, "sent {sent:?}, received {received:?}");
        until("no consumer is left", LATER, async || {
            let group = stage.api::<ConsumerGroup>().get("billing").await?;
            ensure!(replicas(&stage).await? == 0, "status {:?}", group.status);
            let backlog = group.status.and_then(|status| status.backlog);
            ensure!(backlog == Some(0), "no consumers, and a backlog of {backlog:?}");
            Ok(())
        })
        .await
    })
    .await;
}

/// A Deployment of consumers that never ran.
async fn deploy(stage: &Stage) -> Result<()> {
    let spec = stage.workload(JAVA_CLIENTS[1], &["consume", "billing", "orders", "copies"]);
    let deployment = json!({
        "metadata": { "name": "billing" },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": "billing" } },
            "template": {
                "metadata": { "labels": { "app": "billing" } },
                "spec": spec.spec(Restart::Always),
            },
        },
    });
    let deployment: Deployment = serde_json::from_value(deployment)?;
    stage.api().create(&PostParams::default(), &deployment).await?;
    Ok(())
}

async fn replicas(stage: &Stage) -> Result<i32> {
    let deployment = stage.api::<Deployment>().get("billing").await?;
    deployment.spec.and_then(|spec| spec.replicas).context("a Deployment without replicas")
}

/// Sends all messages and returns their bodies; a "!" at the end asks for a first attempt that fails.
async fn send(stage: &Stage) -> Result<BTreeSet<String>> {
    let calm = (MESSAGES - STUBBORN).to_string();
    let program = stage.workload(JAVA_CLIENTS[0], &["send", "orders", "m", &calm]);
    let printed = stage.run("send", &program).await?;
    let mut sent: BTreeSet<_> =
        after(&printed, "answered").into_iter().map(str::to_owned).collect();
    for i in 0..STUBBORN {
        let body = format!("stubborn-{i}!");
        let name = format!("send-stubborn-{i}");
        let args = ["message", "send", "--topic", "orders", "--body", &body];
        stage.run(&name, &stage.gantry(&args)).await?;
        sent.insert(body);
    }
    ensure!(sent.len() == MESSAGES, "{} messages were sent", sent.len());
    Ok(sent)
}

/// Bodies that consumers handled; each sends a copy before it acknowledges.
async fn copies(stage: &Stage, count: usize) -> Result<BTreeSet<String>> {
    let program = stage.workload(JAVA_CLIENTS[0], &["read", "copies", &count.to_string()]);
    let printed = stage.run("read", &program).await?;
    Ok(after(&printed, "body").into_iter().map(str::to_owned).collect())
}
