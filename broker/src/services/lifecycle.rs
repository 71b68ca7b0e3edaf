//! Whether the broker takes messages: it serves, stops, or its log has failed.
//! Invariant: what has failed or stops never serves again in this process.
//! Leaves stopping itself to the broker.

use std::sync::atomic::{AtomicU8, Ordering};

use gantry_store::AppendError;

use super::send::SendError;

const SERVING: u8 = 0;
const STOPPING: u8 = 1;
const FAILED: u8 = 2;

/// State of a broker that is open.
#[derive(Debug, Default)]
pub struct Lifecycle {
    state: AtomicU8,
}

impl Lifecycle {
    /// From now on messages are refused.
    pub fn stop(&self) {
        self.state.fetch_max(STOPPING, Ordering::AcqRel);
    }

    /// The log takes nothing more until the broker starts again.
    pub fn fail(&self) {
        if self.state.fetch_max(FAILED, Ordering::AcqRel) != FAILED {
            tracing::error!(
                "the log has stopped: messages are refused until the broker starts again"
            );
        }
    }

    /// Whether the broker stops, or has failed.
    pub fn is_stopping(&self) -> bool {
        self.state.load(Ordering::Acquire) != SERVING
    }

    /// Whether the log takes nothing more.
    pub fn has_failed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FAILED
    }

    /// Notes an error that means the log has stopped.
    pub fn note_append_error(&self, error: &AppendError) {
        if matches!(error, AppendError::Stopped(_)) {
            self.fail();
        }
    }

    /// Refuses a send while the broker stops or after it has failed.
    pub fn check_accepting(&self) -> Result<(), SendError> {
        let reason = match self.state.load(Ordering::Acquire) {
            SERVING => return Ok(()),
            STOPPING => "the broker is stopping",
            _ => "the log has stopped",
        };
        Err(SendError::Unavailable { reason })
    }

    /// Why the broker is not ready, if it is not.
    pub fn ready(&self) -> Result<(), String> {
        self.check_accepting().map_err(|error| error.to_string())
    }
}
