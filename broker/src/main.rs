//! The `gantry-broker` binary: settings, logs, signals, and the broker in between.
//! Invariant: SIGTERM and SIGINT stop the broker cleanly; any failure is an exit code and one line.
//! Leaves everything else to the library.

use std::net::SocketAddr;

use anyhow::Context;
use gantry_broker::Broker;
use gantry_model::settings::{self, BrokerSettings, Start};
use gantry_telemetry::{LogFormat, Telemetry, init_logs};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let settings = match settings::from_process::<BrokerSettings>()? {
        Start::Run(settings) => settings,
        Start::Help => {
            print!("{}", settings::reference::<BrokerSettings>()?);
            return Ok(());
        }
        Start::Version => {
            println!("gantry-broker {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
    };
    let format = match settings.log_format {
        settings::LogFormat::Text => LogFormat::Text,
        settings::LogFormat::Json => LogFormat::Json,
    };
    init_logs(format, settings.log_level.as_str())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(settings))
}

async fn run(settings: BrokerSettings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let telemetry = Telemetry::new()?;
    let http_address = SocketAddr::new(settings.bind, settings.http_port);
    // Before the log is recovered, so that "alive, not ready" is an answer.
    let http = telemetry.serve(http_address).await.context("serve health and metrics")?;
    let broker = Broker::start(settings, &telemetry).await.context("start the broker")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    broker.stop().await.context("stop the broker")?;
    http.stop().await;
    Ok(())
}
