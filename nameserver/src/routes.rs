//! Route table: which broker serves which topic, where, and since when it is silent.
//! Invariant: a topic is listed only with brokers that are alive; a broker group has at least one address.
//! Pure: time arrives as an argument (since any fixed moment, on a clock that never goes back), nothing is sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use gantry_model::{Permission, TopicName};
use gantry_remoting::command::data_version::DataVersion;

/// Id of a group's master.
pub const MASTER_ID: u64 = 0;

/// What a route says of one topic on one broker group; keys in the order of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// What clients may do.
    pub perm: Permission,
    /// Queues that may be read.
    pub read_queues: u32,
    /// Unit bits.
    pub sys_flag: u32,
    /// Queues that may be written.
    pub write_queues: u32,
}

impl Queues {
    /// Whether the broker group withdraws the topic: one without a queue is of no use to a client.
    pub fn is_withdrawal(&self) -> bool {
        self.read_queues == 0 && self.write_queues == 0
    }
}

/// One address of one broker group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// RocketMQ cluster name.
    pub cluster: String,
    /// Name of the broker group.
    pub broker: String,
    /// 0 is the master.
    pub id: u64,
    /// `host:port` that clients connect to.
    pub addr: String,
}

/// What a broker says of itself when it registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Who it is.
    pub member: Member,
    /// Where its replicas connect to.
    pub ha_addr: String,
    /// Whether a replica may act as master; absent from brokers before 5.0.
    pub acting_master: Option<bool>,
    /// Zone that clients may ask for.
    pub zone: Option<String>,
    /// Silence after which it is forgotten.
    pub expiry: Duration,
    /// State of its topic table.
    pub data_version: DataVersion,
    /// The table, or the changed part of it.
    pub topics: Vec<(TopicName, Queues)>,
    /// Connection whose end means that the broker is gone.
    pub connection: u64,
}

/// What came of a registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It is in the table.
    Accepted {
        /// Address and replication address of the group's live master, for a replica.
        master: Option<(String, String)>,
    },
    /// A newer one holds its id: nothing changed.
    Stale,
}

/// Why a registration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// One topic is a change to a table, and there is no table yet.
    #[error(
        "register broker failed: {broker} id {id} must register its whole table before a single topic"
    )]
    NoTable {
        /// Name of the broker group.
        broker: String,
        /// Id within it.
        id: u64,
    },
    /// The name is that of a group in another cluster.
    #[error("register broker failed: {broker} belongs to cluster {cluster}")]
    OtherCluster {
        /// Name of the broker group.
        broker: String,
        /// Cluster that it is registered with.
        cluster: String,
    },
}

/// A broker group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// RocketMQ cluster name.
    pub cluster: String,
    /// Addresses by id.
    pub addrs: BTreeMap<u64, String>,
    /// Whether a replica may act as master.
    pub acting_master: bool,
    /// Zone of the group.
    pub zone: Option<String>,
}

impl Group {
    /// Whether clients of `zone` are sent here: its own groups, and those that have no master.
    pub fn serves_zone(&self, zone: &str) -> bool {
        let is_own = self.zone.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(zone));
        is_own || !self.addrs.contains_key(&MASTER_ID)
    }
}

#[derive(Debug, Clone)]
struct Live {
    member: Member,
    seen: Duration,
    expiry: Duration,
    data_version: DataVersion,
    connection: u64,
    ha_addr: String,
}

/// One topic on one broker group.
#[derive(Debug)]
struct Served {
    broker: Arc<str>,
    /// What clients are told.
    queues: Queues,
    /// What the broker said, before anybody took or gave permissions here.
    announced: Queues,
}

/// Cluster and address: what a live broker is known by.
type LiveKey = (String, String);

/// The table of one name server.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Few brokers serve one topic, so a sorted list beats a map in size and speed.
    topics: HashMap<TopicName, Vec<Served>>,
    groups: BTreeMap<Arc<str>, Group>,
    live: HashMap<LiveKey, Live>,
}

impl RouteTable {
    /// Takes a registration in, or refuses it and changes nothing.
    ///
    /// `forget_missing`: topics of the group that a table of several topics does not name are
    /// removed from the group. Not for a part of a table: see `partial` of `RegisterBroker`.
    pub fn register(
        &mut self,
        registration: Registration,
        forget_missing: bool,
        now: Duration,
    ) -> Result<Registered, RegisterError> {
        let Registration { member, topics, .. } = &registration;
        let group = self.groups.get(member.broker.as_str());
        if let Some(group) = group.filter(|group| group.cluster != member.cluster) {
            let (broker, cluster) = (member.broker.clone(), group.cluster.clone());
            return Err(RegisterError::OtherCluster { broker, cluster });
        }
        let holder = group.and_then(|group| group.addrs.get(&member.id));
        if holder.is_none() && topics.len() == 1 {
            let (broker, id) = (member.broker.clone(), member.id);
            return Err(RegisterError::NoTable { broker, id });
        }
        if self.is_stale(holder, &registration) {
            self.withdraw(&registration.member);
            return Ok(Registered::Stale);
        }
        let is_first = holder.is_none();
        self.leave_other_group(&registration.member);
        Ok(self.accept(registration, is_first, forget_missing, now))
    }

    /// Whether the id is held by another address in a later term.
    fn is_stale(&self, holder: Option<&String>, registration: &Registration) -> bool {
        let Registration { member, data_version, .. } = registration;
        let other = holder.filter(|addr| **addr != member.addr);
        let live = other.and_then(|addr| self.live.get(&(member.cluster.clone(), addr.clone())));
        live.is_some_and(|live| live.data_version.state_version > data_version.state_version)
    }

    /// Forgets the address of a registration that came too late.
    fn withdraw(&mut self, member: &Member) {
        let Some(live) = self.live.get(&key(member)) else { return };
        let live = live.member.clone();
        self.remove(&live);
    }

    /// A broker that changed its name leaves the group of its old one.
    fn leave_other_group(&mut self, member: &Member) {
        let live = self.live.get(&key(member)).map(|live| live.member.clone());
        if let Some(live) = live.filter(|live| live.broker != member.broker) {
            self.remove(&live);
        }
    }

    fn accept(
        &mut self,
        registration: Registration,
        is_first: bool,
        forget_missing: bool,
        now: Duration,
    ) -> Registered {
        let Registration { member, ha_addr, acting_master, zone, expiry, .. } = registration;
        let Registration { data_version, topics, connection, .. } = registration;
        let name = self.name(&member.broker);
        let group = self.groups.entry(Arc::clone(&name)).or_insert_with(|| Group {
            cluster: member.cluster.clone(),
            addrs: BTreeMap::new(),
            acting_master: false,
            zone: None,
        });
        group.acting_master = acting_master == Some(true);
        group.zone = zone;
        // The same address under another id: its role has changed.
        group.addrs.retain(|id, addr| *addr != member.addr || *id == member.id);
        let replaced = group.addrs.insert(member.id, member.addr.clone());
        let lowest_id = group.addrs.keys().next().copied();
        let is_master = member.id == MASTER_ID;
        let leads_replicas = acting_master.is_some() && !is_master && lowest_id == Some(member.id);
        let read_only = leads_replicas && group.acting_master;
        if let Some(addr) = replaced.filter(|addr| *addr != member.addr) {
            self.live.remove(&(member.cluster.clone(), addr));
        }
        if is_master || leads_replicas {
            if forget_missing && topics.len() > 1 {
                self.forget_missing(&name, &topics);
            }
            let known = self.live.get(&key(&member)).map(|live| live.data_version);
            let is_changed = is_first || known != Some(data_version);
            self.apply_topics(&name, topics, is_changed, read_only);
        }
        let master = self.master_of(&member);
        let live = Live { member, seen: now, expiry, data_version, connection, ha_addr };
        self.live.insert(key(&live.member), live);
        Registered::Accepted { master }
    }

    fn apply_topics(
        &mut self,
        broker: &Arc<str>,
        topics: Vec<(TopicName, Queues)>,
        is_changed: bool,
        read_only: bool,
    ) {
        for (topic, announced) in topics {
            let mut queues = announced;
            if queues.is_withdrawal() {
                self.withdraw_topic(broker, &topic);
                continue;
            }
            if read_only {
                queues.perm.0 &= !Permission::WRITE;
            }
            let brokers = self.topics.entry(topic).or_default();
            let served = Served { broker: Arc::clone(broker), queues, announced };
            match brokers.binary_search_by(|served| served.broker.cmp(broker)) {
                // A table in several parts has one version, so each topic is compared as well.
                Ok(at) if is_changed || brokers[at].announced != announced => brokers[at] = served,
                Ok(_) => {}
                Err(at) => brokers.insert(at, served),
            }
        }
    }

    fn withdraw_topic(&mut self, broker: &str, topic: &TopicName) {
        let Some(brokers) = self.topics.get_mut(topic) else { return };
        brokers.retain(|served| *served.broker != *broker);
        if brokers.is_empty() {
            self.topics.remove(topic);
        }
    }

    fn forget_missing(&mut self, broker: &str, topics: &[(TopicName, Queues)]) {
        let named: HashSet<&TopicName> = topics.iter().map(|(topic, _)| topic).collect();
        self.topics.retain(|topic, brokers| {
            brokers.retain(|served| *served.broker != *broker || named.contains(topic));
            !brokers.is_empty()
        });
    }

    fn master_of(&self, member: &Member) -> Option<(String, String)> {
        if member.id == MASTER_ID {
            return None;
        }
        let addr = self.groups.get(member.broker.as_str())?.addrs.get(&MASTER_ID)?;
        let live = self.live.get(&(member.cluster.clone(), addr.clone()))?;
        Some((addr.clone(), live.ha_addr.clone()))
    }

    /// The one copy of a broker's name.
    fn name(&self, broker: &str) -> Arc<str> {
        let known = self.groups.get_key_value(broker);
        known.map_or_else(|| broker.into(), |(name, _)| Arc::clone(name))
    }

    /// Takes a sign of life; says whether the broker is known.
    pub fn heartbeat(&mut self, cluster: &str, addr: &str, now: Duration) -> bool {
        let live = self.live.get_mut(&(cluster.to_owned(), addr.to_owned()));
        live.map(|live| live.seen = now).is_some()
    }

    /// Forgets one address, and the group and its topics with the last one.
    ///
    /// The address counts, not the id: a broker may have changed its role meanwhile.
    /// Says whether it was known, by that group's name.
    pub fn unregister(&mut self, member: &Member) -> bool {
        let is_known =
            self.live.get(&key(member)).is_some_and(|live| live.member.broker == member.broker);
        if is_known {
            self.remove(member);
        }
        is_known
    }

    /// Forgets the brokers that registered through a connection which has ended.
    pub fn connection_closed(&mut self, connection: u64) -> Vec<Member> {
        self.remove_where(|live| live.connection == connection).0
    }

    /// Forgets brokers that were silent for too long; also gives their connections.
    pub fn expire(&mut self, now: Duration) -> (Vec<Member>, Vec<u64>) {
        self.remove_where(|live| now > live.seen.saturating_add(live.expiry))
    }

    fn remove_where(&mut self, gone: impl Fn(&Live) -> bool) -> (Vec<Member>, Vec<u64>) {
        let gone = self.live.values().filter(|live| gone(live));
        let (members, connections): (Vec<_>, Vec<_>) =
            gone.map(|live| (live.member.clone(), live.connection)).unzip();
        for member in &members {
            self.remove(member);
        }
        (members, connections)
    }

    fn remove(&mut self, member: &Member) {
        self.live.remove(&key(member));
        let Some(group) = self.groups.get_mut(member.broker.as_str()) else { return };
        let had_master = group.addrs.contains_key(&MASTER_ID);
        group.addrs.retain(|_, addr| *addr != member.addr);
        if group.addrs.is_empty() {
            self.groups.remove(member.broker.as_str());
            self.forget_missing(&member.broker, &[]);
        } else if group.acting_master && had_master && !group.addrs.contains_key(&MASTER_ID) {
            self.set_permission(&member.broker, |perm| Permission(perm.0 & !Permission::WRITE));
        }
    }

    fn set_permission(&mut self, broker: &str, change: impl Fn(Permission) -> Permission) -> usize {
        let served = self.topics.values_mut().flatten().filter(|served| *served.broker == *broker);
        served.map(|served| served.queues.perm = change(served.queues.perm)).count()
    }

    /// Takes the right to write from all topics of a group; gives their number.
    pub fn wipe_write_permission(&mut self, broker: &str) -> usize {
        self.set_permission(broker, |perm| Permission(perm.0 & !Permission::WRITE))
    }

    /// Makes all topics of a group readable and writable; gives their number.
    pub fn add_write_permission(&mut self, broker: &str) -> usize {
        self.set_permission(broker, |_| Permission::READ_WRITE)
    }

    /// Removes a topic everywhere, or from the groups of one cluster.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(brokers) = self.topics.get_mut(topic) else { return };
        let groups = &self.groups;
        let in_cluster = |name: &Arc<str>| match cluster {
            Some(cluster) => groups.get(name).is_some_and(|group| group.cluster == cluster),
            None => true,
        };
        brokers.retain(|served| !in_cluster(&served.broker));
        if brokers.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Adds a topic to groups that are registered; others are left out.
    pub fn add_topic(&mut self, topic: &TopicName, queues: Vec<(String, Queues)>) {
        for (broker, queues) in queues {
            if self.groups.contains_key(broker.as_str()) {
                let name = self.name(&broker);
                self.apply_topics(&name, vec![(topic.clone(), queues)], true, false);
            }
        }
    }

    /// Groups of a topic with its queues there; empty for a topic that nobody serves.
    pub fn route<'t>(
        &'t self,
        topic: &str,
    ) -> impl Iterator<Item = (&'t str, &'t Group, &'t Queues)> {
        let brokers = self.topics.get(topic).map(Vec::as_slice).unwrap_or_default();
        brokers.iter().filter_map(|Served { broker, queues, .. }| {
            self.groups.get(broker).map(|group| (&**broker, group, queues))
        })
    }

    /// A broker group by name.
    pub fn group(&self, broker: &str) -> Option<&Group> {
        self.groups.get(broker)
    }

    /// All broker groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// Names of all clusters.
    pub fn clusters(&self) -> BTreeSet<&str> {
        self.groups.values().map(|group| group.cluster.as_str()).collect()
    }

    /// All topics, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(|topic| &**topic)
    }

    /// Topics with a group in `cluster`, in no order.
    pub fn topics_of_cluster(&self, cluster: &str) -> impl Iterator<Item = &str> {
        let of_cluster = move |served: &Served| {
            self.groups.get(&served.broker).is_some_and(|group| group.cluster == cluster)
        };
        let topics = self.topics.iter().filter(move |(_, brokers)| brokers.iter().any(of_cluster));
        topics.map(|(topic, _)| &**topic)
    }

    /// Topics whose unit bits `wanted` accepts, in no order.
    pub fn topics_by_flag(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = &str> {
        let topics = self.topics.iter();
        topics
            .filter(move |(_, brokers)| brokers.first().is_some_and(|b| wanted(b.queues.sys_flag)))
            .map(|(topic, _)| &**topic)
    }

    /// State of a broker's topic table as it was last registered.
    pub fn data_version(&self, cluster: &str, addr: &str) -> Option<DataVersion> {
        let live = self.live.get(&(cluster.to_owned(), addr.to_owned()));
        live.map(|live| live.data_version)
    }

    /// Number of topics.
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Number of addresses that are alive.
    pub fn live_count(&self) -> usize {
        self.live.len()
    }
}

fn key(member: &Member) -> LiveKey {
    (member.cluster.clone(), member.addr.clone())
}

#[cfg(test)]
mod tests;
