//! Rolls: a change of a cluster's spec replaces its pods one by one.
//! Invariant: never are two brokers of a cluster down; a change that cannot work harms one broker only.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::TryStreamExt as _;
use gantry_e2e::{
    Stage, after, play,
    pods::is_ready,
    settings::JAVA_CLIENTS,
    until,
    wait::{LATER, SOON, throughout},
};
use gantry_resources::BrokerCluster;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

/// Messages sent during the roll: more than are answered before it is over.
const SENT: usize = 6_000;

/// Answers after which the roll begins.
const SENT_BEFORE: usize = 100;

/// How long a stopped roll is watched.
const WATCHED: Duration = Duration::from_secs(20);

const BROKERS: [&str; 2] = ["shop-broker-0-0", "shop-broker-1-0"];

async fn change(stage: &Stage, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    stage.api::<BrokerCluster>().patch("shop", &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Brokers that are ready, each with its uid.
async fn ready_brokers(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let pods = stage.api::<Pod>().list(&ListParams::default()).await?.items;
    let ready = pods.into_iter().filter(is_ready);
    let named = ready.map(|pod| (pod.name_any(), pod.uid().unwrap_or_default()));
    Ok(named.filter(|(name, _)| BROKERS.contains(&name.as_str())).collect())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn change_of_resources_under_load_never_takes_two_brokers_down() {
    play("roll", async |stage| {
        stage.shop(2, &["orders"]).await?;
        let before = ready_brokers(&stage).await?;
        ensure!(before.len() == BROKERS.len(), "{before:?}");
        let program = stage.workload(JAVA_CLIENTS[1], &["send", "orders", "m", &SENT.to_string()]);
        let sender = stage.start("send", &program).await?;
        sender.prints("answered", SENT_BEFORE).await?;
        change(&stage, json!({ "resources": { "limits": { "memory": "400Mi" } } })).await?;
        let watch = tokio::spawn(watch_roll(stage.clone(), before));
        watch.await??;
        let so_far = after(&sender.printed().await?, "answered").len();
        ensure!(so_far < SENT, "the sender had ended before the roll was over");
        stage.ready::<BrokerCluster>("shop", "True").await?;
        let printed = sender.end().await?;
        let answered = after(&printed, "answered");
        let reader = stage.workload(JAVA_CLIENTS[0], &["read", "orders", &SENT.to_string()]);
        let printed = stage.run("read", &reader).await?;
        let found: BTreeSet<_> = after(&printed, "body").into_iter().collect();
        let missing: Vec<_> = answered.iter().filter(|body| !found.contains(*body)).collect();
        ensure!(missing.is_empty(), "answered messages are missing: {missing:?}");
        Ok(())
    })
    .await;
}

/// Follows the brokers until all were replaced: the API server tells of each change, so that none is overlooked.
async fn watch_roll(stage: Arc<Stage>, before: BTreeMap<String, String>) -> Result<()> {
    let mut ready = before.clone();
    let mut events = pin!(watcher(stage.api::<Pod>(), watcher::Config::default()));
    let follow = async {
        while let Some(event) = events.try_next().await? {
            match event {
                Event::Apply(pod) | Event::InitApply(pod) if is_ready(&pod) => {
                    ready.insert(pod.name_any(), pod.uid().unwrap_or_default());
                }
                Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod) => {
                    ready.remove(&pod.name_any());
                }
                Event::Init | Event::InitDone => {}
            }
            ready.retain(|name, _| BROKERS.contains(&name.as_str()));
            ensure!(!ready.is_empty(), "both brokers are down");
            let replaced = ready.iter().filter(|(name, uid)| before.get(*name) != Some(*uid));
            if replaced.count() == BROKERS.len() {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    let outcome = timeout(LATER, follow).await;
    outcome.with_context(|| format!("not both were replaced in {LATER:?}"))?
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn wrong_image_harms_one_broker_only_and_the_right_one_heals_it() {
    play("image", async |stage| {
        stage.shop(2, &[]).await?;
        change(&stage, json!({ "image": "localhost/gantry-broker:missing" })).await?;
        let left = until("one broker is down", SOON, async || {
            let ready = ready_brokers(&stage).await?;
            ensure!(ready.len() == 1, "ready: {ready:?}");
            Ok(ready)
        })
        .await?;
        throughout("the other broker is left alone", WATCHED, async || {
            let ready = ready_brokers(&stage).await?;
            ensure!(ready == left, "ready: {ready:?}, expected {left:?}");
            Ok(())
        })
        .await?;
        stage.ready::<BrokerCluster>("shop", "False").await?;
        change(&stage, json!({ "image": null })).await?;
        stage.ready::<BrokerCluster>("shop", "True").await?;
        let ready = ready_brokers(&stage).await?;
        ensure!(ready.len() == BROKERS.len(), "ready: {ready:?}");
        Ok(())
    })
    .await;
}
