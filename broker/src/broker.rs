//! Puts a broker together, starts it and stops it.
//! Invariant: what was started is stopped in the reverse order; nothing is answered before the log is recovered,
//! and nothing that was answered is lost by stopping.
//! Leaves what a broker does to the services.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use gantry_model::{
    NameError,
    settings::{
        self, BrokerSettings, BrokerSettingsError, Bytes, FlushMode, MemoryError, MemorySizes,
    },
};
use gantry_remoting::server::{Server, ServerLimits};
use gantry_store::{
    CloseError, Flush, Now, OnFull, OpenError, OpenReport, Retention, RoomOptions, Store,
    StoreOptions,
};
use gantry_telemetry::{ReadyState, Telemetry};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    memory::Memory,
    metrics::Metrics,
    registration::Registration,
    remoting::Front,
    resolve::{Resolve, SystemResolver, resolve_advertised},
    services::{Services, clock::Clock, groups::GroupError, topics::TopicError},
    upkeep::Upkeep,
};

/// Distance of the VIP channel's port below the remoting port.
const VIP_DISTANCE: u16 = 2;
/// Files of a segment's size that are kept for state: one for what is carried out of a segment and one for an image.
const RESERVE_FILES: usize = 2;
/// Tries to find two free ports at that distance, when any free ones will do.
const PORT_TRIES: usize = 50;
/// Time that servers get beyond the drain to end by themselves.
const SERVER_SLACK: Duration = Duration::from_secs(2);
/// Time between two tries to resolve the advertised host at start.
const RESOLVE_RETRY: Duration = Duration::from_millis(500);
/// One of so many parts of the memory for connections is for those of gRPC.
const GRPC_PART: usize = 4;
/// How often held pulls are looked through for those whose time is up.
const HOLD_TICK: Duration = Duration::from_millis(100);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its range.
    #[error("check the settings")]
    Settings(#[from] BrokerSettingsError),
    /// There is too little memory.
    #[error("share out the memory")]
    Memory(#[from] MemoryError),
    /// A port could not be taken.
    #[error("listen on {address} for {what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The store could not be opened.
    #[error("open the store in {dir}")]
    Store {
        /// Its folder.
        dir: PathBuf,
        /// The cause.
        source: OpenError,
    },
    /// A name in the settings cannot be a topic.
    #[error("name the broker's own topics")]
    Name(#[from] NameError),
    /// The broker's own topics could not be made.
    #[error("make the broker's own topics")]
    Topics(#[from] TopicError),
    /// The broker's own groups could not be made.
    #[error("make the broker's own groups")]
    Groups(#[from] GroupError),
    /// The system gave no thread.
    #[error("start the background threads")]
    Threads(#[source] io::Error),
    /// A task of the start panicked.
    #[error("a task of the start did not end")]
    Task(#[from] tokio::task::JoinError),
}

/// Why a broker did not stop cleanly. What was answered is safe: the next start recovers it.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// The store did not close.
    #[error("close the store")]
    Store(#[from] CloseError),
    /// A task panicked.
    #[error("a task did not end")]
    Task(#[from] tokio::task::JoinError),
}

/// Where a broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The remoting protocol.
    pub remoting: SocketAddr,
    /// The same, for clients that use the VIP channel.
    pub vip: Option<SocketAddr>,
    /// The gRPC protocol.
    pub grpc: SocketAddr,
}

/// Opens a broker's store, on the disk or on something else.
pub type OpenStore =
    Box<dyn FnOnce(StoreOptions, Now) -> Result<(Arc<Store>, OpenReport), OpenError> + Send>;

/// Starts brokers.
#[derive(Debug, Clone, Copy)]
pub struct Broker;

/// A broker that serves. Stop it with [`RunningBroker::stop`].
pub struct RunningBroker {
    services: Arc<Services>,
    addresses: Addresses,
    ready: ReadyState,
    upkeep: Upkeep,
    shutdown: watch::Sender<bool>,
    unregister: watch::Sender<bool>,
    registration: JoinHandle<()>,
    servers: JoinSet<()>,
    holds: JoinHandle<()>,
}

impl Broker {
    /// Opens the store, recovers it, and serves. Health checks and metrics are added to `telemetry`, whose port
    /// the caller serves.
    ///
    /// Waits for as long as the advertised host does not resolve: in Kubernetes the name of a Service may come
    /// seconds after the pod. Until the store is open, dropping the future ends the start without a trace.
    pub async fn start(
        settings: BrokerSettings,
        telemetry: &Telemetry,
    ) -> Result<RunningBroker, StartError> {
        Self::start_with(settings, telemetry, Arc::new(SystemResolver)).await
    }

    /// The same with a resolver of the caller's.
    pub async fn start_with(
        settings: BrokerSettings,
        telemetry: &Telemetry,
        resolver: Arc<dyn Resolve>,
    ) -> Result<RunningBroker, StartError> {
        Self::start_over(settings, telemetry, resolver, Clock::new(), Box::new(Store::open)).await
    }

    /// The same over a store that the caller opens, on a disk of its own, and by the caller's clock.
    pub async fn start_over(
        settings: BrokerSettings,
        telemetry: &Telemetry,
        resolver: Arc<dyn Resolve>,
        clock: Clock,
        open_store: OpenStore,
    ) -> Result<RunningBroker, StartError> {
        settings.validate()?;
        let memory = Memory::share_out(&settings)?;
        let ready = telemetry.add_state("broker", "the ports are not open yet");
        let registered = settings.name_server_list().next().is_some().then(|| {
            telemetry.add_state("registration", "not registered with any name server yet")
        });
        let settings = Arc::new(settings);
        let (listener, vip_listener) = listen(&settings).await?;
        let grpc_listener = bind(&settings, settings.grpc_port, "gRPC").await?;
        let addresses = Addresses {
            remoting: local(&listener)?,
            vip: vip_listener.as_ref().map(local).transpose()?,
            grpc: local(&grpc_listener)?,
        };
        let address = own_address(&settings, &resolver, addresses.remoting.port(), &ready).await;
        ready.set_not_ready("the log is not recovered yet");
        let services =
            open(Arc::clone(&settings), memory.sizes, address, clock, open_store).await?;
        let front = Front::new(Arc::clone(&services), tokio::runtime::Handle::current())
            .map_err(StartError::Threads)?;
        let upkeep = Upkeep::start(&services).map_err(StartError::Threads)?;

        let (shutdown, stopped) = watch::channel(false);
        let server = Server::new(Arc::new(front), limits(&settings, memory.sizes));
        let remoting = server.counters();
        let mut servers = JoinSet::new();
        for listener in [Some(listener), vip_listener].into_iter().flatten() {
            servers.spawn(server.clone().serve(listener, stopped.clone()));
        }
        let grpc_bytes = memory.sizes.connections.get() as usize / GRPC_PART;
        servers.spawn(serve_grpc(grpc_listener, Arc::clone(&services), grpc_bytes, stopped));
        let (unregister, unregistered) = watch::channel(false);
        let port = addresses.remoting.port();
        let registration = Registration::new(Arc::clone(&services), resolver, port, registered);
        let registration = tokio::spawn(registration.run(unregistered));
        let holds = tokio::spawn(expire_holds(Arc::clone(&services)));

        let metrics = Metrics { services: Arc::clone(&services), remoting, server, memory };
        telemetry.on_scrape(Box::new(move || metrics.export()));
        add_checks(telemetry, &services);
        ready.set_ready();
        tracing::info!(remoting = %addresses.remoting, grpc = %addresses.grpc, "broker serves");
        Ok(RunningBroker {
            services,
            addresses,
            ready,
            upkeep,
            shutdown,
            unregister,
            registration,
            servers,
            holds,
        })
    }
}

impl RunningBroker {
    /// Where it listens, with the ports that it got where 0 was asked for.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The services, for another front door in the same process.
    pub fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }

    /// Turns true when the broker stops; other front doors end with it.
    pub fn shutdown(&self) -> watch::Receiver<bool> {
        self.shutdown.subscribe()
    }

    /// Stops: new messages are refused, name servers are told, held pulls are answered, open connections are
    /// served for as long as the settings allow, and the store is synced and closed.
    pub async fn stop(self) -> Result<(), StopError> {
        let Self { services, ready, upkeep, shutdown, unregister, registration, .. } = self;
        ready.set_not_ready("the broker is stopping");
        services.lifecycle.stop();
        unregister.send_replace(true);
        registration.await?;
        services.holds.stop();
        self.holds.abort();
        shutdown.send_replace(true);
        end_servers(self.servers, services.settings.drain.as_std() + SERVER_SLACK).await?;
        tokio::task::spawn_blocking(move || {
            upkeep.stop();
            services.store.close(services.clock.now())
        })
        .await??;
        tracing::info!("broker stopped");
        Ok(())
    }
}

/// What readiness and liveness ask of a broker that serves.
fn add_checks(telemetry: &Telemetry, services: &Arc<Services>) {
    let lifecycle = Arc::clone(&services.lifecycle);
    telemetry.add_check("log", move || lifecycle.ready());
    let lifecycle = Arc::clone(&services.lifecycle);
    telemetry.add_liveness("log", move || lifecycle.alive());
    let services = Arc::clone(services);
    // Not a failure of the broker: what is intact is served, messages are taken, and a broker that stops is let end.
    telemetry.add_liveness("views", move || {
        let file = services.store.damaged_views().filter(|_| !services.lifecycle.is_stopping());
        file.map_or(Ok(()), |file| {
            let file = file.display();
            Err(format!("damaged at {file}; the next start makes them again from the log"))
        })
    });
}

/// The address that clients use, as soon as the advertised host has one.
async fn own_address(
    settings: &BrokerSettings,
    resolver: &Arc<dyn Resolve>,
    port: u16,
    ready: &ReadyState,
) -> SocketAddr {
    let host = settings.advertised_host();
    let mut logged = false;
    loop {
        match resolve_advertised(resolver, &host, port).await {
            Ok(address) => return address,
            Err(error) => {
                ready
                    .set_not_ready(format!("the advertised host {host} does not resolve: {error}"));
                if !logged {
                    tracing::warn!(host, %error, "the advertised host does not resolve yet; trying on");
                }
                logged = true;
                sleep(RESOLVE_RETRY).await;
            }
        }
    }
}

/// Opens the store and makes what a broker has from the start.
async fn open(
    settings: Arc<BrokerSettings>,
    memory: MemorySizes,
    address: SocketAddr,
    clock: Clock,
    open_store: OpenStore,
) -> Result<Arc<Services>, StartError> {
    let opened = tokio::task::spawn_blocking(move || {
        let now = clock.now();
        let dir = settings.data_dir.clone();
        let (store, report) = open_store(store_options(&settings, memory), now)
            .map_err(|source| StartError::Store { dir, source })?;
        tracing::info!(
            records_replayed = report.records_replayed,
            views_rebuilt = report.views_rebuilt,
            cut_at = report.cut_at.map(|position| position.0),
            damaged = report.damage.len(),
            "store opened"
        );
        let services = Services::new(settings, memory, store, clock, address)?;
        make_own(&services, now)?;
        Ok::<_, StartError>(Arc::new(services))
    });
    opened.await?
}

fn make_own(services: &Services, now: Now) -> Result<(), StartError> {
    services.topics.make_own(now)?;
    services.groups.make_own(now)?;
    Ok(())
}

fn store_options(settings: &BrokerSettings, memory: MemorySizes) -> StoreOptions {
    StoreOptions {
        flush: match settings.flush {
            FlushMode::Sync => Flush::Sync,
            FlushMode::Async => Flush::Async,
        },
        segment_bytes: settings.segment_size.get(),
        dirty_bytes_max: settings.dirty_bytes_max.get(),
        retention: Retention {
            age_ms: settings.retention.as_millis(),
            bytes: settings.retention_size.map(Bytes::get),
        },
        room: RoomOptions {
            reserve_files: RESERVE_FILES,
            bytes_max: settings.log_size_max.map(Bytes::get),
            ..RoomOptions::default()
        },
        on_full: match settings.on_full {
            settings::OnFull::Refuse => OnFull::Refuse,
            settings::OnFull::DeleteOldest => OnFull::DeleteOldest,
        },
        ring_bytes_max: memory.ring.get() as usize,
        young_bytes: settings.young_size.get(),
        log_block_bytes: memory.log_blocks.get() as usize,
        key_bytes: memory.keys.get() as usize,
        view_cache_bytes: memory.view_cache.get() as usize,
        view_write_bytes: memory.view_write.get() as usize,
        ..StoreOptions::new(settings.data_dir.clone())
    }
}

fn limits(settings: &BrokerSettings, memory: MemorySizes) -> ServerLimits {
    ServerLimits {
        held_bytes_max: (memory.connections.get() as usize / GRPC_PART) * (GRPC_PART - 1),
        // The system's buffers count against a container's limit too.
        receive_bytes_max: memory.connections.get() as usize,
        connections_max: settings.connections_max as usize,
        drain_timeout: settings.drain.as_std(),
        ..ServerLimits::default()
    }
}

/// Takes the remoting port and, if asked for, the one two below.
async fn listen(
    settings: &BrokerSettings,
) -> Result<(TcpListener, Option<TcpListener>), StartError> {
    let any = settings.remoting_port == 0;
    let tries = if any && settings.vip_channel { PORT_TRIES } else { 1 };
    let mut last = None;
    for _ in 0..tries {
        let main = bind(settings, settings.remoting_port, "remoting").await?;
        if !settings.vip_channel {
            return Ok((main, None));
        }
        let port = local(&main)?.port().saturating_sub(VIP_DISTANCE);
        match bind(settings, port, "remoting, VIP channel").await {
            Ok(vip) => return Ok((main, Some(vip))),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("the loop runs at least once and ends with an error alone"))
}

async fn bind(
    settings: &BrokerSettings,
    port: u16,
    what: &'static str,
) -> Result<TcpListener, StartError> {
    let address = SocketAddr::new(settings.bind, port);
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, what, source })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| StartError::Listen {
        address: unbound,
        what: "its own address",
        source,
    })
}

async fn serve_grpc(
    listener: TcpListener,
    services: Arc<Services>,
    bytes_max: usize,
    stopped: watch::Receiver<bool>,
) {
    if let Err(error) = crate::grpc::serve(listener, services, bytes_max, stopped).await {
        tracing::error!(%error, "the gRPC port ended");
    }
}

/// Waits until the servers have ended, and ends those that take too long.
async fn end_servers(mut servers: JoinSet<()>, patience: Duration) -> Result<(), StopError> {
    let ended = tokio::time::timeout(patience, async {
        while let Some(ended) = servers.join_next().await {
            ended?;
        }
        Ok(())
    });
    if let Ok(ended) = ended.await {
        return ended;
    }
    servers.shutdown().await;
    Ok(())
}

async fn expire_holds(services: Arc<Services>) {
    let mut ticks = interval(HOLD_TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        services.holds.expire(services.clock.monotonic_ms());
    }
}
