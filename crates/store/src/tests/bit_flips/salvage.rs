//! State that is lost, and a start that accepts it: what is left of it counts, messages keep a topic, and the start after
//! it needs no word any more.

use std::sync::Arc;

use gantry_model::{PhysicalOffset, QueueId, QueueOffset};

use super::lost_views::{Aged, GROUP, check_same, flip_on, now, options, seen, send};
use crate::{
    OpenError, OpenReport, Store, StoreOptions,
    image::IMAGE_TOPIC,
    log::{Walked, memory_files::MemoryFiles},
    views::MemoryViews,
};

/// A start without views that accepts the loss.
fn open_accepting(aged: &Aged, disk: MemoryFiles) -> (Arc<Store>, OpenReport) {
    let options = StoreOptions { accepts_lost_state: true, ..options() };
    let (views, disk) = (Arc::new(MemoryViews::new()), Arc::new(disk));
    Store::open_on(options, views, disk, now(aged.hours)).unwrap()
}

/// Where every record of every image begins.
fn image_records(aged: &Aged) -> Vec<u64> {
    let store = aged.open(aged.disk.copy(), aged.views.settled()).unwrap();
    let mut found = Vec::new();
    let mut cursor = store.log.records(store.log_start(), store.written());
    while let Some(walked) = cursor.next().unwrap() {
        let Walked::Record { position, record } = walked else { panic!("{walked:?}") };
        if record.topic() == IMAGE_TOPIC {
            found.push(position.0);
        }
    }
    found
}

#[test]
fn refusal_names_file_byte_and_cause_and_the_command_that_goes_on() {
    let aged = Aged::new();
    let error = aged.open(aged.flipped(&aged.images), MemoryViews::new()).unwrap_err();
    let text = error.to_string();
    let first = aged.images[0];
    let base = first / super::scene::SEGMENT_BYTES * super::scene::SEGMENT_BYTES;
    let place = format!("/store/log/{base:020}: damaged at byte {}", first - base);
    for words in [&place, "checksum", "gantry store repair /store --accept-lost-state"] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let OpenError::StateLost { start, .. } = error else { panic!("{text}") };
    assert!(start > PhysicalOffset(0));
}

#[test]
fn whole_parts_of_broken_images_give_the_state_back_and_the_next_start_is_as_any_other() {
    let aged = Aged::new();
    let before = seen(&aged.open(aged.disk.copy(), aged.views.settled()).unwrap());
    let disk = aged.flipped(&aged.images);
    let (store, report) = open_accepting(&aged, disk.clone());
    let salvaged = report.salvaged.unwrap();
    assert_eq!((salvaged.image_parts, &salvaged.topics_made[..]), (3, &[][..]));
    check_same(&store, &before, "accepted");
    drop(store);
    // Also where the views are lost again.
    check_same(&aged.open(disk.clone(), MemoryViews::new()).unwrap(), &before, "again");
    let (store, report) = open_accepting(&aged, disk);
    assert_eq!(report.salvaged, None, "nothing is lost any more");
    check_same(&store, &before, "and again");
}

#[test]
fn topic_without_a_definition_is_made_anew_with_its_messages_and_none_of_its_offsets_given_twice() {
    let aged = Aged::new();
    let store = aged.open(aged.disk.copy(), aged.views.settled()).unwrap();
    let (before, old) = (seen(&store), store.topic("orders").unwrap().id);
    drop(store);
    let disk = aged.flipped(&image_records(&aged));
    let (store, report) = open_accepting(&aged, disk.clone());
    let salvaged = report.salvaged.unwrap();
    let topic = store.topic("orders").unwrap();
    assert_eq!((salvaged.image_parts, &salvaged.topics_made[..]), (0, &[topic.name().clone()][..]));
    assert!(topic.id > old, "old offsets are not taken for its own");
    assert_eq!(topic.config.queues(), 1, "as many as messages name");
    let now_seen = seen(&store);
    assert_eq!(now_seen.0, [None, None], "where its groups were is lost");
    assert!(now_seen.2 == before.2, "{} messages of {}", now_seen.2.len(), before.2.len());
    let next = send(&store, &topic, "new", now(aged.hours));
    assert!(next.0 >= before.1[0], "{next}");
    drop(store);
    let store = aged.open(disk, MemoryViews::new()).unwrap();
    let topic = store.topic("orders").unwrap();
    assert!(store.queue_bounds(&topic, QueueId(0)).unwrap().max > next);
    assert_eq!(seen(&store).2.len(), before.2.len() + 1);
}

#[test]
fn queue_whose_end_is_lost_goes_on_behind_the_foremost_of_its_groups() {
    let aged = Aged::new();
    // Committed behind everything, on a queue that never had a message.
    let disk = aged.disk.copy();
    let store = aged.open(disk.clone(), aged.views.settled()).unwrap();
    let topic = store.topic("orders").unwrap();
    for (group, offset) in [(GROUP, 40), ("other", 30)] {
        let commit = super::super::world::commit(group, &topic, 1, offset);
        store.commit_offsets(&[commit], now(aged.hours)).unwrap();
    }
    store.close(now(aged.hours)).unwrap();
    drop(store);
    let (store, report) = open_accepting(&aged, flip_on(disk, &aged.images));
    assert!(report.salvaged.is_some());
    let topic = store.topic("orders").unwrap();
    assert_eq!(store.offset(GROUP, &topic, QueueId(1)), Some(QueueOffset(40)));
    assert_eq!(store.queue_bounds(&topic, QueueId(1)).unwrap().max, QueueOffset(40));
}
