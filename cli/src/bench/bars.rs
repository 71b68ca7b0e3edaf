//! What each row has to reach, and whether it did.
//! Invariant: a bar that cannot be judged, because its figure was not measured, counts as missed and not as met.
//! Leaves measuring to the scenarios and ratios of two servers to `ratio`. The bars are those of the performance budget.

use super::report::Row;
use crate::output::{bytes_text, count_text, micros_text};

/// What of a row is judged.
#[derive(Debug, Clone, Copy)]
enum Of {
    Rate,
    CpuUs,
    P50Us,
    P99Us,
    P999Us,
    /// A figure, by its name.
    Figure(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
}
use Limit::{AtLeast, AtMost};

/// One thing that rows of a scenario have to reach.
struct Bar {
    scenario: &'static str,
    /// What the row's description has to hold, so that the bar is about it.
    about: &'static [&'static str],
    /// What it may not hold.
    except: &'static [&'static str],
    of: Of,
    limit: Limit,
}

const fn bar(
    scenario: &'static str,
    about: &'static [&'static str],
    except: &'static [&'static str],
    of: Of,
    limit: Limit,
) -> Bar {
    Bar { scenario, about, except, of, limit }
}

const MIB_OF_60_MB: f64 = 57.2;
const MIB_OF_512_MB: f64 = 488.3;

const BARS: &[Bar] = &[
    bar("W1", &[], &[], Of::Rate, AtLeast(200e3)),
    bar("W1", &[], &[], Of::CpuUs, AtMost(4.0)),
    bar("W2", &[], &["batches"], Of::Rate, AtLeast(220e3)),
    bar("W2", &["batches"], &[], Of::Rate, AtLeast(600e3)),
    bar("W3", &[], &[], Of::P50Us, AtMost(80.0)),
    bar("W3", &[], &[], Of::Figure("p99_of_echo"), AtMost(1.5)),
    bar("W4", &["× 10000/s", "arrived"], &[], Of::P50Us, AtMost(150.0)),
    bar("W4", &["× 10000/s", "arrived"], &[], Of::P99Us, AtMost(500.0)),
    bar("W4", &["× 10000/s", "arrived"], &[], Of::P999Us, AtMost(2_000.0)),
    bar("W5", &["1 × 1 in", "reused"], &[], Of::Rate, AtLeast(4_000.0)),
    bar("W5", &["4 × 64", "reused"], &[], Of::Figure("of_async"), AtLeast(0.8)),
    bar("W5", &["4 × 64", "reused"], &[], Of::Figure("device_bytes_per_byte_sent"), AtMost(1.5)),
    bar("W7", &[" 100000 topics"], &[], Of::Figure("of_64_topics"), AtLeast(0.5)),
    bar("W7", &[" 100000 topics"], &[], Of::Figure("bytes_each_restarted"), AtMost(2048.0)),
    bar("W7", &[" 100000 topics"], &[], Of::Figure("created_per_s"), AtLeast(5_000.0)),
    bar("W7", &[" queues"], &[" topics"], Of::Figure("open_files"), AtMost(1_000.0)),
    bar("W8", &["per pull"], &[], Of::Rate, AtLeast(500e3)),
    // With more of it the backlog was not in memory, as the scenario wants it.
    bar("W8", &["per pull"], &[], Of::Figure("device_read_mib"), AtMost(100.0)),
    bar("W8", &["cold, alone"], &[], Of::Rate, AtLeast(250e3)),
    bar("W8", &["beside the cold reader"], &[], Of::Figure("p99_times"), AtMost(2.0)),
    bar("W11", &["backlog"], &[], Of::Rate, AtLeast(1e6)),
    bar("W11", &["arrived"], &[], Of::Figure("wake_ups_per_unmatched"), AtMost(0.1)),
    bar("W13", &["sent"], &[], Of::Rate, AtLeast(30e3)),
    bar("W13", &["arrived"], &[], Of::Rate, AtLeast(300e3)),
    bar("W14", &["idle"], &["connections"], Of::Figure("anonymous_mib"), AtMost(MIB_OF_60_MB)),
    bar("W14", &["in flight"], &[], Of::Figure("most_mib"), AtMost(MIB_OF_512_MB)),
    bar("W15", &["empty"], &[], Of::Figure("first_send_ms"), AtMost(300.0)),
    bar("W15", &["kill"], &[], Of::Figure("first_send_ms"), AtMost(2_000.0)),
    bar("W15", &["rebuild"], &[], Of::Figure("first_send_ms"), AtMost(40_000.0)),
    bar("W15", &["rebuild"], &[], Of::Figure("views_caught_up_ms"), AtMost(40_000.0)),
    bar("W16", &[], &[], Of::Rate, AtLeast(110e3)),
];

/// What the row has to reach, in words, and whether it did; dashes for a row that has to reach nothing.
pub(crate) fn judged(row: &Row) -> [String; 2] {
    let bars: Vec<_> = BARS.iter().filter(|bar| bar.is_about(row)).collect();
    if bars.is_empty() {
        return ["-".into(), "-".into()];
    }
    let words: Vec<_> = bars.iter().map(|bar| bar.words()).collect();
    let missed: Vec<_> = bars.iter().filter_map(|bar| bar.missed(row)).collect();
    let verdict =
        if missed.is_empty() { "met".into() } else { format!("**missed**: {}", missed.join(", ")) };
    [words.join(", "), verdict]
}

impl Bar {
    fn is_about(&self, row: &Row) -> bool {
        let holds = |part: &&str| row.what.contains(*part);
        self.scenario == row.scenario
            && self.about.iter().all(holds)
            && !self.except.iter().any(holds)
    }

    fn words(&self) -> String {
        match self.limit {
            AtLeast(least) => format!("{} ≥ {}", self.of.name(), self.of.text(least)),
            AtMost(most) => format!("{} ≤ {}", self.of.name(), self.of.text(most)),
        }
    }

    /// What was not reached, with what was.
    fn missed(&self, row: &Row) -> Option<String> {
        let name = self.of.name();
        let Some(value) = self.of.value(row) else { return Some(format!("{name} not measured")) };
        let is_met = match self.limit {
            AtLeast(least) => value >= least,
            AtMost(most) => value <= most,
        };
        (!is_met).then(|| format!("{name} {}", self.of.text(value)))
    }
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::CpuUs => "CPU/MSG",
            Self::P50Us => "p50",
            Self::P99Us => "p99",
            Self::P999Us => "p99.9",
            Self::Figure(name) => name,
        }
    }

    fn value(self, row: &Row) -> Option<f64> {
        match self {
            Self::Rate => row.rate_per_s(),
            Self::CpuUs => row.measured.as_ref()?.server.map(|server| server.cpu_us_per_message),
            Self::P50Us => row.latency.map(|latency| latency.p50_us),
            Self::P99Us => row.latency.map(|latency| latency.p99_us),
            Self::P999Us => row.latency.map(|latency| latency.p999_us),
            Self::Figure(name) => row.figures.get(name).copied(),
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Rate => format!("{}/s", count_text(value)),
            Self::CpuUs | Self::P50Us | Self::P99Us | Self::P999Us => micros_text(value),
            Self::Figure(name) if name.starts_with("bytes") => bytes_text(value as u64),
            Self::Figure(_) if value >= 100.0 => format!("{value:.0}"),
            Self::Figure(_) => format!("{value:.2}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, what: &str, figure: (&str, f64)) -> Row {
        Row::of_figures(scenario, what.into(), [figure])
    }

    #[test]
    fn figure_beyond_its_bar_is_missed_and_says_by_what() {
        let [bar, verdict] = judged(&row("W15", "empty", ("first_send_ms", 301.0)));
        assert_eq!((&*bar, &*verdict), ("first_send_ms ≤ 300", "**missed**: first_send_ms 301"));
        let [_, verdict] = judged(&row("W15", "empty", ("first_send_ms", 300.0)));
        assert_eq!(verdict, "met");
        let [_, verdict] =
            judged(&row("W11", "1 of 100 tags, arrived", ("wake_ups_per_unmatched", 0.2)));
        assert_eq!(verdict, "**missed**: wake_ups_per_unmatched 0.20");
    }

    #[test]
    fn what_was_not_measured_is_no_success() {
        let [_, verdict] = judged(&row("W1", "1024 B", ("other", 1.0)));
        assert_eq!(verdict, "**missed**: rate not measured, CPU/MSG not measured");
    }

    #[test]
    fn rows_beside_and_echoes_have_no_bar() {
        for (scenario, what) in [("W3 echo", "x"), ("W2 x", "x"), ("W7", "4 × 64, 1000000 topics")]
        {
            assert_eq!(judged(&row(scenario, what, ("x", 1.0))), ["-", "-"], "{scenario}");
        }
    }
}
