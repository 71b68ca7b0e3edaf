//! Rows of results, for people and for programs.
//! Invariant: a row says in itself what was done, so that it can be read alone.
//! Leaves measuring to `measure` and printing to `output`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    load::Outcome,
    measure::{Latency, Measured},
    process::CallSource,
};
use crate::output::{Table, bytes_text, count_text, micros_text};

/// One result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Short name: the command, or the scenario's id.
    pub scenario: String,
    /// What was done, with its parameters.
    pub what: String,
    #[serde(flatten)]
    pub measured: Option<Measured>,
    pub latency: Option<Latency>,
    /// Answer codes other than success, with their counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<i32, u64>,
    /// What the first answer of each of these codes said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub remarks: BTreeMap<i32, String>,
    /// Why the scenario ended before it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Further figures, each named with its unit.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

impl Row {
    /// A row of a run with load.
    pub(crate) fn of_load(
        scenario: &str,
        what: String,
        measured: Measured,
        outcome: &Outcome,
    ) -> Self {
        Self {
            latency: Latency::of(outcome),
            refusals: outcome.refusals.clone(),
            remarks: outcome.remarks.clone(),
            measured: Some(measured),
            ..Self::of_figures(scenario, what, [])
        }
    }

    /// A scenario that ended before it should.
    pub(crate) fn of_failure(scenario: &str, why: &anyhow::Error) -> Self {
        let what = "did not end".into();
        Self { failure: Some(format!("{why:#}")), ..Self::of_figures(scenario, what, []) }
    }

    /// Adds what the row's times are of those of an echo.
    pub(crate) fn compare_with_echo(&mut self, echo: &Self) {
        let Some((own, echo)) = self.latency.zip(echo.latency) else { return };
        let shares = [
            ("p99_of_echo", own.p99_us / echo.p99_us),
            ("p999_of_echo", own.p999_us / echo.p999_us),
        ];
        self.figures.extend(shares.map(|(name, share)| (name.to_owned(), share)));
    }

    /// Requests that were refused, or failed otherwise, in the window or before it.
    pub(crate) fn failed(&self) -> u64 {
        let in_window = self.measured.as_ref().map_or(0, |measured| measured.failed);
        in_window.max(self.refusals.values().sum())
    }

    /// Messages a second, of a row with load.
    pub(crate) fn rate_per_s(&self) -> Option<f64> {
        self.measured.as_ref().map(|measured| measured.rate_per_s)
    }

    /// A row of single figures.
    pub(crate) fn of_figures<const N: usize>(
        scenario: &str,
        what: String,
        figures: [(&str, f64); N],
    ) -> Self {
        Self {
            scenario: scenario.into(),
            what,
            measured: None,
            latency: None,
            refusals: BTreeMap::new(),
            remarks: BTreeMap::new(),
            failure: None,
            figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }
}

/// How long an open loop's messages took from when they left, those that were answered well.
pub(crate) fn accepted_figures(outcome: &Outcome) -> BTreeMap<String, f64> {
    let latency = Latency::of_histogram(&outcome.accepted);
    let figures = latency.iter().flat_map(|latency| {
        [
            ("accepted_p50_us", latency.p50_us),
            ("accepted_p99_us", latency.p99_us),
            ("accepted_max_us", latency.max_us),
        ]
    });
    figures.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What readers were given in all, warm-up included, and what they were not.
pub(crate) fn read_figures(outcome: &Outcome) -> BTreeMap<String, f64> {
    let Outcome { received, skipped, passed, .. } = *outcome;
    [("received", received), ("skipped", skipped), ("passed", passed)]
        .map(|(name, count)| (name.to_owned(), count as f64))
        .into()
}

/// The rows as a table, and below it how system calls were counted.
pub(crate) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "SCENARIO",
        "WHAT",
        "RATE",
        "P50",
        "P99",
        "P99.9",
        "MAX",
        "CPU/MSG",
        "CALLS/MSG",
        "MEMORY",
        "FAILED",
        "FIGURES",
    ]);
    for row in rows {
        table.row(cells(row));
    }
    for note in notes(rows) {
        table.note(note);
    }
    table
}

/// A row as text, under the headings of [`table`].
pub(crate) fn cells(row: &Row) -> [String; 12] {
    let dash = || "-".to_owned();
    let latency = |value: fn(&Latency) -> f64| {
        row.latency.as_ref().map_or_else(dash, |latency| micros_text(value(latency)))
    };
    let server = row.measured.as_ref().and_then(|measured| measured.server);
    let measured = |value: fn(&Measured) -> String| row.measured.as_ref().map_or_else(dash, value);
    let figures = row.figures.iter().map(|(name, value)| format!("{name}={}", rounded(*value)));
    let stopped = row.measured.as_ref().and_then(|measured| measured.machine_stopped_ms);
    let stopped = stopped.filter(|ms| *ms > 0.0);
    let stopped = stopped.map(|ms| format!("machine_stopped_ms={}", rounded(ms)));
    let refusals = row.refusals.iter().map(|(code, count)| format!("code {code}: {count}"));
    [
        row.scenario.clone(),
        row.what.clone(),
        measured(|measured| format!("{}/s", count_text(measured.rate_per_s))),
        latency(|latency| latency.p50_us),
        latency(|latency| latency.p99_us),
        latency(|latency| latency.p999_us),
        latency(|latency| latency.max_us),
        server.map_or_else(dash, |server| micros_text(server.cpu_us_per_message)),
        server.map_or_else(dash, |server| rounded(server.calls_per_message)),
        server.map_or_else(dash, |server| bytes_text(server.anonymous_bytes)),
        row.measured.as_ref().map_or_else(dash, |_| row.failed().to_string()),
        figures
            .chain(stopped)
            .chain(refusals)
            .chain(row.failure.clone())
            .collect::<Vec<_>>()
            .join(", "),
    ]
}

fn rounded(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// How system calls were counted.
pub(crate) fn notes(rows: &[Row]) -> Vec<&'static str> {
    let counted = |source| {
        rows.iter()
            .filter_map(|row| row.measured.as_ref()?.server)
            .any(|server| server.calls_counted == source)
    };
    let mut notes = Vec::new();
    if counted(CallSource::AllByPerf) {
        notes.push("CALLS/MSG: all system calls of the server, counted by perf.");
    }
    if counted(CallSource::FileReadsAndWrites) {
        notes.push(
            "CALLS/MSG: read and write calls from /proc/PID/io; socket calls are not counted.",
        );
    }
    notes
}
