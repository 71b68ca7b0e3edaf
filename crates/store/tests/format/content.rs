//! What the kept store holds, and the calls that tell so.
//! Invariant: the numbers here were true when the store was made, and stay so.
//! Leaves making it to `make`.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use gantry_model::{
    GroupConfig, GroupName, PhysicalOffset, QueueId, QueueOffset, TopicConfig, TopicName,
};
use gantry_record::{Draft, RecordView, properties, records, sys_flag, tag_hash};
use gantry_store::{
    Batch, Bounds, Ends, Far, Index, KeySource, Now, OffsetCommit, ReadLimits, Store, StoreOptions,
    Topic,
    inspect::{Kind, StoreReader, Summary},
    log::survey::Item,
};

/// Length of its segments.
pub(crate) const SEGMENT_BYTES: u64 = 64 * 1024;
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// When the first record was stored.
const MADE_MS: u64 = 1_700_000_000_000;
/// When the first waiting message is due: far after it was made.
pub(crate) const DUE_MS: u64 = MADE_MS + 1_000 * HOUR_MS;
/// Messages of the topic `orders`, in two queues in turn.
pub(crate) const FILL: u64 = 180;
/// Number of the first of them that was not forgotten.
const FIRST_ORDER: u64 = 67;
/// Positions of the log.
const LOG_START: u64 = 131_072;
const LOG_END: u64 = 351_634;

/// So long after the first record.
pub(crate) fn now(after_ms: u64) -> Now {
    Now { wall_ms: MADE_MS + after_ms, monotonic_ms: after_ms }
}

pub(crate) fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.segment_bytes = SEGMENT_BYTES;
    options.retention.age_ms = HOUR_MS;
    options.view_cache_bytes = 1 << 20;
    options.view_write_bytes = 4 << 20;
    options
}

pub(crate) fn config(name: &str, queues: u32) -> TopicConfig {
    TopicConfig::new(TopicName::new(name).unwrap(), queues)
}

pub(crate) fn group(name: &str) -> GroupConfig {
    GroupConfig::new(GroupName::new(name).unwrap())
}

/// A name whose length takes two bytes in a record.
pub(crate) fn long_name() -> String {
    format!("%RETRY%{}", "l".repeat(150))
}

pub(crate) fn order_body(number: u64) -> String {
    format!("order {number} {}", "-".repeat(1_700))
}

pub(crate) fn commit(name: &str, topic: &Topic, queue: u32, offset: u64) -> OffsetCommit {
    OffsetCommit {
        group: GroupName::new(name).unwrap(),
        topic: topic.id,
        queue: QueueId(queue),
        offset: QueueOffset(offset),
    }
}

/// A message to be sent.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sent<'a> {
    pub(crate) body: &'a str,
    pub(crate) tag: &'a str,
    pub(crate) key: &'a str,
    pub(crate) sys_flag: i32,
    pub(crate) is_ipv6: bool,
    pub(crate) ends: Option<Ends>,
    pub(crate) at_ms: u64,
}

pub(crate) fn send(
    store: &Store,
    topic: &Arc<Topic>,
    queue: u32,
    sent: Sent<'_>,
) -> PhysicalOffset {
    let mut raw = Vec::new();
    for (name, value) in [("TAGS", sent.tag), ("KEYS", sent.key)] {
        if !value.is_empty() {
            properties::put(&mut raw, name, value).unwrap();
        }
    }
    let keys = Some(sent.key).filter(|key| !key.is_empty());
    let tag_hash = if sent.tag.is_empty() { 0 } else { tag_hash(sent.tag).into() };
    let keys = KeySource { unique: None, keys };
    let index = Index { tag_hash, keys, ends: sent.ends, ..Index::default() };
    append(store, topic, queue, sent, &raw, index)
}

/// A message that waits for `due_ms`.
pub(crate) fn park(store: &Store, target: &str, due_ms: u64, now: Now) -> PhysicalOffset {
    let topic = store.topic("SCHEDULE_TOPIC_XXXX").unwrap();
    let mut raw = Vec::new();
    properties::put(&mut raw, "REAL_TOPIC", target).unwrap();
    properties::put(&mut raw, "TIMER_OUT_MS", &due_ms.to_string()).unwrap();
    let index = Index { timer_due_ms: Some(due_ms), ..Index::default() };
    let sent = Sent { body: "waits", at_ms: now.monotonic_ms, ..Sent::default() };
    append(store, &topic, 2, sent, &raw, index)
}

fn append(
    store: &Store,
    topic: &Arc<Topic>,
    queue: u32,
    sent: Sent<'_>,
    properties: &[u8],
    index: Index<'_>,
) -> PhysicalOffset {
    let host = |text: &str| text.parse::<SocketAddr>().unwrap();
    let born_host = host(if sent.is_ipv6 { "[2001:db8::1]:4000" } else { "192.0.2.1:4000" });
    let draft = Draft {
        topic: topic.name(),
        queue: QueueId(queue),
        flag: 7,
        sys_flag: sent.sys_flag | if sent.is_ipv6 { sys_flag::BORN_HOST_V6 } else { 0 },
        born_time_ms: (MADE_MS + sent.at_ms) as i64,
        born_host,
        store_host: host("192.0.2.2:10911"),
        reconsume_times: 0,
        prepared_offset: 0,
        body: sent.body.as_bytes(),
        properties,
    };
    let mut batch = Batch::new();
    batch.push(topic, &draft, index).unwrap();
    store.append(&mut batch, now(sent.at_ms)).unwrap();
    batch.placed(0).position
}

/// Bodies of a queue, from its first message on.
fn bodies(store: &Store, topic: &str, queue: u32) -> (Bounds, Vec<String>) {
    let (topic, queue) = (store.topic(topic).unwrap(), QueueId(queue));
    let bounds = store.queue_bounds(&topic, queue).unwrap();
    let limits = ReadLimits {
        messages_max: 32,
        bytes_max: 1 << 20,
        scan_max: 800,
        waits_within: u64::MAX,
        far: Far::AtHand,
    };
    let (mut all, mut next) = (Vec::new(), bounds.min);
    while next < bounds.max {
        let mut out = BytesMut::new();
        let read = store.read_queue(&topic, queue, next, limits, &|_| true, &mut out).unwrap();
        assert!(read.next > next, "{read:?}");
        all.extend(records(&out).map(|record| body_of(&record.unwrap())));
        next = read.next;
    }
    (bounds, all)
}

fn body_of(record: &RecordView<'_>) -> String {
    String::from_utf8(record.body().to_vec()).unwrap()
}

fn offsets(bounds: Bounds) -> (u64, u64) {
    (bounds.min.0, bounds.max.0)
}

/// Checks everything in the store.
pub(crate) fn check(store: &Store) {
    check_definitions(store);
    check_messages(store);
    check_progress(store);
    check_timers(store);
    check_keys(store);
}

fn check_definitions(store: &Store) {
    let names: Vec<_> = store.topics().iter().map(|topic| topic.name().to_string()).collect();
    let long = long_name();
    assert_eq!(names, [&*long, "SCHEDULE_TOPIC_XXXX", "gone", "orders", "payments", "short"]);
    let topic = |name: &str| store.topic(name).unwrap();
    assert_eq!((topic("orders").id.0, topic("gone").id.0), (0, 5), "one was made anew");
    assert_eq!(topic("payments").config.queues(), 4, "it was changed");
    assert_eq!(topic("short").config.retention_ms(), Some(1_000));
    assert_eq!(topic("short").hidden_before_ms(), MADE_MS + 4_000);
    let groups: Vec<_> = store.groups().iter().map(|group| group.group_name.to_string()).collect();
    assert_eq!(groups, ["audit", "billing"]);
    assert_eq!((store.topics_version().counter, store.groups_version().counter), (9, 4));
}

/// Offset of the first message of a queue of `orders`.
fn orders_min(queue: u32) -> u64 {
    (FIRST_ORDER - u64::from(queue)).div_ceil(2)
}

fn check_messages(store: &Store) {
    for queue in 0..2 {
        let (bounds, found) = bodies(store, "orders", queue);
        let min = orders_min(queue);
        assert_eq!(offsets(bounds), (min, FILL / 2), "queue {queue}");
        let expected = (min..FILL / 2).map(|at| order_body(2 * at + u64::from(queue)));
        assert!(found.into_iter().eq(expected), "queue {queue}");
    }
    let (bounds, found) = bodies(store, "payments", 0);
    assert_eq!(found, ["größer als 0 €", "committed", "from IPv6", "not in the views"]);
    assert_eq!(offsets(bounds), (0, 4));
    assert_eq!(bodies(store, "gone", 0).1, ["again"]);
    assert_eq!(bodies(store, &long_name(), 0).1, ["of a long topic"]);
    let (bounds, found) = bodies(store, "short", 0);
    assert_eq!((offsets(bounds), found.len()), ((2, 2), 0), "expired and forgotten");
}

fn check_progress(store: &Store) {
    let topic = |name: &str| store.topic(name).unwrap();
    let offset = |group: &str, name: &str, queue| {
        store.offset(group, &topic(name), QueueId(queue)).map(|offset| offset.0)
    };
    assert_eq!(offset("billing", "orders", 0), Some(7));
    assert_eq!(offset("billing", "orders", 1), Some(3));
    assert_eq!(offset("billing", "payments", 0), Some(4));
    assert_eq!(offset("audit", "payments", 0), Some(2));
    assert_eq!(offset("audit", "gone", 0), None, "it went with the first topic of that name");
    assert_eq!(offset("retired", "orders", 0), None, "it went with its group");
}

fn check_timers(store: &Store) {
    assert_eq!(store.next_due_ms(), Some(DUE_MS));
    let timers = store.due_timers(u64::MAX - 1, 10).unwrap();
    let due: Vec<_> = timers.iter().map(|timer| timer.due_ms).collect();
    assert_eq!(due, [DUE_MS, DUE_MS + 2], "one has fired");
    let targets = timers.iter().map(|timer| {
        let record = store.read_record(timer.position).unwrap().unwrap();
        let record = RecordView::parse(&record).unwrap();
        record.property("REAL_TOPIC").unwrap().to_owned()
    });
    assert_eq!(targets.collect::<Vec<_>>(), ["orders", "nowhere"]);
}

fn found_by(store: &Store, topic: &str, key: &str) -> Vec<String> {
    let found: Vec<Bytes> = store.query_keys(topic, key, 0, u64::MAX, 10).unwrap();
    found.iter().map(|record| body_of(&RecordView::parse(record).unwrap())).collect()
}

fn check_keys(store: &Store) {
    let last = FILL - 1;
    assert_eq!(found_by(store, "orders", &format!("order-{last}")), [order_body(last)]);
    let first = format!("order-{FIRST_ORDER}");
    assert_eq!(found_by(store, "orders", &first), [order_body(FIRST_ORDER)]);
    let forgotten = format!("order-{}", FIRST_ORDER - 1);
    assert_eq!(found_by(store, "orders", &forgotten).len(), 0);
    for key in ["p1", "p2"] {
        assert_eq!(found_by(store, "payments", key), ["größer als 0 €"]);
    }
}

/// Checks what is told of the folder from outside.
pub(crate) fn check_summary(summary: &Summary) {
    assert_eq!((summary.format_version, summary.views.version), (1, 1));
    assert_eq!((summary.log_start.0, summary.log_end.0), (LOG_START, LOG_END));
    assert_eq!((summary.is_live, summary.torn_tail.as_deref()), (false, None));
    let newest = summary.segments.last().unwrap();
    assert!(summary.segments.len() > 2 && newest.newest_image.is_some(), "{newest:?}");
    assert_eq!((summary.state.topics.len(), summary.state.groups.len()), (6, 2));
    assert_eq!((summary.state.offsets, summary.state.timers), (4, 2));
    assert!(summary.views.applied < summary.log_end, "some records are in the log alone");
    assert!(summary.key_files.iter().all(|file| file.is_whole && file.entries > 0));
    assert!(!summary.key_files.is_empty());
}

/// Checks that each kind of record is there.
pub(crate) fn check_kinds(store: &StoreReader) {
    let mut kinds = BTreeMap::new();
    let mut items = store.items(PhysicalOffset(0), store.log().end()).unwrap();
    while let Some(item) = items.next().unwrap() {
        let kind = match item {
            Item::Record(record) => Kind::of(&record).name(),
            Item::Filler { .. } => "filler",
            Item::Damage(damage) => panic!("{damage}"),
            Item::Gone { position, .. } => panic!("{position} is gone"),
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    let found: Vec<_> = kinds.keys().copied().collect();
    let all =
        ["filler", "half", "header", "image", "mark", "message", "rollback", "start", "state"];
    assert_eq!(found, all, "{kinds:?}");
}

/// What was added to the store: the end of queue 0 of `orders`.
pub(crate) struct Added(Vec<String>);

/// Appends messages, a topic and an offset.
pub(crate) fn add(store: &Store, messages: u64) -> Added {
    let at_ms = 2 * HOUR_MS;
    let orders = store.topic("orders").unwrap();
    let bodies: Vec<_> = (FILL..FILL + messages).map(order_body).collect();
    for body in &bodies {
        send(store, &orders, 0, Sent { body, key: "added", at_ms, ..Sent::default() });
    }
    let (added, _) = store.put_topic(config("added", 1), now(at_ms)).unwrap();
    store.commit_offsets(&[commit("billing", &added, 0, 1)], now(at_ms)).unwrap();
    store.sync().unwrap();
    Added(bodies)
}

/// Checks that what was added is there, behind what was.
pub(crate) fn check_added(store: &Store, added: &Added) {
    let (bounds, found) = bodies(store, "orders", 0);
    assert_eq!(offsets(bounds), (orders_min(0), FILL / 2 + added.0.len() as u64));
    assert!(found.ends_with(&added.0));
    assert_eq!(found_by(store, "orders", "added").len(), 10);
    let topic = store.topic("added").unwrap();
    assert!(topic.id.0 > 6, "an id is never given twice: {:?}", topic.id);
    assert_eq!(store.offset("billing", &topic, QueueId(0)), Some(QueueOffset(1)));
    check_timers(store);
    check_progress(store);
}
