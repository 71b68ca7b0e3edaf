//! Routes: which brokers have a topic, and which of its queues may be written and read.
//! Invariant: queues come in the order in which all clients sort them.
//! Pure: leaves asking name servers to `client`.

use std::collections::BTreeMap;

use gantry_model::Permission;
use gantry_remoting::command::nameserver::TopicRoute;

use crate::message::MessageQueue;

/// Most queues that a route may name on one broker: what a topic may have. More is a broken answer.
const QUEUES_MAX: u32 = gantry_model::limits::QUEUES_MAX;

/// Where a topic lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    topic: String,
    /// Broker groups by name.
    brokers: BTreeMap<String, BrokerGroup>,
    write_queues: Vec<MessageQueue>,
    read_queues: Vec<MessageQueue>,
}

/// Addresses of one broker group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerGroup {
    /// Name of its cluster.
    pub cluster: String,
    /// Addresses by broker id; 0 is the primary.
    pub addresses: BTreeMap<u64, String>,
}

impl BrokerGroup {
    /// Address of the primary.
    pub fn primary(&self) -> Option<&str> {
        self.addresses.get(&0).map(String::as_str)
    }

    /// Address of the primary, or of any member without one.
    pub fn any(&self) -> Option<&str> {
        self.addresses.values().next().map(String::as_str)
    }
}

impl Route {
    /// The route that a name server's answer says.
    pub fn new(topic: &str, answer: TopicRoute) -> Self {
        let brokers: BTreeMap<_, _> = answer
            .broker_datas
            .into_iter()
            .map(|data| {
                let group = BrokerGroup { cluster: data.cluster, addresses: data.broker_addrs };
                (data.broker_name, group)
            })
            .collect();
        let (mut write_queues, mut read_queues) = (Vec::new(), Vec::new());
        for data in &answer.queue_datas {
            let Some(group) = brokers.get(&data.broker_name) else { continue };
            let perm = Permission(data.perm);
            // Only a primary takes messages.
            if perm.writable() && group.primary().is_some() {
                write_queues.extend(queues(topic, &data.broker_name, data.write_queue_nums));
            }
            if perm.readable() {
                read_queues.extend(queues(topic, &data.broker_name, data.read_queue_nums));
            }
        }
        write_queues.sort_unstable();
        read_queues.sort_unstable();
        Self { topic: topic.to_owned(), brokers, write_queues, read_queues }
    }

    /// The same for a topic that does not exist yet and will be made by its first message: at most
    /// `queues` queues on each broker of the template, of which `self` is the route.
    #[must_use]
    pub fn as_template_of(&self, topic: &str, queues: u32) -> Self {
        let renamed =
            |queue: &MessageQueue| MessageQueue { topic: topic.to_owned(), ..queue.clone() };
        let few = |all: &[MessageQueue]| {
            all.iter().filter(|queue| queue.queue_id < queues).map(renamed).collect()
        };
        Self {
            topic: topic.to_owned(),
            brokers: self.brokers.clone(),
            write_queues: few(&self.write_queues),
            read_queues: Vec::new(),
        }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Broker groups of the topic, by name.
    pub fn brokers(&self) -> &BTreeMap<String, BrokerGroup> {
        &self.brokers
    }

    /// Queues that take messages.
    pub fn write_queues(&self) -> &[MessageQueue] {
        &self.write_queues
    }

    /// Queues that may be read.
    pub fn read_queues(&self) -> &[MessageQueue] {
        &self.read_queues
    }

    /// Address of the primary of a broker group.
    pub fn primary(&self, broker_name: &str) -> Option<&str> {
        self.brokers.get(broker_name)?.primary()
    }

    /// Address from which a broker group is read: member `broker_id`, or else its primary, or else any.
    pub fn reader(&self, broker_name: &str, broker_id: u64) -> Option<&str> {
        let group = self.brokers.get(broker_name)?;
        let member = group.addresses.get(&broker_id).map(String::as_str);
        member.or_else(|| group.primary()).or_else(|| group.any())
    }
}

fn queues<'a>(
    topic: &'a str,
    broker_name: &'a str,
    count: u32,
) -> impl Iterator<Item = MessageQueue> + 'a {
    (0..count.min(QUEUES_MAX)).map(move |queue_id| MessageQueue {
        topic: topic.to_owned(),
        broker_name: broker_name.to_owned(),
        queue_id,
    })
}

#[cfg(test)]
mod tests {
    use gantry_remoting::command::nameserver::{BrokerData, QueueData};

    use super::*;

    fn broker(name: &str, ids: &[u64]) -> BrokerData {
        BrokerData {
            broker_addrs: ids.iter().map(|id| (*id, format!("{name}:{id}"))).collect(),
            broker_name: name.into(),
            ..BrokerData::default()
        }
    }

    fn queues_of(name: &str, perm: u32, read: u32, write: u32) -> QueueData {
        QueueData {
            broker_name: name.into(),
            perm,
            read_queue_nums: read,
            write_queue_nums: write,
            ..QueueData::default()
        }
    }

    fn route(brokers: Vec<BrokerData>, queues: Vec<QueueData>) -> Route {
        let answer =
            TopicRoute { broker_datas: brokers, queue_datas: queues, ..TopicRoute::default() };
        Route::new("t", answer)
    }

    #[test]
    fn producers_use_writable_primaries_and_consumers_all_readable_brokers() {
        let route = route(
            vec![broker("b", &[0, 1]), broker("a", &[1]), broker("c", &[0])],
            vec![queues_of("b", 6, 2, 1), queues_of("a", 6, 1, 1), queues_of("c", 4, 1, 1)],
        );
        let names =
            |queues: &[MessageQueue]| queues.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(route.write_queues()), ["t/b/0"]);
        assert_eq!(names(route.read_queues()), ["t/a/0", "t/b/0", "t/b/1", "t/c/0"]);
        assert_eq!(route.reader("a", 0), Some("a:1"));
        assert_eq!(route.reader("b", 1), Some("b:1"));
        assert_eq!(route.primary("a"), None);
    }

    #[test]
    fn template_gives_few_queues_under_the_new_name() {
        let template = route(vec![broker("b", &[0])], vec![queues_of("b", 7, 8, 8)]);
        let route = template.as_template_of("new", 4);
        assert_eq!(route.write_queues().len(), 4);
        assert!(route.write_queues().iter().all(|queue| queue.topic == "new"));
    }

    #[test]
    fn absurd_queue_count_takes_no_memory_for_it() {
        let route = route(vec![broker("b", &[0])], vec![queues_of("b", 6, u32::MAX, 0)]);
        assert_eq!(route.read_queues().len(), QUEUES_MAX as usize);
    }
}
