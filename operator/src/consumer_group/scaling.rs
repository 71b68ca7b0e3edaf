//! How many consumers a backlog asks for. Pure: the clock is an argument.
//! Invariant: more consumers come at once, fewer only after the backlog has asked for no more than that for the whole
//! window; none is left only when nothing is left to consume; without data nothing is taken away.
//! Leaves reading the backlog and setting replicas to the controller.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use gantry_resources::Scaling;

/// Somebody else set the replicas so often within [`CONTENTION_WINDOW`]: the operator leaves them alone.
const CONTENTIONS_MAX: usize = 3;
/// How long another's change is remembered, and so how long the operator then stands back.
const CONTENTION_WINDOW: Duration = Duration::from_mins(5);

/// What is known of a group's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// Messages to consume, those in flight and retries that wait included.
    pub(super) backlog: u64,
    /// Most consumers that can have a queue.
    pub(super) queues: u32,
    /// Whether every broker answered.
    pub(super) is_complete: bool,
}

/// What to do with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Set its replicas.
    Set(i32),
    /// It is as it should be, or will be reduced when the window has passed.
    Keep,
    /// Data are missing: leave it as it is.
    Hold,
    /// Somebody else sets it: leave it alone.
    StandBack,
}

/// What a group's scaling remembers, from the operator's start on.
#[derive(Debug, Default)]
pub(super) struct Scaler {
    /// What the backlog asked for, within the window, oldest first.
    asked: VecDeque<(Instant, i32)>,
    /// Since when the backlog has been observed without a gap.
    since: Option<Instant>,
    /// What the target was set to, or found at.
    known: Option<i32>,
    /// When somebody else changed it.
    contentions: VecDeque<Instant>,
}

impl Scaler {
    /// Decides what becomes of a target that has `current` replicas.
    pub(super) fn decide(
        &mut self,
        scaling: &Scaling,
        work: Option<Work>,
        current: i32,
        window: Duration,
        now: Instant,
    ) -> Decision {
        if self.is_contended(current, now) {
            return Decision::StandBack;
        }
        let Some(work) = work else {
            // A gap: what was asked for before it says nothing about the time in it.
            self.asked.clear();
            self.since = None;
            return Decision::Hold;
        };
        let wanted = wanted(scaling, work);
        self.remember(wanted, window, now);
        if !work.is_complete {
            return if wanted > current { self.set(wanted) } else { Decision::Hold };
        }
        let highest = self.asked.iter().map(|(_, asked)| *asked).max().unwrap_or(wanted);
        let observed = self.since.map_or(Duration::ZERO, |since| now.duration_since(since));
        let target = if wanted >= current {
            wanted
        } else if observed >= window {
            highest.min(current)
        } else {
            // Not observed for long enough to take anything away, but never above the maximum.
            current.min(scaling.max_replicas)
        };
        if target == current { Decision::Keep } else { self.set(target) }
    }

    fn set(&mut self, replicas: i32) -> Decision {
        self.known = Some(replicas);
        Decision::Set(replicas)
    }

    /// The target could not be set: what it was set to is not known.
    pub(super) fn was_not_set(&mut self) {
        self.known = None;
    }

    fn remember(&mut self, wanted: i32, window: Duration, now: Instant) {
        self.since.get_or_insert(now);
        self.asked.push_back((now, wanted));
        while self.asked.front().is_some_and(|(at, _)| now.duration_since(*at) > window) {
            self.asked.pop_front();
        }
    }

    /// Notes a change that was not ours, and says whether there have been too many.
    fn is_contended(&mut self, current: i32, now: Instant) -> bool {
        if self.known.is_some_and(|known| known != current) {
            self.contentions.push_back(now);
        }
        self.known = Some(current);
        let old = |at: &Instant| now.duration_since(*at) > CONTENTION_WINDOW;
        while self.contentions.front().is_some_and(old) {
            self.contentions.pop_front();
        }
        self.contentions.len() >= CONTENTIONS_MAX
    }
}

/// Replicas for the work at hand.
fn wanted(scaling: &Scaling, work: Work) -> i32 {
    let per_replica = scaling.backlog_per_replica.max(1) as u64;
    let for_backlog = i32::try_from(work.backlog.div_ceil(per_replica)).unwrap_or(i32::MAX);
    // A consumer without a queue would be idle.
    let useful = i32::try_from(work.queues).unwrap_or(i32::MAX).max(1);
    let highest = scaling.max_replicas.min(useful).max(scaling.min_replicas);
    for_backlog.clamp(scaling.min_replicas, highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn scaling(min: i32, max: i32) -> Scaling {
        serde_yaml::from_str(&format!(
            "{{targetRef: {{kind: Deployment, name: a}}, minReplicas: {min}, maxReplicas: {max}, backlogPerReplica: 100}}"
        ))
        .unwrap()
    }

    const fn of(backlog: u64, is_complete: bool) -> Work {
        Work { backlog, queues: 8, is_complete }
    }

    macro_rules! work {
        ($backlog:expr) => {
            Some(of($backlog, true))
        };
    }

    /// Observes the same every second for `seconds`, setting what is decided, and returns the replicas then.
    struct Run {
        scaler: Scaler,
        now: Instant,
        replicas: i32,
        scaling: Scaling,
    }

    impl Run {
        fn new(scaling: Scaling, replicas: i32) -> Self {
            Self { scaler: Scaler::default(), now: Instant::now(), replicas, scaling }
        }

        fn step(&mut self, work: Option<Work>) -> Decision {
            self.now += Duration::from_secs(1);
            let decision = self.scaler.decide(&self.scaling, work, self.replicas, WINDOW, self.now);
            if let Decision::Set(replicas) = decision {
                self.replicas = replicas;
            }
            decision
        }

        fn after(&mut self, seconds: u32, work: Option<Work>) -> i32 {
            for _ in 0..seconds {
                self.step(work);
            }
            self.replicas
        }
    }

    #[test]
    fn backlog_asks_for_replicas_within_bounds_and_queues() {
        let table = [
            (0, 0, 5, 0),
            (1, 0, 5, 1),
            (100, 0, 5, 1),
            (101, 0, 5, 2),
            (1_000_000, 0, 5, 5),
            (1_000_000, 0, 50, 8),
            (0, 2, 5, 2),
            (u64::MAX, 0, 1000, 8),
            (1_000_000, 10, 50, 10),
        ];
        for (backlog, min, max, expected) in table {
            let work = of(backlog, true);
            assert_eq!(wanted(&scaling(min, max), work), expected, "{backlog} in {min}..={max}");
        }
    }

    #[test]
    fn more_come_at_once_and_fewer_after_the_window_alone() {
        let mut run = Run::new(scaling(0, 5), 0);
        assert_eq!(run.step(work!(0)), Decision::Keep);
        assert_eq!(run.step(work!(450)), Decision::Set(5));
        assert_eq!(run.after(30, work!(0)), 5);
        assert_eq!(run.after(1, work!(0)), 0);
    }

    #[test]
    fn reduced_to_the_most_that_was_asked_for_within_the_window() {
        let mut run = Run::new(scaling(0, 5), 5);
        run.after(20, work!(500));
        run.after(20, work!(150));
        assert_eq!(run.after(11, work!(50)), 2);
        assert_eq!(run.after(30, work!(50)), 1);
    }

    #[test]
    fn one_message_keeps_one_consumer() {
        let mut run = Run::new(scaling(0, 5), 1);
        assert_eq!(run.after(120, work!(1)), 1);
    }

    #[test]
    fn nothing_is_taken_away_without_data() {
        let mut run = Run::new(scaling(0, 5), 3);
        run.after(60, work!(300));
        assert_eq!(run.step(None), Decision::Hold);
        assert_eq!(run.after(300, None), 3);
        // A window without a gap has to pass after it.
        assert_eq!(run.after(30, work!(0)), 3);
        assert_eq!(run.after(1, work!(0)), 0);
    }

    #[test]
    fn a_silent_broker_lets_the_number_grow_and_not_shrink() {
        let part = |backlog| Some(of(backlog, false));
        let mut run = Run::new(scaling(0, 5), 1);
        assert_eq!(run.step(part(500)), Decision::Set(5));
        assert_eq!(run.after(100, part(0)), 5);
    }

    #[test]
    fn operator_that_starts_anew_takes_nothing_away_for_a_window() {
        let mut run = Run::new(scaling(0, 5), 4);
        assert_eq!(run.after(30, work!(0)), 4);
        assert_eq!(run.after(1, work!(0)), 0);
    }

    #[test]
    fn target_above_the_maximum_is_reduced_at_once() {
        let mut run = Run::new(scaling(0, 5), 9);
        assert_eq!(run.step(work!(900)), Decision::Set(5));
    }

    #[test]
    fn third_change_by_somebody_else_within_five_minutes_makes_it_stand_back() {
        let mut run = Run::new(scaling(0, 5), 0);
        run.step(work!(500));
        for _ in 0..2 {
            run.replicas = 1;
            assert_eq!(run.step(work!(500)), Decision::Set(5));
        }
        run.replicas = 1;
        assert_eq!(run.step(work!(500)), Decision::StandBack);
        assert_eq!(run.after(290, work!(500)), 1);
        assert_eq!(run.after(20, work!(500)), 5);
    }
}
