//! Brokers in memory, for tests of decisions.
//! Invariant: a broker that is silent answers nothing and changes nothing; one that refuses changes says why.
//! Leaves wire and time out.

use std::collections::{BTreeMap, BTreeSet};

use gantry_client::{
    AdminError, BrokerProgress, MessageQueue, Primary, QueueBounds, QueueLag, RequestError,
    ResponseCode,
};
use gantry_model::{GroupConfig, RETENTION_ATTRIBUTE, TopicConfig, TopicName};
use parking_lot::Mutex;

use super::{Answer, Brokers};

/// One broker. Its address is its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeBroker {
    pub(crate) topics: BTreeMap<String, TopicConfig>,
    /// Store times of a queue's messages, in milliseconds, from the offset on.
    pub(crate) messages: BTreeMap<(String, u32), (u64, Vec<u64>)>,
    pub(crate) groups: BTreeMap<String, GroupConfig>,
    pub(crate) offsets: BTreeMap<(String, String, u32), u64>,
    pub(crate) is_silent: bool,
    pub(crate) refuses_changes: bool,
    /// Calls that changed something, in order.
    pub(crate) changes: Vec<String>,
    /// What happens right after the first change: a message, or a silence.
    pub(crate) after_change: Option<fn(&mut FakeBroker)>,
}

impl FakeBroker {
    fn bounds(&self, topic: &str, queue: u32) -> (u64, u64) {
        let found = self.messages.get(&(topic.to_owned(), queue));
        found.map_or((0, 0), |(min, times)| (*min, min + times.len() as u64))
    }
}

/// The brokers of a cluster.
#[derive(Default)]
pub(crate) struct FakeBrokers {
    brokers: Mutex<BTreeMap<String, FakeBroker>>,
}

impl FakeBrokers {
    pub(crate) fn new(names: &[&str]) -> Self {
        let brokers = names.iter().map(|name| ((*name).to_owned(), FakeBroker::default()));
        Self { brokers: Mutex::new(brokers.collect()) }
    }

    /// Looks at a broker, or changes it behind the operator's back.
    pub(crate) fn with<T>(&self, name: &str, look: impl FnOnce(&mut FakeBroker) -> T) -> T {
        look(self.brokers.lock().get_mut(name).expect("the broker is one of the test's"))
    }

    fn ask<T>(
        &self,
        address: &str,
        ask: impl FnOnce(&mut FakeBroker) -> T,
    ) -> Result<T, AdminError> {
        let mut brokers = self.brokers.lock();
        let broker = brokers.get_mut(address).filter(|broker| !broker.is_silent);
        broker.map(ask).ok_or(AdminError::NoBroker { operation: "ask a silent broker" })
    }

    fn change(
        &self,
        address: &str,
        what: String,
        change: impl FnOnce(&mut FakeBroker),
    ) -> Result<(), AdminError> {
        self.ask(address, |broker| {
            if broker.refuses_changes {
                return Err(refusal(address));
            }
            change(broker);
            broker.changes.push(what);
            if let Some(after) = broker.after_change.take() {
                after(broker);
            }
            Ok(())
        })?
    }
}

fn refusal(address: &str) -> AdminError {
    let source = RequestError::Refused {
        address: address.into(),
        code: ResponseCode::NO_PERMISSION,
        remark: "not today".into(),
    };
    AdminError::Request { operation: "change a broker", source }
}

impl Brokers for FakeBrokers {
    fn all(&self) -> Answer<'_, Vec<Primary>> {
        let names: BTreeSet<_> = self.brokers.lock().keys().cloned().collect();
        let primary = |name: String| Primary {
            cluster: "shop".into(),
            address: name.clone(),
            broker_name: name,
        };
        Box::pin(async move { Ok(names.into_iter().map(primary).collect()) })
    }

    fn topic<'a>(&'a self, address: &'a str, topic: &'a str) -> Answer<'a, Option<TopicConfig>> {
        Box::pin(async move { self.ask(address, |broker| broker.topics.get(topic).cloned()) })
    }

    fn declare_topic<'a>(&'a self, address: &'a str, config: &'a TopicConfig) -> Answer<'a, ()> {
        let name = config.topic_name.to_string();
        Box::pin(async move {
            self.change(address, format!("declare {name}"), |broker| {
                let mut config = config.clone();
                if let Some(present) = broker.topics.get(&name) {
                    let mut attributes = present.attributes.clone();
                    attributes.append(&mut config.attributes);
                    config.attributes = attributes;
                }
                // As a broker does: 0 stands for its own retention.
                config.attributes.retain(|key, value| {
                    (key.as_str(), value.as_str()) != (RETENTION_ATTRIBUTE, "0")
                });
                broker.topics.insert(name.clone(), config);
            })
        })
    }

    fn delete_topic<'a>(&'a self, address: &'a str, topic: &'a TopicName) -> Answer<'a, ()> {
        Box::pin(async move {
            self.change(address, format!("delete {topic}"), |broker| {
                broker.topics.remove(&**topic);
                broker.messages.retain(|(of, _), _| *of != **topic);
            })
        })
    }

    fn bounds<'a>(
        &'a self,
        address: &'a str,
        topic: &'a str,
    ) -> Answer<'a, Option<Vec<QueueBounds>>> {
        Box::pin(async move {
            self.ask(address, |broker| {
                let config = broker.topics.get(topic)?;
                let bounds = (0..config.read_queues.max(config.write_queues)).map(|queue_id| {
                    let (min_offset, max_offset) = broker.bounds(topic, queue_id);
                    let (topic, broker_name) = (topic.to_owned(), address.to_owned());
                    let queue = MessageQueue { topic, broker_name, queue_id };
                    QueueBounds { queue, min_offset, max_offset, last_store_time_ms: 0 }
                });
                Some(bounds.collect())
            })
        })
    }

    fn group<'a>(&'a self, address: &'a str, group: &'a str) -> Answer<'a, Option<GroupConfig>> {
        Box::pin(async move { self.ask(address, |broker| broker.groups.get(group).cloned()) })
    }

    fn declare_group<'a>(&'a self, address: &'a str, config: &'a GroupConfig) -> Answer<'a, ()> {
        let name = config.group_name.to_string();
        Box::pin(async move {
            self.change(address, format!("declare {name}"), |broker| {
                broker.groups.insert(name.clone(), config.clone());
            })
        })
    }

    fn offset<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topic: &'a str,
        queue: u32,
    ) -> Answer<'a, Option<u64>> {
        let key = (group.to_owned(), topic.to_owned(), queue);
        Box::pin(async move { self.ask(address, |broker| broker.offsets.get(&key).copied()) })
    }

    fn offset_at<'a>(
        &'a self,
        address: &'a str,
        topic: &'a str,
        queue: u32,
        time_ms: u64,
    ) -> Answer<'a, u64> {
        Box::pin(async move {
            self.ask(address, |broker| {
                let found = broker.messages.get(&(topic.to_owned(), queue));
                found.map_or(0, |(min, times)| {
                    min + times.iter().take_while(|stored| **stored < time_ms).count() as u64
                })
            })
        })
    }

    fn set_offset<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topic: &'a str,
        queue: u32,
        offset: u64,
    ) -> Answer<'a, ()> {
        let key = (group.to_owned(), topic.to_owned(), queue);
        Box::pin(async move {
            self.change(address, format!("offset {topic}/{queue} {offset}"), |broker| {
                broker.offsets.insert(key, offset);
            })
        })
    }

    fn progress<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topics: &'a [String],
    ) -> Answer<'a, BrokerProgress> {
        Box::pin(async move {
            self.ask(address, |broker| {
                let mut progress = BrokerProgress::default();
                for topic in topics {
                    let queues = broker.topics.get(topic).map_or(0, |config| config.read_queues);
                    for queue in 0..queues {
                        let (min, max) = broker.bounds(topic, queue);
                        let key = (group.to_owned(), topic.clone(), queue);
                        let offset = broker.offsets.get(&key).copied().unwrap_or(min);
                        let times = broker.messages.get(&(topic.clone(), queue));
                        let next = times.and_then(|(min, times)| {
                            times.get(offset.saturating_sub(*min) as usize).copied()
                        });
                        progress.queues.push(QueueLag {
                            topic: topic.clone(),
                            queue,
                            lag: max.saturating_sub(offset),
                            next_store_time_ms: next.unwrap_or(0),
                        });
                    }
                }
                progress
            })
        })
    }
}
