//! RocketMQ's Java clients, unchanged and in pods, against a cluster that the operator made from YAML.
//! Invariant: what a client was answered is there, whatever happened to the broker since.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use gantry_e2e::{
    Program, Stage, after, play, pods::is_ready, settings::JAVA_CLIENTS, together, until,
    wait::LATER,
};
use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{ResourceExt as _, api::DeleteParams};

/// The YAML that a newcomer applies first.
const SAMPLES: [&str; 3] = [
    include_str!("../../../config/samples/cluster.yaml"),
    include_str!("../../../config/samples/topic.yaml"),
    include_str!("../../../config/samples/group.yaml"),
];

/// Scenarios of `tests/java`, each a promise.
const SCENARIOS: [&str; 17] = [
    "sync_send_gets_consecutive_queue_offsets",
    "offset_id_of_a_send_names_the_broker",
    "async_send_calls_back_with_the_place_of_each_message",
    "one_way_send_arrives",
    "batch_lies_in_one_queue_in_order",
    "compressed_body_arrives_unchanged",
    "three_consumers_of_a_group_get_a_third_each",
    "broadcast_gives_every_consumer_everything",
    "tag_expression_lets_only_its_tags_through",
    "waiting_consumer_gets_new_messages_at_once",
    "delayed_message_does_not_arrive_early",
    "pull_walks_a_queue_from_first_to_last",
    "lite_pull_consumer_gets_every_message_once",
    "failed_message_comes_again_to_its_group",
    "message_that_keeps_failing_ends_in_the_dead_letter_queue",
    "restarted_consumer_goes_on_where_it_stopped",
    "orderly_consumers_keep_the_order_of_each_queue",
];

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn samples_become_ready_and_java_clients_of_both_versions_send_and_receive() {
    play("clients", async |stage| {
        for sample in SAMPLES {
            stage.apply(sample).await?;
        }
        let cluster = stage.ready::<BrokerCluster>("shop", "True").await?;
        stage.ready::<Topic>("order-topic", "True").await?;
        stage.ready::<ConsumerGroup>("billing", "True").await?;
        let brokers = cluster.status.map(|status| status.brokers).unwrap_or_default();
        let broker = brokers.into_iter().find_map(|broker| broker.address);
        let broker = broker.context("the status has no broker's address")?;
        together(JAVA_CLIENTS.map(|version| run_scenarios(&stage, version, &broker))).await
    })
    .await;
}

/// Runs the scenarios; `broker` is its address as it stands in routes and message ids.
async fn run_scenarios(stage: &Stage, version: &str, broker: &str) -> Result<()> {
    let nameserver = stage.nameserver();
    let mut args = vec![nameserver.as_str(), broker, "shop"];
    args.extend(SCENARIOS);
    let program = Program::java(version, "Main", &args);
    let printed = stage.run(&pod_name("scenarios", version), &program).await?;
    let summary = format!("{} passed, 0 failed", SCENARIOS.len());
    ensure!(printed.contains(&summary), "Java client {version} printed:\n{printed}");
    eprintln!("Java client {version}: {summary}");
    Ok(())
}

fn pod_name(stem: &str, version: &str) -> String {
    format!("{stem}-{}", version.replace('.', "-"))
}

/// Messages of one sender: enough that it still sends when the broker is back.
const SENT: usize = 3_000;

/// Answers after which the broker is deleted.
const SENT_BEFORE: usize = 300;

/// The broker's pod and its claim.
const BROKER: &str = "shop-broker-0-0";
const CLAIM: &str = "data-shop-broker-0-0";

#[tokio::test]
#[ignore = "needs a Kubernetes: run `make e2e`"]
async fn broker_pod_deleted_in_the_middle_of_sending_comes_back_without_losing_an_answered_message()
{
    play("broker-deleted", async |stage| {
        stage.shop(1, &["orders-4-9-8", "orders-5-3-3"]).await?;
        let mut senders = Vec::new();
        for version in JAVA_CLIENTS {
            let topic = pod_name("orders", version);
            let program = stage.workload(version, &["send", &topic, "m", &SENT.to_string()]);
            senders.push(stage.start(&pod_name("send", version), &program).await?);
        }
        together(senders.iter().map(|sender| sender.prints("answered", SENT_BEFORE))).await?;
        replace_broker(&stage).await?;
        for (sender, version) in senders.iter().zip(JAVA_CLIENTS) {
            let so_far = after(&sender.printed().await?, "answered").len();
            ensure!(so_far < SENT, "the sender {version} had ended before the broker was back");
        }
        together(senders.iter().zip(JAVA_CLIENTS).map(|(sender, version)| {
            let stage = stage.clone();
            async move {
                let printed = sender.end().await?;
                check_nothing_missing(&stage, version, &after(&printed, "answered")).await
            }
        }))
        .await
    })
    .await;
}

/// Deletes the broker's pod and waits until another one of its name is ready, on the same volume.
async fn replace_broker(stage: &Stage) -> Result<()> {
    let (pods, claims) = (stage.api::<Pod>(), stage.api::<PersistentVolumeClaim>());
    let (pod, claim) = (pods.get(BROKER).await?, claims.get(CLAIM).await?);
    pods.delete(BROKER, &DeleteParams::default()).await?;
    until("another broker pod is ready", LATER, async || {
        let now = pods.get(BROKER).await?;
        ensure!(now.uid() != pod.uid() && is_ready(&now), "{:?}", now.status);
        Ok(())
    })
    .await?;
    ensure!(
        claims.get(CLAIM).await?.uid() == claim.uid(),
        "the broker came back on another volume"
    );
    Ok(())
}

/// Reads the whole topic with the other version's client and looks for each answered message.
async fn check_nothing_missing(stage: &Stage, version: &str, answered: &[&str]) -> Result<()> {
    let reader = JAVA_CLIENTS.into_iter().find(|other| *other != version).context("one version")?;
    let topic = pod_name("orders", version);
    let program = stage.workload(reader, &["read", &topic, &answered.len().to_string()]);
    let printed = stage.run(&pod_name("read", version), &program).await?;
    let found: BTreeSet<_> = after(&printed, "body").into_iter().collect();
    let missing: Vec<_> = answered.iter().filter(|body| !found.contains(*body)).collect();
    ensure!(
        missing.is_empty(),
        "{version}: {} answered messages are missing: {missing:?}",
        missing.len()
    );
    ensure!(answered.len() == SENT, "{version}: {} answers", answered.len());
    eprintln!("{version}: all {SENT} answered messages are there, {} in all", found.len());
    Ok(())
}
