//! The figures as a page that is kept: where, when and from which source they were measured, and each scenario's median.
//! Invariant: the page says in itself how it is made again; a row is one round that was measured, not a mix of several.
//! Leaves measuring to the scenarios. Reads the machine's description from `/proc`.

use std::{fmt::Write as _, fs, time::SystemTime};

use super::{
    ratio::{HEADINGS, Pairs},
    report::{Row, cells, notes},
};
use crate::output::{count_text, now_ms, time_text};

/// What the page says about its making.
pub(crate) struct Making<'a> {
    /// Source that was measured, such as a commit.
    pub revision: &'a str,
    /// Command that makes the page again.
    pub command: &'a str,
    pub rounds: u32,
    pub began: SystemTime,
    /// Load of the machine before the first scenario.
    pub load_before: String,
}

/// Load average of the last minute.
pub(crate) fn load_now() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    words.next().unwrap_or("unknown").to_owned()
}

/// The whole page.
pub(crate) fn page(rows: &[Row], making: &Making<'_>) -> String {
    let mut page = head("Performance", making);
    page.push_str(HOW);
    page.push_str(HEADER);
    for group in groups(rows) {
        let _ = writeln!(page, "{}", line(&group));
    }
    page.push('\n');
    for note in notes(rows) {
        let _ = writeln!(page, "{note}");
    }
    page
}

/// The page of a comparison.
pub(crate) fn comparison(pairs: &Pairs, making: &Making<'_>) -> String {
    let mut page = head("Comparison", making);
    page.push_str(HOW_COMPARED);
    let named = |heading: &str| match heading.split_once(' ') {
        Some(("A", rest)) => format!("{} {}", pairs.names[0], rest.to_lowercase()),
        Some(("B", rest)) => format!("{} {}", pairs.names[1], rest.to_lowercase()),
        _ => heading.to_lowercase(),
    };
    let headings = HEADINGS.map(named);
    let _ = writeln!(page, "| {} |", headings.join(" | "));
    let _ = writeln!(page, "|{}", "---|".repeat(headings.len()));
    for line in pairs.lines() {
        let _ = writeln!(page, "| {} |", line.join(" | "));
    }
    page.push('\n');
    for note in notes(&pairs.rows[0]) {
        let _ = writeln!(page, "{note}");
    }
    page
}

/// Title, machine, source and how the page is made.
fn head(title: &str, making: &Making<'_>) -> String {
    let mut page = format!("# {title}\n\n");
    let began_ms =
        making.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let facts = [
        ("machine", machine()),
        ("source", making.revision.to_owned()),
        ("measured", format!("{} to {}", time_text(began_ms), time_text(now_ms()))),
        ("load average before", making.load_before.clone()),
        ("rounds", format!("{}, the one of median rate is shown", making.rounds)),
        ("made by", format!("`{}`", making.command)),
    ];
    page.push_str("| | |\n|---|---|\n");
    for (name, value) in facts {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    page
}

const HOW: &str = "
Server and load generator each have a core of their own and talk over loopback; each scenario and round has a fresh
server with async flush, no replica, 1 KiB bodies with `KEYS` and `UNIQ_KEY`, the key index on. Times count from the
intended send time. CPU/MSG is the server's user and system time. MEMORY is the server's anonymous memory at the end.
RANGE is the least and the greatest rate of all rounds.

- **W1** produce to one topic of 4 queues, 4 connections with 64 messages in flight each. Due: 100,000/s.
- **W3** one message in flight, and beside it an echo of the same size over loopback. Due: p50 of at most 150 µs.
- **W8** one group reads 1,000,000 messages that are there.
- **W13** W16 with ten groups that each read everything.
- **W14** memory of a server that was just started, and what connections and topics add to it.
- **W15** from the start of the process to its first answered send: empty, and after `kill -9` under W1. Afterwards all
  messages are read back and compared with those that were answered, by id, body, order and offset.
- **W16** W1 while one group reads along over one connection; senders wait when they are 4,096 messages ahead.

";

const HOW_COMPARED: &str = "
Both servers run on one core and the load generator on the other, over loopback, with fresh data for each scenario.
Rounds alternate between them and only one is under load at a time; before the first round each is loaded until it is
warm. 1 KiB bodies with `KEYS` and `UNIQ_KEY`, no replica, async flush except in W5. Times count from the intended send
time. CPU is the server's user and system time for each message; memory is anonymous memory at the end of a round.
Ratios are the first server over the second. Apache RocketMQ has a heap of 2 GiB and its start script's flags, without
the one that touches the whole heap at the start.

- **W1** produce to one topic of 4 queues, 4 connections with 64 messages in flight each. **W2** the same, 128 B.
- **W3** one message in flight; the echo is a plain loopback round trip of the same size.
- **W4** sent at a fixed rate and read by a consumer that waits: time from the intended send to arrival.
- **W5** every message on the device before its answer: 1 and 256 in flight.
- **W7** 64 topics of one queue. **W8** one group reads a backlog. **W13** W1 while ten groups read along.
- **W16** W1 while one group keeps up.

";

const HEADER: &str = "\
| scenario | what | rate | range | p50 | p99 | p99.9 | max | CPU/MSG | CALLS/MSG | memory | failed | figures |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// Rows of the same thing, one for each round, in the order of their first.
pub(super) fn groups(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        let same =
            |group: &&mut Vec<&Row>| group[0].scenario == row.scenario && group[0].what == row.what;
        match groups.iter_mut().find(same) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

fn rate(row: &Row) -> Option<f64> {
    row.measured.as_ref().map(|measured| measured.rate_per_s)
}

/// What rounds are ordered by: the rate, the time to the first send, or the first figure.
fn size(row: &Row) -> f64 {
    let figures = &row.figures;
    let figure = || figures.get("first_send_ms").or_else(|| figures.values().next()).copied();
    rate(row).or_else(figure).unwrap_or_default()
}

fn by_size<'a>(group: &[&'a Row]) -> Vec<&'a Row> {
    let mut sorted = group.to_vec();
    sorted.sort_by(|a, b| size(a).total_cmp(&size(b)));
    sorted
}

/// The round in the middle of a group, which is never empty.
pub(super) fn median<'a>(group: &[&'a Row]) -> &'a Row {
    by_size(group)[(group.len() - 1) / 2]
}

fn line(group: &[&Row]) -> String {
    let sorted = by_size(group);
    let (least, median, most) = (sorted[0], median(group), sorted[sorted.len() - 1]);
    let range = match (rate(least), rate(most)) {
        (Some(least), Some(most)) => format!("{} to {}", count_text(least), count_text(most)),
        _ => "-".into(),
    };
    let [scenario, what, rate, rest @ ..] = cells(median);
    let cells = [vec![scenario, what, rate, range], rest.to_vec()].concat();
    format!("| {} |", cells.join(" | "))
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let mut models = cpus.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim())
    });
    let model = models.next().unwrap_or("unknown processor");
    let cores = 1 + models.count();
    let memory = read("/proc/meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let gib = kib.unwrap_or_default().div_ceil(1024 * 1024);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, {gib} GiB, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, figure: f64) -> Row {
        Row::of_figures(scenario, "what".into(), [("first_send_ms", figure)])
    }

    #[test]
    fn page_shows_the_median_round_of_each_scenario_and_how_it_was_made() {
        let rows = [row("W15", 9.0), row("W3", 1.0), row("W15", 7.0), row("W15", 8.0)];
        let making = Making {
            revision: "abc",
            command: "make bench",
            rounds: 3,
            began: SystemTime::UNIX_EPOCH,
            load_before: "0.10".into(),
        };
        let page = page(&rows, &making);
        assert!(page.contains("| source | abc |") && page.contains("`make bench`"), "{page}");
        let lines: Vec<_> = page.lines().filter(|line| line.starts_with("| W")).collect();
        assert_eq!(lines.len(), 2, "{page}");
        assert!(lines[0].contains("first_send_ms=8.00"), "{page}");
    }
}
