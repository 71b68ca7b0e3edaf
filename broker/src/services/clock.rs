//! The one place where the broker reads the clock.
//! Invariant: `monotonic_ms` never goes back; `wall_ms` may, as the machine's clock does.
//! Leaves to everybody else to take time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gantry_store::Now;

/// Source of both times.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts at 0.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// Both times at once.
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { wall_ms: since_1970.as_millis() as u64, monotonic_ms: self.monotonic_ms() }
    }

    /// Microseconds since the clock was made.
    pub fn monotonic_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// Milliseconds since the clock was made.
    pub fn monotonic_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
