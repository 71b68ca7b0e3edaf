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
}

/// Headings of [`Pairs::lines`]; A and B stand for the servers' names.
pub(crate) const HEADINGS: [&str; 14] = [
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
];

impl Pairs {
    /// Nothing yet of two servers.
    pub(crate) fn new(names: &[String]) -> Self {
        let name = |at: usize| names.get(at).cloned().unwrap_or_default();
        Self { names: [name(0), name(1)], rows: [vec![], vec![]], idle_bytes: [vec![], vec![]] }
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

    /// One line for each scenario and its parameters, under [`HEADINGS`].
    pub(crate) fn lines(&self) -> Vec<[String; 14]> {
        let [ours, theirs] = [groups(&self.rows[0]), groups(&self.rows[1])];
        let mut lines: Vec<_> = ours
            .iter()
            .filter_map(|group| {
                let a = median(group);
                let same = |b: &&Row| b.scenario == a.scenario && b.what == a.what;
                theirs.iter().map(|group| median(group)).find(same).map(|b| line(a, b))
            })
            .collect();
        if let [Some(a), Some(b)] = [middle(&self.idle_bytes[0]), middle(&self.idle_bytes[1])] {
            let mut line = [const { String::new() }; 14].map(|_| "-".to_owned());
            (line[0], line[1]) = ("idle".into(), "just started".into());
            (line[12], line[13]) = (bytes_text(a), bytes_text(b));
            lines.push(line);
        }
        lines
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

fn middle(values: &[u64]) -> Option<u64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

fn line(a: &Row, b: &Row) -> [String; 14] {
    let rate = |row: &Row| row.measured.as_ref().map(|measured| measured.rate_per_s);
    let cost = |row: &Row| row.measured.as_ref().and_then(|measured| measured.server);
    let cpu = |row: &Row| cost(row).map(|cost| cost.cpu_us_per_message);
    let calls = |row: &Row| text(cost(row).map(|cost| format!("{:.2}", cost.calls_per_message)));
    let memory = |row: &Row| text(cost(row).map(|cost| bytes_text(cost.anonymous_bytes)));
    let rate_text = |row: &Row| text(rate(row).map(|rate| format!("{}/s", count_text(rate))));
    let cpu_text = |row: &Row| text(cpu(row).map(micros_text));
    let latency = |row: &Row| {
        text(
            row.latency
                .as_ref()
                .map(|at| [at.p50_us, at.p99_us, at.p999_us].map(micros_text).join(" / ")),
        )
    };
    [
        a.scenario.clone(),
        a.what.clone(),
        rate_text(a),
        rate_text(b),
        ratio(rate(a), rate(b)),
        cpu_text(a),
        cpu_text(b),
        ratio(cpu(a), cpu(b)),
        latency(a),
        latency(b),
        calls(a),
        calls(b),
        memory(a),
        memory(b),
    ]
}

fn text(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".into())
}

/// A over B; nothing where one is missing or B is nothing.
fn ratio(a: Option<f64>, b: Option<f64>) -> String {
    text(a.zip(b).filter(|(_, b)| *b > 0.0).map(|(a, b)| format!("{:.2}", a / b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_the_first_over_the_second_and_never_a_division_by_nothing() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), "1.50");
        assert_eq!((ratio(Some(3.0), Some(0.0)), ratio(None, Some(1.0))), ("-".into(), "-".into()));
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
        assert_eq!(lines[0][12..], [bytes_text(2 << 20), bytes_text(2 << 20)]);
    }
}
