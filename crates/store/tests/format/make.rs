//! Makes the store that is kept in the tree: every kind of record and of state, several segments, the oldest forgotten.
//! Invariant: what `content` checks is what this writes.
//! Leaves keeping it to `fixture`.

use std::{path::Path, sync::Arc};

use gantry_model::{RETENTION_ATTRIBUTE, TopicConfig};
use gantry_record::sys_flag;
use gantry_store::{Ends, Store, Topic};

use crate::content::{
    DUE_MS, FILL, HOUR_MS, Sent, commit, config, group, long_name, now, options, order_body, park,
    send,
};

/// Makes the store in a folder of its own and gives it to `keep`, open and at rest, with records that only the log has.
pub(crate) fn make(keep: &mut dyn FnMut(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(options(dir.path()), now(0)).unwrap();
    early(&store);
    fill(&store);
    late(&store);
    store.close(now(2 * HOUR_MS)).unwrap();
    drop(store);
    let (store, _) = Store::open(options(dir.path()), now(2 * HOUR_MS)).unwrap();
    let payments = store.topic("payments").unwrap();
    send(&store, &payments, 0, Sent { body: "not in the views", ..Sent::default() });
    store.commit_offsets(&[commit("billing", &payments, 0, 4)], now(2 * HOUR_MS)).unwrap();
    store.sync().unwrap();
    keep(dir.path());
}

fn topic(store: &Store, config: TopicConfig, at_ms: u64) -> Arc<Topic> {
    store.put_topic(config, now(at_ms)).unwrap().0
}

/// What the log forgets later, so that images and carried timers hold it.
fn early(store: &Store) {
    let orders = topic(store, config("orders", 2), 0);
    let gone = topic(store, config("gone", 1), 0);
    topic(store, config("SCHEDULE_TOPIC_XXXX", 18), 0);
    topic(store, config(&long_name(), 1), 0);
    let mut short = config("short", 1);
    short.attributes.insert(RETENTION_ATTRIBUTE.into(), "1000".into());
    let short = topic(store, short, 0);
    for name in ["billing", "audit", "retired"] {
        store.put_group(group(name), now(0)).unwrap();
    }
    let commits = [
        commit("billing", &orders, 0, 7),
        commit("billing", &orders, 1, 3),
        commit("audit", &gone, 0, 1),
        commit("retired", &orders, 0, 5),
    ];
    store.commit_offsets(&commits, now(0)).unwrap();
    send(store, &gone, 0, Sent { body: "of the first topic of that name", ..Sent::default() });
    send(store, &short, 0, Sent { body: "expires", ..Sent::default() });
    park(store, "orders", DUE_MS, now(0));
    let fired = park(store, "orders", DUE_MS + 1, now(0));
    let ends = Some(Ends::Timer { due_ms: DUE_MS + 1, position: fired });
    send(store, &short, 0, Sent { body: "fired", ends, ..Sent::default() });
    store.delete_group("retired", true, now(0)).unwrap();
    settle(store);
    assert_eq!(store.hide_expired(now(5_000)).unwrap(), 1);
}

fn settle(store: &Store) {
    store.sync().unwrap();
    while store.apply_views(1_000).unwrap() > 0 {}
}

/// Messages of two hours, the first of which goes.
fn fill(store: &Store) {
    let orders = store.topic("orders").unwrap();
    for number in 0..FILL {
        let at_ms = 5_000 + number * (2 * HOUR_MS - 5_000) / FILL;
        let (queue, body) = ((number % 2) as u32, order_body(number));
        let key = format!("order-{number}");
        let sent = Sent { body: &body, tag: "A", key: &key, at_ms, ..Sent::default() };
        send(store, &orders, queue, sent);
        if number % 10 == 0 {
            settle(store);
            store.maintain(now(at_ms)).unwrap();
        }
    }
    settle(store);
    for _ in 0..3 {
        store.maintain(now(2 * HOUR_MS)).unwrap();
        settle(store);
    }
    assert!(store.log_start().0 > 0, "nothing was forgotten");
}

/// State whose records the log keeps.
fn late(store: &Store) {
    let at_ms = 2 * HOUR_MS;
    store.delete_topic("gone", now(at_ms)).unwrap();
    let gone = topic(store, config("gone", 1), at_ms);
    send(store, &gone, 0, Sent { body: "again", at_ms, ..Sent::default() });
    let payments = topic(store, config("payments", 1), at_ms);
    let text = "größer als 0 €";
    send(
        store,
        &payments,
        0,
        Sent { body: text, tag: "B", key: "p1 p2", at_ms, ..Sent::default() },
    );
    for (body, flag) in [
        ("half", sys_flag::TRANSACTION_PREPARED),
        ("committed", sys_flag::TRANSACTION_COMMIT),
        ("rolled back", sys_flag::TRANSACTION_ROLLBACK),
    ] {
        send(store, &payments, 0, Sent { body, sys_flag: flag, at_ms, ..Sent::default() });
    }
    send(store, &payments, 0, Sent { body: "from IPv6", is_ipv6: true, at_ms, ..Sent::default() });
    let long = store.topic(&long_name()).unwrap();
    send(store, &long, 0, Sent { body: "of a long topic", at_ms, ..Sent::default() });
    topic(store, config("payments", 4), at_ms);
    park(store, "nowhere", DUE_MS + 2, now(at_ms));
    store.stage_offset(commit("audit", &payments, 0, 2));
    store.write_staged_offsets(now(at_ms)).unwrap();
}
