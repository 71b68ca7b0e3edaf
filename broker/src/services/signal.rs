//! Wakes one background thread.
//! Invariant: a notice given before the wait is not lost; several notices make one wake.
//! Leaves to the thread to look for what there is to do.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// A flag that a thread sleeps on.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Wakes the thread, or lets its next wait return at once.
    pub fn notify(&self) {
        *self.raised.lock() = true;
        self.changed.notify_one();
    }

    /// Sleeps until a notice, at most `timeout`. Returns whether there was a notice.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut raised = self.raised.lock();
        while !*raised {
            if let Some(deadline) = deadline {
                if self.changed.wait_until(&mut raised, deadline).timed_out() {
                    break;
                }
            } else {
                self.changed.wait(&mut raised);
            }
        }
        std::mem::take(&mut raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notice_before_the_wait_is_not_lost_and_counts_once() {
        let signal = Signal::default();
        signal.notify();
        signal.notify();
        assert!(signal.wait(Duration::from_mins(1)));
        assert!(!signal.wait(Duration::ZERO));
    }
}
