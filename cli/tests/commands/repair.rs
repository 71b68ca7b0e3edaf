//! A store whose topics, groups and offsets are lost: how it is refused, and how it goes on.

use std::{fs::OpenOptions, net::SocketAddr, os::unix::fs::FileExt as _, path::Path};

use gantry_model::{GroupConfig, GroupName, QueueId, TopicConfig, TopicName};
use gantry_record::Draft;
use gantry_store::{
    Batch, Index, Now, OpenError, Store, StoreOptions, image::IMAGE_TOPIC, inspect::StoreReader,
    log::survey::Item,
};

use super::world::*;

const HOUR_MS: u64 = 3_600_000;

fn now(hours: u64) -> Now {
    let now_ms = 1_700_000_000_000 + hours * HOUR_MS;
    Now { wall_ms: now_ms, monotonic_ms: now_ms }
}

fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    options.segment_bytes = 64 * 1024;
    options.retention.age_ms = HOUR_MS;
    options
}

/// A store that has forgotten the begin of its log; returns the hours that it took.
fn aged(dir: &Path) -> u64 {
    let (store, _) = Store::open(options(dir), now(0)).unwrap();
    let config = TopicConfig::new(TopicName::new("orders").unwrap(), 4);
    let (topic, _) = store.put_topic(config, now(0)).unwrap();
    store.put_group(GroupConfig::new(GroupName::new("audit").unwrap()), now(0)).unwrap();
    let mut hours = 0;
    while store.log_start().0 == 0 {
        hours += 1;
        assert!(hours < 1_000, "the log forgets");
        let host = SocketAddr::from(([127, 0, 0, 1], 10911));
        let body = vec![b'm'; 9_000];
        let draft = Draft {
            topic: "orders",
            queue: QueueId(1),
            flag: 0,
            sys_flag: 0,
            born_time_ms: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            body: &body,
            properties: &[],
        };
        let mut batch = Batch::new();
        batch.push(&topic, &draft, Index::default()).unwrap();
        store.append(&mut batch, now(hours)).unwrap();
        store.sync().unwrap();
        while store.apply_views(100).unwrap() > 0 {}
        store.maintain(now(hours)).unwrap();
    }
    store.close(now(hours)).unwrap();
    hours
}

/// Flips a bit in every record of every state image, and removes the views.
fn lose_state(dir: &Path) {
    let mut places = Vec::new();
    {
        let found = StoreReader::open(dir).unwrap();
        let mut items = found.items(found.log().start(), found.log().end()).unwrap();
        while let Some(item) = items.next().unwrap() {
            if let Item::Record(record) = item
                && record.topic() == IMAGE_TOPIC
            {
                let (path, at) = found.log().place(record.position()).unwrap();
                places.push((path.to_owned(), at + 100));
            }
        }
    }
    assert!(!places.is_empty());
    for (path, at) in places {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }
    std::fs::remove_dir_all(dir.join("views")).unwrap();
}

#[test]
fn store_that_lost_its_state_starts_after_a_repair_that_was_asked_for_in_as_many_words() {
    let dir = tempfile::tempdir().unwrap();
    let hours = aged(dir.path());
    lose_state(dir.path());
    let error = Store::open(options(dir.path()), now(hours)).unwrap_err();
    assert!(matches!(error, OpenError::StateLost { .. }), "{error}");
    // The command is the one that the refusal names.
    let text = error.to_string();
    let command = text.split('`').find(|part| part.starts_with("gantry store repair")).unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();

    let without = run(&mut gantry(&words[..words.len() - 1]));
    assert_eq!((without.code, &*without.out), (2, ""), "{without:?}");
    assert!(without.err.contains("--accept-lost-state"), "{}", without.err);
    Store::open(options(dir.path()), now(hours)).unwrap_err();

    let done = run(&mut gantry(&words));
    assert_eq!((done.code, &*done.err), (0, ""), "{done:?}");
    for part in ["orders  2       lost, made anew", "1 topics, 0 groups, 0 offsets", "damaged   "] {
        assert!(done.out.contains(part), "{part:?} in {}", done.out);
    }
    let (store, _) = Store::open(options(dir.path()), now(hours)).unwrap();
    let topic = store.topic("orders").unwrap();
    let bounds = store.queue_bounds(&topic, QueueId(1)).unwrap();
    assert!(bounds.max > bounds.min, "its messages are there: {bounds:?}");

    let in_use = run(&mut gantry(&words));
    assert_eq!((in_use.code, &*in_use.out), (1, ""), "{in_use:?}");
    assert!(in_use.err.contains("is in use by process"), "{}", in_use.err);
    store.close(now(hours)).unwrap();
    drop(store);
    let again = run(&mut gantry(&words));
    assert_eq!((again.code, &*again.err), (0, ""), "{again:?}");
    assert!(again.out.contains("nothing was given up"), "{}", again.out);
}
