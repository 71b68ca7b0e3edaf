//! Promises of retention over a long life: generation after generation of segments goes, and no state with them.

use std::collections::BTreeSet;

use gantry_model::{GroupConfig, GroupName, QueueId, QueueOffset, properties::REAL_TOPIC};
use gantry_record::RecordView;

use super::world::{KINDS, Kind, World, commit, kept_entries};
use crate::{
    AppendError,
    change::TIMER_OUT_MS,
    image::{self, ImageAt},
    log::Walked,
};

const HOUR_MS: u64 = 3_600_000;
const IDLE_MESSAGES: u64 = 1000;
const TIMERS: u64 = 20;
const MANY: u32 = 10;
const FEW: u32 = 2;

/// State of every sort, then so much traffic that the log has forgotten where that state was made, some times over.
fn aged(kind: Kind, generations: u32) -> World {
    let mut world = young(kind);
    grow_old(&mut world, kind, generations);
    world
}

/// State of every sort.
fn young(kind: Kind) -> World {
    let world = World::with(kind, |options| options.retention.age_ms = HOUR_MS);
    let idle = world.topic("idle", 1);
    for n in 0..IDLE_MESSAGES {
        world.send(&idle, 0, &format!("idle-{n}"));
    }
    for n in 0..TIMERS {
        world.park("idle", 10 + n);
    }
    for name in ["g1", "g2"] {
        let config = GroupConfig::new(GroupName::new(name).unwrap());
        world.store().put_group(config, world.now()).unwrap();
        world.store().commit_offsets(&[commit(name, &idle, 0, 321)], world.now()).unwrap();
    }
    world.topic("short-lived", 1);
    world.store().delete_topic("short-lived", world.now()).unwrap();
    let reborn = world.topic("reborn", 1);
    world.send(&reborn, 0, "first life");
    world.store().commit_offsets(&[commit("g1", &reborn, 0, 1)], world.now()).unwrap();
    world.store().delete_topic("reborn", world.now()).unwrap();
    let reborn = world.topic("reborn", 2);
    world.send(&reborn, 1, "second life");
    world
}

fn grow_old(world: &mut World, kind: Kind, generations: u32) {
    for generation in 1..=generations {
        let start = world.store().log_start();
        let busy = world.topic("busy", 3);
        for n in 0..150_u32 {
            world.send(&busy, n % 3, &format!("{generation}-{n}-{}", "x".repeat(1500)));
            world.now_ms += HOUR_MS / 50;
        }
        world.settle();
        for _ in 0..3 {
            world.store().maintain(world.now()).unwrap();
            world.settle();
        }
        assert!(world.store().log_start() > start, "{kind:?}: generation {generation} stays");
    }
}

/// What waits for a time: everything of each message but its place in the log and in its queue, by due time.
fn waiting(world: &World) -> Vec<String> {
    world.settle();
    let timers = world.store().due_timers(u64::MAX - 1, 1000).unwrap();
    let waiting = timers.into_iter().map(|timer| {
        assert!(timer.position >= world.store().log_start(), "{timer:?}");
        let bytes = world.store().read_record(timer.position).unwrap().unwrap();
        let record = RecordView::parse(&bytes).unwrap();
        let told = [TIMER_OUT_MS, REAL_TOPIC].map(|key| record.property(key));
        let (topic, queue, body) = (record.topic(), record.queue(), record.body());
        format!("{topic} {queue:?} due {}: {told:?} {body:?}", timer.due_ms)
    });
    waiting.collect()
}

fn entries(world: &World) -> Vec<String> {
    world.settle();
    kept_entries(world.store())
}

#[test]
fn all_entries_are_equal_when_the_views_are_rebuilt_after_ten_generations_have_gone() {
    for kind in KINDS {
        let mut world = aged(kind, MANY);
        let before = entries(&world);
        let report = world.lose_views();
        assert!(report.views_rebuilt, "{kind:?}");
        assert_eq!(entries(&world), before, "{kind:?}");
        let store = world.store();
        let idle = store.topic("idle").unwrap();
        assert_eq!(store.offset("g2", &idle, QueueId(0)), Some(QueueOffset(321)));
        assert_eq!(store.groups().len(), 2);
        assert!(store.topic("short-lived").is_none());
        let reborn = store.topic("reborn").unwrap();
        assert_eq!(store.offset("g1", &reborn, QueueId(0)), None, "that was its first life's");
        let bounds = [0, 1].map(|queue| store.queue_bounds(&reborn, QueueId(queue)).unwrap().max.0);
        assert_eq!(bounds, [0, 1]);
        let again = world.topic("short-lived", 1);
        assert!(again.id > store.topic("busy").unwrap().id, "an id is never given twice");
    }
}

#[test]
fn empty_store_that_is_filled_from_the_segments_alone_is_the_store_they_come_from() {
    for kind in KINDS {
        let world = aged(kind, MANY);
        let before = entries(&world);
        let copy = World::with_files(kind, &world.options, world.now_ms, |name| name == "log");
        assert_eq!(entries(&copy), before, "{kind:?}");
        let idle = copy.store().topic("idle").unwrap();
        copy.send(&idle, 0, "thousandth");
        copy.settle();
        let (_, bodies) = copy.read(&idle, 0, IDLE_MESSAGES);
        assert_eq!(bodies, ["thousandth"], "{kind:?}");
    }
}

#[test]
fn kill_after_segments_have_gone_needs_no_rebuild_and_headers_name_the_newest_image() {
    for kind in KINDS {
        let mut world = aged(kind, FEW);
        let before = entries(&world);
        let named = world.store().log.segments().last().and_then(|last| last.newest_image);
        assert!(named.is_some(), "{kind:?}");
        let report = world.kill();
        assert!(!report.views_rebuilt, "{kind:?}: the views begin before the log");
        assert_eq!(entries(&world), before, "{kind:?}");
    }
}

#[test]
fn next_message_of_an_idle_queue_gets_offset_1000_after_all_of_its_messages_have_gone() {
    for kind in KINDS {
        let mut world = aged(kind, FEW);
        world.lose_views();
        let idle = world.store().topic("idle").unwrap();
        let bounds = world.store().queue_bounds(&idle, QueueId(0)).unwrap();
        assert_eq!((bounds.min.0, bounds.max.0), (IDLE_MESSAGES, IDLE_MESSAGES), "{kind:?}");
        world.send(&idle, 0, "thousandth");
        world.settle();
        let (read, bodies) = world.read(&idle, 0, IDLE_MESSAGES);
        assert_eq!((read.max.0, bodies), (IDLE_MESSAGES + 1, vec!["thousandth".to_owned()]));
    }
}

#[test]
fn pending_timers_survive_every_generation_and_each_fires_once() {
    for kind in KINDS {
        for is_rebuilt in [false, true] {
            let mut world = young(kind);
            let before = waiting(&world);
            assert_eq!(before.len() as u64, TIMERS);
            grow_old(&mut world, kind, FEW);
            let report = if is_rebuilt { world.lose_views() } else { world.kill() };
            assert_eq!(report.views_rebuilt, is_rebuilt);
            assert_eq!(waiting(&world), before, "{kind:?}");
            let timers = world.store().due_timers(u64::MAX - 1, 1000).unwrap();
            let idle = world.store().topic("idle").unwrap();
            for timer in &timers {
                world.fire(&idle, timer.due_ms, timer.position).unwrap();
                let again = world.fire(&idle, timer.due_ms, timer.position);
                assert!(matches!(again, Err(AppendError::AlreadyEnded { .. })), "{again:?}");
            }
            assert!(world.store().due_timers(u64::MAX - 1, 10).unwrap().is_empty());
            world.kill();
            assert!(world.store().due_timers(u64::MAX - 1, 10).unwrap().is_empty());
        }
    }
}

#[test]
fn log_that_is_small_beside_its_image_waits_and_images_stay_a_small_part_of_it() {
    let mut world = World::with(Kind::Memory, |options| options.retention.bytes = Some(0));
    let idle = world.topic("idle", 1);
    for n in 0..2000 {
        let commit = commit(&format!("group-{n}"), &idle, 0, n);
        world.store().commit_offsets(&[commit], world.now()).unwrap();
    }
    let busy = world.topic("busy", 1);
    for _ in 0..2000 {
        world.send(&busy, 0, &"x".repeat(2000));
        world.now_ms += 10;
        world.settle();
        world.store().maintain(world.now()).unwrap();
    }
    let store = world.store();
    let mut cursor = store.log.records(store.log_start(), store.written());
    let (mut image_bytes, mut topics) = (0, BTreeSet::new());
    while let Some(walked) = cursor.next().unwrap() {
        let Walked::Record { record, .. } = walked else { panic!("damage") };
        topics.insert(record.topic().to_owned());
        if record.topic() == crate::image::IMAGE_TOPIC {
            image_bytes += u64::from(record.size());
        }
    }
    assert!(store.log_start().0 > 0 && image_bytes > 0, "{topics:?}");
    // The log keeps what lies behind its newest image: at most one image for each 16 times its size, and the newest.
    assert!(image_bytes < 2 * 2000 * 64, "{image_bytes} bytes of images");
}

#[test]
fn next_image_is_begun_once_the_log_has_grown_by_16_times_the_last_one_and_not_before() {
    const OFFSETS: u64 = 1000;
    let mut world = World::with(Kind::Memory, |options| options.retention.bytes = Some(0));
    let idle = world.topic("idle", 1);
    for n in 0..OFFSETS {
        let commit = commit(&format!("group-{n}"), &idle, 0, n);
        world.store().commit_offsets(&[commit], world.now()).unwrap();
    }
    let busy = world.topic("busy", 1);
    let mut images: Vec<ImageAt> = Vec::new();
    while images.len() < 4 {
        world.send(&busy, 0, &"x".repeat(2000));
        world.now_ms += 10;
        world.settle();
        if world.store().maintain(world.now()).unwrap().image_written {
            let begin = world.store().tail.lock().writer.newest_image().unwrap();
            images.extend(image::at(&world.store().log, begin).unwrap());
        }
        assert!(world.store().written().0 < OFFSETS * 100 * 16 * 6, "{images:?}");
    }
    for pair in images.windows(2) {
        let (grown, last) = (pair[1].begin.0 - pair[0].end.0, pair[0].bytes);
        assert!(last > OFFSETS * 20 && grown >= 16 * last, "{grown} bytes behind {last} of image");
        // Everything is always too much, so that the next one comes with the next segment.
        assert!(grown < 16 * last + 2 * world.options.segment_bytes, "{grown} behind {last}");
    }
}

#[test]
fn images_and_carried_timers_are_at_most_6_percent_of_what_is_written() {
    // Some 6 MiB of log are kept; 500 timers, and 1,000 queues with an offset each, are in it at any time.
    const SENDS_KEPT: u64 = 800;
    const PARKED: u64 = 500;
    let mut world = World::with(Kind::Memory, |options| options.retention.age_ms = HOUR_MS);
    let idle = world.topic("idle", 1000);
    for queue in 0..1000 {
        world.send(&idle, queue, "idle");
        world.store().commit_offsets(&[commit("g", &idle, queue, 1)], world.now()).unwrap();
    }
    (0..PARKED).for_each(|n| _ = world.park("idle", 10 + n));
    let busy = world.topic("busy", 4);
    let (body, begun) = ("x".repeat(4000), world.store().written());
    let (mut upkeep_bytes, mut carried, mut images) = (0, 0, 0_u64);
    for n in 0..SENDS_KEPT * u64::from(MANY + 1) {
        world.send(&busy, (n % 4) as u32, &body);
        world.now_ms += HOUR_MS / SENDS_KEPT;
        if n % 50 == 0 {
            world.settle();
            let before = world.store().written();
            let done = world.store().maintain(world.now()).unwrap();
            upkeep_bytes += world.store().written().0 - before.0;
            carried += done.timers_carried;
            images += u64::from(done.image_written);
        }
    }
    let written_bytes = world.store().written().0 - begun.0;
    println!("{upkeep_bytes} of {written_bytes} bytes: {images} images, {carried} timers carried");
    assert!(
        carried >= PARKED * (u64::from(MANY) - 1) && images >= u64::from(MANY),
        "{images} {carried}"
    );
    assert!(upkeep_bytes * 100 <= written_bytes * 6, "{upkeep_bytes} of {written_bytes} bytes");
}
