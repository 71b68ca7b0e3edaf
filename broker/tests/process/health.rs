//! What health says of a broker whose log has stopped, or whose views are damaged.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::settings::Bytes;
use gantry_store::log::Stopped;

use super::world::{World, bodies, call, code, pull, send};

/// Messages whose entries fill several blocks of a table, so that another queue's are in another one.
const MANY: usize = 1_200;

#[tokio::test]
async fn broker_whose_log_has_stopped_is_neither_ready_nor_healthy_and_refuses_messages() {
    let world = World::start().await;
    assert!(world.telemetry.alive().is_ready());
    let source = Arc::new(io::Error::other("the disk is gone"));
    let cause = Stopped { action: "sync", path: PathBuf::from("/a/segment"), source };
    world.broker.services().lifecycle.fail(&cause);
    let report = world.telemetry.alive().to_string();
    assert!(report.contains("log: ") && report.contains("sync /a/segment failed"), "{report}");
    assert!(!world.telemetry.ready().is_ready());
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "x")).await, 14);
    world.stop().await;
}

#[tokio::test]
async fn broker_that_stops_stays_healthy_so_that_nothing_cuts_its_drain_short() {
    let world = World::start().await;
    world.broker.services().lifecycle.stop();
    assert!(world.telemetry.alive().is_ready());
    assert!(!world.telemetry.ready().is_ready());
    world.stop().await;
}

/// Flips a bit of the largest table: the queues' entries, of which a start reads nothing. Returns which file it is.
fn damage_views(data_dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(data_dir.join("views")).unwrap();
    let tables = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let largest = tables.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[8] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    largest
}

#[tokio::test]
async fn broker_that_meets_damaged_views_serves_what_is_intact_and_asks_for_a_start_that_mends_them()
 {
    let world = World::start().await;
    let channel = world.connect().await;
    for _ in 0..MANY {
        assert_eq!(code(&channel, send("orders", &[], "old")).await, 0);
    }
    assert_eq!(code(&channel, send("orders", &[], "old").with_ext("e", "1")).await, 0);
    let dir = world.stop().await;
    let damaged = damage_views(dir.path());

    let world = World::start_in(dir, |settings| settings.scrub_rate = Bytes::kib(0)).await;
    let channel = world.connect().await;
    assert!(world.telemetry.alive().is_ready(), "nobody has read it");
    assert_eq!(code(&channel, pull("readers", "orders", 0, "*")).await, 1);
    let report = world.telemetry.alive().to_string();
    let expected =
        format!("views: damaged at {}; the next start makes them again", damaged.display());
    assert!(report.contains(&expected), "{report}");
    assert!(world.telemetry.ready().is_ready(), "it stays in service");
    assert_eq!(code(&channel, send("orders", &[], "new").with_ext("e", "1")).await, 0);
    let intact = |offset| pull("readers", "orders", offset, "*").with_ext("queueId", "1");
    assert_eq!(bodies(&call(&channel, intact(0)).await), ["old", "new"]);
    world.broker.services().lifecycle.stop();
    assert!(world.telemetry.alive().is_ready(), "nothing cuts its drain short");

    let world = World::start_in(world.stop().await, |_| {}).await;
    let channel = world.connect().await;
    assert!(world.telemetry.alive().is_ready());
    assert_eq!(bodies(&call(&channel, pull("readers", "orders", 0, "*")).await).len(), 32);
    assert_eq!(bodies(&call(&channel, intact(0)).await), ["old", "new"]);
    assert!(world.telemetry.alive().is_ready(), "the views are whole again");
    assert_eq!(world.broker.services().store.status().damaged_files, 1, "and it is told of");
    world.stop().await;
}
