//! Scenario W8 cold: one group reads a backlog that is on the disk and not in memory, alone and beside senders.
//! Invariant: before each reading the log's files are synced and taken out of the page cache, and the row says how many
//! bytes came from the device; senders run at half of what they reached alone on the same server.
//! Leaves sending and reading to `bench`.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::fs::{Advice, fadvise, statvfs};

use super::{
    ConsumeArgs, LoadArgs, Run,
    process::{self, Sample},
    produce,
    report::Row,
    suite::{Owned, RECORD_BYTES, Suite, consume_counted, no_warm_up},
    target::{self, Target},
};

/// The backlog of the budget.
const BACKLOG_MIB: u64 = 20 * 1024;
/// Share of the free disk that a backlog takes when nobody says how large it is to be.
const FREE_SHARE: u64 = 3;
/// Messages of one request while the backlog is filled.
const BATCH: u32 = 32;
/// Load before the window in which the fastest rate is found.
const PROBE: Duration = Duration::from_secs(3);

impl Suite<'_> {
    pub(super) fn cold_backlog(&self) -> anyhow::Result<Vec<Row>> {
        let owned = self.own("async")?;
        let mib = match self.args.cold_mib {
            Some(mib) => mib,
            None => BACKLOG_MIB.min(free_mib(&owned.data.path())? / FREE_SHARE),
        };
        let backlog = Backlog::fill(self, &owned, mib)?;
        backlog.forget()?;
        let alone = backlog.read("alone")?;
        let (senders, senders_beside, beside) = backlog.read_beside_senders(self)?;
        owned.server.process.stop()?;
        Ok(vec![alone, senders, senders_beside, beside])
    }
}

/// A topic with a backlog, on a server of our own.
struct Backlog<'a> {
    owned: &'a Owned,
    target: Target,
    topic: String,
    messages: u64,
    mib: u64,
}

impl<'a> Backlog<'a> {
    fn fill(suite: &Suite<'_>, owned: &'a Owned, mib: u64) -> anyhow::Result<Self> {
        let messages = (mib * 1024 * 1024 / RECORD_BYTES).max(1);
        let load = LoadArgs {
            count: Some(messages),
            batch: BATCH,
            in_flight: 4,
            window: no_warm_up(),
            ..suite.load(None)
        };
        let target = target::prepare_at(&owned.server.nameserver, &load)?;
        let run = produce(&load, &target)?;
        let refused: u64 = run.outcome.refusals.values().sum();
        anyhow::ensure!(refused == 0, "the backlog was refused: {:?}", run.outcome.refusals);
        Ok(Self { owned, target, topic: load.topic, messages, mib })
    }

    /// Makes the page cache forget it. It is work for the disk and for whoever writes to it, so nobody may be measured
    /// meanwhile.
    fn forget(&self) -> anyhow::Result<()> {
        forget(&self.owned.data.path())
    }

    /// Reads all of it.
    fn read(&self, how: &str) -> anyhow::Result<Row> {
        let pid = self.owned.server.process.pid();
        let args = ConsumeArgs {
            topic: self.topic.clone(),
            group: "gantry-bench".into(),
            connections: 4,
            tag: "*".into(),
            commit: false,
            scanned: false,
            count: Some(self.messages),
            server_pid: Some(pid),
            window: no_warm_up(),
        };
        let before = Sample::take(pid)?.device_read_bytes;
        let row = consume_counted(&args, &self.target)?;
        let read = Sample::take(pid)?.device_read_bytes - before;
        let what = format!("{} MiB cold, {how}", self.mib);
        let mut row = Row { scenario: "W8".into(), what, ..row };
        let device_mib = read as f64 / 1024.0 / 1024.0;
        row.figures.insert("device_read_mib".into(), device_mib);
        Ok(row)
    }

    /// Senders alone at half their fastest rate, the same beside the reader, and the reader beside them.
    fn read_beside_senders(&self, suite: &Suite<'_>) -> anyhow::Result<(Row, Row, Row)> {
        let server = &self.owned.server;
        let load = suite.load(Some(server.process.pid()));
        let target = target::prepare_at(&server.nameserver, &load)?;
        let mut probe = load.clone();
        probe.window.duration = PROBE;
        let fastest = produce(&probe, &target)?.measured.rate_per_s;
        let half = LoadArgs { rate: Some((fastest / 2.0).max(1.0)), ..load };
        let what = |how: &str| format!("1024 B, W1 at half its rate, {how}");
        let row = |run: Run, how: &str| Row { what: what(how), ..run.row("W8", &half) };
        let alone = row(produce(&half, &target)?, "alone");
        self.forget()?;
        let (run, reader, share) = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                // What the reader takes of the generator's processor must not show as the server's delay.
                process::give_way();
                let start = Instant::now();
                self.read("beside W1 at half its rate").map(|row| (row, start.elapsed()))
            });
            let start = Instant::now();
            let run = produce(&half, &target);
            let sent_for = start.elapsed();
            let (reader, read_for) = reading.join().expect("the reader does not panic")?;
            let share = read_for.as_secs_f64() / sent_for.as_secs_f64();
            anyhow::Ok((run?, reader, share.min(1.0)))
        })?;
        let mut beside = row(run, "beside the cold reader");
        beside.figures.insert("reader_beside_share".into(), share);
        if let Some((with, without)) = beside.latency.zip(alone.latency) {
            beside.figures.insert("p99_times".into(), with.p99_us / without.p99_us);
        }
        Ok((alone, beside, reader))
    }
}

fn free_mib(path: &Path) -> anyhow::Result<u64> {
    let disk = statvfs(path).with_context(|| format!("look at the disk of {}", path.display()))?;
    Ok(disk.f_bavail * disk.f_frsize / 1024 / 1024)
}

/// Syncs every file below `folder` and takes it out of the page cache (`posix_fadvise`, which needs no rights).
fn forget(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
            continue;
        }
        let file = match fs::File::open(&path) {
            // A running server removes files of its views.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            file => file.with_context(|| format!("open {}", path.display()))?,
        };
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .with_context(|| format!("drop {} from the page cache", path.display()))?;
    }
    Ok(())
}
