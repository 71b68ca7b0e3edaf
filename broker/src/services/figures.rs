//! Rates and totals of the whole broker, as tools show them.
//! Invariant: every figure is counted; totals run from the start of the process, days change at midnight UTC.
//! Leaves counting to `counters` and the taking of samples to `upkeep`. Source: RocketMQ remoting, request code 28.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use gantry_model::is_system_topic;
use gantry_store::{Now, Store};
use parking_lot::Mutex;

use super::counters::{Counted, Counters, MessageKind};

/// Lengths of the windows that rates are given for.
const WINDOWS_MS: [u64; 3] = [10_000, 60_000, 600_000];
/// How much too early a sample may be taken and still count as 10 s old.
const EARLY_MS: u64 = 1_000;
/// Samples kept: one each 10 s reaches back over the longest window, with the one before it.
const SAMPLES_MAX: usize = 62;
/// Shortest time that a rate is taken over, so that one message in a millisecond is not a thousand per second.
const RATE_MS_MIN: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What was counted up to a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages put.
    pub put: u64,
    /// Bytes of their bodies.
    pub put_bytes: u64,
    /// Messages put to other than system topics.
    pub put_own: u64,
    /// Messages given to consumers.
    pub got: u64,
    /// Those of other than system topics.
    pub got_own: u64,
    /// Reads that found a message.
    pub found: u64,
    /// Reads that found none.
    pub missed: u64,
    /// Messages put that wait for a time.
    pub parked: u64,
    /// Of those, delivered.
    pub fired: u64,
}

impl Totals {
    fn of(counters: &Counters) -> Self {
        let mut totals = Self::default();
        counters.each_in(|topic, kind, messages, bytes| {
            totals.put += messages;
            totals.put_bytes += bytes;
            totals.put_own += if is_system_topic(topic) { 0 } else { messages };
            totals.parked += if kind == MessageKind::Delay { messages } else { 0 };
        });
        counters.each_flow(|counted, flow| {
            if let Counted::Out { topic, .. } = counted {
                let (messages, _) = flow.get();
                totals.got += messages;
                totals.got_own += if is_system_topic(topic) { 0 } else { messages };
            }
        });
        totals.found = counters.found_reads.load(Ordering::Relaxed);
        totals.missed = counters.missed_reads.load(Ordering::Relaxed);
        totals.fired = counters.timers_fired.load(Ordering::Relaxed);
        totals
    }
}

/// The broker's figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figured {
    /// Totals so far.
    pub now: Totals,
    /// Totals when today began, or when the broker started, if that was later.
    pub today: Totals,
    /// The same of yesterday.
    pub yesterday: Totals,
    /// Most bytes that waited for the views when a sample was taken.
    pub ring_bytes_max: usize,
    spans: [(Totals, u64); WINDOWS_MS.len()],
}

impl Figured {
    /// Rates per second over the last 10 s, minute and 10 minutes, or as much of that as there is.
    pub fn rates(&self, total: impl Fn(&Totals) -> u64) -> [f64; WINDOWS_MS.len()] {
        self.spans.map(|(then, elapsed_ms)| {
            let count = total(&self.now).saturating_sub(total(&then));
            count as f64 * 1_000.0 / elapsed_ms as f64
        })
    }
}

#[derive(Debug)]
struct State {
    /// Oldest first, never empty.
    samples: VecDeque<(u64, Totals)>,
    day: u64,
    today: Totals,
    yesterday: Totals,
    ring_bytes_max: usize,
}

/// Samples of a broker's totals.
pub struct Figures {
    /// When the broker started.
    pub began: Now,
    counters: Arc<Counters>,
    state: Mutex<State>,
}

impl Figures {
    /// Figures of what `counters` count from `now` on.
    pub fn new(counters: Arc<Counters>, now: Now) -> Self {
        let state = State {
            samples: VecDeque::from([(now.monotonic_ms, Totals::default())]),
            day: now.wall_ms / DAY_MS,
            today: Totals::default(),
            yesterday: Totals::default(),
            ring_bytes_max: 0,
        };
        Self { began: now, counters, state: Mutex::new(state) }
    }

    /// Takes a sample; to be called every 10 s.
    pub fn sample(&self, store: &Store, now: Now) {
        self.take(Totals::of(&self.counters), store.status().ring_bytes, now);
    }

    fn take(&self, totals: Totals, ring_bytes: usize, now: Now) {
        let state = &mut *self.state.lock();
        if state.samples.len() == SAMPLES_MAX {
            state.samples.pop_front();
        }
        state.samples.push_back((now.monotonic_ms, totals));
        state.ring_bytes_max = state.ring_bytes_max.max(ring_bytes);
        state.turn_day(totals, now);
    }

    /// The figures.
    pub fn at(&self, now: Now) -> Figured {
        let totals = Totals::of(&self.counters);
        let state = &mut *self.state.lock();
        state.turn_day(totals, now);
        Figured {
            now: totals,
            today: state.today,
            yesterday: state.yesterday,
            ring_bytes_max: state.ring_bytes_max,
            spans: WINDOWS_MS.map(|window_ms| state.span(window_ms, now.monotonic_ms)),
        }
    }
}

impl State {
    /// A clock that is set back begins no day a second time.
    fn turn_day(&mut self, totals: Totals, now: Now) {
        let day = now.wall_ms / DAY_MS;
        if day <= self.day {
            return;
        }
        // Asleep for more than a day, it counted nothing meanwhile.
        self.yesterday = if day == self.day + 1 { self.today } else { totals };
        self.today = totals;
        self.day = day;
    }

    /// The newest totals that are as old as the window, or the oldest there are, and their age.
    fn span(&self, window_ms: u64, now_ms: u64) -> (Totals, u64) {
        let is_old = |at_ms: u64| at_ms + window_ms <= now_ms + EARLY_MS;
        let old = self.samples.iter().rev().find(|(at_ms, _)| is_old(*at_ms));
        let (at_ms, totals) =
            old.or(self.samples.front()).copied().unwrap_or((now_ms, Totals::default()));
        (totals, now_ms.saturating_sub(at_ms).max(RATE_MS_MIN))
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{GroupName, TopicName};

    use super::*;

    /// A minute before midnight.
    const EVENING_MS: u64 = 20_000 * DAY_MS - 60_000;

    fn at(elapsed_ms: u64) -> Now {
        Now { wall_ms: EVENING_MS + elapsed_ms, monotonic_ms: elapsed_ms }
    }

    fn world() -> (Arc<Counters>, Figures) {
        let counters = Arc::new(Counters::default());
        (Arc::clone(&counters), Figures::new(counters, at(0)))
    }

    fn put(counters: &Counters, topic: &str, messages: u64) {
        let topic = TopicName::new(topic).unwrap();
        counters.messages_in(&topic, MessageKind::Normal).add(messages, 10 * messages);
    }

    #[test]
    fn rates_are_over_the_last_10_s_minute_and_10_minutes() {
        let (counters, figures) = world();
        for tick in 1..=90 {
            // 10 a second for the first 840 s, then 20.
            put(&counters, "orders", if tick <= 84 { 100 } else { 200 });
            let totals = Totals::of(&counters);
            figures.take(totals, 0, at(tick * 10_000));
        }
        put(&counters, "orders", 500);
        let rates = figures.at(at(910_000)).rates(|totals| totals.put);
        let expected =
            [50.0, (5.0 * 200.0 + 500.0) / 60.0, (53.0 * 100.0 + 6.0 * 200.0 + 500.0) / 600.0];
        assert_eq!(rates.map(|rate| (rate * 1e6) as u64), expected.map(|rate| (rate * 1e6) as u64));
    }

    #[test]
    fn young_broker_has_rates_since_its_start() {
        let (counters, figures) = world();
        put(&counters, "orders", 40);
        let rates = |elapsed_ms| figures.at(at(elapsed_ms)).rates(|totals| totals.put);
        assert!(rates(4_000).iter().all(|rate| (rate - 10.0).abs() < 1e-9));
        assert!(rates(1).iter().all(|rate| (rate - 40.0).abs() < 1e-9));
    }

    #[test]
    fn totals_of_the_mornings_change_at_midnight_and_once() {
        let (counters, figures) = world();
        let (topic, group) = (TopicName::new("orders").unwrap(), GroupName::new("g").unwrap());
        put(&counters, "orders", 5);
        put(&counters, "TRANS_CHECK_MAX_TIME_TOPIC", 7);
        counters.messages_out(&topic, &group).add(3, 30);
        let evening = figures.at(at(59_999));
        assert_eq!((evening.now.put, evening.now.put_own, evening.now.got_own), (12, 5, 3));
        assert_eq!((evening.today.put_own, evening.yesterday.put_own), (0, 0));
        figures.take(evening.now, 0, at(60_000));
        put(&counters, "orders", 1);
        let morning = figures.at(at(70_000));
        assert_eq!((morning.now.put_own, morning.today.put_own, morning.today.got_own), (6, 5, 3));
        // The clock is set back and comes again.
        figures.take(morning.now, 0, Now { monotonic_ms: 71_000, ..at(0) });
        assert_eq!(figures.at(at(72_000)).today, morning.today);
        let next = figures.at(at(60_000 + DAY_MS));
        assert_eq!((next.yesterday.put_own, next.today.put_own), (5, 6));
        let much_later = figures.at(at(60_000 + 5 * DAY_MS));
        assert_eq!((much_later.yesterday.put_own, much_later.today.put_own), (6, 6));
    }
}
