//! The task of one connection: wait, read, hand over, write.
//!
//! While a write waits for the peer nothing is read, so a peer that does not read cannot make the
//! server do more for it. A connection that is behind gives way after each full read, so that none waits for another's
//! backlog. Buffers start small, grow with what arrives, and shrink when idle, or after each turn when
//! all connections together keep too much.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep};

use super::budget::Kept;
use super::lag::Lag;
use super::receive::ReceiveBound;
use super::{Answers, CloseReason, Connection, Counters, Request, ServerLimits, Service, Shared};
use crate::envelope::Command;
use crate::frame::Frame;
use crate::header::{Encoding, HeaderView};
use crate::outbound::reset;

/// Read size of a connection that is new or was idle: a thousand of them cost 8 MiB.
const READ_BYTES_MIN: usize = 8 * 1024;
/// Read size that a busy connection grows to.
const READ_BYTES_MAX: usize = 256 * 1024;
/// A peer that lets a write wait for so long reads slowly.
const SLOW: Duration = Duration::from_millis(100);
/// First byte of a TLS handshake record; a plain frame never begins with it, for its length would
/// be above the limit.
const TLS_HANDSHAKE: u8 = 0x16;

pub(super) struct Driver<'s, S> {
    service: &'s S,
    connection: &'s Arc<Connection>,
    limits: &'s ServerLimits,
    counters: &'s Counters,
    shared: &'s Shared<S>,
    kept: Kept,
    lag: Lag,
    /// What the system may hold of this connection.
    receive: ReceiveBound,
    /// Memory that the outbound side keeps.
    outbound_bytes: usize,
    /// A frame that is not complete.
    partial: Part<'s>,
    inbound: BytesMut,
    /// Memory of what was read last, whether it is handled or not.
    inbound_bytes: usize,
    read_bytes: usize,
    requests: Vec<Request>,
    answers: Answers,
    /// Whether any byte was read yet.
    begun: bool,
    /// Whether the last read was as large as one may be: there is more.
    is_behind: bool,
    /// Whether a write of this turn had to wait long for the peer.
    is_peer_slow: bool,
    last_activity: Instant,
}

impl<'s, S: Service> Driver<'s, S> {
    pub(super) fn new(shared: &'s Shared<S>, connection: &'s Arc<Connection>) -> Self {
        Self {
            service: &shared.service,
            connection,
            limits: &shared.limits,
            counters: &shared.counters,
            shared,
            kept: Kept::new(Arc::clone(&shared.budget)),
            lag: Lag::new(Instant::now()),
            receive: ReceiveBound::default(),
            outbound_bytes: 0,
            partial: Part::nothing(connection),
            inbound: BytesMut::new(),
            inbound_bytes: 0,
            read_bytes: READ_BYTES_MIN,
            requests: Vec::new(),
            answers: Answers::new(),
            begun: false,
            is_behind: false,
            is_peer_slow: false,
            last_activity: Instant::now(),
        }
    }

    /// Serves until the connection is to be closed, and says why.
    pub(super) async fn run(&mut self, stream: &mut TcpStream) -> CloseReason {
        let (mut reader, mut writer) = stream.split();
        let mut tick = pin!(sleep(self.tick_interval()));
        loop {
            let served = self.serve_once(&mut reader, &mut writer, tick.as_mut()).await;
            self.settle();
            if let Err(reason) = served {
                return reason;
            }
            if let Some(reason) = self.connection.outbound.closed() {
                return reason;
            }
            if std::mem::take(&mut self.is_behind) {
                // The runtime would let it go on for a hundred reads, and look for what came on other connections
                // after some dozens of such turns.
                yield_now().await;
            }
        }
    }

    async fn serve_once(
        &mut self,
        reader: &mut ReadHalf<'_>,
        writer: &mut WriteHalf<'_>,
        mut tick: Pin<&mut Sleep>,
    ) -> Result<(), CloseReason> {
        tokio::select! {
            ready = reader.readable() => {
                ready.map_err(io)?;
                if self.read(reader).await? {
                    self.handle_frames(writer, tick).await?;
                }
                Ok(())
            }
            () = self.connection.outbound.woken() => self.flush(writer, tick).await,
            () = &mut tick => self.on_tick(tick),
        }
    }

    /// Reads what is there, without waiting; `false` when there was nothing.
    async fn read(&mut self, reader: &mut ReadHalf<'_>) -> Result<bool, CloseReason> {
        if self.inbound.capacity() - self.inbound.len() < self.read_bytes {
            // Grows with the bytes held, whatever length their frame announces.
            self.inbound.reserve(self.read_bytes);
        }
        self.inbound_bytes = self.inbound.capacity();
        let spare = self.inbound_bytes - self.inbound.len();
        let count = {
            let mut read = pin!(reader.read_buf(&mut self.inbound));
            std::future::poll_fn(|context| {
                Poll::Ready(match read.as_mut().poll(context) {
                    Poll::Ready(count) => count.map(Some),
                    Poll::Pending => Ok(None),
                })
            })
            .await
        };
        let count = match count.map_err(io)? {
            None => return Ok(false),
            Some(0) => return Err(CloseReason::Peer),
            Some(count) => count,
        };
        self.counters.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        self.last_activity = Instant::now();
        self.answers.waited = self.lag.read(count, self.last_activity);
        if count == spare {
            self.is_behind = count >= READ_BYTES_MAX;
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
            if self.lag.is_passed() {
                self.look_behind(reader.as_ref());
            }
        }
        if !self.begun && self.inbound[0] == TLS_HANDSHAKE {
            return Err(CloseReason::Tls);
        }
        self.begun = true;
        Ok(true)
    }

    /// Asks how much the system holds behind a read that filled its buffer, and bounds how much it may if that was a
    /// large one.
    fn look_behind(&mut self, stream: &TcpStream) {
        match rustix::io::ioctl_fionread(stream) {
            Ok(left) => self.lag.note_left(left, self.last_activity),
            Err(error) => tracing::debug!(%error, "the system does not say how much it holds"),
        }
        // A bound ends the system's own sizing for long ways, so a burst alone sets none.
        if !self.is_behind {
            return;
        }
        let connections = self.counters.connections.load(Ordering::Relaxed) as usize;
        let bytes_max = self.limits.receive_bytes_max;
        if let Err(error) = self.receive.adjust(stream, bytes_max, connections) {
            tracing::debug!(%error, "the receive buffer keeps its size");
        }
    }

    /// Hands over every complete frame and writes the answers, in batches within the limit.
    async fn handle_frames(
        &mut self,
        writer: &mut WriteHalf<'_>,
        mut tick: Pin<&mut Sleep>,
    ) -> Result<(), CloseReason> {
        loop {
            // Frames before a broken one are served before the connection is closed.
            let decoded = self.decode_frames();
            while !self.requests.is_empty() {
                let before = self.requests.len();
                let most = self.limits.answer_bytes_max;
                self.answers.enough_bytes = self.shared.budget.answer_bytes(most);
                self.service.handle(self.connection, &mut self.requests, &mut self.answers);
                if !self.requests.is_empty() {
                    // More was read than is answered at once: small requests with large answers.
                    self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
                }
                self.flush(writer, tick.as_mut()).await?;
                if let Some(reason) = self.connection.outbound.closed() {
                    return Err(reason);
                }
                if self.requests.len() >= before {
                    return Err(CloseReason::Service("the service took no request"));
                }
            }
            if !decoded? {
                return Ok(());
            }
        }
    }

    /// Takes frames off the input; `true` when the limit of a batch was reached.
    fn decode_frames(&mut self) -> Result<bool, CloseReason> {
        let answers_expected = self.connection.calls.any_waiting();
        while self.requests.len() < self.limits.batch_requests_max.max(1) {
            let limit = self.limits.frame_bytes_max;
            let Some(frame) = Frame::decode_up_to(&mut self.inbound, limit)? else {
                return Ok(false);
            };
            let encoding = Encoding::from_code(frame.encoding)?;
            let request = Request { encoding, header: frame.header, body: frame.body };
            if !(answers_expected && self.take_answer(&request)?) {
                self.requests.push(request);
            }
        }
        Ok(true)
    }

    /// Hands the frame to the call that waits for it; `false` when it is no response.
    fn take_answer(&self, request: &Request) -> Result<bool, CloseReason> {
        let view = HeaderView::parse(request.encoding, &request.header)?;
        if !view.is_response() {
            return Ok(false);
        }
        // The body is copied, so that a kept answer does not hold the read buffer.
        let body = bytes::Bytes::copy_from_slice(&request.body);
        if !self.connection.calls.complete(Command::from_view(&view, body)) {
            let (id, opaque) = (self.connection.id(), view.opaque);
            tracing::debug!(id, opaque, "dropped: response answers no call");
        }
        Ok(true)
    }

    /// Writes the answers and whatever else waits.
    async fn flush(
        &mut self,
        writer: &mut WriteHalf<'_>,
        mut tick: Pin<&mut Sleep>,
    ) -> Result<(), CloseReason> {
        let mut unwritten = Part::nothing(self.connection);
        let mut began = None;
        loop {
            self.outbound_bytes = self.connection.outbound.take(&mut self.answers.out);
            if self.answers.out.is_empty() {
                return Ok(());
            }
            let mut written = self.write_at_once(writer)?;
            if written < self.answers.out.len() && self.shared.budget.is_tight() {
                self.keep_unwritten(written);
                self.answers.out = BytesMut::from(&self.answers.out[..]);
                written = 0;
            }
            while written < self.answers.out.len() {
                // The rest waits for the peer, and the requests that are not handled yet with it. What may be kept is
                // for those that are served meanwhile.
                self.kept.give_back();
                unwritten.set(self.answers.out.capacity() + self.inbound_bytes);
                self.relieve();
                let began = *began.get_or_insert_with(Instant::now);
                written += self.write_some(writer, written, tick.as_mut()).await?;
                self.is_peer_slow |= began.elapsed() >= SLOW;
            }
            reset(&mut self.answers.out);
        }
    }

    /// Writes what the socket takes without waiting.
    fn write_at_once(&mut self, writer: &WriteHalf<'_>) -> Result<usize, CloseReason> {
        match writer.try_write(&self.answers.out) {
            Ok(count) => Ok(self.count_written(count)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(io(error)),
        }
    }

    /// Writes on from `written`, or sees to what happens meanwhile.
    async fn write_some(
        &mut self,
        writer: &mut WriteHalf<'_>,
        written: usize,
        mut tick: Pin<&mut Sleep>,
    ) -> Result<usize, CloseReason> {
        tokio::select! {
            biased;
            count = writer.write(&self.answers.out[written..]) => {
                return Ok(self.count_written(count.map_err(io)?));
            }
            () = self.connection.outbound.woken() => {
                if let Some(reason) = self.connection.outbound.closed() {
                    self.keep_unwritten(written);
                    return Err(reason);
                }
            }
            () = &mut tick => self.on_tick(tick)?,
        }
        Ok(0)
    }

    fn count_written(&mut self, count: usize) -> usize {
        self.counters.bytes_written.fetch_add(count as u64, Ordering::Relaxed);
        self.last_activity = Instant::now();
        count
    }

    /// Closes connections that hold something for long, if all together hold too much.
    fn relieve(&self) {
        if let Some(closed) = self.shared.budget.relieve(&self.shared.connections) {
            tracing::warn!(
                closed,
                "connections hold too much: those that did for the longest are closed"
            );
        }
    }

    /// Accounts at the end of a turn for what stays: buffers and a frame that is not complete.
    fn settle(&mut self) {
        let buffers = self.inbound_bytes
            + self.answers.out.capacity()
            + self.outbound_bytes
            + self.requests.capacity() * size_of::<Request>();
        if std::mem::take(&mut self.is_peer_slow) {
            // A peer that reads slowly is read in small steps, until a few turns went without a wait.
            self.become_small();
        } else if !self.kept.keeps(buffers) {
            self.release_buffers();
        }
        // A frame that is smaller lies in the buffer that is kept anyway.
        let is_kept = self.inbound.len() <= READ_BYTES_MAX && !self.kept.is_empty();
        let partial = if is_kept { 0 } else { self.inbound.capacity() };
        if self.partial.set(partial) {
            self.relieve();
        }
    }

    /// Gives back what holds nothing, and begins anew with small reads.
    fn become_small(&mut self) {
        self.read_bytes = READ_BYTES_MIN;
        self.release_buffers();
    }

    /// Gives back what holds nothing. The next turn may be as large as this one was.
    fn release_buffers(&mut self) {
        self.kept.give_back();
        if self.inbound.len() < self.inbound.capacity() / 2 {
            self.inbound = BytesMut::from(&self.inbound[..]);
        }
        self.inbound_bytes = self.inbound.capacity();
        if self.answers.out.is_empty() {
            self.answers.out = BytesMut::new();
        }
        if self.requests.is_empty() {
            self.requests = Vec::new();
        }
        self.connection.outbound.release_memory();
        self.outbound_bytes = 0;
    }

    /// Keeps what a closing connection may still write.
    fn keep_unwritten(&mut self, written: usize) {
        let _ = self.answers.out.split_to(written);
    }

    /// Writes what waits when the connection closes; a peer that is gone is no error any more.
    pub(super) async fn write_last(&mut self, stream: &mut TcpStream) {
        self.connection.outbound.take(&mut self.answers.out);
        let written = async {
            stream.write_all(&self.answers.out).await?;
            stream.shutdown().await
        };
        if let Err(error) = written.await {
            tracing::trace!(peer = %self.connection.peer(), %error, "last write");
        }
    }

    fn on_tick(&mut self, tick: Pin<&mut Sleep>) -> Result<(), CloseReason> {
        let idle = self.last_activity.elapsed();
        if idle >= self.limits.idle_timeout {
            return Err(CloseReason::Idle);
        }
        if idle >= self.tick_interval() && self.inbound.is_empty() && self.answers.out.is_empty() {
            self.become_small();
        }
        tick.reset(Instant::now() + self.tick_interval());
        Ok(())
    }

    /// How often idleness is looked at.
    fn tick_interval(&self) -> Duration {
        self.limits.idle_timeout / 4
    }
}

/// A part of what the connection holds, counted until it is dropped.
struct Part<'s> {
    connection: &'s Connection,
    bytes: usize,
}

impl<'s> Part<'s> {
    fn nothing(connection: &'s Connection) -> Self {
        Self { connection, bytes: 0 }
    }

    /// Notes that it is so many bytes. Returns whether it was less before.
    fn set(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.connection.held.change(before, bytes);
        bytes > before
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn io(error: std::io::Error) -> CloseReason {
    CloseReason::Io(error.kind())
}
