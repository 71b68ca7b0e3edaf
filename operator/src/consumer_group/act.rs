//! Makes a consumer group as declared on every broker of its cluster, and asks what it has before it.
//! Invariant: a broker that does not answer does not keep the others from being told; an offset is committed only where
//! the group has none.
//! Leaves what to change to `plan`, and consumers to `scaling`.

use std::collections::BTreeSet;

use futures::future::{join_all, try_join_all};
use gantry_client::{AdminError, BrokerProgress, Primary, QueueBounds};
use gantry_model::GroupName;
use gantry_resources::ConsumerGroupSpec;

use super::plan::{self, Progress, Start};
use crate::{
    broker_cluster::names,
    brokers::Brokers,
    conditions::{Reason, Wanted},
    with_causes,
};

/// Queues in which the group has an offset, as far as was seen: broker, topic, queue.
pub(super) type Known = BTreeSet<(String, String, u32)>;

/// A group as it is declared.
pub(super) struct Declared<'a> {
    pub(super) cluster: &'a str,
    /// Broker groups that the cluster is to have.
    pub(super) groups: i32,
    pub(super) name: &'a GroupName,
    pub(super) spec: &'a ConsumerGroupSpec,
    /// When, in milliseconds since 1970.
    pub(super) at_ms: u64,
}

/// What a pass found.
#[derive(Debug)]
pub(super) struct Seen {
    /// What the status says.
    pub(super) condition: Wanted,
    /// What the brokers told that answered; `None` if none was asked.
    pub(super) progress: Option<Progress>,
    /// Whether every broker of the cluster answered.
    pub(super) is_complete: bool,
}

impl Seen {
    /// A pass that asked no broker.
    pub(super) fn nothing(condition: Wanted) -> Self {
        Self { condition, progress: None, is_complete: false }
    }
}

/// Asks every broker how far the group is, and makes it as declared there: on all of them with `is_full`, else on those
/// that have a queue that is not `known` yet.
pub(super) async fn converge(
    brokers: &impl Brokers,
    group: &Declared<'_>,
    known: &mut Known,
    is_full: bool,
) -> Seen {
    let mut primaries = match brokers.all().await {
        Ok(primaries) => primaries,
        Err(error) => {
            return Seen::nothing(Reason::BrokersUnreachable.because(with_causes(&error)));
        }
    };
    primaries.sort();
    let answers =
        join_all(primaries.iter().map(|primary| visit(brokers, primary, group, known, is_full)))
            .await;
    let mut progress = Progress::default();
    let mut failed = Vec::new();
    let mut seen = Known::new();
    for (primary, answer) in primaries.iter().zip(answers) {
        match answer {
            Ok((of_broker, queues)) => {
                progress.add(&of_broker);
                seen.extend(queues);
            }
            Err(error) => failed.push((primary, error)),
        }
    }
    known.extend(seen);
    let missing: Vec<_> = (0..group.groups)
        .map(|number| names::broker_name(group.cluster, number))
        .filter(|name| primaries.iter().all(|primary| primary.broker_name != *name))
        .collect();
    let is_complete = failed.is_empty() && missing.is_empty();
    Seen {
        condition: judge(group, &progress, &failed, &missing),
        progress: Some(progress),
        is_complete,
    }
}

fn judge(
    group: &Declared<'_>,
    progress: &Progress,
    failed: &[(&Primary, AdminError)],
    missing: &[String],
) -> Wanted {
    if let Some((primary, error)) = failed.first() {
        let detail = format!("{}: {}", primary.broker_name, with_causes(error));
        let is_refusal =
            matches!(error, AdminError::Request { source, .. } if source.refusal().is_some());
        let reason = if is_refusal { Reason::BrokerRefused } else { Reason::BrokersUnreachable };
        return reason.because(detail);
    }
    if !missing.is_empty() {
        return Reason::Starting.because(format!("not registered: {}", missing.join(", ")));
    }
    let absent: Vec<_> = group
        .spec
        .topics
        .iter()
        .map(|topic| &*topic.name)
        .filter(|name| !progress.has(name))
        .collect();
    if absent.is_empty() {
        Reason::AsDeclared.because("")
    } else {
        Reason::TopicNotFound.because(absent.join(", "))
    }
}

/// One broker's part: its progress, and the queues in which the group has an offset now.
async fn visit(
    brokers: &impl Brokers,
    primary: &Primary,
    group: &Declared<'_>,
    known: &Known,
    is_full: bool,
) -> Result<(BrokerProgress, Known), AdminError> {
    let topics = plan::topics(group.spec, group.name);
    let key = |topic: &str, queue| (primary.broker_name.clone(), topic.to_owned(), queue);
    if !is_full {
        let progress = brokers.progress(&primary.address, group.name, &topics).await?;
        let named = |topic: &str| group.spec.topics.iter().any(|named| named.name == topic);
        let mut queues = progress.queues.iter().filter(|queue| named(&queue.topic));
        if queues.all(|queue| known.contains(&key(&queue.topic, queue.queue))) {
            return Ok((progress, Known::new()));
        }
    }
    declare(brokers, primary, group).await?;
    let mut seen = Known::new();
    for topic in &group.spec.topics {
        let bounds = brokers.bounds(&primary.address, &topic.name).await?.unwrap_or_default();
        try_join_all(bounds.iter().map(|queue| begin(brokers, primary, group, queue))).await?;
        seen.extend(bounds.iter().map(|queue| key(&topic.name, queue.queue.queue_id)));
    }
    // After the offsets are there: what a group has before it depends on where it starts.
    Ok((brokers.progress(&primary.address, group.name, &topics).await?, seen))
}

async fn declare(
    brokers: &impl Brokers,
    primary: &Primary,
    group: &Declared<'_>,
) -> Result<(), AdminError> {
    let present = brokers.group(&primary.address, group.name).await?;
    if let Some(change) = plan::change(group.name, group.spec, present.as_ref()) {
        brokers.declare_group(&primary.address, &change).await?;
        let (broker, is_new) = (&primary.broker_name, present.is_none());
        tracing::info!(group = %group.name, %broker, is_new, "consumer group declared");
    }
    Ok(())
}

/// Commits the offset at which the group starts in a queue, if it has none there.
async fn begin(
    brokers: &impl Brokers,
    primary: &Primary,
    group: &Declared<'_>,
    queue: &QueueBounds,
) -> Result<(), AdminError> {
    let (address, topic, id) = (&primary.address, &queue.queue.topic, queue.queue.queue_id);
    if brokers.offset(address, group.name, topic, id).await?.is_some() {
        return Ok(());
    }
    let offset = match plan::start(group.spec.start_from, group.at_ms, queue) {
        Start::At(offset) => offset,
        // Not beyond what was there when it was first seen: a broker's clock may be behind the API server's.
        Start::Since(time_ms) => {
            brokers.offset_at(address, topic, id, time_ms).await?.min(queue.max_offset)
        }
    };
    brokers.set_offset(address, group.name, topic, id, offset).await?;
    tracing::info!(group = %group.name, broker = primary.broker_name, topic, queue = id, offset, "group starts");
    Ok(())
}

#[cfg(test)]
mod tests {
    use gantry_model::{TopicConfig, TopicName};

    use super::*;
    use crate::brokers::fake::FakeBrokers;

    const DECLARED_MS: u64 = 1_000;

    /// Two brokers that have topic `t` with one queue.
    fn two_brokers() -> FakeBrokers {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        for broker in ["shop-0", "shop-1"] {
            brokers.with(broker, |broker| {
                let config = TopicConfig::new(TopicName::new("t").unwrap(), 1);
                broker.topics.insert("t".into(), config);
            });
        }
        brokers
    }

    fn put(brokers: &FakeBrokers, broker: &str, first: u64, store_times: &[u64]) {
        brokers.with(broker, |broker| {
            broker.messages.insert(("t".into(), 0), (first, store_times.to_vec()));
        });
    }

    fn offset(brokers: &FakeBrokers, broker: &str) -> Option<u64> {
        let key = ("billing".to_owned(), "t".to_owned(), 0);
        brokers.with(broker, |broker| broker.offsets.get(&key).copied())
    }

    fn changes(brokers: &FakeBrokers) -> usize {
        let of = |name| brokers.with(name, |broker| broker.changes.len());
        of("shop-0") + of("shop-1")
    }

    /// A group and what its passes remember.
    struct Group {
        name: GroupName,
        spec: ConsumerGroupSpec,
        known: Known,
    }

    impl Group {
        fn new(more: &str) -> Self {
            let yaml = format!("{{clusterRef: {{name: shop}}, topics: [{{name: t}}], {more}}}");
            let spec = serde_yaml::from_str(&yaml).unwrap();
            Self { name: GroupName::new("billing").unwrap(), spec, known: Known::new() }
        }

        async fn pass(&mut self, brokers: &FakeBrokers, is_full: bool) -> Seen {
            let (name, spec) = (&self.name, &self.spec);
            let group = Declared { cluster: "shop", groups: 2, name, spec, at_ms: DECLARED_MS };
            converge(brokers, &group, &mut self.known, is_full).await
        }
    }

    fn backlog(seen: &Seen) -> u64 {
        seen.progress.as_ref().unwrap().backlog
    }

    #[tokio::test]
    async fn new_group_starts_with_what_came_after_its_declaration() {
        let brokers = two_brokers();
        put(&brokers, "shop-0", 5, &[900, 990, 1_000, 1_200]);
        let seen = Group::new("startFrom: Latest").pass(&brokers, true).await;
        assert_eq!(seen.condition.reason, Reason::AsDeclared);
        assert_eq!((offset(&brokers, "shop-0"), offset(&brokers, "shop-1")), (Some(7), Some(0)));
        let oldest = seen.progress.as_ref().and_then(|progress| progress.oldest_ms);
        assert_eq!((backlog(&seen), oldest), (2, Some(1_000)));
    }

    #[tokio::test]
    async fn message_that_comes_during_the_first_pass_is_kept_though_the_brokers_clock_is_behind() {
        let brokers = two_brokers();
        brokers.with("shop-0", |broker| {
            broker.topics.get_mut("t").unwrap().read_queues = 2;
            broker.messages.insert(("t".into(), 1), (0, vec![900]));
            // The group is declared, then queue 0 gets its offset.
            broker.after_change = Some(|broker| {
                broker.after_change = Some(|broker| {
                    broker.messages.insert(("t".into(), 1), (0, vec![900, 950]));
                });
            });
        });
        let seen = Group::new("").pass(&brokers, true).await;
        assert_eq!(backlog(&seen), 1);
    }

    #[tokio::test]
    async fn group_from_the_earliest_starts_with_the_oldest_message() {
        let brokers = two_brokers();
        put(&brokers, "shop-0", 5, &[900, 990]);
        Group::new("startFrom: Earliest").pass(&brokers, true).await;
        assert_eq!(offset(&brokers, "shop-0"), Some(5));
    }

    #[tokio::test]
    async fn offset_that_is_there_is_kept_and_a_second_pass_changes_nothing() {
        let brokers = two_brokers();
        put(&brokers, "shop-0", 0, &[1, 2, 3, 2_000]);
        let key = ("billing".to_owned(), "t".to_owned(), 0);
        brokers.with("shop-0", |broker| broker.offsets.insert(key, 1));
        let mut group = Group::new("");
        group.pass(&brokers, true).await;
        let before = changes(&brokers);
        let seen = group.pass(&brokers, true).await;
        assert_eq!((offset(&brokers, "shop-0"), backlog(&seen)), (Some(1), 3));
        assert_eq!(changes(&brokers), before);
    }

    #[tokio::test]
    async fn queue_that_appears_between_full_passes_starts_with_its_first_message() {
        let brokers = two_brokers();
        let topic = brokers.with("shop-1", |broker| broker.topics.remove("t").unwrap());
        let mut group = Group::new("");
        group.pass(&brokers, true).await;
        assert_eq!(offset(&brokers, "shop-1"), None);
        brokers.with("shop-1", |broker| broker.topics.insert("t".into(), topic));
        put(&brokers, "shop-1", 0, &[5_000, 5_001]);
        let seen = group.pass(&brokers, false).await;
        assert_eq!((offset(&brokers, "shop-1"), backlog(&seen)), (Some(0), 2));
    }

    #[tokio::test]
    async fn silent_broker_makes_the_backlog_incomplete_and_keeps_no_other_from_the_group() {
        let brokers = two_brokers();
        brokers.with("shop-0", |broker| broker.is_silent = true);
        let seen = Group::new("retry: {maxAttempts: 3}").pass(&brokers, true).await;
        assert!(!seen.is_complete);
        assert_eq!(seen.condition.reason, Reason::BrokersUnreachable);
        assert!(seen.condition.message().contains("shop-0"), "{}", seen.condition.message());
        let attempts = brokers.with("shop-1", |broker| broker.groups["billing"].retry_max_times);
        assert_eq!((attempts, offset(&brokers, "shop-1")), (3, Some(0)));
    }

    #[tokio::test]
    async fn topic_that_no_broker_has_is_named() {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        let seen = Group::new("").pass(&brokers, true).await;
        assert_eq!(seen.condition.reason, Reason::TopicNotFound);
        assert!(seen.is_complete && seen.condition.message().contains('t'));
    }
}
