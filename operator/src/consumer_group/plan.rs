//! What a consumer group should be on a broker, where it starts, and what it has before it. Pure.
//! Invariant: an offset that is there is never moved; of a group's settings only those that the resource names change.
//! Leaves asking and telling brokers to `act`.

use std::collections::BTreeMap;

use gantry_client::{BrokerProgress, QueueBounds};
use gantry_model::{GroupConfig, GroupName, RETRY_PREFIX, is_system_group};
use gantry_resources::{ConsumerGroupSpec, StartFrom};

use super::scaling::Work;

/// Whether brokers use the name themselves.
pub(super) fn is_reserved(name: &str) -> bool {
    is_system_group(name) || name.starts_with("CID_RMQ_SYS_")
}

/// Topics whose messages the group has to consume: those it names, and its retries.
pub(super) fn topics(spec: &ConsumerGroupSpec, name: &str) -> Vec<String> {
    let named = spec.topics.iter().map(|topic| topic.name.clone());
    named.chain([format!("{RETRY_PREFIX}{name}")]).collect()
}

/// What to declare on a broker that has `present`; `None`: nothing.
pub(super) fn change(
    name: &GroupName,
    spec: &ConsumerGroupSpec,
    present: Option<&GroupConfig>,
) -> Option<GroupConfig> {
    let mut wanted = present.cloned().unwrap_or_else(|| GroupConfig::new(name.clone()));
    wanted.retry_max_times = spec.retry.max_attempts;
    (present != Some(&wanted)).then_some(wanted)
}

/// Where a group starts in a queue that it has never read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// At this offset.
    At(u64),
    /// At the first message stored at this time or later, in milliseconds since 1970.
    Since(u64),
}

/// Where a group that was declared at `declared_ms` starts in a queue: with messages that arrived after that, or with
/// the oldest one. By time and not by the queue's end, so that a queue that appears, or answers, only later loses nothing.
pub(super) fn start(from: StartFrom, declared_ms: u64, queue: &QueueBounds) -> Start {
    match from {
        StartFrom::Earliest => Start::At(queue.min_offset),
        StartFrom::Latest if queue.max_offset == queue.min_offset => Start::At(queue.max_offset),
        StartFrom::Latest => Start::Since(declared_ms),
    }
}

/// What the brokers told of a group, put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) backlog: u64,
    /// Store time of the oldest message to consume, in milliseconds since 1970.
    pub(super) oldest_ms: Option<u64>,
    /// Queues by topic.
    queues: BTreeMap<String, u32>,
}

impl Progress {
    /// Adds what one broker told.
    pub(super) fn add(&mut self, of_broker: &BrokerProgress) {
        self.backlog = self.backlog.saturating_add(of_broker.waiting_retries);
        for queue in &of_broker.queues {
            self.backlog = self.backlog.saturating_add(queue.lag);
            *self.queues.entry(queue.topic.clone()).or_default() += 1;
            if queue.lag > 0 && queue.next_store_time_ms > 0 {
                let oldest = self.oldest_ms.get_or_insert(u64::MAX);
                *oldest = queue.next_store_time_ms.min(*oldest);
            }
        }
    }

    /// Whether some broker has the topic.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.queues.contains_key(topic)
    }

    /// The work of the group. A consumer is useful as long as it gets a queue of any topic.
    pub(super) fn work(&self, is_complete: bool) -> Work {
        let queues = self.queues.values().copied().max().unwrap_or(0);
        Work { backlog: self.backlog, queues, is_complete }
    }
}

#[cfg(test)]
mod tests {
    use gantry_client::{MessageQueue, QueueLag};

    use super::*;

    fn spec(yaml: &str) -> ConsumerGroupSpec {
        serde_yaml::from_str(&format!("{{clusterRef: {{name: shop}}, {yaml}}}")).unwrap()
    }

    fn bounds(min_offset: u64, max_offset: u64) -> QueueBounds {
        let queue = MessageQueue { topic: "t".into(), broker_name: "b".into(), queue_id: 0 };
        QueueBounds { queue, min_offset, max_offset, last_store_time_ms: 0 }
    }

    #[test]
    fn group_is_made_with_its_attempts_and_keeps_what_others_set() {
        let name = GroupName::new("billing").unwrap();
        let spec = spec("retry: {maxAttempts: 3}");
        let made = change(&name, &spec, None).unwrap();
        assert_eq!(made.retry_max_times, 3);
        assert_eq!(change(&name, &spec, Some(&made)), None);
        let theirs = GroupConfig { consume_enable: false, retry_max_times: 7, ..made };
        let changed = change(&name, &spec, Some(&theirs)).unwrap();
        assert!(!changed.consume_enable && changed.retry_max_times == 3);
    }

    #[test]
    fn latest_begins_at_the_declaration_and_earliest_at_the_oldest_message() {
        assert_eq!(start(StartFrom::Earliest, 5, &bounds(3, 9)), Start::At(3));
        assert_eq!(start(StartFrom::Latest, 5, &bounds(3, 9)), Start::Since(5));
        assert_eq!(start(StartFrom::Latest, 5, &bounds(9, 9)), Start::At(9));
    }

    #[test]
    fn backlog_is_what_waits_in_all_queues_and_for_its_next_attempt() {
        let lag = |topic: &str, lag, next| QueueLag {
            topic: topic.into(),
            queue: 0,
            lag,
            next_store_time_ms: next,
        };
        let mut progress = Progress::default();
        let queues = vec![lag("t", 2, 900), lag("t", 0, 0), lag("%RETRY%g", 1, 800)];
        progress.add(&BrokerProgress { queues, waiting_retries: 4 });
        progress.add(&BrokerProgress { queues: vec![lag("t", 3, 850)], waiting_retries: 0 });
        assert_eq!((progress.backlog, progress.oldest_ms), (10, Some(800)));
        assert_eq!(progress.work(true).queues, 3);
        assert!(progress.has("t") && !progress.has("u"));
    }

    #[test]
    fn names_of_brokers_own_groups_are_reserved() {
        assert!(is_reserved("CID_RMQ_SYS_TRANS") && !is_reserved("CID_billing"));
        assert_eq!(topics(&spec("topics: [{name: t}]"), "g"), ["t", "%RETRY%g"]);
    }
}
