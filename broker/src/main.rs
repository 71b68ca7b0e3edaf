//! The `gantry-broker` binary: settings, logs, signals, and the broker in between.
//! Invariant: SIGTERM and SIGINT stop the broker cleanly, during its start too; any failure is an exit code and one
//! line. Works as process 1 of a container: it has handlers of its own and starts no other process.
//! Leaves everything else to the library.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context;
use gantry_broker::{Broker, RunningBroker};
use gantry_model::settings::{self, BrokerSettings, Start};
use gantry_telemetry::{HttpServer, LogFormat, Telemetry, init_logs, print};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait at the end for threads that ask DNS; nothing depends on their answers any more.
const THREADS_END_MAX: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-broker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let settings = match settings::from_process::<BrokerSettings>()? {
        Start::Run(settings) => settings,
        Start::Help => {
            return Ok(print(&settings::reference::<BrokerSettings>()?)?);
        }
        Start::Version => {
            return Ok(print(concat!("gantry-broker ", env!("CARGO_PKG_VERSION"), "\n"))?);
        }
    };
    let format = match settings.log_format {
        settings::LogFormat::Text => LogFormat::Text,
        settings::LogFormat::Json => LogFormat::Json,
    };
    init_logs(format, settings.log_level.as_str())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(THREADS_END_MAX);
    ended
}

async fn serve(settings: BrokerSettings) -> anyhow::Result<()> {
    let mut stop = StopSignals::listen()?;
    let telemetry = Telemetry::new()?;
    let http_address = SocketAddr::new(settings.bind, settings.http_port);
    // Before the log is recovered, so that "alive, not ready" is an answer.
    let http = telemetry.serve(http_address).await.context("serve health and metrics")?;
    let broker = tokio::select! {
        started = Broker::start(settings, &telemetry) => started.context("start the broker")?,
        signal = stop.received() => end_start(signal),
    };
    announce(&broker, &http);
    let signal = stop.received().await;
    tracing::info!("stops: {signal}");
    broker.stop().await.context("stop the broker")?;
    http.stop().await;
    Ok(())
}

/// Ends a process whose broker has not started. Nothing was answered yet, and the next start recovers the log from
/// any point, so a recovery that is under way is not waited for. Its thread still uses the views: the process ends
/// without the clean-up of libraries, which would take them away under its feet.
fn end_start(signal: &str) -> ! {
    tracing::info!("stops before it has started: {signal}");
    signal_hook::low_level::exit(0)
}

fn announce(broker: &RunningBroker, http: &HttpServer) {
    let addresses = broker.addresses();
    println!("ready remoting={} grpc={} http={}", addresses.remoting, addresses.grpc, http.addr());
}

/// The signals that stop a server.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        })
    }

    /// Waits for one, and says which.
    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
