//! The client's end of one remoting connection: calls, one-way requests, requests of the server.
//!
//! Any number of calls may be in flight; requests that are begun while a write runs leave together
//! with the next one. When the connection breaks, every call fails at once.
//! Reconnecting, routes and retries are left to the caller.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::envelope::{Command, EncodeError};
use crate::frame::{Frame, FrameError};
use crate::header::{FLAG_ONE_WAY, FLAG_RESPONSE, ParseError};
use crate::outbound::{Calls, Outbound, Refused, Waiting, reset};

/// Bytes by which the read buffer grows.
const READ_BYTES: usize = 64 * 1024;
/// Time that a closed channel has to write what waits.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSettings {
    /// Time for the connection to be made. Default 3 s.
    pub connect_timeout: Duration,
    /// Bytes that may wait to be written; beyond, calls are refused. Default 64 MiB.
    pub outbound_bytes_max: usize,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(3), outbound_bytes_max: 64 * 1024 * 1024 }
    }
}

/// Why a channel could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was not made in time.
    #[error("{address} did not accept a connection within {timeout:?}")]
    Timeout {
        /// Where to.
        address: String,
        /// The time it was given.
        timeout: Duration,
    },
    /// The connection failed.
    #[error("connect to {address}")]
    Io {
        /// Where to.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
}

/// Why a channel ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClosedBy {
    /// The server closed the connection.
    #[error("closed by the server")]
    Server,
    /// The caller closed the channel, or dropped its last handle.
    #[error("closed by the caller")]
    Caller,
    /// The socket failed.
    #[error("socket: {0}")]
    Io(std::io::ErrorKind),
    /// Bytes that are no frame.
    #[error(transparent)]
    BrokenFrame(#[from] FrameError),
    /// A frame whose header could not be read.
    #[error(transparent)]
    BrokenHeader(#[from] ParseError),
}

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The channel is closed; whether the request was carried out is not known.
    #[error("channel to {peer} ended: {reason}")]
    Closed {
        /// The server.
        peer: SocketAddr,
        /// Why the channel ended.
        reason: ClosedBy,
    },
    /// No answer came in time.
    #[error("{peer} did not answer request code {code} within {timeout:?}")]
    Timeout {
        /// The server.
        peer: SocketAddr,
        /// Request code.
        code: i32,
        /// The time it was given.
        timeout: Duration,
    },
    /// More bytes wait to be written than the settings allow; the request was not sent.
    #[error("channel to {peer} has too many bytes waiting")]
    Full {
        /// The server.
        peer: SocketAddr,
    },
    /// The request cannot be encoded; it was not sent.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// What takes the requests that the server sends on its own.
pub trait ChannelHandler: Send + Sync + 'static {
    /// Takes one request, on the task that reads the connection: spawn what takes time, and answer
    /// through [`Channel::answer`] unless the request is one-way.
    fn request(&self, channel: &Channel, request: Command);

    /// The channel ended.
    fn closed(&self, _peer: SocketAddr, _reason: &ClosedBy) {}
}

/// A handler that answers every request with "not supported".
#[derive(Debug, Clone, Copy, Default)]
pub struct RefuseRequests;

impl ChannelHandler for RefuseRequests {
    fn request(&self, channel: &Channel, request: Command) {
        let code = crate::codes::ResponseCode::REQUEST_CODE_NOT_SUPPORTED;
        let remark = format!("request type {} not supported", request.code);
        let answer = Command::answer(request.reply_to(), code).with_remark(remark);
        if let Err(error) = channel.answer(&request, &answer) {
            tracing::debug!(%error, "refusal was not sent");
        }
    }
}

/// One connection to one server; cheap to clone. It closes when the last clone is dropped.
#[derive(Clone)]
pub struct Channel {
    shared: Arc<Shared>,
    /// Dropped with the last clone; the connection's tasks hold only `shared`.
    _open: Arc<CloseOnDrop>,
}

struct Shared {
    peer: SocketAddr,
    local: SocketAddr,
    outbound: Outbound<ClosedBy>,
    calls: Arc<Calls>,
    ended: watch::Sender<bool>,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(ClosedBy::Caller);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("peer", &self.shared.peer).finish_non_exhaustive()
    }
}

impl Channel {
    /// Connects to `address`, a `host:port`.
    pub async fn connect(
        address: &str,
        settings: &ChannelSettings,
        handler: Arc<dyn ChannelHandler>,
    ) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Io { address: address.to_owned(), source };
        let connected = timeout(settings.connect_timeout, TcpStream::connect(address)).await;
        let stream = connected
            .map_err(|_| ConnectError::Timeout {
                address: address.to_owned(),
                timeout: settings.connect_timeout,
            })?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let shared = Arc::new(Shared {
            peer: stream.peer_addr().map_err(failed)?,
            local: stream.local_addr().map_err(failed)?,
            outbound: Outbound::new(settings.outbound_bytes_max, None),
            calls: Arc::new(Calls::new()),
            ended: watch::Sender::new(false),
        });
        let (reader, writer) = stream.into_split();
        let open = Arc::new(CloseOnDrop(Arc::clone(&shared)));
        let weak = Arc::downgrade(&open);
        tokio::spawn(read(Arc::clone(&shared), weak, reader, handler));
        tokio::spawn(write(Arc::clone(&shared), writer));
        Ok(Self { shared, _open: open })
    }

    /// Address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.shared.peer
    }

    /// Address of this end.
    pub fn local(&self) -> SocketAddr {
        self.shared.local
    }

    /// Whether the channel has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.outbound.is_closed()
    }

    /// Ends the channel; every call fails.
    pub fn close(&self) {
        self.shared.close(ClosedBy::Caller);
    }

    /// Returns when the channel has ended, and says why.
    pub async fn closed(&self) -> ClosedBy {
        let mut ended = self.shared.ended.subscribe();
        // The sender lives in `shared`, so waiting cannot fail.
        let _ = ended.wait_for(|ended| *ended).await;
        self.shared.closed_by()
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, command: &Command, within: Duration) -> Result<Command, CallError> {
        let (peer, code) = (self.peer(), command.code);
        match timeout(within, self.begin_call(command)?).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Timeout { peer, code, timeout: within }),
        }
    }

    /// Sends a request at once; the answer is awaited through what is returned.
    pub fn begin_call(&self, command: &Command) -> Result<PendingCall, CallError> {
        let waiting = self.shared.calls.register().ok_or_else(|| self.shared.closed_error())?;
        let flag = command.flag & !(FLAG_ONE_WAY | FLAG_RESPONSE);
        self.append(|out| command.encode_as(waiting.opaque, flag, out))?;
        Ok(PendingCall { waiting, shared: Arc::clone(&self.shared) })
    }

    /// Sends a request that is never answered.
    pub fn one_way(&self, command: &Command) -> Result<(), CallError> {
        let opaque = self.shared.calls.next_opaque();
        let flag = (command.flag | FLAG_ONE_WAY) & !FLAG_RESPONSE;
        self.append(|out| command.encode_as(opaque, flag, out))
    }

    /// Answers a request of the server; nothing is sent when that request is one-way.
    pub fn answer(&self, request: &Command, answer: &Command) -> Result<(), CallError> {
        if request.is_one_way() {
            return Ok(());
        }
        let flag = answer.flag | FLAG_RESPONSE;
        self.append(|out| answer.encode_as(request.opaque, flag, out))
    }

    fn append(
        &self,
        write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) -> Result<(), CallError> {
        match self.shared.outbound.append(write) {
            Ok(encoded) => Ok(encoded?),
            Err(Refused::Full) => Err(CallError::Full { peer: self.peer() }),
            Err(Refused::Closed) => Err(self.shared.closed_error()),
        }
    }
}

impl Shared {
    fn close(&self, reason: ClosedBy) {
        self.outbound.close(reason);
        self.calls.close();
        self.ended.send_replace(true);
    }

    fn closed_by(&self) -> ClosedBy {
        self.outbound.closed().unwrap_or(ClosedBy::Caller)
    }

    fn closed_error(&self) -> CallError {
        CallError::Closed { peer: self.peer, reason: self.closed_by() }
    }
}

/// A call whose request is on its way; resolves to the answer. Dropping it forgets the call.
#[must_use = "the answer arrives through this"]
pub struct PendingCall {
    waiting: Waiting,
    shared: Arc<Shared>,
}

impl Future for PendingCall {
    type Output = Result<Command, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.waiting.answer).poll(context);
        answer.map(|answer| answer.map_err(|_| self.shared.closed_error()))
    }
}

async fn write(shared: Arc<Shared>, mut writer: OwnedWriteHalf) {
    let mut ended = shared.ended.subscribe();
    let last_write_over = async {
        // The sender lives in `shared`, so waiting cannot fail.
        let _ = ended.wait_for(|ended| *ended).await;
        tokio::time::sleep(LAST_WRITE_TIMEOUT).await;
    };
    tokio::select! {
        () = write_waiting(&shared, &mut writer) => {}
        () = last_write_over => {}
    }
}

/// Writes until the channel is closed and all that waited before is written.
async fn write_waiting(shared: &Shared, writer: &mut OwnedWriteHalf) {
    let mut out = BytesMut::new();
    loop {
        shared.outbound.woken().await;
        let closed = shared.outbound.is_closed();
        shared.outbound.take(&mut out);
        if let Err(error) = writer.write_all(&out).await {
            shared.close(ClosedBy::Io(error.kind()));
            return;
        }
        if closed {
            return;
        }
        reset(&mut out);
    }
}

async fn read(
    shared: Arc<Shared>,
    open: std::sync::Weak<CloseOnDrop>,
    mut reader: OwnedReadHalf,
    handler: Arc<dyn ChannelHandler>,
) {
    let mut ended = shared.ended.subscribe();
    let reason = tokio::select! {
        reason = read_frames(&shared, &open, &mut reader, &*handler) => reason,
        _ = ended.wait_for(|ended| *ended) => shared.closed_by(),
    };
    shared.close(reason);
    let reason = shared.closed_by();
    tracing::debug!(peer = %shared.peer, "channel closed: {reason}");
    handler.closed(shared.peer, &reason);
}

async fn read_frames(
    shared: &Arc<Shared>,
    open: &std::sync::Weak<CloseOnDrop>,
    reader: &mut OwnedReadHalf,
    handler: &dyn ChannelHandler,
) -> ClosedBy {
    let mut inbound = BytesMut::new();
    loop {
        if inbound.capacity() - inbound.len() < READ_BYTES {
            inbound.reserve(READ_BYTES);
        }
        match reader.read_buf(&mut inbound).await {
            Ok(0) => return ClosedBy::Server,
            Ok(_) => {}
            Err(error) => return ClosedBy::Io(error.kind()),
        }
        loop {
            match Frame::decode(&mut inbound) {
                Ok(None) => break,
                Ok(Some(frame)) => match Command::from_frame(frame) {
                    Ok(command) => deliver(shared, open, command, handler),
                    Err(error) => return error.into(),
                },
                Err(error) => return error.into(),
            }
        }
    }
}

fn deliver(
    shared: &Arc<Shared>,
    open: &std::sync::Weak<CloseOnDrop>,
    command: Command,
    handler: &dyn ChannelHandler,
) {
    if command.is_response() {
        let opaque = command.opaque;
        if !shared.calls.complete(command) {
            tracing::debug!(peer = %shared.peer, opaque, "dropped: response answers no call");
        }
    } else if let Some(open) = open.upgrade() {
        handler.request(&Channel { shared: Arc::clone(shared), _open: open }, command);
    }
}
