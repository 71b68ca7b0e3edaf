//! A broker over a disk in memory, which fails or is full where a test tells it to.
//! Invariant: each broker has a name of its own, since all in this process share one table of metrics.
//! Leaves what goes wrong to the tests.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};

use gantry_broker::{Broker, RunningBroker, SystemResolver, services::clock::Clock};
use gantry_model::settings::{BrokerSettings, Bytes, Duration};
use gantry_remoting::client::{Channel, ChannelSettings, RefuseRequests};
use gantry_store::{Store, log::memory_files::MemoryFiles, views::MemoryViews};
use gantry_telemetry::Telemetry;

/// Brokers so far.
static BROKERS: AtomicU32 = AtomicU32::new(0);

/// The broker, and what it stands on.
pub(crate) struct World {
    pub(crate) broker: RunningBroker,
    pub(crate) telemetry: Telemetry,
    pub(crate) disk: MemoryFiles,
    pub(crate) views: Arc<MemoryViews>,
    /// How far the wall clock was set forward.
    pub(crate) skew_ms: &'static AtomicI64,
}

impl World {
    pub(crate) async fn on(
        disk: MemoryFiles,
        views: Arc<MemoryViews>,
        change: impl FnOnce(&mut BrokerSettings),
    ) -> Self {
        Self::on_at(disk, views, 0, change).await
    }

    /// Starts with a wall clock that is set forward by so much.
    pub(crate) async fn on_at(
        disk: MemoryFiles,
        views: Arc<MemoryViews>,
        skew_ms: i64,
        change: impl FnOnce(&mut BrokerSettings),
    ) -> Self {
        let mut settings = BrokerSettings {
            broker_name: format!("disk-{}", BROKERS.fetch_add(1, Ordering::Relaxed)),
            // The state of the disk is that of the folder's file system, which has to be there.
            data_dir: std::env::temp_dir(),
            bind: IpAddr::from([127, 0, 0, 1]),
            remoting_port: 0,
            vip_channel: false,
            grpc_port: 0,
            segment_size: Bytes::mib(16),
            drain: Duration::from_millis(0),
            ..BrokerSettings::default()
        };
        change(&mut settings);
        let telemetry = Telemetry::new().unwrap();
        let skew_ms: &AtomicI64 = Box::leak(Box::new(AtomicI64::new(skew_ms)));
        let (files, their_views) = (Arc::new(disk.clone()), Arc::clone(&views));
        let broker = Broker::start_over(
            settings,
            &telemetry,
            Arc::new(SystemResolver),
            Clock::skewed(skew_ms),
            Box::new(move |options, now| Store::open_on(options, their_views, files, now)),
        );
        let broker = broker.await.unwrap();
        Self { broker, telemetry, disk, views, skew_ms }
    }

    pub(crate) async fn connect(&self) -> Channel {
        let address = self.broker.addresses().remoting.to_string();
        let handler = Arc::new(RefuseRequests);
        Channel::connect(&address, &ChannelSettings::default(), handler).await.unwrap()
    }

    /// Value of one of the broker's gauges.
    pub(crate) fn gauge(&self, name: &str) -> String {
        let metrics = self.telemetry.render_metrics();
        let of_broker = format!("node_id=\"{}\"", self.broker.services().settings.broker_name);
        let is_it = |line: &&str| line.starts_with(name) && line.contains(&of_broker);
        let line = metrics.lines().find(is_it).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.rsplit(' ').next().unwrap().to_owned()
    }
}
