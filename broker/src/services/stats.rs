//! Rates of what went in and out, over the last minute, hour and day.
//! Invariant: a window ends when it is asked for and begins at the oldest sample in it, or at the start.
//! Leaves counting to `counters` and the taking of samples to `upkeep`. Source: RocketMQ remoting, request code 315.

use std::{collections::VecDeque, sync::Arc};

use gantry_store::Now;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::counters::{Counted, Counters, Flow};

/// Time between two samples of a window, and how many make it up: a minute of 10 s, an hour of 10 min, a day of
/// 1 h.
const WINDOWS: [(u64, usize); 3] = [(10_000, 6), (600_000, 6), (3_600_000, 24)];
/// How much too early a sample may be taken and still count as the next one.
const SAMPLE_EARLY_MS: u64 = 1_000;
/// Shortest time that a rate is taken over, so that one message in a millisecond is not a thousand per second.
const RATE_MS_MIN: u64 = 1_000;

/// A series by the name that tools know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatName {
    kind: Kind,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    TopicPut,
    GroupGet,
    SentBack,
    BrokerPut,
    BrokerGet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Messages,
    Bytes,
}

impl StatName {
    /// Messages that went to a group, by `topic@group`.
    pub const GROUP_GET: Self = Self { kind: Kind::GroupGet, unit: Unit::Messages };

    /// The series of that name.
    pub fn named(name: &str) -> Option<Self> {
        let (kind, unit) = match name {
            "TOPIC_PUT_NUMS" => (Kind::TopicPut, Unit::Messages),
            "TOPIC_PUT_SIZE" => (Kind::TopicPut, Unit::Bytes),
            "GROUP_GET_NUMS" => (Kind::GroupGet, Unit::Messages),
            "GROUP_GET_SIZE" => (Kind::GroupGet, Unit::Bytes),
            "SNDBCK_PUT_NUMS" => (Kind::SentBack, Unit::Messages),
            "BROKER_PUT_NUMS" => (Kind::BrokerPut, Unit::Messages),
            "BROKER_GET_NUMS" => (Kind::BrokerGet, Unit::Messages),
            _ => return None,
        };
        Some(Self { kind, unit })
    }
}

/// What happened in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Window {
    /// Messages or bytes.
    pub sum: u64,
    /// The same per second.
    pub per_second: f64,
    /// The same per call.
    pub per_call: f64,
}

/// The windows of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Windows {
    /// Of the last minute.
    pub minute: Window,
    /// Of the last hour.
    pub hour: Window,
    /// Of the last day.
    pub day: Window,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    calls: u64,
    messages: u64,
    bytes: u64,
}

impl Totals {
    fn add(&mut self, flow: &Flow) {
        let (messages, bytes) = flow.get();
        self.calls += flow.calls();
        self.messages += messages;
        self.bytes += bytes;
    }

    fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Messages => self.messages,
            Unit::Bytes => self.bytes,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at_ms: u64,
    totals: Totals,
}

/// Samples of one window after another, oldest first.
#[derive(Debug, Default)]
struct Series([VecDeque<Sample>; WINDOWS.len()]);

impl Series {
    /// Begins before anything was counted.
    fn begun(at_ms: u64) -> Self {
        let first = Sample { at_ms, totals: Totals::default() };
        Self(std::array::from_fn(|_| VecDeque::from([first])))
    }

    fn push(&mut self, sample: Sample) {
        for (samples, (every_ms, count)) in self.0.iter_mut().zip(WINDOWS) {
            let last = samples.back().map_or(0, |last| last.at_ms);
            if sample.at_ms + SAMPLE_EARLY_MS < last + every_ms {
                continue;
            }
            samples.push_back(sample);
            if samples.len() > count {
                samples.pop_front();
            }
        }
    }

    fn windows(&self, live: Sample, unit: Unit) -> Windows {
        let window = |samples: &VecDeque<Sample>| {
            samples.front().map_or_else(Window::default, |oldest| between(*oldest, live, unit))
        };
        let [minute, hour, day] = &self.0;
        Windows { minute: window(minute), hour: window(hour), day: window(day) }
    }
}

fn between(from: Sample, to: Sample, unit: Unit) -> Window {
    let sum = to.totals.of(unit).saturating_sub(from.totals.of(unit));
    let calls = to.totals.calls.saturating_sub(from.totals.calls);
    let elapsed_ms = to.at_ms.saturating_sub(from.at_ms).max(RATE_MS_MIN);
    Window {
        sum,
        per_second: sum as f64 * 1_000.0 / elapsed_ms as f64,
        per_call: if calls == 0 { 0.0 } else { sum as f64 / calls as f64 },
    }
}

type Key = (Kind, String);

/// All series of a broker.
pub struct Stats {
    counters: Arc<Counters>,
    cluster: String,
    state: Mutex<State>,
}

struct State {
    /// When a series began that was not there at the last sample.
    sampled_ms: u64,
    series: HashMap<Key, Series>,
}

impl Stats {
    /// Series of what `counters` count from `now` on.
    pub fn new(counters: Arc<Counters>, cluster: &str, now: Now) -> Self {
        let state = State { sampled_ms: now.monotonic_ms, series: HashMap::new() };
        Self { counters, cluster: cluster.into(), state: Mutex::new(state) }
    }

    /// Takes a sample of every series; to be called every 10 s.
    pub fn sample(&self, now: Now) {
        let at_ms = now.monotonic_ms;
        let totals = self.totals(|_, _| true);
        let mut state = self.state.lock();
        let begun_ms = std::mem::replace(&mut state.sampled_ms, at_ms);
        for (key, totals) in totals {
            let series = state.series.entry(key).or_insert_with(|| Series::begun(begun_ms));
            series.push(Sample { at_ms, totals });
        }
    }

    /// The windows of a series; `None`: nothing was ever counted in it.
    pub fn windows(&self, name: StatName, key: &str, now: Now) -> Option<Windows> {
        let totals = self.totals(|kind, found| kind == name.kind && found == key);
        let (key, totals) = totals.into_iter().next()?;
        let live = Sample { at_ms: now.monotonic_ms, totals };
        let state = self.state.lock();
        Some(match state.series.get(&key) {
            Some(series) => series.windows(live, name.unit),
            None => Series::begun(state.sampled_ms).windows(live, name.unit),
        })
    }

    /// What was counted so far in the series that `wanted` wants.
    fn totals(&self, wanted: impl Fn(Kind, &str) -> bool) -> HashMap<Key, Totals> {
        let mut found: HashMap<Key, Totals> = HashMap::new();
        let mut add = |kind, key: String, flow: &Flow| {
            if wanted(kind, &key) {
                found.entry((kind, key)).or_default().add(flow);
            }
        };
        self.counters.each_flow(|counted, flow| match counted {
            Counted::In { topic } => {
                add(Kind::TopicPut, topic.to_string(), flow);
                add(Kind::BrokerPut, self.cluster.clone(), flow);
            }
            Counted::Out { topic, group } => {
                add(Kind::GroupGet, format!("{topic}@{group}"), flow);
                add(Kind::BrokerGet, self.cluster.clone(), flow);
            }
            Counted::SentBack { topic, group } => {
                add(Kind::SentBack, format!("{topic}@{group}"), flow);
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::TopicName;

    use super::*;
    use crate::services::counters::MessageKind;

    fn at(monotonic_ms: u64) -> Now {
        Now { wall_ms: 1_700_000_000_000, monotonic_ms }
    }

    fn close(window: Window, sum: u64, per_second: f64) -> bool {
        window.sum == sum && (window.per_second - per_second).abs() < 1e-9
    }

    #[test]
    fn window_counts_what_came_since_its_oldest_sample_and_no_more() {
        let counters = Arc::new(Counters::default());
        let stats = Stats::new(Arc::clone(&counters), "c", at(0));
        let name = StatName::named("TOPIC_PUT_NUMS").unwrap();
        assert_eq!(stats.windows(name, "orders", at(0)), None);
        let topic = TopicName::new("orders").unwrap();
        let (normal, delayed) = (
            counters.messages_in(&topic, MessageKind::Normal),
            counters.messages_in(&topic, MessageKind::Delay),
        );
        normal.add(30, 300);
        delayed.add(10, 100);
        let first = stats.windows(name, "orders", at(4_000)).unwrap();
        assert!(close(first.minute, 40, 10.0) && close(first.day, 40, 10.0), "{first:?}");
        assert!((first.minute.per_call - 20.0).abs() < 1e-9);

        for second in (10..=120).step_by(10) {
            stats.sample(at(second * 1_000));
        }
        normal.add(6, 60);
        let later = stats.windows(name, "orders", at(130_000)).unwrap();
        assert!(close(later.minute, 6, 0.1), "{later:?}");
        assert_eq!((later.hour.sum, later.day.sum), (46, 46));
        let bytes = StatName::named("TOPIC_PUT_SIZE").unwrap();
        assert_eq!(stats.windows(bytes, "orders", at(130_000)).unwrap().hour.sum, 460);
        let all = StatName::named("BROKER_PUT_NUMS").unwrap();
        assert_eq!(stats.windows(all, "c", at(130_000)).unwrap().day.sum, 46);
    }

    #[test]
    fn windows_keep_a_minute_an_hour_and_a_day_of_samples() {
        let counters = Arc::new(Counters::default());
        let stats = Stats::new(Arc::clone(&counters), "c", at(0));
        let flow = counters.messages_in(&TopicName::new("t").unwrap(), MessageKind::Normal);
        let ten_seconds_of_two_days = 2 * 24 * 360;
        for tick in 1..=ten_seconds_of_two_days {
            flow.add(1, 1);
            stats.sample(at(tick * 10_000));
        }
        let name = StatName::named("TOPIC_PUT_NUMS").unwrap();
        let windows = stats.windows(name, "t", at(ten_seconds_of_two_days * 10_000)).unwrap();
        assert_eq!(windows.minute.sum, 5);
        assert_eq!(windows.hour.sum, 300);
        assert_eq!(windows.day.sum, 23 * 360);
        for window in [windows.minute, windows.hour, windows.day] {
            assert!((window.per_second - 0.1).abs() < 1e-9, "{window:?}");
        }
    }
}
