//! The one place where the broker reads the clock.
//! Invariant: `monotonic_ms` never goes back; `wall_ms` may, as the machine's clock does.
//! Leaves to everybody else to take time as an argument.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gantry_store::Now;

/// How far clocks show another wall time than the machine: not at all.
static EVEN: AtomicI64 = AtomicI64::new(0);

/// Source of both times.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    skew_ms: &'static AtomicI64,
}

impl Clock {
    /// A clock whose monotonic time starts at 0.
    pub fn new() -> Self {
        Self::skewed(&EVEN)
    }

    /// A clock whose wall time is that of the machine and `skew_ms`, as if somebody set it now and then.
    pub fn skewed(skew_ms: &'static AtomicI64) -> Self {
        Self { origin: Instant::now(), skew_ms }
    }

    /// Both times at once.
    pub fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let skew_ms = self.skew_ms.load(Ordering::Relaxed);
        let wall_ms = (since_1970.as_millis() as u64).saturating_add_signed(skew_ms);
        Now { wall_ms, monotonic_ms: self.monotonic_ms() }
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
