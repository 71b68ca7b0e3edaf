//! Clocks by which messages grow old, however the wall clock jumps.
//! Invariant: nothing counts as older than it surely is.
//! Leaves to retention what is too old.

use crate::options::Now;

/// Time by which messages grow old: it follows the wall clock, but not faster than the monotonic one.
///
/// A wall clock that jumps forward makes nothing older before that time has passed. Starts at the last store time, so
/// that time in which the store was closed counts only as far as the log itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeClock {
    trusted_ms: u64,
    monotonic_ms: u64,
}

impl AgeClock {
    /// A clock for a log whose last record was stored at `last_time_ms`; 0 if there is none.
    pub fn new(last_time_ms: u64, now: Now) -> Self {
        let known_ms = if last_time_ms == 0 { now.wall_ms } else { last_time_ms };
        Self { trusted_ms: known_ms.min(now.wall_ms), monotonic_ms: now.monotonic_ms }
    }

    /// The time in milliseconds since 1970 that may be trusted not to be too late.
    pub fn advance(&mut self, now: Now) -> u64 {
        let passed_ms = now.monotonic_ms.saturating_sub(self.monotonic_ms);
        self.monotonic_ms = self.monotonic_ms.max(now.monotonic_ms);
        self.trusted_ms = now.wall_ms.min(self.trusted_ms.saturating_add(passed_ms));
        self.trusted_ms
    }
}

/// The wall clock as long as it runs evenly, and since when it does. The start of the store counts as a jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteadyClock {
    steady_since_ms: u64,
    last: Now,
}

impl SteadyClock {
    /// Difference between the clocks within one step that counts as a jump; less is the wall clock being steered.
    const JUMP_MS: u64 = 1_000;

    /// A clock that has just been looked at for the first time.
    pub fn new(now: Now) -> Self {
        Self { steady_since_ms: now.wall_ms, last: now }
    }

    /// The wall time before which everything was stored longer than `age_ms` ago; none before the clock has run
    /// evenly for that long. What was stored before it did is older than that by then.
    pub fn stored_before(&mut self, age_ms: u64, now: Now) -> Option<u64> {
        let passed_ms = now.monotonic_ms.saturating_sub(self.last.monotonic_ms);
        let expected_ms = self.last.wall_ms.saturating_add(passed_ms);
        if now.wall_ms.abs_diff(expected_ms) > Self::JUMP_MS {
            self.steady_since_ms = now.wall_ms;
        }
        self.last = now;
        now.wall_ms.checked_sub(age_ms).filter(|before_ms| *before_ms >= self.steady_since_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn now(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now { wall_ms, monotonic_ms }
    }

    #[test]
    fn forward_jump_of_the_wall_clock_makes_nothing_older_before_that_time_has_passed() {
        let mut clock = AgeClock::new(1_000, now(1_000, 50));
        assert_eq!(clock.advance(now(1_100, 150)), 1_100);
        assert_eq!(clock.advance(now(1_100 + 100 * HOUR_MS, 160)), 1_110);
        assert_eq!(clock.advance(now(1_100 + 100 * HOUR_MS, 160 + HOUR_MS)), 1_110 + HOUR_MS);
    }

    #[test]
    fn wall_clock_that_is_set_back_makes_messages_younger_and_counts_on_from_there() {
        let mut clock = AgeClock::new(5_000, now(5_000, 0));
        assert_eq!(clock.advance(now(2_000, 10)), 2_000);
        assert_eq!(clock.advance(now(5_020, 20)), 2_010);
    }

    #[test]
    fn wall_clock_that_is_wrong_at_the_start_is_held_by_the_log() {
        let mut clock = AgeClock::new(1_000, now(1_000 + 500 * HOUR_MS, 0));
        assert_eq!(clock.advance(now(1_000 + 500 * HOUR_MS, 10)), 1_010);
        let mut empty = AgeClock::new(0, now(7_000, 0));
        assert_eq!(empty.advance(now(7_001, 1)), 7_001);
    }

    #[test]
    fn wall_clock_counts_once_it_has_run_evenly_for_as_long_as_is_asked_for() {
        let mut clock = SteadyClock::new(now(10 * HOUR_MS, 0));
        assert_eq!(clock.stored_before(60_000, now(10 * HOUR_MS + 59_999, 59_999)), None);
        let at_ms = 10 * HOUR_MS + 60_000;
        assert_eq!(clock.stored_before(60_000, now(at_ms, 60_000)), Some(10 * HOUR_MS));
        for jumped_ms in [at_ms + HOUR_MS, at_ms - HOUR_MS] {
            let mut clock = clock;
            assert_eq!(clock.stored_before(60_000, now(jumped_ms, 60_001)), None);
            let later = now(jumped_ms + 60_000, 120_001);
            assert_eq!(clock.stored_before(60_000, later), Some(jumped_ms));
        }
    }

    #[test]
    fn wall_clock_that_is_steered_has_not_jumped() {
        let mut clock = SteadyClock::new(now(HOUR_MS, 0));
        for minute in 1..100 {
            let at = now(HOUR_MS + minute * 60_030, minute * 60_000);
            assert!(clock.stored_before(60_000, at).is_some(), "{minute}");
        }
    }
}
