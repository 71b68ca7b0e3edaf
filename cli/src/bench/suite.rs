//! Scenarios of the performance budget, by their ids.
//! Invariant: with `--server-binary` each scenario has a fresh server on a core of its own and the
//! generator on another; with a given server all scenarios share that one.
//! Leaves single loads to `bench`, processes to `server`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    ConsumeArgs, EchoArgs, EndToEnd, LoadArgs, WindowArgs, consume, echo, end_to_end, leftovers,
    machine,
    markdown::{Making, write_own},
    process::{Sample, pin},
    produce,
    report::Row,
    server::{Server, ServerSettings},
    target::{self, Target},
};
use crate::{context::Context, exit::Failure};

/// Bytes of log that one 1 KiB message with ids takes.
pub(super) const RECORD_BYTES: u64 = 1_300;
/// Messages by which a group that keeps up may be behind, in W16: 40 ms at 100,000 a second.
const LEAD_MAX: u64 = 4_096;
/// Messages of one batch in W2.
const BATCH: u32 = 32;
/// Groups of scenario W13.
const FAN_OUT: u32 = 10;

/// One scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Produce to one topic of four queues.
    W1,
    /// W1 with 128-byte bodies, one by one and in batches of 32.
    W2,
    /// One send in flight, with the echo beside it.
    W3,
    /// End to end at 1,000, 10,000 and 50,000 a second.
    W4,
    /// Sync flush, 1 and 256 in flight, on new segments and on segments that are written again.
    W5,
    /// One topic, and many.
    W7,
    /// A message in each of a million queues.
    W7Queues,
    /// One group reads a warm backlog.
    W8,
    /// One group reads a backlog that is not in memory, alone and beside W1 at half its rate.
    W8Cold,
    /// One of 100 tags: of a backlog, and of what is sent.
    W11,
    /// Produce, and ten groups that each read everything.
    W13,
    /// Memory: idle, with 10,000 topics, with 1,000 idle connections, under W1.
    W14,
    /// First send after a start: empty, after a kill with a filled log, and with all views to be made again.
    W15,
    /// Produce and consume at once.
    W16,
}

/// Which scenarios, and against what.
#[derive(Debug, Clone, Args)]
pub(crate) struct SuiteArgs {
    /// Scenarios, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "w1,w3,w14,w15,w16")]
    pub(super) scenario: Vec<Scenario>,
    /// Program to start as the server; without it the server of --nameserver is measured.
    #[arg(long, value_name = "FILE")]
    pub(super) server_binary: Option<PathBuf>,
    /// Folder for the data of started servers [default: in the temporary folder].
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Process of a given server, for its CPU time, memory and system calls.
    #[arg(long, value_name = "PID", conflicts_with = "server_binary")]
    pub(super) server_pid: Option<u32>,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    pub(super) server_core: u32,
    /// Core of the load generator.
    #[arg(long, default_value_t = 1)]
    pub(super) generator_core: u32,
    /// Repetitions of each scenario.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) rounds: u32,
    /// Of these, scenarios that are run once all the same.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(super) once: Vec<Scenario>,
    /// File for a page in Markdown: machine, source, date, and the median of each scenario.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Source that is measured, for the page.
    #[arg(long, default_value = "unknown", requires = "report")]
    pub(super) revision: String,
    /// Command that makes the page again, for the page.
    #[arg(long, default_value = "gantry bench suite", requires = "report")]
    pub(super) made_by: String,
    /// Size of the log in W15, in MiB.
    #[arg(long, default_value_t = 1024)]
    pub(super) log_mib: u64,
    /// Messages of a backlog.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) backlog: u64,
    /// Size of the backlog in W8-cold, in MiB [default: 20 GiB, at most a third of the free disk].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) cold_mib: Option<u64>,
    /// Time under load in W14.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    pub(super) memory_load: Duration,
    /// Numbers of topics in W7, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,64,10000,100000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) many_topics: Vec<u32>,
    /// Queues of each topic in W7.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) topic_queues: u32,
    /// Queues of W7-queues, in topics of 1,000.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) used_queues: u32,
    #[command(flatten)]
    pub(super) window: WindowArgs,
}

pub(crate) fn run(args: &SuiteArgs, context: &Context) -> anyhow::Result<Vec<Row>> {
    if let Err(error) = pin(std::process::id(), args.generator_core) {
        tracing::warn!(%error, "the generator runs on every core");
    }
    let (began, load_before) = (SystemTime::now(), machine::load_now());
    let mut rows = Vec::new();
    let write = |rows: &[Row], running: Option<String>| {
        let load_before = load_before.clone();
        args.write(began, load_before, running, |path, making| write_own(path, rows, making))
    };
    for round in 1..=args.rounds {
        for scenario in &args.scenario {
            if round > 1 && args.once.contains(scenario) {
                continue;
            }
            write(&rows, Some(format!("{}, round {round}", scenario.id())))?;
            let suite = Suite { args, nameserver: context.nameserver(), scenario: *scenario };
            match suite.run() {
                Ok(found) => rows.extend(found),
                Err(error) if error.is::<Failure>() => return Err(error),
                Err(error) => {
                    tracing::error!("scenario {}: {error:#}", scenario.id());
                    rows.push(Row::of_failure(&scenario.id(), &error));
                }
            }
        }
    }
    write(&rows, None)?;
    Ok(rows)
}

impl SuiteArgs {
    /// Writes a part of the page, if one is wanted.
    pub(super) fn write(
        &self,
        began: SystemTime,
        load_before: String,
        running: Option<String>,
        write: impl FnOnce(&Path, &Making<'_>) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let temporary = std::env::temp_dir();
        let once: Vec<_> = self.once.iter().map(|scenario| scenario.id()).collect();
        let once =
            if once.is_empty() { String::new() } else { format!(", 1 of {}", once.join(", ")) };
        let making = Making {
            revision: &self.revision,
            command: &self.made_by,
            rounds: format!("{}{once}", self.rounds),
            began,
            load_before,
            data: self.data.as_deref().unwrap_or(&temporary),
            running,
        };
        write(path, &making).with_context(|| format!("write {}", path.display()))
    }
}

pub(super) struct Suite<'a> {
    pub(super) args: &'a SuiteArgs,
    pub(super) nameserver: &'a str,
    pub(super) scenario: Scenario,
}

/// The server of one scenario: started here, or given.
pub(super) struct Subject {
    pub(super) nameserver: String,
    pub(super) pid: Option<u32>,
    /// Ends with the scenario.
    _owned: Option<Owned>,
}

/// A server that was started here. It ends before its data is removed.
pub(super) struct Owned {
    pub(super) server: Server,
    pub(super) data: DataFolder,
}

/// A folder that is removed with this value.
pub(super) struct DataFolder(PathBuf);

impl DataFolder {
    /// A name that nobody else has, in `parent` or the temporary folder.
    pub(super) fn new(parent: Option<&Path>) -> Self {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let folder = parent.join(format!("gantry-bench-{:08x}", rand::random::<u32>()));
        leftovers::note_folder(&folder);
        Self(folder)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        leftovers::forget_folder(&self.0);
        // A folder that is left behind wastes space and harms nothing.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Suite<'_> {
    pub(super) fn run(&self) -> anyhow::Result<Vec<Row>> {
        match self.scenario {
            Scenario::W1 => self.produce("W1", |_| {}),
            Scenario::W2 => self.small_messages(),
            Scenario::W3 => self.one_in_flight(),
            Scenario::W4 => self.arrivals(),
            Scenario::W5 => self.sync_flush(),
            Scenario::W7 => self.topics(),
            Scenario::W7Queues => self.used_queues(),
            Scenario::W8 => self.backlog(),
            Scenario::W8Cold => self.cold_backlog(),
            Scenario::W11 => self.tag_filter(),
            Scenario::W13 => self.keep_up("W13", FAN_OUT),
            Scenario::W14 => self.memory(),
            Scenario::W15 => self.start_up(),
            Scenario::W16 => self.keep_up("W16", 1),
        }
    }

    pub(super) fn subject(&self, flush: &'static str) -> anyhow::Result<Subject> {
        if self.args.server_binary.is_none() {
            let nameserver = self.nameserver.to_owned();
            return Ok(Subject { nameserver, pid: self.args.server_pid, _owned: None });
        }
        let owned = self.own(flush)?;
        let nameserver = owned.server.nameserver.clone();
        Ok(Subject { nameserver, pid: Some(owned.server.process.pid()), _owned: Some(owned) })
    }

    /// A server with an empty folder.
    pub(super) fn own(&self, flush: &'static str) -> anyhow::Result<Owned> {
        self.start(DataFolder::new(self.args.data.as_deref()), flush)
    }

    /// A server on the data of one that has ended.
    pub(super) fn start(&self, data: DataFolder, flush: &'static str) -> anyhow::Result<Owned> {
        self.start_with(data, flush, &[])
    }

    /// A server with an empty folder and further arguments.
    pub(super) fn own_with(&self, flush: &'static str, more: &[&str]) -> anyhow::Result<Owned> {
        self.start_with(DataFolder::new(self.args.data.as_deref()), flush, more)
    }

    fn start_with(
        &self,
        data: DataFolder,
        flush: &'static str,
        more: &[&str],
    ) -> anyhow::Result<Owned> {
        let Some(binary) = self.args.server_binary.clone() else {
            let name = self.scenario.id();
            let text = format!("scenario {name} needs a server of its own: give --server-binary");
            return Err(Failure::usage(text));
        };
        let core = self.args.server_core;
        let more = more.iter().map(ToString::to_string).collect();
        let settings = ServerSettings { binary, data: data.path(), core, flush, more };
        let server = Server::start(&settings)?;
        Ok(Owned { server, data })
    }

    /// Stops a server and starts it again.
    pub(super) fn restart(&self, owned: Owned, flush: &'static str) -> anyhow::Result<Owned> {
        owned.server.process.stop()?;
        self.start(owned.data, flush)
    }

    /// W1's load against a topic of its own.
    pub(super) fn load(&self, server_pid: Option<u32>) -> LoadArgs {
        LoadArgs {
            topic: format!("gantry-bench-{:08x}", rand::random::<u32>()),
            queues: 4,
            topics: 1,
            body_bytes: 1024,
            batch: 1,
            tags: 0,
            connections: 4,
            in_flight: 64,
            rate: None,
            count: None,
            no_keys: false,
            server_pid,
            window: self.args.window.clone(),
        }
    }

    pub(super) fn produce(
        &self,
        id: &str,
        change: impl FnOnce(&mut LoadArgs),
    ) -> anyhow::Result<Vec<Row>> {
        let subject = self.subject("async")?;
        let mut load = self.load(subject.pid);
        change(&mut load);
        let target = target::prepare_at(&subject.nameserver, &load)?;
        Ok(vec![produce(&load, &target)?.row(id, &load)])
    }

    fn small_messages(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = self.produce("W2", |load| load.body_bytes = 128)?;
        rows.extend(self.produce("W2", |load| (load.body_bytes, load.batch) = (128, BATCH))?);
        Ok(rows)
    }

    fn one_in_flight(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = self.produce("W3", |load| (load.connections, load.in_flight) = (1, 1))?;
        let echo = self.echo("W3", None)?;
        for row in &mut rows {
            row.compare_with_echo(&echo);
        }
        rows.push(echo);
        Ok(rows)
    }

    /// The echo beside a scenario, at its rate if it has one.
    fn echo(&self, id: &str, rate: Option<f64>) -> anyhow::Result<Row> {
        let (server_core, window) = (self.args.server_core, self.args.window.clone());
        let echo = echo(&EchoArgs { server_core, rate, window })?;
        Ok(Row { scenario: format!("{id} echo"), ..echo })
    }

    fn arrivals(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for rate in [1_000.0, 10_000.0, 50_000.0] {
            let echo = self.echo("W4", Some(rate))?;
            let subject = self.subject("async")?;
            let load = LoadArgs { rate: Some(rate), connections: 1, ..self.load(subject.pid) };
            let target = target::prepare_at(&subject.nameserver, &load)?;
            let how = EndToEnd { commit: true, ..EndToEnd::default() };
            let mut found = end_to_end("W4", &load, &target, &how)?;
            for arrived in found.iter_mut().filter(|row| row.what.contains("arrived")) {
                arrived.compare_with_echo(&echo);
            }
            rows.extend(found);
            rows.push(echo);
        }
        Ok(rows)
    }

    fn keep_up(&self, id: &str, groups: u32) -> anyhow::Result<Vec<Row>> {
        let subject = self.subject("async")?;
        let load = self.load(subject.pid);
        let target = target::prepare_at(&subject.nameserver, &load)?;
        let how = EndToEnd { commit: true, lead_max: Some(LEAD_MAX), groups, tag: None };
        end_to_end(id, &load, &target, &how)
    }

    fn backlog(&self) -> anyhow::Result<Vec<Row>> {
        let backlog = self.args.backlog;
        let subject = self.subject("async")?;
        let load = LoadArgs { count: Some(backlog), ..self.load(subject.pid) };
        let fill = LoadArgs { window: no_warm_up(), ..load.clone() };
        let target = target::prepare_at(&subject.nameserver, &fill)?;
        produce(&fill, &target)?;
        let read = ConsumeArgs {
            topic: load.topic,
            group: "gantry-bench".into(),
            connections: 4,
            tag: "*".into(),
            commit: false,
            scanned: false,
            count: Some(backlog),
            server_pid: subject.pid,
            window: no_warm_up(),
        };
        let device_read = || -> anyhow::Result<Option<u64>> {
            let sample = subject.pid.map(Sample::take).transpose()?;
            Ok(sample.map(|sample| sample.device_read_bytes))
        };
        let before = device_read()?;
        let mut row = Row { scenario: "W8".into(), ..consume_counted(&read, &target)? };
        if let Some((before, after)) = before.zip(device_read()?) {
            // What the system has taken out of its cache meanwhile is not in memory any more.
            let mib = (after - before) as f64 / 1024.0 / 1024.0;
            row.figures.insert("device_read_mib".into(), mib);
        }
        Ok(vec![row])
    }
}

/// Longest time for a given number of messages; who needs it has failed.
const COUNTED_MAX: Duration = Duration::from_mins(10);

/// A window that begins at once and ends with the budget of messages.
pub(super) fn no_warm_up() -> WindowArgs {
    WindowArgs { warm_up: Duration::ZERO, duration: COUNTED_MAX }
}

/// Reads as many messages as are asked for, in a window of [`no_warm_up`].
pub(super) fn consume_counted(args: &ConsumeArgs, target: &Target) -> anyhow::Result<Row> {
    let row = consume(args, target)?;
    let seconds = row.measured.as_ref().map_or(0.0, |measured| measured.seconds);
    anyhow::ensure!(
        seconds < COUNTED_MAX.as_secs_f64(),
        "{:?} messages were not read within {COUNTED_MAX:?}",
        args.count
    );
    Ok(row)
}
