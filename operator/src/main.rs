//! The operator's program: settings, logs, HTTP port, Lease, controllers, signals.
//! Invariant: it ends with success only after a signal; losing the Lease ends it at once, with failure.
//! Leaves everything else to the library.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use gantry_operator::{Context, Settings, controllers, leader::Candidate, requests::CountRequests};
use gantry_telemetry::{Telemetry, init_logs};
use kube::{Config, client::ClientBuilder};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match serve(Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(settings: Settings) -> anyhow::Result<()> {
    init_logs(settings.log_format, &settings.log_level)?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let telemetry = Telemetry::new()?;
    let config = Config::infer().await.context("find the Kubernetes API")?;
    let client = ClientBuilder::try_from(config)?.with_layer(&CountRequests).build();
    let http = telemetry.serve(settings.http_addr).await?;
    let identity = settings.identity.clone().unwrap_or_else(identity);
    let ctx = Arc::new(Context::new(client.clone(), settings));
    let mut candidate = Candidate::new(client, &ctx.operator_namespace, identity);
    println!("ready http={}", http.addr());

    let stop = CancellationToken::new();
    let signalled = async {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stops: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stops: SIGINT"),
        }
        stop.cancel();
    };
    tokio::pin!(signalled);
    let acquired = tokio::select! {
        () = candidate.acquire() => true,
        () = &mut signalled => false,
    };
    if !acquired {
        http.stop().await;
        return Ok(());
    }
    tracing::info!("works: holds the Lease");
    // A process that stands by is ready; one that works is so when it knows what there is.
    let caches = telemetry.add_state("caches", "are being filled");
    let work = async {
        let work = controllers::run(ctx, stop.clone(), || caches.set_ready());
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => ended,
            // The reconciles that run come to their end.
            () = signalled => work.await,
        }
    };
    let worked = tokio::select! {
        worked = work => worked,
        // The Lease is free to others soon: nothing more may be written, not even to its end.
        lost = candidate.keep() => return Err(lost.into()),
    };
    candidate.release().await;
    http.stop().await;
    Ok(worked?)
}

/// One for each process, also on one host.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "gantry-operator".into());
    format!("{host}-{}", std::process::id())
}
