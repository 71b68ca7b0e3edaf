//! What health says of a broker whose log has stopped.

use std::{io, path::PathBuf, sync::Arc};

use gantry_store::log::Stopped;

use super::world::{World, code, send};

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
