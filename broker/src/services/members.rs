//! Who is online: consumers of each group with what they subscribe to, producers of each group.
//! Invariant: a client is a member only while its connection is open and its last heartbeat is younger than
//! `EXPIRY_MS`; every member of a group sees the same list.
//! Leaves the way to a client to the front door that it came through. Source: RocketMQ remoting, request code 34.

mod beat;

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use gantry_model::{GroupName, TopicName};
use hashbrown::HashMap;
use parking_lot::RwLock;

pub use self::beat::{ConsumeType, ConsumerBeat, ExpressionKind, MessageModel, Subscription};
use super::hold::Owner;

/// A client that was not heard of for this long is gone.
pub const EXPIRY_MS: u64 = 120_000;
/// Most groups and topics that one heartbeat may name.
pub const ENTRIES_MAX: usize = 10_000;

/// A connected client as the services see it; the front doors implement it.
pub trait Client: Send + Sync {
    /// Number of its connection, unique while the broker runs.
    fn owner(&self) -> Owner;
    /// Where it is.
    fn address(&self) -> SocketAddr;
    /// Tells it that members of `group` came or went.
    fn members_changed(&self, group: &GroupName);
    /// The front door's own type, by which that door recognizes its clients; `None`: it does not ask them.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }
}

/// Who sends a heartbeat.
#[derive(Clone)]
pub struct ClientInfo {
    /// The way to it.
    pub client: Arc<dyn Client>,
    /// Its id, which it chose.
    pub client_id: String,
    /// Name of its language.
    pub language: &'static str,
    /// Protocol version.
    pub version: i32,
}

/// A member of a consumer or producer group.
#[derive(Clone)]
pub struct Member {
    /// Who it is.
    pub info: ClientInfo,
    /// When it was last heard of, on the monotonic clock.
    pub seen_ms: u64,
}

/// A consumer group that has members.
#[derive(Clone)]
pub struct ConsumerGroup {
    /// Kind of consumer, as the last heartbeat said.
    pub consume_type: ConsumeType,
    /// Who gets a message.
    pub model: MessageModel,
    /// Where it starts without an offset.
    pub consume_from: String,
    /// Members by connection.
    pub members: BTreeMap<Owner, Member>,
    /// What it wants, by topic.
    pub subscriptions: BTreeMap<TopicName, Arc<Subscription>>,
    /// Hash of the subscriptions that members of the newer heartbeat sent last.
    pub fingerprint: i32,
    notify: bool,
}

/// Members of a producer group by connection.
pub type ProducerGroup = BTreeMap<Owner, Member>;

#[derive(Default)]
struct Table {
    consumers: HashMap<GroupName, ConsumerGroup>,
    producers: HashMap<GroupName, ProducerGroup>,
    /// Groups of each connection, so that its end finds them.
    groups_of: HashMap<Owner, (BTreeSet<GroupName>, BTreeSet<GroupName>)>,
}

/// Everyone who is online.
#[derive(Default)]
pub struct Members {
    table: RwLock<Table>,
}

/// Members to tell that their group changed.
struct Notice {
    group: GroupName,
    clients: Vec<Arc<dyn Client>>,
}

impl Members {
    /// A consumer was heard of, with all its subscriptions.
    pub fn consumer_beat(&self, info: &ClientInfo, beat: ConsumerBeat, monotonic_ms: u64) {
        let notice = self.table.write().consumer_beat(info, beat, monotonic_ms);
        tell(notice);
    }

    /// A consumer was heard of that does not repeat its subscriptions. Returns whether they are known.
    pub fn consumer_alive(&self, owner: Owner, group: &str, monotonic_ms: u64) -> bool {
        let mut table = self.table.write();
        let member = table.consumers.get_mut(group).and_then(|g| g.members.get_mut(&owner));
        member.map(|member| member.seen_ms = monotonic_ms).is_some()
    }

    /// Sets the hash of a group's subscriptions and returns whether it was another.
    pub fn set_fingerprint(&self, group: &str, fingerprint: i32) -> bool {
        let mut table = self.table.write();
        table.consumers.get_mut(group).is_none_or(|group| {
            std::mem::replace(&mut group.fingerprint, fingerprint) != fingerprint
        })
    }

    /// A producer was heard of.
    pub fn producer_beat(&self, info: &ClientInfo, group: &GroupName, monotonic_ms: u64) {
        let mut table = self.table.write();
        let owner = info.client.owner();
        let member = Member { info: info.clone(), seen_ms: monotonic_ms };
        table.producers.entry(group.clone()).or_default().insert(owner, member);
        table.groups_of.entry(owner).or_default().1.insert(group.clone());
    }

    /// A client says that it leaves one consumer and one producer group.
    pub fn leave(&self, owner: Owner, consumer_group: Option<&str>, producer_group: Option<&str>) {
        let notice = {
            let mut table = self.table.write();
            if let Some(group) = producer_group {
                table.remove_producer(owner, group);
            }
            consumer_group.and_then(|group| table.remove_consumer(owner, group))
        };
        tell(notice);
    }

    /// A connection is gone.
    pub fn closed(&self, owner: Owner) {
        let notices = self.table.write().remove_client(owner);
        for notice in notices {
            tell(Some(notice));
        }
    }

    /// Removes everyone who was not heard of for `EXPIRY_MS`.
    pub fn expire(&self, monotonic_ms: u64) {
        let notices = {
            let mut table = self.table.write();
            let expired = table.expired(monotonic_ms);
            let each = expired.into_iter();
            each.filter_map(|(owner, group, consumes)| {
                if consumes {
                    table.remove_consumer(owner, &group)
                } else {
                    table.remove_producer(owner, &group);
                    None
                }
            })
            .collect::<Vec<_>>()
        };
        for notice in notices {
            tell(Some(notice));
        }
    }

    /// Ids of a group's members, sorted, each once; empty: nobody is online.
    pub fn client_ids(&self, group: &str) -> Vec<String> {
        let table = self.table.read();
        let members = table.consumers.get(group).into_iter().flat_map(|g| g.members.values());
        let ids: BTreeSet<_> = members.map(|member| member.info.client_id.clone()).collect();
        ids.into_iter().collect()
    }

    /// A copy of a group, if it has members.
    pub fn consumer_group(&self, group: &str) -> Option<ConsumerGroup> {
        self.table.read().consumers.get(group).cloned()
    }

    /// Looks at a group without copying it.
    pub fn with_consumer_group<R>(
        &self,
        group: &str,
        look: impl FnOnce(Option<&ConsumerGroup>) -> R,
    ) -> R {
        look(self.table.read().consumers.get(group))
    }

    /// A copy of a producer group, if it has members.
    pub fn producer_group(&self, group: &str) -> Option<ProducerGroup> {
        self.table.read().producers.get(group).cloned()
    }

    /// Names of the consumer groups that have members, sorted.
    pub fn consumer_group_names(&self) -> Vec<GroupName> {
        let mut names: Vec<_> = self.table.read().consumers.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Names of the producer groups that have members, sorted.
    pub fn producer_group_names(&self) -> Vec<GroupName> {
        let mut names: Vec<_> = self.table.read().producers.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Names of the online groups that subscribe to the topic, sorted.
    pub fn groups_subscribing(&self, topic: &str) -> Vec<GroupName> {
        let table = self.table.read();
        let subscribing =
            table.consumers.iter().filter(|(_, g)| g.subscriptions.contains_key(topic));
        let mut names: Vec<_> = subscribing.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }
}

fn tell(notice: Option<Notice>) {
    let Some(Notice { group, clients }) = notice else { return };
    for client in clients {
        client.members_changed(&group);
    }
}

impl Table {
    fn consumer_beat(
        &mut self,
        info: &ClientInfo,
        beat: ConsumerBeat,
        monotonic_ms: u64,
    ) -> Option<Notice> {
        let owner = info.client.owner();
        self.groups_of.entry(owner).or_default().0.insert(beat.group.clone());
        let name = beat.group.clone();
        let group = self.consumers.entry(beat.group.clone()).or_insert_with(|| ConsumerGroup {
            consume_type: beat.consume_type,
            model: beat.model,
            consume_from: String::new(),
            members: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            fingerprint: 0,
            notify: true,
        });
        let member = Member { info: info.clone(), seen_ms: monotonic_ms };
        let joined = group.members.insert(owner, member).is_none();
        group.consume_type = beat.consume_type;
        group.model = beat.model;
        group.consume_from = beat.consume_from;
        group.notify = beat.notify;
        let changed = group.merge(beat.subscriptions);
        (joined || changed).then(|| group.notice(name)).flatten()
    }

    fn remove_consumer(&mut self, owner: Owner, group: &str) -> Option<Notice> {
        if let Some((consumes, _)) = self.groups_of.get_mut(&owner) {
            consumes.remove(group);
        }
        self.forget_client_without_groups(owner);
        let (name, found) = self.consumers.get_key_value(group)?;
        if !found.members.contains_key(&owner) {
            return None;
        }
        let name = name.clone();
        let found = self.consumers.get_mut(group)?;
        found.members.remove(&owner);
        if found.members.is_empty() {
            self.consumers.remove(group);
            return None;
        }
        found.notice(name)
    }

    fn remove_producer(&mut self, owner: Owner, group: &str) {
        if let Some((_, produces)) = self.groups_of.get_mut(&owner) {
            produces.remove(group);
        }
        self.forget_client_without_groups(owner);
        if let Some(members) = self.producers.get_mut(group) {
            members.remove(&owner);
            if members.is_empty() {
                self.producers.remove(group);
            }
        }
    }

    fn remove_client(&mut self, owner: Owner) -> Vec<Notice> {
        let Some((consumes, produces)) = self.groups_of.remove(&owner) else { return Vec::new() };
        for group in &produces {
            self.remove_producer(owner, group);
        }
        consumes.iter().filter_map(|group| self.remove_consumer(owner, group)).collect()
    }

    fn forget_client_without_groups(&mut self, owner: Owner) {
        let groups = self.groups_of.get(&owner);
        if groups.is_some_and(|(consumes, produces)| consumes.is_empty() && produces.is_empty()) {
            self.groups_of.remove(&owner);
        }
    }

    /// Connection and group of each expired member, and whether it is a consumer.
    fn expired(&self, monotonic_ms: u64) -> Vec<(Owner, GroupName, bool)> {
        let old = |member: &Member| monotonic_ms.saturating_sub(member.seen_ms) >= EXPIRY_MS;
        let mut expired = Vec::new();
        for (name, group) in &self.consumers {
            let members = group.members.iter().filter(|(_, member)| old(member));
            expired.extend(members.map(|(owner, _)| (*owner, name.clone(), true)));
        }
        for (name, members) in &self.producers {
            let members = members.iter().filter(|(_, member)| old(member));
            expired.extend(members.map(|(owner, _)| (*owner, name.clone(), false)));
        }
        expired
    }
}

impl ConsumerGroup {
    /// Takes over newer subscriptions and drops those not listed. Returns whether topics came or went, or
    /// what is wanted of one changed.
    fn merge(&mut self, subscriptions: Vec<Subscription>) -> bool {
        let listed: BTreeSet<_> = subscriptions.iter().map(|s| s.topic.clone()).collect();
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| listed.contains(topic));
        let mut changed = self.subscriptions.len() != before;
        for subscription in subscriptions {
            match self.subscriptions.get_mut(&subscription.topic) {
                Some(known) if subscription.version <= known.version => {}
                Some(known) => {
                    changed |= subscription.expression != known.expression;
                    *known = Arc::new(subscription);
                }
                None => {
                    changed = true;
                    self.subscriptions.insert(subscription.topic.clone(), Arc::new(subscription));
                }
            }
        }
        changed
    }

    /// Members that read everything need no rebalance.
    fn notice(&self, group: GroupName) -> Option<Notice> {
        (self.notify && self.model == MessageModel::Clustering).then(|| Notice {
            group,
            clients: self.members.values().map(|m| Arc::clone(&m.info.client)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::services::filter::TagFilter;

    #[derive(Default)]
    struct Fake {
        owner: u64,
        told: Mutex<Vec<String>>,
    }

    impl Client for Fake {
        fn owner(&self) -> Owner {
            Owner(self.owner)
        }
        fn address(&self) -> SocketAddr {
            ([127, 0, 0, 1], 1).into()
        }
        fn members_changed(&self, group: &GroupName) {
            self.told.lock().push(group.to_string());
        }
    }

    fn client(owner: u64) -> (Arc<Fake>, ClientInfo) {
        let fake = Arc::new(Fake { owner, ..Fake::default() });
        let info = ClientInfo {
            client: Arc::clone(&fake) as Arc<dyn Client>,
            client_id: format!("c{owner}"),
            language: "JAVA",
            version: 479,
        };
        (fake, info)
    }

    fn beat(expressions: &[(&str, &str, i64)]) -> ConsumerBeat {
        let subscriptions = expressions.iter().map(|(topic, expression, version)| Subscription {
            topic: TopicName::new(topic).unwrap(),
            expression: (*expression).into(),
            kind: ExpressionKind::Tag,
            filter: TagFilter::parse(expression).unwrap(),
            version: *version,
        });
        ConsumerBeat {
            group: GroupName::new("g").unwrap(),
            consume_type: ConsumeType::Push,
            model: MessageModel::Clustering,
            consume_from: String::new(),
            subscriptions: subscriptions.collect(),
            notify: true,
        }
    }

    fn told(fake: &Fake) -> usize {
        fake.told.lock().len()
    }

    #[test]
    fn members_are_told_of_each_change_and_of_nothing_else() {
        let members = Members::default();
        let ((a, a_info), (b, b_info)) = (client(1), client(2));
        members.consumer_beat(&a_info, beat(&[("t", "*", 1)]), 0);
        members.consumer_beat(&b_info, beat(&[("t", "*", 1)]), 0);
        assert_eq!((told(&a), told(&b)), (2, 1));
        members.consumer_beat(&a_info, beat(&[("t", "*", 1)]), 10);
        assert_eq!((told(&a), told(&b)), (2, 1));
        members.consumer_beat(&a_info, beat(&[("t", "*", 1), ("u", "*", 1)]), 20);
        assert_eq!((told(&a), told(&b)), (3, 2));
        members.closed(Owner(2));
        assert_eq!((told(&a), told(&b)), (4, 2));
        assert_eq!(members.client_ids("g"), ["c1"]);
    }

    #[test]
    fn newest_subscription_wins_and_older_ones_change_nothing() {
        let members = Members::default();
        let (_, info) = client(1);
        members.consumer_beat(&info, beat(&[("t", "new", 5)]), 0);
        members.consumer_beat(&info, beat(&[("t", "old", 4)]), 0);
        let group = members.consumer_group("g").unwrap();
        assert_eq!(group.subscriptions["t"].expression, "new");
    }

    #[test]
    fn silent_member_expires_and_the_others_are_told() {
        let members = Members::default();
        let ((a, a_info), (_, b_info)) = (client(1), client(2));
        members.consumer_beat(&a_info, beat(&[]), 0);
        members.consumer_beat(&b_info, beat(&[]), 0);
        members.producer_beat(&b_info, &GroupName::new("p").unwrap(), 0);
        assert!(members.consumer_alive(Owner(1), "g", 1000));
        let before = told(&a);
        members.expire(EXPIRY_MS);
        assert_eq!(members.client_ids("g"), ["c1"]);
        assert!(members.producer_group("p").is_none());
        assert_eq!(told(&a), before + 1);
    }

    #[test]
    fn group_of_broadcasting_members_is_told_nothing() {
        let members = Members::default();
        let (a, info) = client(1);
        let broadcasting = ConsumerBeat { model: MessageModel::Broadcasting, ..beat(&[]) };
        members.consumer_beat(&info, broadcasting, 0);
        assert_eq!(told(&a), 0);
    }

    #[test]
    fn leaving_ends_membership_in_the_named_groups_alone() {
        let members = Members::default();
        let (_, info) = client(1);
        members.consumer_beat(&info, beat(&[]), 0);
        members.producer_beat(&info, &GroupName::new("p").unwrap(), 0);
        members.leave(Owner(1), Some("g"), None);
        assert!(members.client_ids("g").is_empty());
        assert!(members.producer_group("p").is_some());
        members.leave(Owner(1), Some("g"), Some("p"));
        assert!(members.producer_group("p").is_none());
    }
}
