//! The server's end of remoting connections: accept, read, hand over, write, close.
//!
//! One task for each connection. All complete frames that one read brought are handed over
//! together, on the thread that read them, and their answers leave with one write.
//! Every buffer has a bound: held input, waiting output, connections, requests of one hand-over; and all connections
//! together have one, the budget.
//! What a request means is left to the [`Service`].

mod answers;
mod budget;
mod connection;
mod driver;
mod lag;
mod receive;
mod unsent;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use answers::{AnswerWriter, Answers};
pub use connection::{CallError, CloseReason, Connection, LateTurn, SendError};

use crate::frame::FRAME_BYTES;
use crate::header::{Encoding, HeaderView, ParseError};
use budget::Budget;
pub(crate) use budget::Held;
use driver::Driver;

/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time that a closing connection has to write what waits.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bounds of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Open connections of all listeners together; further ones are closed at once.
    pub connections_max: usize,
    /// Largest frame, in bytes, without its length field; at most that of the protocol, 16 MiB.
    pub frame_bytes_max: usize,
    /// Bytes that may wait for a connection's peer to read; beyond, the connection is closed.
    pub outbound_bytes_max: usize,
    /// Bytes of answers at which the rest of a read waits until they are written, and late ones wait for their turn:
    /// what a peer that does not read makes the server hold, besides a few answers.
    pub answer_bytes_max: usize,
    /// Bytes that all connections may hold together; beyond, those are closed that have held some for the longest.
    pub held_bytes_max: usize,
    /// Bytes that the system may hold for all connections before they are read: so little that it is read while its
    /// senders still wait. Each connection has its part once it is not read as fast as its peer sends.
    pub receive_bytes_max: usize,
    /// Requests that one hand-over may hold.
    pub batch_requests_max: usize,
    /// A connection on which nothing was read or written for this long is closed.
    pub idle_timeout: Duration,
    /// Time from the shutdown signal until connections that still are open are closed.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 65_536,
            frame_bytes_max: *FRAME_BYTES.end(),
            outbound_bytes_max: 32 * 1024 * 1024,
            answer_bytes_max: 256 * 1024,
            held_bytes_max: 128 * 1024 * 1024,
            receive_bytes_max: 128 * 1024 * 1024,
            batch_requests_max: 512,
            idle_timeout: Duration::from_mins(2),
            drain_timeout: Duration::from_millis(500),
        }
    }
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Takes the complete frames that one read brought, in order.
    ///
    /// Answers that are ready at once go to `answers`, which leave with one write; later ones go
    /// through [`Connection::answer`]. Requests that are left in the vector are handed over again
    /// once the answers so far are written, so a service can bound what one batch produces; at
    /// least one must be taken. Header and body share the memory of the read buffer: copy what
    /// outlives this call.
    fn handle(
        &self,
        connection: &Arc<Connection>,
        requests: &mut Vec<Request>,
        answers: &mut Answers,
    );

    /// A connection was accepted.
    fn opened(&self, _connection: &Arc<Connection>) {}

    /// A connection ended; nothing can be sent to it any more.
    fn closed(&self, connection: &Arc<Connection>);
}

/// One frame from a peer, its header not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Header encoding.
    pub encoding: Encoding,
    /// The encoded header.
    pub header: Bytes,
    /// The body, still encoded.
    pub body: Bytes,
}

impl Request {
    /// Reads the header; hand an error to [`Connection::reject`].
    pub fn view(&self) -> Result<HeaderView<'_>, ParseError> {
        let mut view = HeaderView::default();
        self.view_in(&mut view)?;
        Ok(view)
    }

    /// [`Request::view`] in the place of an earlier request's header, whose memory it uses.
    pub fn view_in<'a>(&'a self, view: &mut HeaderView<'a>) -> Result<(), ParseError> {
        view.read(self.encoding, &self.header)?;
        if view.is_response() {
            return Err(ParseError::UnexpectedResponse { opaque: view.opaque });
        }
        Ok(())
    }
}

/// Counts since the start of the server.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub accepted_connections: AtomicU64,
    /// Connections refused because of the limit.
    pub refused_connections: AtomicU64,
    /// Connections open at present.
    pub connections: AtomicU64,
    /// Connections closed for a frame or header that could not be read.
    pub broken_frames: AtomicU64,
    /// Connections closed because the peer reads too slowly.
    pub slow_readers_closed: AtomicU64,
    /// Connections closed because all of them together held too much, and these for the longest.
    pub holders_closed: AtomicU64,
    /// Connections closed because nothing happened on them.
    pub idle_closed: AtomicU64,
    /// Connections closed because the peer began a TLS handshake.
    pub tls_refused: AtomicU64,
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Bytes written.
    pub bytes_written: AtomicU64,
}

/// Serves any number of listeners with one service, one set of limits and counters.
pub struct Server<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Server<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

struct Shared<S> {
    budget: Arc<Budget>,
    service: Arc<S>,
    limits: ServerLimits,
    counters: Arc<Counters>,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    next_id: AtomicU64,
}

impl<S: Service> Server<S> {
    /// A server that listens nowhere yet.
    pub fn new(service: Arc<S>, limits: ServerLimits) -> Self {
        let shared = Shared {
            budget: Arc::new(Budget::new(limits.held_bytes_max)),
            service,
            limits,
            counters: Arc::default(),
            connections: Mutex::default(),
            next_id: AtomicU64::new(1),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The counters, which outlive the server.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// Bytes that all connections hold at present.
    pub fn held_bytes(&self) -> usize {
        self.shared.budget.bytes()
    }

    /// The open connection of that id.
    pub fn connection(&self, id: u64) -> Option<Arc<Connection>> {
        self.shared.connections.lock().get(&id).cloned()
    }

    /// Every open connection.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        self.shared.connections.lock().values().cloned().collect()
    }

    /// Accepts connections until `shutdown` turns true or its sender is gone, and returns when the
    /// last of them has ended.
    ///
    /// From the signal on nothing is accepted. Open connections are served for
    /// [`ServerLimits::drain_timeout`], so that the service can refuse with its own codes and
    /// answer what waits; then they are closed.
    pub async fn serve(self, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        let mut accepted: Vec<Arc<Connection>> = Vec::new();
        // Ended connections are let go whenever their list has doubled.
        let mut sweep_at = 64;
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                incoming = listener.accept() => match incoming {
                    Ok((stream, peer)) => {
                        if let Some(connection) = self.accept(stream, peer, &mut tasks) {
                            if accepted.len() >= sweep_at {
                                accepted.retain(|open| !open.is_closed());
                                sweep_at = 64 + 2 * accepted.len();
                            }
                            accepted.push(connection);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        drain(tasks, accepted, self.shared.limits.drain_timeout).await;
    }

    fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tasks: &mut JoinSet<()>,
    ) -> Option<Arc<Connection>> {
        let Shared { limits, counters, connections, next_id, .. } = &*self.shared;
        if connections.lock().len() >= limits.connections_max {
            counters.refused_connections.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%peer, limit = limits.connections_max, "connection refused: limit");
            return None;
        }
        let local = match stream.set_nodelay(true).and_then(|()| stream.local_addr()) {
            Ok(local) => local,
            Err(error) => {
                tracing::debug!(%peer, %error, "connection ended before it was served");
                return None;
            }
        };
        if let Err(error) = unsent::bound(&stream) {
            tracing::debug!(%peer, %error, "the system does not bound what it holds for the peer");
        }
        let id = next_id.fetch_add(1, Ordering::Relaxed);
        let held = Held::new(Arc::clone(&self.shared.budget));
        let connection = Arc::new(Connection::new(id, peer, local, limits, held));
        connections.lock().insert(id, Arc::clone(&connection));
        counters.accepted_connections.fetch_add(1, Ordering::Relaxed);
        counters.connections.fetch_add(1, Ordering::Relaxed);
        let open = Open { shared: Arc::clone(&self.shared), connection: Arc::clone(&connection) };
        tasks.spawn(open.run(stream));
        Some(connection)
    }
}

/// Waits for the signal, or for the end of whoever could give it.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // What is returned holds a lock, so it may not live beyond this function.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn drain(mut tasks: JoinSet<()>, accepted: Vec<Arc<Connection>>, drain_timeout: Duration) {
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(drain_timeout, all_ended).await.is_ok() {
        return;
    }
    for connection in accepted {
        connection.close(CloseReason::Shutdown);
    }
    while tasks.join_next().await.is_some() {}
}

/// An open connection; its end is reported when this is dropped, even by a panic.
struct Open<S: Service> {
    shared: Arc<Shared<S>>,
    connection: Arc<Connection>,
}

impl<S: Service> Open<S> {
    async fn run(self, mut stream: TcpStream) {
        let Shared { service, counters, .. } = &*self.shared;
        service.opened(&self.connection);
        let mut driver = Driver::new(&self.shared, &self.connection);
        let reason = driver.run(&mut stream).await;
        count(counters, &reason);
        report(&self.connection, &reason);
        let is_given_up = matches!(reason, CloseReason::HeldTooMuch { .. });
        self.connection.close(reason);
        // What it holds is needed by others.
        if is_given_up {
            return;
        }
        if timeout(LAST_WRITE_TIMEOUT, driver.write_last(&mut stream)).await.is_err() {
            tracing::debug!(peer = %self.connection.peer(), "last answers were not read in time");
        }
    }
}

impl<S: Service> Drop for Open<S> {
    fn drop(&mut self) {
        self.connection.end();
        self.shared.connections.lock().remove(&self.connection.id());
        self.shared.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.service.closed(&self.connection);
    }
}

fn count(counters: &Counters, reason: &CloseReason) {
    let counter = match reason {
        CloseReason::BrokenFrame(_) | CloseReason::BrokenHeader(_) => &counters.broken_frames,
        CloseReason::SlowReader => &counters.slow_readers_closed,
        CloseReason::HeldTooMuch { .. } => &counters.holders_closed,
        CloseReason::Idle => &counters.idle_closed,
        CloseReason::Tls => &counters.tls_refused,
        _ => return,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

fn report(connection: &Connection, reason: &CloseReason) {
    let (id, peer) = (connection.id(), connection.peer());
    match reason {
        CloseReason::BrokenFrame(_)
        | CloseReason::BrokenHeader(_)
        | CloseReason::Tls
        | CloseReason::SlowReader
        | CloseReason::HeldTooMuch { .. } => {
            tracing::info!(id, %peer, "connection closed: {reason}");
        }
        _ => tracing::debug!(id, %peer, "connection closed: {reason}"),
    }
}

/// Serves one listener; see [`Server`] for several, and for counters.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    limits: ServerLimits,
    shutdown: watch::Receiver<bool>,
) {
    Server::new(service, limits).serve(listener, shutdown).await;
}
