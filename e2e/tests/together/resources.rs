//! What the API server refuses, what waits, and what outlives its resource.
//! Invariant: a message goes only when a policy says so.

use anyhow::{Result, ensure};
use gantry_e2e::{
    Stage, after, cluster, play,
    settings::JAVA_CLIENTS,
    topic, until,
    wait::{LATER, SOON},
};
use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// A client for what a test sends and reads.
const JAVA: &str = JAVA_CLIENTS[1];

/// A spec, or a change of one, and the sentence that the API server answers.
struct Refusal {
    spec: &'static str,
    sentence: &'static str,
}

const fn refused(spec: &'static str, sentence: &'static str) -> Refusal {
    Refusal { spec, sentence }
}

const WRONG_CLUSTERS: [Refusal; 8] = [
    refused("{}", "storage"),
    refused("{storage: {size: 10Gi}, groups: 0}", "should be greater than or equal to 1"),
    refused("{storage: {size: 10Gi}, replicasPerGroup: 3}", "replicasPerGroup must be 1"),
    refused("{storage: {size: 1Mi}}", "storage.size must be a quantity of at least 1Gi"),
    refused("{storage: {size: much}}", "such as 10Gi"),
    refused("{storage: {size: 10Gi}, flush: Never}", "supported values: \"Sync\", \"Async\""),
    refused("{storage: {size: 10Gi}, retention: {time: long}}", "72h"),
    refused("{storage: {size: 10Gi}, colour: red}", "field not declared in schema"),
];

const WRONG_TOPICS: [Refusal; 5] = [
    refused("{queues: 8}", "clusterRef"),
    refused("{clusterRef: {name: shop}, queues: 0}", "should be greater than or equal to 1"),
    refused(
        "{clusterRef: {name: shop}, name: '../etc'}",
        "may hold letters, digits and - _ % | only",
    ),
    refused("{clusterRef: {name: shop}, name: '%DLQ%orders'}", "brokers use themselves"),
    refused("{clusterRef: {name: shop}, type: Sorted}", "supported values: \"Normal\", \"Fifo\""),
];

const WRONG_GROUPS: [Refusal; 4] = [
    refused(
        "{clusterRef: {name: shop}, startFrom: Middle}",
        "supported values: \"Latest\", \"Earliest\"",
    ),
    refused(
        "{clusterRef: {name: shop}, retry: {maxAttempts: -1}}",
        "should be greater than or equal to 0",
    ),
    refused(
        "{clusterRef: {name: shop}, scaling: {targetRef: {kind: Deployment, name: a}, maxReplicas: 3}}",
        "scaling needs topics",
    ),
    refused(
        "{clusterRef: {name: shop}, topics: [{name: a}], scaling: {targetRef: {kind: Deployment, name: a}, minReplicas: 5, maxReplicas: 3}}",
        "scaling.minReplicas must not be above scaling.maxReplicas",
    ),
];

fn object(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: gantry.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: wrong }}\nspec: {spec}\n"
    )
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn wrong_spec_is_refused_with_a_sentence_that_says_what_to_change() {
    play("refusals", async |stage| {
        let kinds: [(&str, &[Refusal]); 3] = [
            ("BrokerCluster", &WRONG_CLUSTERS),
            ("Topic", &WRONG_TOPICS),
            ("ConsumerGroup", &WRONG_GROUPS),
        ];
        let mut complaints = Vec::new();
        for (kind, refusals) in kinds {
            for Refusal { spec, sentence } in refusals {
                let answer = stage.apply(&object(kind, spec)).await;
                let why = answer.err().map(|why| format!("{why:#}")).unwrap_or_default();
                if !why.contains(sentence) {
                    complaints
                        .push(format!("{kind} {spec}: expected \"{sentence}\", got \"{why}\""));
                }
            }
        }
        ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
        Ok(())
    })
    .await;
}

/// Changes `spec` of the object and expects a refusal with that sentence.
async fn change_is_refused<K>(
    api: &Api<K>,
    name: &str,
    spec: serde_json::Value,
    sentence: &str,
) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({ "spec": spec }));
    let answer = api.patch(name, &PatchParams::default(), &patch).await;
    let why = answer.err().map(|why| why.to_string()).unwrap_or_default();
    ensure!(why.contains(sentence), "{spec}: expected \"{sentence}\", got \"{why}\"");
    Ok(())
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn groups_only_grow_and_names_never_change() {
    play("changes", async |stage| {
        // A cluster without pods: nothing but the API server is asked here.
        let mut yaml = cluster(2).replace("name: shop", "name: grown");
        yaml.push_str("  nodeSelector: { gantry.dev/nowhere: here }\n");
        stage.apply(&yaml).await?;
        stage.apply(&topic("orders", 4)).await?;
        let clusters = stage.api::<BrokerCluster>();
        change_is_refused(&clusters, "grown", json!({ "groups": 1 }), "groups may only grow")
            .await?;
        let smaller = json!({ "spec": { "replicas": 1 } });
        let scaled =
            clusters.patch_scale("grown", &PatchParams::default(), &Patch::Merge(smaller)).await;
        let why = scaled.err().map(|why| why.to_string()).unwrap_or_default();
        ensure!(why.contains("groups may only grow"), "kubectl scale got \"{why}\"");
        let renamed = json!({ "name": "other" });
        change_is_refused(&stage.api::<Topic>(), "orders", renamed, "spec.name cannot be").await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn topic_of_a_missing_cluster_waits_and_says_so_and_goes_on_when_the_cluster_comes() {
    play("waiting", async |stage| {
        stage.apply(&topic("orders", 4)).await?;
        let waiting = stage.ready::<Topic>("orders", "False").await?;
        let conditions = waiting.status.map(|status| status.conditions).unwrap_or_default();
        let said =
            conditions.iter().any(|one| one.type_ == "Ready" && one.message.contains("shop"));
        ensure!(said, "no condition names the missing cluster: {conditions:?}");
        stage.shop(1, &[]).await?;
        stage.ready::<Topic>("orders", "True").await.map(drop)
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn topic_with_a_name_of_its_own_is_used_by_that_name() {
    play("names", async |stage| {
        stage.shop(1, &[]).await?;
        let yaml = topic("order-topic", 4).replace("queues: 4", "queues: 4, name: OrderTopic");
        stage.apply(&yaml).await?;
        stage.ready::<Topic>("order-topic", "True").await?;
        stage.run("send", &stage.workload(JAVA, &["send", "OrderTopic", "m", "9"])).await?;
        read_all(&stage, "OrderTopic", 9).await
    })
    .await;
}

async fn read_all(stage: &Stage, topic: &str, count: usize) -> Result<()> {
    let program = stage.workload(JAVA, &["read", topic, &count.to_string()]);
    let printed = stage.run("read", &program).await?;
    let found = after(&printed, "body").len();
    ensure!(found == count, "{found} messages of {count}:\n{printed}");
    Ok(())
}

/// First and next offsets of a topic's queues, added up.
async fn offsets(stage: &Stage, topic: &str) -> Result<(u64, u64)> {
    let printed =
        stage.run("stats", &stage.gantry(&["topic", "stats", topic, "-o", "json"])).await?;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&printed)?;
    let sum = |field: &str| rows.iter().filter_map(|row| row[field].as_u64()).sum();
    Ok((sum("min_offset"), sum("max_offset")))
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn topics_retention_hides_its_messages_alone_and_one_beyond_the_clusters_is_refused() {
    play("retention", async |stage| {
        let retained = |time: &str| {
            let with = format!("queues: 4, retention: {{ time: {time} }}");
            topic("short", 4).replace("queues: 4", &with)
        };
        stage.shop(1, &["kept"]).await?;
        stage.apply(&retained("10s")).await?;
        stage.ready::<Topic>("short", "True").await?;
        for name in ["kept", "short"] {
            stage.run("send", &stage.workload(JAVA, &["send", name, "m", "9"])).await?;
        }
        until("the messages of 10 s are hidden", LATER, async || {
            let found = offsets(&stage, "short").await?;
            ensure!(found == (9, 9), "first and next offsets {found:?}");
            Ok(())
        })
        .await?;
        read_all(&stage, "kept", 9).await?;
        stage.apply(&retained("100h")).await?;
        let refused = stage.ready::<Topic>("short", "False").await?;
        let conditions = refused.status.map(|status| status.conditions).unwrap_or_default();
        let said = conditions
            .iter()
            .any(|one| one.reason == "BrokerRefused" && one.message.contains("259200000"));
        ensure!(said, "no condition names what the broker keeps: {conditions:?}");
        Ok(())
    })
    .await;
}

async fn topics_there(stage: &Stage) -> Result<String> {
    stage.run("list", &stage.gantry(&["topic", "list", "-o", "json"])).await
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn deleting_a_topic_removes_messages_only_if_its_policy_says_so() {
    play("policies", async |stage| {
        stage.shop(1, &["kept"]).await?;
        for (name, policy) in
            [("gone", "Delete"), ("filled", "DeleteIfEmpty"), ("empty", "DeleteIfEmpty")]
        {
            let with = format!("queues: 4, deletionPolicy: {policy}");
            stage.apply(&topic(name, 4).replace("queues: 4", &with)).await?;
            stage.ready::<Topic>(name, "True").await?;
        }
        for name in ["kept", "gone", "filled"] {
            stage.run("send", &stage.workload(JAVA, &["send", name, "m", "9"])).await?;
        }
        for name in ["kept", "gone", "filled", "empty"] {
            stage.delete::<Topic>(name).await?;
        }
        let there = topics_there(&stage).await?;
        for (name, stays) in [("kept", true), ("gone", false), ("filled", true), ("empty", false)] {
            let listed = there.contains(&format!("\"{name}\""));
            ensure!(listed == stays, "topic {name}: stays {stays}, listed {listed}:\n{there}");
        }
        read_all(&stage, "kept", 9).await?;
        read_all(&stage, "filled", 9).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn cluster_deleted_and_created_again_finds_its_messages() {
    play("again", async |stage| {
        stage.shop(2, &["orders"]).await?;
        stage.run("send", &stage.workload(JAVA, &["send", "orders", "m", "50"])).await?;
        stage.delete::<BrokerCluster>("shop").await?;
        until("its pods are gone", SOON, async || {
            let pods = stage
                .api::<k8s_openapi::api::core::v1::Pod>()
                .list(&kube::api::ListParams::default())
                .await?;
            let names: Vec<_> =
                pods.items.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
            let left: Vec<_> = names.into_iter().filter(|name| name.starts_with("shop-")).collect();
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        let orphan = stage.ready::<Topic>("orders", "False").await?;
        ensure!(orphan.metadata.deletion_timestamp.is_none(), "the topic went with its cluster");
        stage.shop(2, &["orders"]).await?;
        read_all(&stage, "orders", 50).await
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn deleting_topics_and_groups_does_not_hang_on_a_cluster_that_is_gone() {
    play("orphans", async |stage| {
        stage.shop(1, &[]).await?;
        stage.apply(&topic("orders", 4).replace("queues: 4", "queues: 4, deletionPolicy: Delete")).await?;
        let group = "apiVersion: gantry.dev/v1alpha1\nkind: ConsumerGroup\nmetadata: { name: billing }\n\
                     spec: { clusterRef: { name: shop }, topics: [{ name: orders }] }\n";
        stage.apply(group).await?;
        stage.ready::<Topic>("orders", "True").await?;
        stage.ready::<ConsumerGroup>("billing", "True").await?;
        stage.delete::<BrokerCluster>("shop").await?;
        stage.delete::<Topic>("orders").await?;
        stage.delete::<ConsumerGroup>("billing").await
    })
    .await;
}
