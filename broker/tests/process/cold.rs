//! A reader far behind the end of the log, over a disk of which the system has nothing in memory.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::BytesMut;
use gantry_broker::services::pull::PullRequest;
use gantry_model::settings::{BrokerSettings, Bytes};
use gantry_remoting::client::Channel;
use gantry_store::log::memory_files::MemoryFiles;

use super::{
    disk_world::World,
    world::{bodies, call, code, pull, pull_waiting, send, soon, until},
};

/// Longest time for which the pulls may be held.
const HOUR_MS: u64 = 3_600_000;
/// Messages of 100 KB of a queue that is read from its begin.
const MANY: u64 = 100;

fn near(settings: &mut BrokerSettings) {
    settings.cold_read_distance = Bytes::mib(1);
}

/// Whether the first message of `orders` can be read without waiting for the disk.
fn is_at_hand(world: &World) -> bool {
    let services = world.broker.services();
    let request = PullRequest {
        group: "others",
        topic: "orders",
        queue: 0,
        offset: 0,
        messages_max: 1,
        bytes_max: None,
        subscription: Some(("*", None)),
        version: 0,
        lite: false,
    };
    let pull = services.pulls.admit(&request, services.clock.now()).unwrap();
    services.pulls.read_at_hand(&pull, &mut BytesMut::new()).unwrap().is_some()
}

/// A broker that was started with nothing in memory of a queue far longer than what is near.
async fn far_behind() -> World {
    let world = World::on(MemoryFiles::new(), Arc::default(), near).await;
    let channel = world.connect().await;
    let large = "x".repeat(100_000);
    for _ in 0..MANY {
        assert_eq!(code(&channel, send("orders", &[], &large)).await, 0);
    }
    world.broker.stop().await.unwrap();
    World::on(world.disk, world.views, near).await
}

/// Reads one message of `orders`.
async fn read_one(channel: &Channel, from: u64) {
    let one = pull("readers", "orders", from as i64, "*").with_ext("maxMsgNums", "1");
    assert_eq!(bodies(&call(channel, one).await).len(), 1);
}

#[tokio::test]
async fn reader_that_misses_a_page_which_the_system_then_reads_ahead_is_cold_only_if_it_soon_misses_one_again()
 {
    let world = far_behind().await;
    let channel = world.connect().await;
    let cold_pulls = || world.broker.services().counters.cold_pulls.load(Relaxed);
    world.disk.set_reading_ahead();
    read_one(&channel, 0).await;
    assert_eq!(cold_pulls(), 0, "it was there when it was asked for again");
    read_one(&channel, 1).await;
    assert_eq!(cold_pulls(), 1);
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn reader_that_missed_a_page_of_the_cache_once_is_soon_read_by_the_threads_that_answer_again()
{
    let world = far_behind().await;
    let channel = world.connect().await;
    let cold_pulls = || world.broker.services().counters.cold_pulls.load(Relaxed);
    let read = async |from| read_one(&channel, from).await;
    world.disk.set_cold(true);
    read(0).await;
    assert_eq!(cold_pulls(), 1);
    for from in 1..20 {
        read(from).await;
    }
    assert_eq!(cold_pulls(), 20, "the cache has nothing");
    world.disk.set_cold(false);
    let mut from = 20;
    while cold_pulls() == from {
        read(from).await;
        from += 1;
        assert!(from < MANY / 2, "it stays with the threads that may wait");
    }
    let before = cold_pulls();
    for from in from..MANY {
        read(from).await;
    }
    assert_eq!(cold_pulls(), before, "the cache has all");
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn consumer_that_has_read_a_queue_which_others_left_far_behind_is_held_until_a_message_comes()
{
    let world = World::on(MemoryFiles::new(), Arc::default(), near).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "first")).await, 0);
    let large = "x".repeat(100_000);
    for _ in 0..16 {
        assert_eq!(code(&channel, send("others", &[], &large)).await, 0);
    }
    world.broker.stop().await.unwrap();
    // What was written just before is in memory; after a start it is not.
    let world = World::on(world.disk, world.views, near).await;
    world.disk.set_cold(true);
    assert!(!is_at_hand(&world));
    let channel = world.connect().await;
    let first = call(&channel, pull_waiting("readers", "orders", 0, "*", HOUR_MS)).await;
    assert_eq!(bodies(&first), ["first"]);
    let waiting = channel.begin_call(&pull_waiting("readers", "orders", 1, "*", HOUR_MS)).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    assert_eq!(code(&channel, send("orders", &[], "second")).await, 0);
    assert_eq!(bodies(&soon(waiting).await.unwrap()), ["second"]);
    world.broker.stop().await.unwrap();
}
