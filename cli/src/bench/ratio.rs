//! What two servers did, side by side: the median round of each and their ratios.
//! Invariant: a line compares rows of the same scenario and the same parameters, each a round that was measured.
//! Leaves running to `compare` and the rest of the page to `markdown`.

use serde::Serialize;

use super::{
    markdown::{groups, median},
    report::Row,
};
use crate::output::{Table, bytes_text, count_text, micros_text};

/// Rows of two servers.
#[derive(Debug, Serialize)]
pub(crate) struct Pairs {
    pub names: [String; 2],
    pub rows: [Vec<Row>; 2],
    /// Anonymous memory of each as it was started, in bytes.
    pub idle_bytes: [Vec<u64>; 2],
    /// Scenarios that were not compared, or not to the end, and why.
    pub reasons: Vec<Reason>,
}

/// Why there is no figure.
#[derive(Debug, Serialize)]
pub(crate) struct Reason {
    pub scenario: String,
    pub why: String,
    /// Whether it should have been there.
    pub is_failure: bool,
}

const COLUMNS: usize = 17;

/// Headings of [`Pairs::lines`]; A and B stand for the servers' names.
pub(crate) const HEADINGS: [&str; COLUMNS] = [
    "SCENARIO",
    "WHAT",
    "A RATE",
    "B RATE",
    "RATIO",
    "A CPU/MSG",
    "B CPU/MSG",
    "RATIO",
    "A P50/P99/P99.9",
    "B P50/P99/P99.9",
    "A CALLS/MSG",
    "B CALLS/MSG",
    "A MEMORY",
    "B MEMORY",
    "FAILED, A / B",
    "BAR",
    "VERDICT",
];

impl Pairs {
    /// Nothing yet of two servers.
    pub(crate) fn new(names: &[String]) -> Self {
        let name = |at: usize| names.get(at).cloned().unwrap_or_default();
        Self {
            names: [name(0), name(1)],
            rows: [vec![], vec![]],
            idle_bytes: [vec![], vec![]],
            reasons: vec![],
        }
    }

    /// Adds what one of them did in a round.
    pub(crate) fn add(&mut self, side: usize, rows: Vec<Row>) {
        self.rows[side].extend(rows);
    }

    /// Adds what both held in memory before any load.
    pub(crate) fn idle(&mut self, bytes: [u64; 2]) {
        for (all, bytes) in self.idle_bytes.iter_mut().zip(bytes) {
            all.push(bytes);
        }
    }

    /// Whether a scenario ended before it should.
    pub(crate) fn has_failures(&self) -> bool {
        self.reasons.iter().any(|reason| reason.is_failure)
    }

    /// One line for each scenario and its parameters, under [`HEADINGS`].
    pub(crate) fn lines(&self) -> Vec<[String; COLUMNS]> {
        let [ours, theirs] = [groups(&self.rows[0]), groups(&self.rows[1])];
        let mut lines: Vec<_> = ours
            .iter()
            .filter_map(|group| {
                let same = |b: &&Vec<&Row>| {
                    b[0].scenario == group[0].scenario && b[0].what == group[0].what
                };
                theirs.iter().find(same).map(|others| line(group, others))
            })
            .collect();
        lines.extend(self.idle_line());
        lines.extend(self.reasons.iter().map(Reason::line));
        lines
    }

    fn idle_line(&self) -> Option<[String; COLUMNS]> {
        let [a, b] = [middle(&self.idle_bytes[0])?, middle(&self.idle_bytes[1])?];
        let mut line = dashes();
        (line[0], line[1]) = ("idle".into(), "just started".into());
        (line[12], line[13]) = (bytes_text(a), bytes_text(b));
        let share = a as f64 / b as f64;
        line[15] = format!("memory ≤ {IDLE_SHARE_MAX:.2} of B's");
        let is_met = share <= IDLE_SHARE_MAX;
        line[16] = if is_met { "met".into() } else { format!("**missed**: {share:.2}") };
        Some(line)
    }

    /// The lines as a table.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(HEADINGS);
        for line in self.lines() {
            table.row(line);
        }
        table.note(format!("A is {}, B is {}; ratios are A over B.", self.names[0], self.names[1]));
        table
    }
}

impl Reason {
    fn line(&self) -> [String; COLUMNS] {
        let mut line = dashes();
        (line[0], line[1]) = (self.scenario.clone(), self.why.clone());
        line[16] = if self.is_failure { "**failed**".into() } else { "not compared".into() };
        line
    }
}

fn dashes() -> [String; COLUMNS] {
    [const { String::new() }; COLUMNS].map(|_| "-".to_owned())
}

fn middle(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

fn cpu_us(row: &Row) -> Option<f64> {
    row.measured.as_ref().and_then(|measured| measured.server).map(|cost| cost.cpu_us_per_message)
}

/// Time from the start of a process to its first answered send, of a row about starts.
fn first_send_ms(row: &Row) -> Option<f64> {
    row.figures.get("first_send_ms").copied()
}

fn line(ours: &[&Row], theirs: &[&Row]) -> [String; COLUMNS] {
    let (a, b) = (median(ours), median(theirs));
    let cost = |row: &Row| row.measured.as_ref().and_then(|measured| measured.server);
    let calls = |row: &Row| text(cost(row).map(|cost| format!("{:.2}", cost.calls_per_message)));
    let memory = |row: &Row| text(cost(row).map(|cost| bytes_text(cost.anonymous_bytes)));
    let rate = |row: &Row| text(row.rate_per_s().map(|rate| format!("{}/s", count_text(rate))));
    let cpu = |row: &Row| text(cpu_us(row).map(micros_text));
    let latency = |row: &Row| {
        text(
            row.latency
                .as_ref()
                .map(|at| [at.p50_us, at.p99_us, at.p999_us].map(micros_text).join(" / "))
                .or_else(|| Some(format!("first send {:.0} ms", first_send_ms(row)?))),
        )
    };
    // Of all rounds: a round with failures must not hide behind the median one.
    let failed = [ours, theirs].map(|rounds| rounds.iter().map(|row| row.failed()).sum::<u64>());
    let [bar, verdict] = judged(a, b, failed[0]);
    [
        a.scenario.clone(),
        a.what.clone(),
        rate(a),
        rate(b),
        text(ratio(a.rate_per_s(), b.rate_per_s())),
        cpu(a),
        cpu(b),
        text(ratio(cpu_us(a), cpu_us(b))),
        latency(a),
        latency(b),
        calls(a),
        calls(b),
        memory(a),
        memory(b),
        format!("{} / {}", failed[0], failed[1]),
        bar,
        verdict,
    ]
}

/// Largest share of the other server's memory that ours may hold at rest.
const IDLE_SHARE_MAX: f64 = 0.1;

/// Largest share of the other server's processor time that ours may take.
fn cpu_share_max(scenario: &str) -> f64 {
    match scenario {
        "W1" | "W7" | "W16" => 0.2,
        "W3" => 0.4,
        _ => 1.0,
    }
}

/// What the first server has to reach beside the second, and whether it did. At a given rate the rates are alike, and
/// the time counts instead.
fn judged(a: &Row, b: &Row, failed: u64) -> [String; 2] {
    if a.scenario.ends_with("echo") {
        return ["-".into(), "-".into()];
    }
    if let Some((a, b)) = first_send_ms(a).zip(first_send_ms(b)) {
        let verdict = if a <= b { "met" } else { "**missed**: first send" };
        return ["first send ≤ B's".into(), verdict.into()];
    }
    let share_max = cpu_share_max(&a.scenario);
    let is_paced = a.what.contains("/s");
    let p50 = |row: &Row| row.latency.map(|latency| latency.p50_us);
    let (bar, lead) = if is_paced {
        ("p50 ≤ B's", p50(a).zip(p50(b)).map(|(a, b)| a <= b))
    } else {
        ("rate ≥ B's", a.rate_per_s().zip(b.rate_per_s()).map(|(a, b)| a >= b))
    };
    let share = cpu_us(a).zip(cpu_us(b)).map(|(a, b)| a / b);
    let mut missed = Vec::new();
    match lead {
        Some(true) => {}
        Some(false) => missed.push(if is_paced { "p50".into() } else { "rate".into() }),
        None => missed.push("not measured".into()),
    }
    match share {
        Some(share) if share <= share_max => {}
        Some(share) => missed.push(format!("CPU {share:.2}")),
        None => missed.push("CPU not measured".into()),
    }
    if failed > 0 {
        missed.push(format!("{failed} failed"));
    }
    let verdict =
        if missed.is_empty() { "met".into() } else { format!("**missed**: {}", missed.join(", ")) };
    [format!("{bar}, CPU ≤ {share_max:.1} of B's"), verdict]
}

fn text(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

/// A over B; nothing where one is missing or B is nothing.
fn ratio(a: Option<f64>, b: Option<f64>) -> Option<String> {
    a.zip(b).filter(|(_, b)| *b > 0.0).map(|(a, b)| format!("{:.2}", a / b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        measure::{Measured, ServerCost},
        process::CallSource,
    };

    #[test]
    fn ratio_is_the_first_over_the_second_and_never_a_division_by_nothing() {
        assert_eq!(ratio(Some(3.0), Some(2.0)).as_deref(), Some("1.50"));
        assert_eq!((ratio(Some(3.0), Some(0.0)), ratio(None, Some(1.0))), (None, None));
    }

    #[test]
    fn only_rows_of_the_same_thing_are_compared() {
        let row = |what: &str| Row::of_figures("W1", what.into(), []);
        let mut pairs = Pairs::new(&["a".into(), "b".into()]);
        pairs.add(0, vec![row("x"), row("y")]);
        pairs.add(1, vec![row("y"), row("z")]);
        let lines = pairs.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0][1], "y");
    }

    #[test]
    fn memory_at_rest_is_the_median_of_all_starts() {
        let mut pairs = Pairs::new(&["a".into(), "b".into()]);
        for (a, b) in [(9 << 20, 1 << 20), (1 << 20, 2 << 20), (2 << 20, 3 << 20)] {
            pairs.idle([a, b]);
        }
        let lines = pairs.lines();
        assert_eq!(lines[0][12..14], [bytes_text(2 << 20), bytes_text(2 << 20)]);
        assert_eq!(lines[0][16], "**missed**: 1.00");
    }

    fn measured(rate_per_s: f64, cpu_us_per_message: f64, refused: u64) -> Row {
        let server = ServerCost {
            cpu_us_per_message,
            cores: 1.0,
            anonymous_bytes: 0,
            device_bytes_per_message: 0.0,
            calls_per_message: 0.0,
            calls_counted: CallSource::AllByPerf,
        };
        let measured = Measured {
            messages: 1,
            failed: 0,
            seconds: 1.0,
            rate_per_s,
            server: Some(server),
            generator_cpu_us_per_message: 0.0,
            machine_stopped_ms: None,
        };
        let mut row = Row::of_figures("W1", "x".into(), []);
        row.measured = Some(measured);
        row.refusals.extend((refused > 0).then_some((2, refused)));
        row
    }

    #[test]
    fn faster_is_not_enough_where_processor_time_counts_or_requests_failed() {
        let theirs = measured(100.0, 50.0, 0);
        let verdict = |ours: Row| line(&[&ours], &[&theirs])[16].clone();
        assert_eq!(verdict(measured(200.0, 10.0, 0)), "met");
        assert_eq!(verdict(measured(200.0, 10.1, 0)), "**missed**: CPU 0.20");
        assert_eq!(verdict(measured(99.0, 10.0, 0)), "**missed**: rate");
        assert_eq!(verdict(measured(200.0, 10.0, 3)), "**missed**: 3 failed");
    }

    #[test]
    fn starts_are_compared_by_their_first_send() {
        let start = |ms: f64| Row::of_figures("W15", "empty".into(), [("first_send_ms", ms)]);
        let line = |a: f64, b: f64| line(&[&start(a)], &[&start(b)]);
        assert_eq!(line(24.0, 5_300.0)[8..10], ["first send 24 ms", "first send 5300 ms"]);
        assert_eq!(line(24.0, 5_300.0)[16], "met");
        assert_eq!(line(5_301.0, 5_300.0)[16], "**missed**: first send");
    }

    #[test]
    fn failures_of_every_round_are_shown_and_not_those_of_the_median_alone() {
        let rounds = [measured(1.0, 1.0, 4), measured(2.0, 1.0, 0), measured(3.0, 1.0, 1)];
        let others = [measured(1.0, 1.0, 0)];
        let rounds: Vec<_> = rounds.iter().collect();
        assert_eq!(line(&rounds, &[&others[0]])[14], "5 / 0");
    }

    #[test]
    fn what_was_not_compared_says_why_in_its_line() {
        let mut pairs = Pairs::new(&["a".into(), "b".into()]);
        let (scenario, why) = ("W15".to_owned(), "another store".to_owned());
        pairs.reasons.push(Reason { scenario, why, is_failure: false });
        assert_eq!(pairs.lines()[0][..2], ["W15", "another store"]);
        assert_eq!(pairs.lines()[0][16], "not compared");
        assert!(!pairs.has_failures());
    }
}
