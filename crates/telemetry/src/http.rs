//! The HTTP port: `/healthz`, `/readyz` and `/metrics`.
//! Invariant: `/healthz` answers whenever the process can answer at all; connections have a bound in number and in
//! silence, and stopping waits for no client beyond a bound.
//! Leaves what is alive, what is ready and what is measured to `Telemetry`.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinHandle,
};

use crate::Telemetry;

/// Content type of Prometheus' text form.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Time between two moves of samples into buckets: bounds what an unscraped process holds.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Most connections at a time: kubelet, operator and a few scrapers keep one each. Further ones are closed at once,
/// so that they take no memory and the probes' own find room soon.
const CONNECTIONS_MAX: usize = 256;
/// Longest time for the head of a request, also of the next one on a connection that is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for open requests when the server stops.
const STOP_WAIT_MAX: Duration = Duration::from_secs(2);

/// Why the HTTP port does not serve.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be bound.
    #[error("listen on {addr} for HTTP")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The running HTTP port. Dropping it stops it at once; [`HttpServer::stop`] lets open requests end.
pub struct HttpServer {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: Abort,
    _upkeep: Abort,
}

/// Ends its task when it is dropped.
struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Telemetry {
    /// Serves health and metrics on `addr`; port 0 takes any free one.
    pub async fn serve(&self, addr: SocketAddr) -> Result<HttpServer, HttpError> {
        self.serve_within(addr, Limits::default()).await
    }

    async fn serve_within(
        &self,
        addr: SocketAddr,
        limits: Limits,
    ) -> Result<HttpServer, HttpError> {
        let bind = |source| HttpError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(accept(listener, router(self.clone()), limits, stopped));
        let upkeep = tokio::spawn(upkeep(self.clone()));
        Ok(HttpServer { addr, stop, serving: Abort(serving), _upkeep: Abort(upkeep) })
    }
}

/// Bounds of the port.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections_max: usize,
    header_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: CONNECTIONS_MAX, header_timeout: HEADER_TIMEOUT }
    }
}

/// Serves until `stopped` resolves, then waits for the requests that are open.
async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut stopped: oneshot::Receiver<()>,
) {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The sender's end, used or dropped, means the same.
            _ = &mut stopped => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let timeout = limits.header_timeout;
                tokio::spawn(talk(stream, router.clone(), timeout, graceful.watcher(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Answers the requests of one connection; `_permit` is its place among the connections.
async fn talk(
    stream: TcpStream,
    router: Router,
    header_timeout: Duration,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "an HTTP connection ended badly");
    }
}

impl HttpServer {
    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no more requests and waits, for at most two seconds, until the open ones are answered.
    pub async fn stop(mut self) {
        // Fails when the server has ended by itself, and then there is nothing to stop.
        let _ = self.stop.send(());
        if tokio::time::timeout(STOP_WAIT_MAX, &mut self.serving.0).await.is_err() {
            tracing::warn!("HTTP requests were cut off after {STOP_WAIT_MAX:?}");
        }
    }
}

async fn upkeep(telemetry: Telemetry) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        telemetry.upkeep();
    }
}

fn router(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(telemetry)
}

async fn healthz(State(telemetry): State<Telemetry>) -> Response {
    let report = telemetry.alive();
    if report.is_ready() {
        return "ok\n".into_response();
    }
    let reasons: Vec<_> = report
        .answers
        .iter()
        .filter_map(|(name, answer)| Some(format!("{name}: {}\n", answer.as_ref().err()?)))
        .collect();
    (StatusCode::SERVICE_UNAVAILABLE, reasons.concat()).into_response()
}

async fn readyz(State(telemetry): State<Telemetry>) -> Response {
    let report = telemetry.ready();
    let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report.to_string()).into_response()
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], telemetry.render_metrics()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    /// Longest time that anything may take: a test that reaches it has failed.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn soon<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, what).await.expect("it happens within the test's patience")
    }

    /// Status line and body of one request.
    async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn ready_only_when_every_component_is_and_healthy_all_along() {
        let telemetry = Telemetry::new().unwrap();
        let nameserver = telemetry.add_state("nameserver", "waits for broker shop-0");
        telemetry.add_check("broker", || Err("recovers".into()));
        let broker_fixed = telemetry.add_state("disk", "full");
        let server = telemetry.serve(ANY_PORT).await.unwrap();
        let (status, body) = get(server.addr(), "/readyz").await;
        assert_eq!(status, 503);
        assert_eq!(
            body,
            "not ready\nnameserver: waits for broker shop-0\nbroker: recovers\ndisk: full\n"
        );
        assert_eq!(get(server.addr(), "/healthz").await, (200, "ok\n".into()));
        nameserver.set_ready();
        broker_fixed.set_ready();
        assert_eq!(get(server.addr(), "/readyz").await.0, 503);
        server.stop().await;
    }

    #[tokio::test]
    async fn failed_liveness_check_fails_health_with_its_reason() {
        let telemetry = Telemetry::new().unwrap();
        let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = Arc::clone(&broken);
        telemetry.add_liveness("log", move || {
            if seen.load(std::sync::atomic::Ordering::SeqCst) {
                Err("failed".into())
            } else {
                Ok(())
            }
        });
        let server = telemetry.serve(ANY_PORT).await.unwrap();
        assert_eq!(get(server.addr(), "/healthz").await, (200, "ok\n".into()));
        broken.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(get(server.addr(), "/healthz").await, (503, "log: failed\n".into()));
        server.stop().await;
    }

    #[tokio::test]
    async fn client_that_never_ends_its_request_is_cut_off() {
        let telemetry = Telemetry::new().unwrap();
        let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
        let server = telemetry.serve_within(ANY_PORT, limits).await.unwrap();
        let mut slow = TcpStream::connect(server.addr()).await.unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").await.unwrap();
        let mut answer = Vec::new();
        // The end of the connection is what the test waits for; how it ends is the library's choice.
        let _ = soon(slow.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        server.stop().await;
    }

    #[tokio::test]
    async fn connection_beyond_the_limit_is_closed_and_the_next_one_finds_the_room_of_one_that_ended()
     {
        let telemetry = Telemetry::new().unwrap();
        let limits = Limits { connections_max: 1, ..Limits::default() };
        let server = telemetry.serve_within(ANY_PORT, limits).await.unwrap();
        let mut first = TcpStream::connect(server.addr()).await.unwrap();
        first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut byte = [0];
        first.read_exact(&mut byte).await.unwrap();
        let mut second = TcpStream::connect(server.addr()).await.unwrap();
        assert!(matches!(soon(second.read(&mut byte)).await, Ok(0) | Err(_)));
        drop(first);
        loop {
            let mut third = TcpStream::connect(server.addr()).await.unwrap();
            let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
            // It may be closed already: the end of the first one is noticed soon, not at once.
            if third.write_all(request).await.is_ok() && third.read_exact(&mut byte).await.is_ok() {
                break;
            }
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn process_without_failing_checks_is_ready() {
        let telemetry = Telemetry::new().unwrap();
        let state = telemetry.add_state("x", "starts");
        state.set_ready();
        let server = telemetry.serve(ANY_PORT).await.unwrap();
        assert_eq!(get(server.addr(), "/readyz").await, (200, "ready\nx: ok\n".into()));
        state.set_not_ready("stops");
        assert_eq!(get(server.addr(), "/readyz").await.0, 503);
        server.stop().await;
    }

    #[tokio::test]
    async fn scrape_runs_hooks_and_shows_the_process() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.on_scrape(Box::new(|| ::metrics::gauge!("hook_test").set(7.0)));
        ::metrics::histogram!("wait_test_seconds").record(0.003);
        let server = telemetry.serve(ANY_PORT).await.unwrap();
        let (status, body) = get(server.addr(), "/metrics").await;
        assert_eq!(status, 200);
        for expected in [
            "hook_test 7",
            "wait_test_seconds_bucket{le=\"0.005\"} 1",
            "process_resident_memory_bytes ",
            "process_anonymous_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_open_fds ",
        ] {
            assert!(body.contains(expected), "{expected} in {body}");
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn stopped_server_frees_its_port_and_a_taken_port_is_named() {
        let telemetry = Telemetry::new().unwrap();
        let server = telemetry.serve(ANY_PORT).await.unwrap();
        let addr = server.addr();
        let error = telemetry.serve(addr).await.err().unwrap().to_string();
        assert!(error.contains(&addr.to_string()), "{error}");
        server.stop().await;
        telemetry.serve(addr).await.unwrap().stop().await;
    }
}
