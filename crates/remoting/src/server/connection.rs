//! One accepted connection, as services and other threads see it.
//!
//! Sending never waits: bytes join those that wait for the connection's task, or the connection is
//! closed because its peer reads too slowly. A call has its own space of correlation ids.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::codes::ResponseCode;
use crate::envelope::{Command, EncodeError};
use crate::frame::FrameError;
use crate::header::{FLAG_ONE_WAY, FLAG_RESPONSE, ParseError, ReplyTo};
use crate::outbound::{Calls, Outbound, Refused};
use crate::server::budget::Held;
use crate::server::{AnswerWriter, Answers, ServerLimits};

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer closed it.
    #[error("closed by the peer")]
    Peer,
    /// Nothing was read or written for the idle timeout.
    #[error("idle")]
    Idle,
    /// The peer does not read what is sent to it.
    #[error("the peer reads too slowly")]
    SlowReader,
    /// All connections together hold too much for peers that send half a frame or do not read, and this one has for
    /// the longest.
    #[error("all connections together hold too much, this one {bytes} bytes for the longest")]
    HeldTooMuch {
        /// What it held.
        bytes: usize,
    },
    /// The peer began a TLS handshake.
    #[error("the peer speaks TLS, this port speaks plain remoting")]
    Tls,
    /// Bytes that are no frame.
    #[error(transparent)]
    BrokenFrame(#[from] FrameError),
    /// A frame whose header could not be read.
    #[error(transparent)]
    BrokenHeader(#[from] ParseError),
    /// The socket failed.
    #[error("socket: {0}")]
    Io(std::io::ErrorKind),
    /// The server stops.
    #[error("the server stops")]
    Shutdown,
    /// The service wants it closed.
    #[error("{0}")]
    Service(&'static str),
}

/// Why a connection did not take bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is closed.
    #[error("connection to {peer} is closed")]
    Closed {
        /// The peer.
        peer: SocketAddr,
    },
    /// The command cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Why a call to a client brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The connection ended first.
    #[error("connection to {peer} ended before the answer to {code}")]
    Closed {
        /// The peer.
        peer: SocketAddr,
        /// Request code.
        code: i32,
    },
    /// No answer came in time.
    #[error("{peer} did not answer {code} within {timeout:?}")]
    Timeout {
        /// The peer.
        peer: SocketAddr,
        /// Request code.
        code: i32,
        /// The time it was given.
        timeout: Duration,
    },
}

/// Late answers of a connection that are made at a time.
const LATE_TURNS: usize = 4;

/// A turn to make a late answer: [`Connection::late_turn`].
#[derive(Debug)]
pub struct LateTurn<'c>(
    #[expect(dead_code, reason = "held until the turn ends")] SemaphorePermit<'c>,
);

/// An accepted connection.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    pub(super) outbound: Outbound<CloseReason>,
    pub(super) held: Arc<Held>,
    /// Turns of those that make late answers: as many may do so at a time.
    late_turns: Semaphore,
    answer_bytes_max: usize,
    pub(super) calls: Arc<Calls>,
}

impl Connection {
    pub(super) fn new(
        id: u64,
        peer: SocketAddr,
        local: SocketAddr,
        limits: &ServerLimits,
        held: Held,
    ) -> Self {
        let held = Arc::new(held);
        Self {
            id,
            peer,
            local,
            outbound: Outbound::new(limits.outbound_bytes_max, Some(Arc::clone(&held))),
            held,
            late_turns: Semaphore::new(LATE_TURNS),
            answer_bytes_max: limits.answer_bytes_max,
            calls: Arc::new(Calls::new()),
        }
    }

    /// Unique among all connections of the server's life.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Address of the peer.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Address that the peer connected to; says which listener it came through.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether the connection is closed or about to be.
    pub fn is_closed(&self) -> bool {
        self.outbound.is_closed()
    }

    /// Closes the connection once what waits is written; the first reason stands.
    pub fn close(&self, reason: CloseReason) {
        self.outbound.close(reason);
    }

    /// Handles a request whose header could not be read: an answer to no call is dropped, anything
    /// else closes the connection.
    pub fn reject(&self, error: &ParseError) {
        match error {
            ParseError::UnexpectedResponse { .. } => {
                tracing::debug!(id = self.id, peer = %self.peer, "dropped: {error}");
            }
            _ => self.close(CloseReason::BrokenHeader(error.clone())),
        }
    }

    /// Waits for a turn to make a late answer that may be large, until few bytes wait for the peer: a peer that does
    /// not read then makes the server hold a few of them, however many it has asked for. The turn ends when it is
    /// dropped, after the answer was sent. `None` when the connection is closed.
    pub async fn late_turn(&self) -> Option<LateTurn<'_>> {
        // Never closed.
        let turn = self.late_turns.acquire().await.ok()?;
        let is_open = self.outbound.drained_to(self.answer_bytes_max).await;
        is_open.then_some(LateTurn(turn))
    }

    /// Sends answers that were encoded elsewhere.
    pub fn send(&self, answers: Answers) -> Result<(), SendError> {
        self.append(|out| {
            if out.is_empty() {
                *out = answers.out;
            } else {
                out.extend_from_slice(&answers.out);
            }
        })
    }

    /// Sends an answer that was not ready when its request was handled; `write` ends it.
    pub fn answer<R>(
        &self,
        reply: ReplyTo,
        code: ResponseCode,
        remark: Option<&str>,
        write: impl FnOnce(AnswerWriter<'_>) -> R,
    ) -> Result<R, SendError> {
        self.append(|out| write(AnswerWriter::begin(out, reply, code, remark)))
    }

    /// Sends a request that is never answered.
    pub fn one_way(&self, command: &Command) -> Result<(), SendError> {
        let opaque = self.calls.next_opaque();
        let flag = (command.flag | FLAG_ONE_WAY) & !FLAG_RESPONSE;
        Ok(self.append(|out| command.encode_as(opaque, flag, out))??)
    }

    /// Sends a request to the client and waits for its answer.
    pub async fn call(&self, command: &Command, timeout: Duration) -> Result<Command, CallError> {
        let (peer, code) = (self.peer, command.code);
        let mut waiting =
            self.calls.register().ok_or(CallError::Send(SendError::Closed { peer }))?;
        let flag = command.flag & !(FLAG_ONE_WAY | FLAG_RESPONSE);
        self.append(|out| command.encode_as(waiting.opaque, flag, out))?
            .map_err(SendError::from)?;
        match tokio::time::timeout(timeout, &mut waiting.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallError::Closed { peer, code }),
            Err(_) => Err(CallError::Timeout { peer, code, timeout }),
        }
    }

    fn append<R>(&self, write: impl FnOnce(&mut BytesMut) -> R) -> Result<R, SendError> {
        self.outbound.append(write).map_err(|refused| {
            if refused == Refused::Full {
                self.close(CloseReason::SlowReader);
            }
            SendError::Closed { peer: self.peer }
        })
    }

    /// Ends every call; called when the connection's task ends, for whatever reason.
    pub(super) fn end(&self) {
        self.close(CloseReason::Peer);
        self.outbound.clear();
        self.calls.close();
    }
}
