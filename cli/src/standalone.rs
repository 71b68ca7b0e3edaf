//! `gantry standalone`: name server and broker in one process, with one data folder.
//! Invariant: the line `ready …` is printed once both serve, the broker is registered, and what
//! `--apply` names exists; SIGTERM and SIGINT stop both cleanly, and end a start at once.
//! Leaves all serving to the two libraries.

pub(crate) mod apply;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::{ArgAction, Args, ValueEnum};
use gantry_broker::{Broker, RunningBroker};
use gantry_model::settings::{BrokerSettings, Bytes, FlushMode, NameServerSettings, OnFull};
use gantry_nameserver::{NameServer, RunningNameServer};
use gantry_telemetry::{LogFormat, Telemetry, init_logs};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::output;

/// How often the start looks whether the broker is registered.
const REGISTERED_LOOK: Duration = Duration::from_millis(2);
/// The port at which clients expect the VIP channel two below.
const REMOTING_PORT: u16 = 10_911;
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// When a message is answered.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Flush {
    /// After it has reached the disk.
    Sync,
    /// As soon as it is written.
    Async,
}

/// What happens when the log has its size, or the disk is full. Spelled as in the broker's settings.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Full {
    /// Messages are refused until retention has made room.
    Refuse,
    /// The oldest messages go, whatever their age.
    DeleteOldest,
}

/// Run a name server and a broker in this process.
#[derive(Debug, Args)]
pub(crate) struct StandaloneArgs {
    /// Folder of all data; it is created when missing.
    #[arg(long, value_name = "DIR", default_value = "gantry-data")]
    data: PathBuf,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port of the name server; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 9876)]
    nameserver_port: u16,
    /// Port of the broker's remoting protocol; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = REMOTING_PORT)]
    remoting_port: u16,
    /// Port of the broker's gRPC protocol; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    grpc_port: u16,
    /// Port of health and metrics; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http_port: u16,
    /// Whether the broker also listens two below the remoting port [default: with port 10911 only].
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    vip_channel: Option<bool>,
    /// When a message is answered.
    #[arg(long, value_enum, default_value = "async")]
    flush: Flush,
    /// Bytes of a log file, such as 64Mi [default: 1Gi].
    #[arg(long, value_name = "BYTES")]
    segment_size: Option<Bytes>,
    /// Bytes of the log beyond which its oldest files go, at least two of them [default: only age counts].
    #[arg(long, value_name = "BYTES")]
    retention_size: Option<Bytes>,
    /// Bytes that the log's files may take, at least eight of them [default: as much as the disk takes].
    #[arg(long, value_name = "BYTES")]
    log_size_max: Option<Bytes>,
    /// What happens when the log has that size, or the disk is full.
    #[arg(long, value_enum, default_value = "refuse")]
    on_full: Full,
    /// Host that clients connect to [default: the bind address].
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "DefaultCluster")]
    cluster_name: String,
    /// Name of the broker.
    #[arg(long, value_name = "NAME", default_value = "broker-a")]
    broker_name: String,
    /// Whether a message to an unknown topic makes it.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    auto_create_topics: bool,
    /// Folder, or file, with `Topic` and `ConsumerGroup` YAML to create before serving is announced.
    #[arg(long, value_name = "DIR")]
    apply: Option<PathBuf>,
    /// Least important lines that are logged, on standard error: error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = LOG_LEVELS)]
    log_level: String,
}

/// Serves until a signal arrives.
pub(crate) fn run(args: StandaloneArgs) -> anyhow::Result<()> {
    init_logs(LogFormat::Text, &args.log_level)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(args))
}

async fn serve(args: StandaloneArgs) -> anyhow::Result<()> {
    let manifests = args.apply.as_deref().map(apply::read).transpose()?.unwrap_or_default();
    let mut stop = StopSignals::listen()?;
    let servers = tokio::select! {
        started = Servers::start(&args) => started?,
        () = stop.received() => end_start(),
    };
    let announced = servers.announce(&manifests, &mut stop).await;
    if let Ok(true) = announced {
        stop.received().await;
    }
    // Also when announcing failed: what was stored meanwhile has to reach the disk.
    let stopped = servers.stop().await;
    announced.and(stopped)
}

/// Ends a process whose broker has not started. Nothing was answered yet, and the next start recovers the log from
/// any point, so a recovery that is under way is not waited for. Its thread still uses the views: the process ends
/// without the clean-up of libraries, which would take them away under its feet.
fn end_start() -> ! {
    tracing::info!("stops before it has started");
    signal_hook::low_level::exit(0)
}

/// The two servers and their HTTP port.
struct Servers {
    name_server: RunningNameServer,
    broker: RunningBroker,
    http: gantry_telemetry::HttpServer,
    telemetry: Telemetry,
}

impl Servers {
    async fn start(args: &StandaloneArgs) -> anyhow::Result<Self> {
        let telemetry = Telemetry::new()?;
        let http = telemetry.serve(SocketAddr::new(args.bind, args.http_port)).await?;
        let name_server = NameServer::start(name_server_settings(args), &telemetry).await?;
        let settings = broker_settings(args, name_server.addr);
        let broker = Broker::start(settings, &telemetry).await?;
        Ok(Self { name_server, broker, http, telemetry })
    }

    /// Prints `ready …` as soon as it is true. Returns `false` when a signal came first.
    async fn announce(
        &self,
        manifests: &apply::Manifests,
        stop: &mut StopSignals,
    ) -> anyhow::Result<bool> {
        let prepare = async {
            while !self.telemetry.ready().is_ready() {
                tokio::time::sleep(REGISTERED_LOOK).await;
            }
            apply::create(manifests, reachable(self.name_server.addr)).await
        };
        tokio::select! {
            prepared = prepare => prepared?,
            () = stop.received() => return Ok(false),
        }
        let addresses = self.broker.addresses();
        output::line(&format!(
            "ready nameserver={} remoting={} grpc={} http={}",
            self.name_server.addr,
            addresses.remoting,
            addresses.grpc,
            self.http.addr()
        ))?;
        Ok(true)
    }

    async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.broker.stop().await.context("stop the broker");
        self.name_server.stop().await;
        self.http.stop().await;
        stopped
    }
}

fn name_server_settings(args: &StandaloneArgs) -> NameServerSettings {
    NameServerSettings {
        bind: args.bind,
        port: args.nameserver_port,
        data_dir: Some(args.data.join("nameserver")),
        expected_brokers: vec![args.broker_name.clone()],
        // There is no serving without the broker, so the longest wait that the setting allows.
        ready_wait_max: gantry_model::settings::Duration::from_secs(600),
        ..NameServerSettings::default()
    }
}

fn broker_settings(args: &StandaloneArgs, name_server: SocketAddr) -> BrokerSettings {
    let default = BrokerSettings::default();
    BrokerSettings {
        segment_size: args.segment_size.unwrap_or(default.segment_size),
        retention_size: args.retention_size,
        log_size_max: args.log_size_max,
        on_full: match args.on_full {
            Full::Refuse => OnFull::Refuse,
            Full::DeleteOldest => OnFull::DeleteOldest,
        },
        cluster_name: args.cluster_name.clone(),
        broker_name: args.broker_name.clone(),
        data_dir: args.data.join("broker"),
        bind: args.bind,
        advertise: args.advertise.clone(),
        remoting_port: args.remoting_port,
        vip_channel: args.vip_channel.unwrap_or(args.remoting_port == REMOTING_PORT),
        grpc_port: args.grpc_port,
        http_port: args.http_port,
        name_servers: vec![reachable(name_server).to_string()],
        flush: match args.flush {
            Flush::Sync => FlushMode::Sync,
            Flush::Async => FlushMode::Async,
        },
        auto_create_topics: args.auto_create_topics,
        ..default
    }
}

/// The address at which this process reaches a server that it bound to `address` itself.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind, name: &str| signal(kind).with_context(|| format!("listen for {name}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: StandaloneArgs,
    }

    fn settings(arguments: &[&str]) -> BrokerSettings {
        let line = ["standalone"].iter().chain(arguments);
        broker_settings(&Line::try_parse_from(line).unwrap().args, "127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn size_of_the_log_and_what_happens_at_it_reach_the_broker() {
        let limited = settings(&["--log-size-max", "2Gi", "--on-full", "delete_oldest"]);
        assert_eq!(limited.log_size_max, Some(Bytes::gib(2)));
        assert_eq!(limited.on_full, OnFull::DeleteOldest);
        let refusing = settings(&["--on-full", "refuse"]);
        assert_eq!((refusing.log_size_max, refusing.on_full), (None, OnFull::Refuse));
    }

    #[test]
    fn what_is_not_said_is_as_in_a_broker_without_settings() {
        let (said, default) = (settings(&[]), BrokerSettings::default());
        assert_eq!(said.segment_size, default.segment_size);
        assert_eq!(said.retention_size, default.retention_size);
        assert_eq!((said.log_size_max, said.on_full), (default.log_size_max, default.on_full));
        assert_eq!(said.flush, default.flush);
    }
}
