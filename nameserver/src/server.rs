//! A running name server: listener, scan for silent brokers, readiness and metrics.
//! Invariant: after `stop` the port is free and no task of the server is left.
//! Leaves what requests mean to the service, and the HTTP port to whoever owns the process.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use gantry_model::settings::{InvalidSetting, NameServerSettings};
use gantry_remoting::server::{CloseReason, Server, ServerLimits};
use gantry_telemetry::Telemetry;
use metrics::{Unit, describe_counter, describe_gauge};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    kv::{KvConfig, KvError},
    service::{Clock, NameService},
};

/// Why a name server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of range.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The key-value configuration cannot be used.
    #[error("open the key-value configuration")]
    Kv(#[from] KvError),
    /// The address cannot be bound.
    #[error("listen on {addr} for remoting")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Starts name servers.
pub struct NameServer;

/// A name server that serves. Stop it with [`RunningNameServer::stop`]; dropping it stops it too,
/// without waiting for its end.
pub struct RunningNameServer {
    /// The address that it listens on.
    pub addr: SocketAddr,
    shutdown: watch::Sender<bool>,
    serving: JoinHandle<()>,
    scanning: JoinHandle<()>,
}

impl NameServer {
    /// Starts serving with the monotonic clock of the machine.
    pub async fn start(
        settings: NameServerSettings,
        telemetry: &Telemetry,
    ) -> Result<RunningNameServer, StartError> {
        let start = Instant::now();
        Self::start_with_clock(settings, telemetry, Arc::new(move || start.elapsed())).await
    }

    /// Starts serving by another clock, on which brokers grow silent.
    pub async fn start_with_clock(
        settings: NameServerSettings,
        telemetry: &Telemetry,
        clock: Clock,
    ) -> Result<RunningNameServer, StartError> {
        settings.validate()?;
        let kv = KvConfig::open(settings.data_dir.as_deref(), settings.kv_bytes_max.get())?;
        let addr = SocketAddr::new(settings.bind, settings.port);
        let bind = |source| StartError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let limits = ServerLimits {
            connections_max: settings.connections_max as usize,
            idle_timeout: settings.connection_idle.as_std(),
            ..ServerLimits::default()
        };
        let scan_interval = settings.scan_interval.as_std();
        let service = Arc::new(NameService::new(settings, kv, clock));
        let server = Server::new(Arc::clone(&service), limits);
        show(&service, &server, telemetry);
        let (shutdown, stopped) = watch::channel(false);
        let scanning = tokio::spawn(scan(service, server.clone(), scan_interval));
        let serving = tokio::spawn(server.serve(listener, stopped));
        tracing::info!(%addr, "name server listens");
        Ok(RunningNameServer { addr, shutdown, serving, scanning })
    }
}

impl RunningNameServer {
    /// Stops accepting, closes the connections and waits for their end.
    pub async fn stop(mut self) {
        self.scanning.abort();
        // Nobody listens when the server has ended by itself.
        let _ = self.shutdown.send(true);
        if let Err(error) = (&mut self.serving).await {
            tracing::error!(%error, "the name server ended badly");
        }
    }
}

impl Drop for RunningNameServer {
    fn drop(&mut self) {
        self.scanning.abort();
    }
}

/// Looks for silent brokers, and closes their connections so that they notice and come back.
async fn scan(service: Arc<NameService>, server: Server<NameService>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for id in service.expire() {
            if let Some(connection) = server.connection(id) {
                connection.close(CloseReason::Service("the broker was silent for too long"));
            }
        }
    }
}

/// Adds readiness and metrics; both end with the service, whatever the telemetry outlives.
fn show(service: &Arc<NameService>, server: &Server<NameService>, telemetry: &Telemetry) {
    describe_metrics();
    let checked = Arc::downgrade(service);
    telemetry.add_check("nameserver", move || match checked.upgrade() {
        Some(service) => service.ready(),
        None => Err("stopped".into()),
    });
    let measured = Arc::downgrade(service);
    let counters = server.counters();
    telemetry.on_scrape(Box::new(move || {
        let Some(service) = measured.upgrade() else { return };
        service.record_metrics();
        let open = counters.connections.load(Ordering::Relaxed);
        metrics::gauge!("gantry_nameserver_connections").set(open as f64);
        let broken = counters.broken_frames.load(Ordering::Relaxed);
        metrics::counter!("gantry_nameserver_broken_frames_total").absolute(broken);
    }));
}

fn describe_metrics() {
    let count = Unit::Count;
    describe_gauge!("gantry_nameserver_broker_groups", count, "Broker groups that are registered.");
    describe_gauge!("gantry_nameserver_brokers", count, "Brokers that are registered and alive.");
    describe_gauge!("gantry_nameserver_topics", count, "Topics that have a route.");
    describe_gauge!("gantry_nameserver_clusters", count, "RocketMQ clusters that are registered.");
    describe_gauge!("gantry_nameserver_kv_entries", count, "Keys of the key-value configuration.");
    describe_gauge!("gantry_nameserver_connections", count, "Open connections.");
    describe_counter!("gantry_nameserver_requests_total", count, "Requests by request code.");
    describe_counter!(
        "gantry_nameserver_broken_frames_total",
        count,
        "Connections closed for bytes that are no frame."
    );
    describe_counter!(
        "gantry_nameserver_registrations_total",
        count,
        "Registrations of brokers by result."
    );
    describe_counter!(
        "gantry_nameserver_invalid_topics_total",
        count,
        "Topics left out of registrations because they are not valid."
    );
    describe_counter!(
        "gantry_nameserver_brokers_gone_total",
        count,
        "Brokers forgotten, by reason: silent, disconnected or unregistered."
    );
}
