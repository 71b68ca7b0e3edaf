//! A full disk and a log at its limit, as clients see them: sends are refused with code 14, commits and pulls go on.
//! The disk is one in memory whose capacity a test changes.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use gantry_broker::{Broker, RunningBroker, SystemResolver, services::clock::Clock};
use gantry_model::settings::{BrokerSettings, Bytes, Duration, OnFull};
use gantry_remoting::{
    Command, RequestCode,
    client::{Channel, ChannelSettings, RefuseRequests},
};
use gantry_store::{Store, log::memory_files::MemoryFiles, views::MemoryViews};
use gantry_telemetry::Telemetry;

use super::world::{call, code, field, heartbeat, messages, pull, request, send, until};

const SUCCESS: i32 = 0;
/// Answer code of a broker that takes no messages.
const NOT_AVAILABLE: i32 = 14;
/// Answer code of a pull whose offset is no longer there.
const OFFSET_MOVED: i32 = 21;
const MIB: u64 = 1 << 20;

/// Brokers so far: each has a name of its own, since all in this process share one table of metrics.
static BROKERS: AtomicU32 = AtomicU32::new(0);

/// A broker over a disk in memory.
struct World {
    broker: RunningBroker,
    telemetry: Telemetry,
    disk: MemoryFiles,
    views: Arc<MemoryViews>,
    channel: Channel,
}

impl World {
    async fn on(
        disk: MemoryFiles,
        views: Arc<MemoryViews>,
        change: impl FnOnce(&mut BrokerSettings),
    ) -> Self {
        let mut settings = BrokerSettings {
            broker_name: format!("space-{}", BROKERS.fetch_add(1, Ordering::Relaxed)),
            bind: IpAddr::from([127, 0, 0, 1]),
            remoting_port: 0,
            vip_channel: false,
            grpc_port: 0,
            segment_size: Bytes::mib(16),
            drain: Duration::from_millis(0),
            ..BrokerSettings::default()
        };
        // Code 28 tells of the file system of the folder, which has to be there.
        settings.data_dir = std::env::temp_dir();
        change(&mut settings);
        let telemetry = Telemetry::new().unwrap();
        let (files, their_views) = (Arc::new(disk.clone()), Arc::clone(&views));
        let broker = Broker::start_over(
            settings,
            &telemetry,
            Arc::new(SystemResolver),
            Clock::new(),
            Box::new(move |options, now| Store::open_on(options, their_views, files, now)),
        );
        let broker = broker.await.unwrap();
        let address = broker.addresses().remoting.to_string();
        let handler = Arc::new(RefuseRequests);
        let channel =
            Channel::connect(&address, &ChannelSettings::default(), handler).await.unwrap();
        call(&channel, heartbeat("c", "g", &[])).await;
        Self { broker, telemetry, disk, views, channel }
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
        let store = &self.broker.services().store;
        assert!(store.topic("another").is_none(), "no topic for what is refused");
        let of_group = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")];
        let commit = request(RequestCode::UPDATE_CONSUMER_OFFSET, &of_group);
        assert_eq!(code(channel, commit.with_ext("commitOffset", offset)).await, SUCCESS);
        let answer = call(channel, request(RequestCode::QUERY_CONSUMER_OFFSET, &of_group)).await;
        assert_eq!(field(&answer, "offset"), offset);
        assert_eq!(messages(&call(channel, pull("g", "orders", 0, "*")).await)[0].body()[0], b'm');
        let metrics = self.telemetry.render_metrics();
        let of_broker = format!("node_id=\"{}\"", self.broker.services().settings.broker_name);
        let is_it =
            |line: &&str| line.starts_with("gantry_storage_full") && line.contains(&of_broker);
        let line = metrics.lines().find(is_it).unwrap();
        assert!(line.ends_with(" 1"), "{line}");
        assert!(self.telemetry.ready().is_ready(), "a full broker still serves readers");
    }
}

#[tokio::test]
async fn full_disk_refuses_sends_alone_until_there_is_space() {
    let disk = MemoryFiles::new();
    // Four segments and the reserve, with something beside them.
    disk.set_capacity(6 * 16 * MIB + MIB);
    let world = World::on(disk, Arc::default(), |_| {}).await;
    assert!(world.fill().await >= 3);
    world.assert_full("1").await;
    world.disk.set_capacity(world.disk.used() + 2 * 16 * MIB);
    until(async || (world.send_large().await == SUCCESS).then_some(())).await;
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn log_at_its_limit_refuses_sends_alone_and_says_so() {
    let limited =
        |mib| move |settings: &mut BrokerSettings| settings.log_size_max = Some(Bytes::mib(mib));
    let world = World::on(MemoryFiles::new(), Arc::default(), limited(128)).await;
    assert!(world.fill().await >= 15);
    world.assert_full("7").await;
    let runtime = Command::request(RequestCode::GET_BROKER_RUNTIME_INFO);
    let table = String::from_utf8(call(&world.channel, runtime).await.body.to_vec()).unwrap();
    assert!(table.contains("\"storeFileBytes\":\"134217728\""), "{table}");
    assert!(table.contains("\"storeLimitBytes\":\"134217728\""), "{table}");
    let refused = call(&world.channel, send("orders", &[], "x")).await;
    let (said, rule) = (refused.remark.unwrap(), "takes 134217728 bytes, with another segment it");
    assert!(said.contains(rule) && said.contains("its limit of 134217728"), "{said}");
    assert!(table.contains(rule), "{table}");
    let (disk, views) = (world.disk, world.views);
    world.broker.stop().await.unwrap();

    let world = World::on(disk, views, limited(160)).await;
    assert_eq!(world.send_large().await, SUCCESS);
    world.broker.stop().await.unwrap();
}

#[tokio::test]
async fn log_that_may_delete_the_oldest_goes_on_within_its_limit() {
    let world = World::on(MemoryFiles::new(), Arc::default(), |settings| {
        settings.log_size_max = Some(Bytes::mib(128));
        settings.on_full = OnFull::DeleteOldest;
    })
    .await;
    for _ in 0..30 {
        // A sender that outruns the deletion is held up for as long as that takes.
        until(async || (world.send_large().await == SUCCESS).then_some(())).await;
    }
    let status = world.broker.services().store.status();
    assert!(status.log_start.0 > 0 && status.file_bytes <= 128 * MIB, "{status:?}");
    let slow = call(&world.channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(slow.code, OFFSET_MOVED);
    let min = field(&slow, "minOffset");
    assert_eq!(field(&slow, "nextBeginOffset"), min);
    let next = call(&world.channel, pull("g", "orders", min.parse().unwrap(), "*")).await;
    assert_eq!(messages(&next)[0].body()[0], b'm');
    world.broker.stop().await.unwrap();
}
