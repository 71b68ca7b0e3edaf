//! A full disk and a log at its limit, as clients see them: sends are refused with code 14, commits and pulls go on.
//! The disk is one in memory whose capacity a test changes.

use std::{cell::Cell, sync::Arc};

use gantry_model::settings::{BrokerSettings, Bytes, OnFull};
use gantry_remoting::{Command, RequestCode, client::Channel};
use gantry_store::{log::memory_files::MemoryFiles, views::MemoryViews};

use super::{
    disk_world::World,
    world::{call, code, field, heartbeat, messages, pull, request, send, until},
};

const SUCCESS: i32 = 0;
/// Answer code of a broker that takes no messages.
const NOT_AVAILABLE: i32 = 14;
/// Answer code of a pull whose offset is no longer there.
const OFFSET_MOVED: i32 = 21;
const MIB: u64 = 1 << 20;

/// A broker and a client.
struct Full {
    world: World,
    channel: Channel,
}

impl Full {
    async fn on(
        disk: MemoryFiles,
        views: Arc<MemoryViews>,
        change: impl FnOnce(&mut BrokerSettings),
    ) -> Self {
        let world = World::on(disk, views, change).await;
        let channel = world.connect().await;
        call(&channel, heartbeat("c", "g", &[])).await;
        Self { world, channel }
    }

    async fn send_large(&self) -> i32 {
        let answer = call(&self.channel, send("orders", &[], &"m".repeat(4 << 20))).await;
        if answer.code == NOT_AVAILABLE {
            let remark = answer.remark.unwrap();
            assert!(remark.starts_with("service not available"), "{remark}");
        }
        answer.code
    }

    /// Sends until it is refused, and returns how many messages were taken.
    async fn fill(&self) -> u64 {
        let mut sent = 0;
        loop {
            match self.send_large().await {
                SUCCESS => sent += 1,
                code => {
                    assert_eq!(code, NOT_AVAILABLE);
                    return sent;
                }
            }
        }
    }

    /// Sends alone are refused, small ones and first ones too.
    async fn assert_full(&self, offset: &str) {
        let channel = &self.channel;
        assert_eq!(code(channel, send("orders", &[], "x")).await, NOT_AVAILABLE);
        assert_eq!(code(channel, send("another", &[], "x")).await, NOT_AVAILABLE);
        let store = &self.world.broker.services().store;
        assert!(store.topic("another").is_none(), "no topic for what is refused");
        let of_group = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")];
        let commit = request(RequestCode::UPDATE_CONSUMER_OFFSET, &of_group);
        assert_eq!(code(channel, commit.with_ext("commitOffset", offset)).await, SUCCESS);
        let answer = call(channel, request(RequestCode::QUERY_CONSUMER_OFFSET, &of_group)).await;
        assert_eq!(field(&answer, "offset"), offset);
        assert_eq!(messages(&call(channel, pull("g", "orders", 0, "*")).await)[0].body()[0], b'm');
        assert_eq!(self.world.gauge("gantry_storage_full"), "1");
        assert!(self.world.telemetry.ready().is_ready(), "a full broker still serves readers");
    }
}

#[tokio::test]
async fn full_disk_refuses_sends_alone_until_there_is_space() {
    let disk = MemoryFiles::new();
    // Four segments and the reserve, with something beside them.
    disk.set_capacity(6 * 16 * MIB + MIB);
    let full = Full::on(disk, Arc::default(), |_| {}).await;
    assert!(full.fill().await >= 3);
    full.assert_full("1").await;
    full.world.disk.set_capacity(full.world.disk.used() + 2 * 16 * MIB);
    until(async || (full.send_large().await == SUCCESS).then_some(())).await;
    full.world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn log_at_its_limit_refuses_sends_alone_and_says_so() {
    let limited =
        |mib| move |settings: &mut BrokerSettings| settings.log_size_max = Some(Bytes::mib(mib));
    let full = Full::on(MemoryFiles::new(), Arc::default(), limited(128)).await;
    assert!(full.fill().await >= 15);
    full.assert_full("7").await;
    let runtime = Command::request(RequestCode::GET_BROKER_RUNTIME_INFO);
    let table = String::from_utf8(call(&full.channel, runtime).await.body.to_vec()).unwrap();
    assert!(table.contains("\"storeFileBytes\":\"134217728\""), "{table}");
    assert!(table.contains("\"storeLimitBytes\":\"134217728\""), "{table}");
    let refused = call(&full.channel, send("orders", &[], "x")).await;
    let (said, rule) = (refused.remark.unwrap(), "takes 134217728 bytes, with another segment it");
    assert!(said.contains(rule) && said.contains("its limit of 134217728"), "{said}");
    assert!(table.contains(rule), "{table}");
    let (disk, views) = (full.world.disk, full.world.views);
    full.world.broker.stop().await.unwrap();

    let full = Full::on(disk, views, limited(160)).await;
    assert_eq!(full.send_large().await, SUCCESS);
    full.world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn log_that_may_delete_the_oldest_goes_on_within_its_limit() {
    let full = Full::on(MemoryFiles::new(), Arc::default(), |settings| {
        settings.log_size_max = Some(Bytes::mib(128));
        settings.on_full = OnFull::DeleteOldest;
    })
    .await;
    for _ in 0..30 {
        // A sender that outruns the deletion is held up for as long as that takes.
        until(async || (full.send_large().await == SUCCESS).then_some(())).await;
    }
    let store = &full.world.broker.services().store;
    // What is about to go counts until it is gone.
    until(async || (store.status().file_bytes <= 128 * MIB).then_some(())).await;
    assert!(store.log_start().0 > 0, "{:?}", store.status());
    // There may be one more to go when the last message was sent.
    until(async || {
        let removed = store.status().removed_bytes.to_string();
        let is_told = full.world.gauge("gantry_storage_removed_bytes_total") == removed;
        (is_told && full.world.gauge("gantry_storage_leaving_bytes") == "0").then_some(())
    })
    .await;
    let status = store.status();
    for (name, value) in [
        ("gantry_storage_key_read_bytes_total", status.key_read_bytes),
        ("gantry_storage_keys_forgotten_total", status.keys_forgotten),
    ] {
        assert_eq!(full.world.gauge(name), value.to_string(), "{name}");
    }
    let offset = Cell::new(0);
    let next = until(async || {
        let answer = call(&full.channel, pull("g", "orders", offset.get(), "*")).await;
        if answer.code == SUCCESS {
            return Some(answer);
        }
        assert_eq!(answer.code, OFFSET_MOVED, "{answer:?}");
        assert_eq!(field(&answer, "nextBeginOffset"), field(&answer, "minOffset"));
        offset.set(field(&answer, "minOffset").parse().unwrap());
        None
    })
    .await;
    assert!(offset.get() > 0, "a reader that was too slow is told so");
    assert_eq!(messages(&next)[0].body()[0], b'm');
    full.world.broker.stop().await.unwrap();
}
