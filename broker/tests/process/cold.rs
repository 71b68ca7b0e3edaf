//! A reader far behind the end of the log, over a disk of which the system has nothing in memory.

use std::sync::Arc;

use bytes::BytesMut;
use gantry_broker::services::pull::PullRequest;
use gantry_model::settings::{BrokerSettings, Bytes};
use gantry_store::log::memory_files::MemoryFiles;

use super::{
    disk_world::World,
    world::{bodies, call, code, pull_waiting, send, soon, until},
};

/// Longest time for which the pulls may be held.
const HOUR_MS: u64 = 3_600_000;

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
