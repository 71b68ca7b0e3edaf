//! Whether the broker takes messages: it serves, stops, or its store has failed.
//! Invariant: what has failed or stops never serves again in this process; the first failure is the one that is told.
//! Leaves stopping itself to the broker.

use std::{
    fmt::Display,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use gantry_store::{AppendError, SyncError, log};

use super::send::SendError;

const SERVING: u8 = 0;
const STOPPING: u8 = 1;
const FAILED: u8 = 2;

/// State of a broker that is open.
#[derive(Debug, Default)]
pub struct Lifecycle {
    state: AtomicU8,
    /// What the store failed of.
    cause: OnceLock<String>,
    /// Whether the views could not be written when that was tried last.
    views_fail: AtomicBool,
}

impl Lifecycle {
    /// From now on messages are refused.
    pub fn stop(&self) {
        self.state.fetch_max(STOPPING, Ordering::AcqRel);
    }

    /// The store takes nothing more until the broker starts again: `cause` says why.
    pub fn fail(&self, cause: &dyn Display) {
        let cause = self.cause.get_or_init(|| cause.to_string());
        if self.state.fetch_max(FAILED, Ordering::AcqRel) != FAILED {
            tracing::error!("{cause}: messages are refused until the broker starts again");
        }
    }

    /// Whether the broker stops, or has failed.
    pub fn is_stopping(&self) -> bool {
        self.state.load(Ordering::Acquire) != SERVING
    }

    /// Whether the store takes nothing more.
    pub fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }

    /// Notes an error that means the log has stopped.
    pub fn note_append_error(&self, error: &AppendError) {
        // Without a cause it was closed, as a broker that stops does with it.
        if let AppendError::Stopped(Some(log::AppendError::Stopped(cause))) = error {
            self.fail(cause);
        }
    }

    /// Notes a sync that failed: the log has stopped.
    pub fn note_sync_error(&self, error: &SyncError) {
        let SyncError::Log(error) = error;
        let log::SyncError::Stopped(cause) = &**error;
        self.fail(cause);
    }

    /// Notes whether the views can be written. While they cannot, the broker serves from memory.
    pub fn note_views(&self, are_written: bool) {
        self.views_fail.store(!are_written, Ordering::Relaxed);
    }

    /// Whether the views could be written when that was tried last.
    pub fn are_views_written(&self) -> bool {
        !self.views_fail.load(Ordering::Relaxed)
    }

    /// Refuses a send while the broker stops or after it has failed.
    pub fn check_accepting(&self) -> Result<(), SendError> {
        let reason = match self.state.load(Ordering::Acquire) {
            SERVING => return Ok(()),
            STOPPING => "the broker is stopping",
            _ => "the store has failed",
        };
        Err(SendError::Unavailable { reason })
    }

    /// Why the broker is not ready, if it is not.
    pub fn ready(&self) -> Result<(), String> {
        self.check_accepting().map_err(|error| match self.cause.get() {
            Some(cause) if self.has_failed() => cause.clone(),
            _ => error.to_string(),
        })
    }

    /// Why only another start helps, if it does: what a failed sync has lost nobody knows, and recovery finds out.
    pub fn alive(&self) -> Result<(), String> {
        if self.has_failed() { self.ready() } else { Ok(()) }
    }
}
