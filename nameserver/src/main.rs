//! The name server's program: settings, logs, HTTP port, server, signals.
//! Invariant: it ends with success only after a signal and a clean stop.
//! Leaves everything else to the library.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context;
use gantry_model::settings::{NameServerSettings, Start, from_process, reference};
use gantry_nameserver::NameServer;
use gantry_telemetry::{Telemetry, init_logs, print};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-nameserver: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match from_process::<NameServerSettings>()? {
        Start::Run(settings) => serve(settings),
        Start::Help => {
            let reference = reference::<NameServerSettings>()?;
            Ok(print(&format!(
                "Usage: gantry-nameserver [--config FILE] [--KEY VALUE]...\n\n\
                 Each key is a line of the file, an argument (--http-port) and a variable \
                 (GANTRY_HTTP_PORT).\n\n{reference}"
            ))?)
        }
        Start::Version => {
            Ok(print(concat!("gantry-nameserver ", env!("CARGO_PKG_VERSION"), "\n"))?)
        }
    }
}

#[tokio::main]
async fn serve(settings: NameServerSettings) -> anyhow::Result<()> {
    settings.validate()?;
    init_logs(settings.log_format.as_str().parse()?, settings.log_level.as_str())?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let telemetry = Telemetry::new()?;
    let http_addr = SocketAddr::new(settings.bind, settings.http_port);
    let server = NameServer::start(settings, &telemetry).await?;
    let http = telemetry.serve(http_addr).await?;
    println!("ready nameserver={} http={}", server.addr, http.addr());
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stops: SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stops: SIGINT"),
    }
    server.stop().await;
    http.stop().await;
    Ok(())
}
