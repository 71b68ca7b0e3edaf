//! Makes a topic as declared on every broker of its cluster.
//! Invariant: a broker that does not answer does not keep the others from being told.
//! Leaves what to change to `plan`.

use futures::future::join_all;
use gantry_client::{AdminError, Primary};
use gantry_model::TopicName;
use gantry_resources::{BrokerTopicStatus, TopicSpec};

use super::plan;
use crate::{
    broker_cluster::names,
    brokers::Brokers,
    conditions::{Reason, Wanted},
    with_causes,
};

/// How far a pass came.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the status says.
    pub(super) condition: Wanted,
    /// The topic on the brokers, if they were asked.
    pub(super) brokers: Option<Vec<BrokerTopicStatus>>,
}

impl Outcome {
    /// A pass that asked no broker.
    pub(super) fn of(condition: Wanted) -> Self {
        Self { condition, brokers: None }
    }
}

/// Makes the topic as declared on the brokers of `cluster`, which is to have `groups` groups.
pub(super) async fn converge(
    brokers: &impl Brokers,
    cluster: &str,
    groups: i32,
    name: &TopicName,
    spec: &TopicSpec,
) -> Outcome {
    let mut primaries = match brokers.all().await {
        Ok(primaries) => primaries,
        Err(error) => return Outcome::of(Reason::BrokersUnreachable.because(with_causes(&error))),
    };
    primaries.sort();
    let told = join_all(primaries.iter().map(|primary| tell(brokers, primary, name, spec))).await;
    let mut status = Vec::new();
    let mut failed = Vec::new();
    for (primary, told) in primaries.iter().zip(told) {
        match told {
            Ok(queues) => {
                status.push(BrokerTopicStatus { name: primary.broker_name.clone(), queues });
            }
            Err(error) => failed.push((primary, error)),
        }
    }
    let missing: Vec<_> = (0..groups)
        .map(|group| names::broker_name(cluster, group))
        .filter(|name| primaries.iter().all(|primary| primary.broker_name != *name))
        .collect();
    Outcome { condition: judge(&failed, &missing), brokers: Some(status) }
}

fn judge(failed: &[(&Primary, AdminError)], missing: &[String]) -> Wanted {
    let text = |(primary, error): &(&Primary, AdminError)| {
        format!("{}: {}", primary.broker_name, with_causes(error))
    };
    if let Some(refused) = failed.iter().find(|(_, error)| is_refusal(error)) {
        return Reason::BrokerRefused.because(text(refused));
    }
    if let Some(silent) = failed.first() {
        return Reason::BrokersUnreachable.because(text(silent));
    }
    if !missing.is_empty() {
        return Reason::Starting.because(format!("not registered: {}", missing.join(", ")));
    }
    Reason::AsDeclared.because("")
}

fn is_refusal(error: &AdminError) -> bool {
    matches!(error, AdminError::Request { source, .. } if source.refusal().is_some())
}

/// Brings one broker's topic to what is declared, and says how many queues it has then.
async fn tell(
    brokers: &impl Brokers,
    primary: &Primary,
    name: &TopicName,
    spec: &TopicSpec,
) -> Result<i32, AdminError> {
    let present = brokers.topic(&primary.address, name).await?;
    let Some(change) = plan::change(name, spec, present.as_ref()) else {
        return Ok(present.as_ref().map_or(0, plan::queues));
    };
    brokers.declare_topic(&primary.address, &change).await?;
    tracing::info!(topic = %name, broker = primary.broker_name, is_new = present.is_none(), "topic declared");
    let now = brokers.topic(&primary.address, name).await?;
    Ok(now.as_ref().map_or(0, plan::queues))
}

#[cfg(test)]
mod tests {
    use gantry_model::{Permission, TopicConfig};

    use super::*;
    use crate::brokers::fake::FakeBrokers;

    fn spec() -> TopicSpec {
        serde_yaml::from_str("{clusterRef: {name: shop}, queues: 4, type: Fifo}").unwrap()
    }

    fn orders() -> TopicName {
        TopicName::new("OrderTopic").unwrap()
    }

    fn topic_on(brokers: &FakeBrokers, broker: &str) -> Option<TopicConfig> {
        brokers.with(broker, |broker| broker.topics.get("OrderTopic").cloned())
    }

    async fn pass(brokers: &FakeBrokers) -> Outcome {
        converge(brokers, "shop", 2, &orders(), &spec()).await
    }

    #[tokio::test]
    async fn topic_comes_to_every_group_and_a_second_pass_changes_nothing() {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        for _ in 0..2 {
            let outcome = pass(&brokers).await;
            assert_eq!(outcome.condition.reason, Reason::AsDeclared);
            let queues: Vec<_> = outcome.brokers.unwrap().iter().map(|on| on.queues).collect();
            assert_eq!(queues, [4, 4]);
        }
        let changes = brokers.with("shop-1", |broker| broker.changes.len());
        assert_eq!(changes, 1);
    }

    #[tokio::test]
    async fn topic_changed_or_deleted_behind_its_back_is_repaired() {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        pass(&brokers).await;
        brokers.with("shop-0", |broker| broker.topics.clear());
        brokers.with("shop-1", |broker| {
            broker.topics.get_mut("OrderTopic").unwrap().perm = Permission(Permission::READ);
        });
        assert_eq!(pass(&brokers).await.condition.reason, Reason::AsDeclared);
        assert!(topic_on(&brokers, "shop-0").is_some());
        assert_eq!(topic_on(&brokers, "shop-1").unwrap().perm, Permission::READ_WRITE);
    }

    #[tokio::test]
    async fn silent_broker_keeps_no_other_from_the_topic_and_is_named() {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        brokers.with("shop-0", |broker| broker.is_silent = true);
        let outcome = pass(&brokers).await;
        assert_eq!(outcome.condition.reason, Reason::BrokersUnreachable);
        assert!(outcome.condition.message().contains("shop-0"));
        assert!(topic_on(&brokers, "shop-1").is_some());
    }

    #[tokio::test]
    async fn refusal_is_told_with_the_brokers_words() {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        brokers.with("shop-1", |broker| broker.refuses_changes = true);
        let condition = pass(&brokers).await.condition;
        assert_eq!(condition.reason, Reason::BrokerRefused);
        assert!(condition.message().contains("shop-1"), "{}", condition.message());
        assert!(condition.message().contains("not today"), "{}", condition.message());
    }

    #[tokio::test]
    async fn group_that_is_not_registered_yet_is_waited_for() {
        let brokers = FakeBrokers::new(&["shop-0"]);
        let condition = pass(&brokers).await.condition;
        assert_eq!(condition.reason, Reason::Starting);
        assert!(condition.message().contains("shop-1"), "{}", condition.message());
    }
}
