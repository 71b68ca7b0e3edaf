//! Jumps of the wall clock, and what they mean to messages that wait for a time.
//! Invariant: a message that was parked before a jump is due when the time that it had to wait then has passed on the
//! monotonic clock; one that was parked behind it is due by the wall clock as it is now.
//! Leaves looking to its callers: whoever parks a message notes the time before, and so does who delivers them.

use gantry_model::PhysicalOffset;
use gantry_store::Now;
use parking_lot::Mutex;

/// Difference between the clocks within one step that counts as a jump; less is a clock being steered, or a machine
/// that was held for a moment.
const JUMP_MS: u64 = 10_000;
/// Jumps that are remembered.
const JUMPS_MAX: usize = 64;

/// The jumps since the start.
#[derive(Debug, Default)]
pub struct Jumps(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Now>,
    jumps: Vec<Jump>,
}

#[derive(Debug, Clone, Copy)]
struct Jump {
    /// End of the log when it was noticed.
    behind: PhysicalOffset,
    by_ms: i64,
}

/// What the wall clock would show without the jumps that came behind a message.
#[derive(Debug, Clone)]
pub struct Walls {
    wall_ms: u64,
    /// End of the log at each jump, oldest first, and what a message before it takes for the time.
    before: Vec<(PhysicalOffset, u64)>,
}

impl Jumps {
    /// Compares the clocks; `written` is the end of the log.
    pub fn note(&self, now: Now, written: PhysicalOffset) {
        let state = &mut *self.0.lock();
        let Some(last) = state.last else {
            state.last = Some(now);
            return;
        };
        // A time that another thread took before the last one noted, and was late to tell.
        let Some(passed_ms) = now.monotonic_ms.checked_sub(last.monotonic_ms) else { return };
        state.last = Some(now);
        let expected_ms = last.wall_ms.saturating_add(passed_ms);
        if now.wall_ms.abs_diff(expected_ms) < JUMP_MS {
            return;
        }
        let by_ms = now.wall_ms.wrapping_sub(expected_ms) as i64;
        tracing::warn!(
            by_ms,
            "the wall clock has jumped: messages that wait are delivered as if it had not"
        );
        if state.jumps.len() == JUMPS_MAX {
            state.jumps.remove(0);
        }
        state.jumps.push(Jump { behind: written, by_ms });
    }

    /// Takes a clock that is behind the newest record of the log, stored at `newest_ms`, for one that was set back while
    /// nobody looked: what was parked before `behind` goes by at least that time. To be called once, at the start.
    ///
    /// One that was set forward looks like a broker that was stopped for as long.
    pub fn resume(&self, now: Now, newest_ms: u64, behind: PhysicalOffset) {
        if newest_ms.saturating_sub(now.wall_ms) < JUMP_MS {
            return;
        }
        let by_ms = now.wall_ms.wrapping_sub(newest_ms) as i64;
        tracing::warn!(
            by_ms,
            "the wall clock was set back while the broker was stopped: messages that wait are delivered as if it had not"
        );
        self.0.lock().jumps.insert(0, Jump { behind, by_ms });
    }

    /// The time that each message goes by.
    pub fn walls(&self, now: Now) -> Walls {
        let state = self.0.lock();
        let mut wall_ms = now.wall_ms;
        let earlier = state.jumps.iter().rev().map(|jump| {
            wall_ms = wall_ms.saturating_add_signed(jump.by_ms.saturating_neg());
            (jump.behind, wall_ms)
        });
        let mut before: Vec<_> = earlier.collect();
        before.reverse();
        Walls { wall_ms: now.wall_ms, before }
    }
}

impl Walls {
    /// Whether the clock has jumped at all.
    pub fn have_jumped(&self) -> bool {
        !self.before.is_empty()
    }

    /// The latest of all times: what is due later is due to nobody.
    pub fn latest_ms(&self) -> u64 {
        self.before.iter().map(|(_, wall_ms)| *wall_ms).fold(self.wall_ms, u64::max)
    }

    /// The time that a message at `position` goes by.
    pub fn at_ms(&self, position: PhysicalOffset) -> u64 {
        let after = self.before.partition_point(|(behind, _)| *behind <= position);
        self.before.get(after).map_or(self.wall_ms, |(_, wall_ms)| *wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { wall_ms: 1_700_000_000_000, monotonic_ms: 50_000 };
    const HOUR_MS: i64 = 3_600_000;

    fn after(passed_ms: u64, jumped_ms: i64) -> Now {
        Now {
            wall_ms: (START.wall_ms + passed_ms).saturating_add_signed(jumped_ms),
            monotonic_ms: START.monotonic_ms + passed_ms,
        }
    }

    /// Parked at position 10 before a jump, due in ten minutes, and at position 30 behind it.
    fn due(jump_ms: i64, passed_ms: u64) -> (bool, bool) {
        let jumps = Jumps::default();
        jumps.note(START, PhysicalOffset(5));
        jumps.note(after(1_000, jump_ms), PhysicalOffset(20));
        let walls = jumps.walls(after(passed_ms, jump_ms));
        let is_due = |position, due_ms: u64| {
            due_ms <= walls.at_ms(PhysicalOffset(position)) && due_ms <= walls.latest_ms()
        };
        let (old, new) = (after(600_000, 0).wall_ms, after(600_000, jump_ms).wall_ms);
        (is_due(10, old), is_due(30, new))
    }

    #[test]
    fn message_is_due_when_its_time_has_passed_whichever_way_the_clock_jumps_meanwhile() {
        for jump_ms in [HOUR_MS, -HOUR_MS, 0] {
            assert_eq!(due(jump_ms, 599_999), (false, false), "{jump_ms}");
            assert_eq!(due(jump_ms, 600_000), (true, true), "{jump_ms}");
        }
    }

    #[test]
    fn clock_that_is_behind_the_log_at_the_start_was_set_back_and_any_other_was_not() {
        let parked = |newest_ms: u64| {
            let jumps = Jumps::default();
            jumps.resume(START, newest_ms, PhysicalOffset(20));
            jumps.note(after(1_000, 0), PhysicalOffset(30));
            let walls = jumps.walls(after(2_000, 0));
            [10, 30].map(|at| walls.at_ms(PhysicalOffset(at)) - START.wall_ms)
        };
        let hour = HOUR_MS as u64;
        assert_eq!(parked(START.wall_ms + hour), [hour + 2_000, 2_000]);
        assert_eq!(parked(START.wall_ms - hour), [2_000, 2_000], "it was stopped for an hour");
        assert_eq!(parked(START.wall_ms + JUMP_MS - 1), [2_000, 2_000], "a clock that is steered");
    }

    #[test]
    fn jumps_add_up_and_one_that_is_undone_leaves_the_time_as_it_was() {
        let jumps = Jumps::default();
        jumps.note(START, PhysicalOffset(0));
        jumps.note(after(1_000, HOUR_MS), PhysicalOffset(10));
        jumps.note(after(2_000, HOUR_MS), PhysicalOffset(15));
        jumps.note(after(3_000, 0), PhysicalOffset(20));
        let walls = jumps.walls(after(4_000, 0));
        assert_eq!(walls.at_ms(PhysicalOffset(5)), after(4_000, 0).wall_ms);
        assert_eq!(walls.at_ms(PhysicalOffset(15)), after(4_000, HOUR_MS).wall_ms);
        assert_eq!(walls.at_ms(PhysicalOffset(20)), after(4_000, 0).wall_ms);
    }

    #[test]
    fn steered_clock_and_a_thread_that_is_late_to_tell_are_no_jumps() {
        let jumps = Jumps::default();
        jumps.note(after(5_000, 0), PhysicalOffset(0));
        jumps.note(after(1_000, -HOUR_MS), PhysicalOffset(0));
        for step in 0..100 {
            jumps.note(after(6_000 + step * 1_000, step as i64 * 900), PhysicalOffset(step));
        }
        assert!(!jumps.walls(after(200_000, 90_000)).have_jumped());
    }

    #[test]
    fn clock_that_never_rests_is_remembered_within_bounds() {
        let jumps = Jumps::default();
        for step in 0..1_000 {
            let jumped_ms = if step % 2 == 0 { HOUR_MS } else { 0 };
            jumps.note(after(step, jumped_ms), PhysicalOffset(step));
        }
        assert_eq!(jumps.walls(after(1_000, 0)).before.len(), JUMPS_MAX);
    }
}
