//! The task of one connection: wait, read, hand over, write.
//!
//! While a write waits for the peer nothing is read, so a peer that does not read cannot make the
//! server do more for it. Buffers start small, grow with what arrives, and shrink when idle.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep, sleep};

use super::{Answers, CloseReason, Connection, Counters, Request, ServerLimits, Service};
use crate::envelope::Command;
use crate::frame::Frame;
use crate::header::{Encoding, HeaderView};
use crate::outbound::reset;

/// Read size of a connection that is new or was idle: a thousand of them cost 8 MiB.
const READ_BYTES_MIN: usize = 8 * 1024;
/// Read size that a busy connection grows to.
const READ_BYTES_MAX: usize = 256 * 1024;
/// First byte of a TLS handshake record; a plain frame never begins with it, for its length would
/// be above the limit.
const TLS_HANDSHAKE: u8 = 0x16;

pub(super) struct Driver<'s, S> {
    service: &'s S,
    connection: &'s Arc<Connection>,
    limits: &'s ServerLimits,
    counters: &'s Counters,
    inbound: BytesMut,
    read_bytes: usize,
    requests: Vec<Request>,
    answers: Answers,
    /// Whether any byte was read yet.
    begun: bool,
    last_activity: Instant,
}

impl<'s, S: Service> Driver<'s, S> {
    pub(super) fn new(
        service: &'s S,
        connection: &'s Arc<Connection>,
        limits: &'s ServerLimits,
        counters: &'s Counters,
    ) -> Self {
        Self {
            service,
            connection,
            limits,
            counters,
            inbound: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            requests: Vec::new(),
            answers: Answers::new(),
            begun: false,
            last_activity: Instant::now(),
        }
    }

    /// Serves until the connection is to be closed, and says why.
    pub(super) async fn run(&mut self, stream: &mut TcpStream) -> CloseReason {
        let (mut reader, mut writer) = stream.split();
        let mut tick = pin!(sleep(self.tick_interval()));
        loop {
            let served = self.serve_once(&mut reader, &mut writer, tick.as_mut()).await;
            if let Err(reason) = served {
                return reason;
            }
            if let Some(reason) = self.connection.outbound.closed() {
                return reason;
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
        let spare = self.inbound.capacity() - self.inbound.len();
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
        match count.map_err(io)? {
            None => return Ok(false),
            Some(0) => return Err(CloseReason::Peer),
            Some(count) => {
                self.counters.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
                if count == spare {
                    self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
                }
            }
        }
        if !self.begun && self.inbound[0] == TLS_HANDSHAKE {
            return Err(CloseReason::Tls);
        }
        self.begun = true;
        self.last_activity = Instant::now();
        Ok(true)
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
                self.service.handle(self.connection, &mut self.requests, &mut self.answers);
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
        self.connection.outbound.take(&mut self.answers.out);
        let mut written = 0;
        while written < self.answers.out.len() {
            tokio::select! {
                biased;
                count = writer.write(&self.answers.out[written..]) => {
                    let count = count.map_err(io)?;
                    self.counters.bytes_written.fetch_add(count as u64, Ordering::Relaxed);
                    self.last_activity = Instant::now();
                    written += count;
                }
                () = self.connection.outbound.woken() => {
                    if let Some(reason) = self.connection.outbound.closed() {
                        self.keep_unwritten(written);
                        return Err(reason);
                    }
                }
                () = &mut tick => self.on_tick(tick.as_mut())?,
            }
            if written == self.answers.out.len() {
                reset(&mut self.answers.out);
                written = 0;
                self.connection.outbound.take(&mut self.answers.out);
            }
        }
        Ok(())
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
            self.inbound = BytesMut::new();
            self.read_bytes = READ_BYTES_MIN;
            self.answers.out = BytesMut::new();
            self.requests = Vec::new();
            self.connection.outbound.release_memory();
        }
        tick.reset(Instant::now() + self.tick_interval());
        Ok(())
    }

    /// How often idleness is looked at.
    fn tick_interval(&self) -> Duration {
        self.limits.idle_timeout / 4
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn io(error: std::io::Error) -> CloseReason {
    CloseReason::Io(error.kind())
}
