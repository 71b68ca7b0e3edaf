//! A broker whose disk fails: what it answers, what it says of itself, and what the next start finds.
//! The disk is one in memory, which fails where a test tells it to.

use std::{
    io::ErrorKind,
    sync::{Arc, atomic::Ordering},
    time,
};

use gantry_model::{
    QueueId,
    settings::{Bytes, FlushMode},
};
use gantry_remoting::client::Channel;
use gantry_store::{
    log::memory_files::{MemoryFiles, Operation},
    views::MemoryViews,
};

use super::{
    disk_world::World,
    world::{bodies, call, code, heartbeat, pull, pull_waiting, send, until},
};

const HOUR_MS: i64 = 3_600_000;
/// Answer code of a request that the broker carried out.
const SUCCESS: i32 = 0;
/// Answer code of a request that failed on the way.
const FAILED: i32 = 1;
/// Answer code of a broker that takes no messages.
const NOT_AVAILABLE: i32 = 14;
/// Answer code of a broker that asks to wait.
const BUSY: i32 = 2;

impl World {
    async fn start(flush: FlushMode) -> Self {
        Self::with(MemoryFiles::new(), Arc::default(), flush).await
    }

    async fn with(disk: MemoryFiles, views: Arc<MemoryViews>, flush: FlushMode) -> Self {
        Self::with_at(disk, views, flush, 0).await
    }

    async fn with_at(
        disk: MemoryFiles,
        views: Arc<MemoryViews>,
        flush: FlushMode,
        skew_ms: i64,
    ) -> Self {
        Self::on_at(disk, views, skew_ms, |settings| {
            settings.flush = flush;
            settings.ring_size = Some(Bytes::mib(1));
        })
        .await
    }

    async fn received(&self, channel: &Channel) -> Vec<String> {
        bodies(&call(channel, pull("readers", "orders", 0, "*")).await)
    }

    /// Messages of the topic that the store holds.
    fn stored(&self) -> u64 {
        let store = &self.broker.services().store;
        let topic = store.topic("orders").unwrap();
        store.queue_bounds(&topic, QueueId(0)).unwrap().max.0
    }

    /// Stops as a process whose log has failed does, and starts on what the power cut `seed` leaves of the disk.
    async fn restart(self, seed: u64) -> Self {
        let flush = self.broker.services().settings.flush;
        let error = self.broker.stop().await.unwrap_err();
        assert!(error.to_string().contains("close the store"), "{error}");
        let (disk, views) = (self.disk.crash(seed), Arc::new(self.views.after_crash()));
        Self::with(disk, views, flush).await
    }
}

#[tokio::test]
async fn send_whose_sync_fails_is_refused_like_all_after_it_and_the_broker_says_why() {
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "safe")).await, SUCCESS);
    // The group of the readers is made by its first pull, which the log takes no more later on.
    assert_eq!(world.received(&channel).await, ["safe"]);
    world.disk.fail(Operation::Sync, 0, ErrorKind::Other);
    assert_eq!(code(&channel, send("orders", &[], "doubtful")).await, NOT_AVAILABLE);
    let (ready, alive) = (world.telemetry.ready(), world.telemetry.alive());
    assert!(!ready.is_ready() && !alive.is_ready());
    let report = ready.to_string();
    assert!(report.contains("since sync ") && report.contains("/log/0"), "{report}");
    assert_eq!(world.gauge("gantry_storage_stopped"), "1");
    // From now on the disk would work again, and nobody may believe it.
    assert_eq!(code(&channel, send("orders", &[], "refused")).await, NOT_AVAILABLE);
    assert_eq!(world.received(&channel).await, ["safe"]);

    for seed in 0..3 {
        let disk = world.disk.crash(seed);
        let next = World::with(disk, Arc::new(world.views.after_crash()), FlushMode::Sync).await;
        let channel = next.connect().await;
        assert_eq!(next.received(&channel).await[0], "safe");
        assert!(next.telemetry.ready().is_ready());
        assert_eq!(code(&channel, send("orders", &[], "again")).await, SUCCESS);
        next.broker.stop().await.unwrap();
    }
    world.broker.stop().await.unwrap_err();
}

#[tokio::test]
async fn sync_in_the_background_that_fails_stops_sends_though_nobody_waits_for_it() {
    let world = World::start(FlushMode::Async).await;
    let channel = world.connect().await;
    world.disk.fail(Operation::Sync, 0, ErrorKind::Other);
    assert_eq!(code(&channel, send("orders", &[], "unsynced")).await, SUCCESS);
    until(async || (!world.telemetry.ready().is_ready()).then_some(())).await;
    assert_eq!(code(&channel, send("orders", &[], "refused")).await, NOT_AVAILABLE);
    let next = world.restart(1).await;
    let channel = next.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "again")).await, SUCCESS);
    assert_eq!(next.received(&channel).await.last().unwrap(), "again");
    next.broker.stop().await.unwrap();
}

#[tokio::test]
async fn delayed_message_whose_delivery_the_disk_refuses_is_told_of_and_not_lost() {
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "first")).await, SUCCESS);
    assert_eq!(world.received(&channel).await, ["first"]);
    let late = send("orders", &[("TIMER_DELAY_MS", "2000")], "late");
    assert_eq!(code(&channel, late).await, SUCCESS);
    // The next writes are that of its delivery and those of upkeep.
    for _ in 0..8 {
        world.disk.fail(Operation::Write, 0, ErrorKind::Other);
    }
    until(async || (!world.telemetry.ready().is_ready()).then_some(())).await;
    let report = world.telemetry.ready().to_string();
    assert!(report.contains("since write "), "{report}");
    assert_eq!(world.received(&channel).await, ["first"]);
    let next = world.restart(2).await;
    let channel = next.connect().await;
    until(async || (next.received(&channel).await.len() == 2).then_some(())).await;
    assert_eq!(next.received(&channel).await, ["first", "late"]);
    next.broker.stop().await.unwrap();
}

#[tokio::test]
async fn views_that_fail_for_a_while_make_sends_busy_when_memory_is_used_up_and_then_all_goes_on() {
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "0")).await, SUCCESS);
    world.views.fail(usize::MAX, ErrorKind::StorageFull);
    let mut taken = 1;
    let refusal = loop {
        match code(&channel, send("orders", &[], &taken.to_string())).await {
            SUCCESS => taken += 1,
            code => break code,
        }
    };
    assert_eq!((refusal, world.gauge("gantry_storage_views_failing")), (BUSY, "1".into()));
    assert!(world.telemetry.alive().is_ready(), "another start would find no more room");
    world.views.fail(0, ErrorKind::StorageFull);
    until(async || (code(&channel, send("orders", &[], "again")).await == SUCCESS).then_some(()))
        .await;
    assert_eq!(world.gauge("gantry_storage_views_failing"), "0");
    assert_eq!(world.stored(), taken + 1);
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn views_that_fail_for_good_make_the_broker_ask_for_another_start_which_has_all_messages() {
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    world.views.fail(usize::MAX, ErrorKind::Other);
    assert_eq!(code(&channel, send("orders", &[], "kept")).await, SUCCESS);
    until(async || (!world.telemetry.alive().is_ready()).then_some(())).await;
    let report = world.telemetry.ready().to_string();
    assert!(report.contains("write the views failed"), "{report}");
    assert_eq!(code(&channel, send("orders", &[], "refused")).await, NOT_AVAILABLE);
    let next = world.restart(3).await;
    let channel = next.connect().await;
    assert_eq!(next.received(&channel).await, ["kept"]);
    next.broker.stop().await.unwrap();
}

#[tokio::test]
async fn pull_whose_read_the_disk_refuses_is_answered_with_the_file_and_the_next_one_has_the_message()
 {
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "there")).await, SUCCESS);
    assert_eq!(world.received(&channel).await, ["there"]);
    world.broker.stop().await.unwrap();
    // What was written just before is in memory; after a start it is not.
    let world = World::with(world.disk, world.views, FlushMode::Sync).await;
    let channel = world.connect().await;
    world.disk.fail(Operation::Read, 0, ErrorKind::Other);
    let refused = call(&channel, pull("readers", "orders", 0, "*")).await;
    assert_eq!(refused.code, FAILED, "{refused:?}");
    let remark = refused.remark.unwrap();
    assert!(remark.contains("/log/0") && remark.contains("at position"), "{remark}");
    assert_eq!(world.received(&channel).await, ["there"]);
    assert!(world.telemetry.ready().is_ready());
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn clock_that_jumps_delivers_delayed_messages_neither_early_nor_an_hour_late() {
    for jump_ms in [HOUR_MS, -HOUR_MS] {
        let world = World::start(FlushMode::Sync).await;
        let channel = world.connect().await;
        assert_eq!(code(&channel, send("orders", &[], "first")).await, SUCCESS);
        let began = time::Instant::now();
        let delay = [("TIMER_DELAY_MS", "1200")];
        assert_eq!(code(&channel, send("orders", &delay, "before")).await, SUCCESS);
        world.skew_ms.fetch_add(jump_ms, Ordering::Relaxed);
        let delay = [("TIMER_DELAY_MS", "200")];
        assert_eq!(code(&channel, send("orders", &delay, "behind")).await, SUCCESS);
        let received = until(async || {
            let received = world.received(&channel).await;
            received.contains(&"before".into()).then_some(received)
        })
        .await;
        assert!(began.elapsed() >= time::Duration::from_millis(1200), "{jump_ms}: {received:?}");
        until(async || (world.received(&channel).await.len() == 3).then_some(())).await;
        world.broker.stop().await.unwrap();
    }
}

#[tokio::test]
async fn clock_that_was_set_back_while_the_broker_was_stopped_holds_up_no_message_and_lets_none_go_early()
 {
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    let delay = [("TIMER_DELAY_MS", "1500")];
    assert_eq!(code(&channel, send("orders", &delay, "before")).await, SUCCESS);
    let parked = world.broker.services().store.newest_time_ms();
    // The newest record is a later one, as it is wherever anything goes on.
    until(async || {
        assert_eq!(code(&channel, send("orders", &[], "later")).await, SUCCESS);
        (world.broker.services().store.newest_time_ms() > parked).then_some(())
    })
    .await;
    world.broker.stop().await.unwrap();
    let (disk, views) = (world.disk.clone(), Arc::new(world.views.after_crash()));
    let world = World::with_at(disk, views, FlushMode::Sync, -HOUR_MS).await;
    let began = time::Instant::now();
    let channel = world.connect().await;
    let delay = [("TIMER_DELAY_MS", "2500")];
    assert_eq!(code(&channel, send("orders", &delay, "behind")).await, SUCCESS);
    let contains = async |body: &str| world.received(&channel).await.contains(&body.into());
    until(async || contains("before").await.then_some(())).await;
    assert!(!contains("behind").await || began.elapsed() >= time::Duration::from_millis(2500));

    // Once more: what was parked behind the jump is not taken for older than it is.
    world.broker.stop().await.unwrap();
    let (disk, views) = (world.disk.clone(), Arc::new(world.views.after_crash()));
    let world = World::with_at(disk, views, FlushMode::Sync, -HOUR_MS).await;
    let channel = world.connect().await;
    let contains = async |body: &str| world.received(&channel).await.contains(&body.into());
    until(async || contains("behind").await.then_some(())).await;
    assert!(began.elapsed() >= time::Duration::from_millis(2500));
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn clock_that_jumps_ends_no_long_poll_and_forgets_no_client() {
    for jump_ms in [HOUR_MS, -HOUR_MS] {
        let world = World::start(FlushMode::Async).await;
        let channel = world.connect().await;
        assert_eq!(code(&channel, send("orders", &[], "first")).await, SUCCESS);
        let beat = heartbeat("client", "readers", &[("orders", "*", 0)]);
        assert_eq!(code(&channel, beat).await, SUCCESS);
        let services = world.broker.services();
        let poll = pull_waiting("readers", "orders", 1, "*", 15_000);
        let waiting = tokio::spawn({
            let channel = channel.clone();
            async move { call(&channel, poll).await }
        });
        until(async || (services.holds.len() == 1).then_some(())).await;
        world.skew_ms.fetch_add(jump_ms, Ordering::Relaxed);
        let now = services.clock.now();
        services.members.expire(now.monotonic_ms);
        services.holds.expire(now.monotonic_ms);
        assert_eq!(services.holds.len(), 1, "{jump_ms}");
        let groups = services.members.consumer_group_names();
        assert!(groups.iter().any(|group| group.to_string() == "readers"), "{jump_ms}");
        assert_eq!(code(&channel, send("orders", &[], "news")).await, SUCCESS);
        assert_eq!(bodies(&waiting.await.unwrap()), ["news"], "{jump_ms}");
        world.broker.stop().await.unwrap();
    }
}
