//! Results on standard output: a table for people, JSON or YAML for programs.
//! Invariant: JSON and YAML carry plain numbers with their unit in the name; only tables round.
//! Leaves progress to `progress` and failures to `exit`.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// JSON, one document.
    Json,
    /// YAML, one document.
    Yaml,
}

impl Format {
    /// Prints `value`, or the table made of it.
    pub(crate) fn print<T: Serialize + ?Sized>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> anyhow::Result<()> {
        let text = match self {
            Self::Table => table(value).to_string(),
            Self::Json => serde_json::to_string_pretty(value)?,
            Self::Yaml => serde_yaml::to_string(value)?.trim_end().to_owned(),
        };
        line(&text)?;
        Ok(())
    }

    /// Prints what was done: one sentence for people, `value` for programs.
    pub(crate) fn done<T: Serialize + ?Sized>(self, value: &T, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Table => Ok(line(text)?),
            _ => self.print(value, |_| Table::new([])),
        }
    }
}

/// Writes one line to standard output at once.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Columns without borders, in the manner of `kubectl`, with notes below.
pub(crate) struct Table {
    table: comfy_table::Table,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(header);
        Self { table, notes: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells);
    }

    /// A line below the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines: Vec<String> = Vec::new();
        if self.table.row_count() > 0 || self.notes.is_empty() {
            lines.extend(self.table.lines().map(|line| line.trim_end().to_owned()));
        }
        lines.extend(self.notes.iter().cloned());
        // The first column has a margin that columns for terminals do not need.
        let lines = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// `1.5 MiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `12.3k`.
pub(crate) fn count_text(count: f64) -> String {
    match count {
        count if count >= 1e6 => format!("{:.2}M", count / 1e6),
        count if count >= 1e4 => format!("{:.1}k", count / 1e3),
        count if count >= 100.0 => format!("{count:.0}"),
        count => format!("{count:.1}"),
    }
}

/// `1.25 ms`.
pub(crate) fn micros_text(micros: f64) -> String {
    match micros {
        micros if micros >= 1e6 => format!("{:.2} s", micros / 1e6),
        micros if micros >= 1e3 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{micros:.1} µs"),
    }
}

/// `2026-01-31T12:00:00Z`, or `-` for no time.
pub(crate) fn time_text(time_ms: u64) -> String {
    if time_ms == 0 {
        return "-".into();
    }
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(time_ms)).to_string()
}

/// `3m 20s ago`, or `-` for no time.
pub(crate) fn age_text(time_ms: u64, now_ms: u64) -> String {
    if time_ms == 0 {
        return "-".into();
    }
    let age = Duration::from_secs(now_ms.saturating_sub(time_ms) / 1000);
    format!("{} ago", humantime::format_duration(age))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_for_people() {
        assert_eq!(bytes_text(512), "512 B");
        assert_eq!(bytes_text(1_572_864), "1.5 MiB");
        assert_eq!(count_text(123_456.0), "123.5k");
        assert_eq!(count_text(7.0), "7.0");
        assert_eq!(micros_text(1_250.0), "1.25 ms");
        assert_eq!(time_text(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(age_text(1_000, 201_000), "3m 20s ago");
        assert_eq!(time_text(0), "-");
    }

    #[test]
    fn table_has_a_header_and_no_borders() {
        let mut table = Table::new(["NAME", "QUEUES"]);
        table.row(["orders".into(), "8".into()]);
        table.note("1 topic");
        assert_eq!(table.to_string(), "NAME    QUEUES\norders  8\n1 topic");
    }
}
