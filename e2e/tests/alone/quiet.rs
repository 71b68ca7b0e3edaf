//! An operator with nothing to do writes nothing.
//! Invariant: its own count of requests and the objects' resource versions say the same.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use gantry_e2e::{
    Stage, metrics, play, until,
    wait::{LATER, throughout},
};
use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{ResourceExt as _, api::ListParams};
use tokio::time::{Duration, sleep};

/// How long nothing may be written.
const QUIET: Duration = Duration::from_mins(1);

/// Without a write for this long, what was begun is done: status is written at most every 10 s.
const SETTLED: Duration = Duration::from_secs(12);

const SAMPLES: [&str; 3] = [
    include_str!("../../../config/samples/cluster.yaml"),
    include_str!("../../../config/samples/topic.yaml"),
    include_str!("../../../config/samples/group.yaml"),
];

async fn apply_samples(stage: &Stage) -> Result<()> {
    for sample in SAMPLES {
        stage.apply(sample).await?;
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn second_apply_of_the_same_yaml_causes_no_write() {
    play("quiet", async |stage| {
        apply_samples(&stage).await?;
        stage.ready::<BrokerCluster>("shop", "True").await?;
        stage.ready::<Topic>("order-topic", "True").await?;
        stage.ready::<ConsumerGroup>("billing", "True").await?;
        let settled = until("the operator is at rest", LATER, async || {
            let before = writes(&stage).await?;
            sleep(SETTLED).await;
            let now = writes(&stage).await?;
            ensure!(before == now, "it wrote: {before:?}, then {now:?}");
            Ok(now)
        })
        .await?;
        let versions = versions(&stage).await?;
        apply_samples(&stage).await?;
        throughout("nothing is written", QUIET, async || {
            let now = writes(&stage).await?;
            ensure!(now == settled, "writes were {settled:?}, are {now:?}");
            Ok(())
        })
        .await?;
        let now = self::versions(&stage).await?;
        ensure!(now == versions, "resource versions were {versions:#?}, are {now:#?}");
        Ok(())
    })
    .await;
}

/// Writes that the operator counted, by verb and resource; the renewals of its Lease apart.
async fn writes(stage: &Stage) -> Result<BTreeMap<String, u64>> {
    const WRITES: [&str; 4] = ["create", "update", "patch", "delete"];
    let samples =
        metrics::operator_samples(&stage.client, "gantry_operator_api_requests_total").await?;
    ensure!(!samples.is_empty(), "the operator counts no requests");
    let written = samples.into_iter().filter(|(labels, _)| {
        let write = WRITES.iter().any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
        write && !labels.contains("resource=\"leases\"")
    });
    Ok(written.map(|(labels, count)| (labels, count as u64)).collect())
}

/// Resource version of each object of the stage, by kind and name.
async fn versions(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    add_versions::<BrokerCluster>(stage, &mut all).await?;
    add_versions::<Topic>(stage, &mut all).await?;
    add_versions::<ConsumerGroup>(stage, &mut all).await?;
    add_versions::<StatefulSet>(stage, &mut all).await?;
    add_versions::<Service>(stage, &mut all).await?;
    add_versions::<ConfigMap>(stage, &mut all).await?;
    add_versions::<Pod>(stage, &mut all).await?;
    add_versions::<NetworkPolicy>(stage, &mut all).await?;
    add_versions::<PodDisruptionBudget>(stage, &mut all).await?;
    Ok(all)
}

async fn add_versions<K>(stage: &Stage, all: &mut BTreeMap<String, String>) -> Result<()>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    for object in stage.api::<K>().list(&ListParams::default()).await? {
        let key = format!("{} {}", K::kind(&K::DynamicType::default()), object.name_any());
        all.insert(key, object.resource_version().unwrap_or_default());
    }
    Ok(())
}
