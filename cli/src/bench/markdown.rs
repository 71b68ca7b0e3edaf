//! The figures as a page that is kept: where, when and from which source they were measured, and each scenario's median.
//! Invariant: each part says in itself how it is made again and whether it is complete; a row is one round that was
//! measured, not a mix of several; making one part leaves the other as it is.
//! Leaves measuring to the scenarios and the machine's description to `machine`.

use std::{fmt::Write as _, fs, io, path::Path, time::SystemTime};

use super::{
    bars::judged,
    machine,
    ratio::{HEADINGS, Pairs},
    report::{Row, cells, notes},
};
use crate::output::{count_text, micros_text, now_ms, time_text};

/// How the part about two servers begins.
const BESIDE: &str = "## Beside ";

/// What a part says about its making.
pub(crate) struct Making<'a> {
    /// Source that was measured, such as a commit.
    pub revision: &'a str,
    /// Command that makes the page again.
    pub command: &'a str,
    /// How often each scenario was measured.
    pub rounds: String,
    pub began: SystemTime,
    /// Load of the machine before the first scenario.
    pub load_before: String,
    /// Folder of the servers' data.
    pub data: &'a Path,
    /// What is being measured, until all is.
    pub running: Option<String>,
}

/// Writes the part about one server into the page at `path`.
pub(crate) fn write_own(path: &Path, rows: &[Row], making: &Making<'_>) -> io::Result<()> {
    let before = read(path)?;
    let (_, beside) = parts(&before);
    let page = format!("{}\n{beside}", own(rows, making).trim_end());
    replace(path, page.trim_end())
}

/// Writes the part about two servers into the page at `path`.
pub(crate) fn write_beside(path: &Path, pairs: &Pairs, making: &Making<'_>) -> io::Result<()> {
    let before = read(path)?;
    let (own, _) = parts(&before);
    let own = if own.is_empty() { "# Performance" } else { own.trim_end() };
    replace(path, &format!("{own}\n\n{}", beside(pairs, making).trim_end()))
}

fn read(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        page => page,
    }
}

/// A run may be stopped at any time: the page is whole before and after.
fn replace(path: &Path, page: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    fs::write(&new, format!("{page}\n"))?;
    fs::rename(new, path)
}

/// The page's two parts; the second begins with a line break, or is empty.
fn parts(page: &str) -> (&str, &str) {
    let at = page.find(&format!("\n{BESIDE}")).unwrap_or(page.len());
    page.split_at(at)
}

/// The part about one server.
fn own(rows: &[Row], making: &Making<'_>) -> String {
    let mut page = format!("# Performance\n\n{}{HOW}{HEADER}", facts(making));
    for group in groups(rows) {
        let _ = writeln!(page, "{}", line(&group));
    }
    page.push('\n');
    for note in notes(rows) {
        let _ = writeln!(page, "{note}");
    }
    page
}

/// The part about two servers.
fn beside(pairs: &Pairs, making: &Making<'_>) -> String {
    let mut page = format!("{BESIDE}{}\n\n{}{HOW_COMPARED}", pairs.names[1], facts(making));
    let named = |heading: &str| match heading.split_once(' ') {
        Some(("A", rest)) => format!("{} {}", pairs.names[0], rest.to_lowercase()),
        Some(("B", rest)) => format!("{} {}", pairs.names[1], rest.to_lowercase()),
        _ => heading.to_lowercase(),
    };
    let headings = HEADINGS.map(named);
    let _ = writeln!(page, "| {} |", headings.join(" | "));
    let _ = writeln!(page, "|{}", "---|".repeat(headings.len()));
    for line in pairs.lines() {
        let _ = writeln!(page, "| {} |", line.map(|cell| in_a_cell(&cell)).join(" | "));
    }
    let [a, b] = &pairs.names;
    let _ = writeln!(page, "\nA is {a}, B is {b}.");
    for note in notes(&pairs.rows[0]) {
        let _ = writeln!(page, "{note}");
    }
    page
}

/// Text that may hold anything, such as an error, as a table's cell.
fn in_a_cell(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('|', "\\|")
}

/// Machine, source and how the part is made.
fn facts(making: &Making<'_>) -> String {
    let began_ms =
        making.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let state = making.running.as_ref().map_or_else(
        || "complete".to_owned(),
        |running| format!("**incomplete**: ended while it measured {running}"),
    );
    let facts = [
        ("machine", machine::processor_and_memory()),
        ("disk", machine::disk_of(making.data)),
        ("source", making.revision.to_owned()),
        ("measured", format!("{} to {}", time_text(began_ms), time_text(now_ms()))),
        ("state", state),
        ("load average before", making.load_before.clone()),
        ("rounds", format!("{}; shown is the one of median rate, or p99", making.rounds)),
        ("made by", format!("`{}`", making.command)),
    ];
    let mut table = String::from("| | |\n|---|---|\n");
    for (name, value) in facts {
        let _ = writeln!(table, "| {name} | {value} |");
    }
    table
}

const HOW: &str = "
Server and load generator each have a core of their own and talk over loopback; each scenario and round has a fresh
server with async flush, no replica, 1 KiB bodies with `KEYS` and `UNIQ_KEY`, the key index on. Times count from the
intended send time. CPU/MSG is the server's user and system time. MEMORY is the server's anonymous memory at the end.
RANGE is the least and the greatest rate of all rounds; where the rate was set, rounds are ordered by p99, and RANGE is
of that. FAILED counts failed and refused requests of the shown round, warm-up included. BAR is what the project asks of itself. `machine_stopped_ms` is the time of the shown round in which no
processor ran anything, as on a virtual machine that has used up its share of its host: a thread of high priority on each
came more than 10 ms too late, on all of them at once. It is not shown where there was none.

- **W1** produce to one topic of 4 queues, 4 connections with 64 requests in flight each. **W2** the same with 128 B, one
  by one and in batches of 32.
- **W3** one message in flight, and beside it an echo of the same size over loopback.
- **W4** sent at a fixed rate and read by a consumer that waits: time from the intended send to arrival. Beside it the
  echo at the same rate, also from the intended send: what of the time is the machine's.
- **W5** every message on the device before its answer, on new segments and on segments that are written again; `of_async`
  compares with async flush. Beside it the device alone: a record written and made durable, one after the other, by a
  thread on the server's core.
- **W7** topics of one queue, all used in turn; memory of a topic is what the server holds more than when it was empty.
  A message in each of very many queues: files that the process has open, and that its folder has.
- **W8** one group reads a backlog: from memory, and from the disk after the page cache has forgotten the log
  (`posix_fadvise`), alone and beside W1 at half the rate that it reached alone. There the reader's threads in the
  generator have the lowest priority: what the senders see is the server's delay and not the generator's.
- **W11** a subscription to one tag of 100: messages that the server looks at in a backlog, and answers without a message
  for each unmatched one while 10,000 a second are sent.
- **W13** W16 with ten groups that each read everything.
- **W14** memory of a server that was just started, what connections and topics add to it, and W1 for a while: the last
  third of the time against the first.
- **W15** from the start of the process to its first answered send: empty, after `kill -9` under W1, and without the
  folder of views, also until the views hold all of the log. After the kill all messages are read back and compared with
  those that were answered, by id, body, order and offset.
- **W16** W1 while one group reads along over one connection; senders wait when they are 4,096 messages ahead.

";

const HOW_COMPARED: &str = "
Both servers run on one core and the load generator on the other, over loopback, with fresh data for each scenario.
Rounds alternate between them; while one is measured the other is stopped (SIGSTOP), and before the first round each is
loaded until it is warm. 1 KiB bodies with `KEYS` and `UNIQ_KEY`, no replica, async flush except in W5. Times count from
the intended send time. CPU is the server's user and system time for each message; memory is anonymous memory at the end
of a round; failed counts failed and refused requests of all rounds. Ratios are the first server over the second. Apache
RocketMQ has a heap of 2 GiB and its start script's flags, without the one that touches the whole heap at the start.
The scenarios are those above.

";

const HEADER: &str = "\
| scenario | what | bar | verdict | rate | range | p50 | p99 | p99.9 | max | CPU/MSG | CALLS/MSG | memory | failed | figures |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
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

/// The p99 in microseconds of a row whose rate was set, and so says nothing.
fn p99_at_rate(row: &Row) -> Option<f64> {
    let latency = row.latency.as_ref().filter(|_| row.what.contains("/s"))?;
    Some(latency.p99_us)
}

/// What rounds are ordered by: the p99 at a rate that was set, the rate, the time to the first send, or the first figure.
fn size(row: &Row) -> f64 {
    if let Some(p99) = p99_at_rate(row) {
        return p99;
    }
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
    let range = match (p99_at_rate(least), p99_at_rate(most), rate(least), rate(most)) {
        (Some(least), Some(most), ..) => {
            format!("p99 {} to {}", micros_text(least), micros_text(most))
        }
        (_, _, Some(least), Some(most)) => {
            format!("{} to {}", count_text(least), count_text(most))
        }
        _ => "-".into(),
    };
    let [scenario, what, rate, rest @ ..] = cells(median);
    let [bar, verdict] = judged(median);
    let cells = [vec![scenario, what, bar, verdict, rate, range], rest.to_vec()].concat();
    let cells: Vec<_> = cells.iter().map(|cell| in_a_cell(cell)).collect();
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{
        measure::{Latency, Measured},
        ratio::Reason,
    };

    fn row(scenario: &str, figure: f64) -> Row {
        Row::of_figures(scenario, "what".into(), [("first_send_ms", figure)])
    }

    fn making(running: Option<&str>) -> Making<'static> {
        Making {
            revision: "abc",
            command: "make bench",
            rounds: "3".into(),
            began: SystemTime::UNIX_EPOCH,
            load_before: "0.10".into(),
            data: Path::new("/"),
            running: running.map(str::to_owned),
        }
    }

    #[test]
    fn page_shows_the_median_round_of_each_scenario_and_how_it_was_made() {
        let rows = [row("W15", 9.0), row("W3", 1.0), row("W15", 7.0), row("W15", 8.0)];
        let page = own(&rows, &making(None));
        assert!(page.contains("| source | abc |") && page.contains("`make bench`"), "{page}");
        assert!(page.contains("| state | complete |"), "{page}");
        let lines: Vec<_> = page.lines().filter(|line| line.starts_with("| W")).collect();
        assert_eq!(lines.len(), 2, "{page}");
        assert!(lines[0].contains("first_send_ms=8.00"), "{page}");
    }

    #[test]
    fn round_at_a_rate_that_was_set_is_the_one_of_median_p99() {
        let row = |what: &str, rate: f64, p99_us: f64| {
            let measured = Measured {
                messages: 1,
                failed: 0,
                seconds: 1.0,
                rate_per_s: rate,
                server: None,
                generator_cpu_us_per_message: 0.0,
                machine_stopped_ms: None,
            };
            let latency = Latency { p50_us: 1.0, p99_us, p999_us: p99_us, max_us: p99_us };
            let row = Row::of_figures("W4", what.into(), []);
            Row { measured: Some(measured), latency: Some(latency), ..row }
        };
        let rounds = |what| [row(what, 3.0, 10.0), row(what, 1.0, 30.0), row(what, 2.0, 20.0)];
        let (set, open) = (rounds("1 × 1000/s"), rounds("in flight"));
        let line_of = |rounds: &[Row]| line(&rounds.iter().collect::<Vec<_>>());
        assert!(line_of(&set).contains("| 2.0/s | p99 10.0 µs to 30.0 µs |"), "{}", line_of(&set));
        assert!(line_of(&open).contains("| 2.0/s | 1.0 to 3.0 |"), "{}", line_of(&open));
    }

    #[test]
    fn page_of_a_stopped_run_says_that_it_is_incomplete() {
        let page = own(&[], &making(Some("W3, round 2")));
        assert!(page.contains("**incomplete**: ended while it measured W3, round 2"), "{page}");
    }

    #[test]
    fn each_part_is_made_without_touching_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.md");
        let mut pairs = Pairs::new(&["Ours".into(), "Theirs".into()]);
        let why = "a|b\nc".to_owned();
        pairs.reasons.push(Reason { scenario: "W15".into(), why, is_failure: false });
        write_beside(&path, &pairs, &making(None)).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.starts_with("# Performance\n\n## Beside Theirs\n"), "{page}");
        assert!(page.contains("| W15 | a\\|b c |"), "{page}");
        write_own(&path, &[row("W3", 1.0)], &making(None)).unwrap();
        write_own(&path, &[row("W4", 1.0)], &making(None)).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains("| W4 |") && !page.contains("| W3 |"), "{page}");
        assert!(page.contains("\n\n## Beside Theirs\n"), "{page}");
        write_beside(&path, &Pairs::new(&["Ours".into(), "Others".into()]), &making(None)).unwrap();
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.contains("| W4 |") && page.contains("\n\n## Beside Others\n"), "{page}");
        assert!(!page.contains("Theirs"), "{page}");
    }
}
