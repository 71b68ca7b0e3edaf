//! Scenarios of the performance budget, by their ids.
//! Invariant: with `--server-binary` each scenario has a fresh server on a core of its own and the
//! generator on another; with a given server all scenarios share that one.
//! Leaves single loads to `bench`, processes to `server`.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use gantry_client::{Admin, Message, Producer, ProducerSettings};
use gantry_model::{GroupName, TopicName};

use super::{
    ConsumeArgs, EchoArgs, LoadArgs, WindowArgs, consume, echo, end_to_end, load,
    process::pin,
    produce,
    report::Row,
    server::{Server, ServerSettings},
    target::{self, Target, with_client},
};
use crate::{context::Context, exit::Failure, progress::Progress};

/// Bytes of log that one 1 KiB message with ids takes.
const RECORD_BYTES: u64 = 1_300;
/// Topics and connections of scenario W14.
const MANY_TOPICS: u32 = 10_000;
const IDLE_CONNECTIONS: usize = 1_000;

/// One scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Produce to one topic of four queues.
    W1,
    /// W1 with 128-byte bodies.
    W2,
    /// One send in flight, with the echo beside it.
    W3,
    /// End to end at 1,000, 10,000 and 50,000 a second.
    W4,
    /// Sync flush, 1 and 256 in flight.
    W5,
    /// 64 topics of one queue.
    W7,
    /// One group reads a warm backlog.
    W8,
    /// Memory: idle, with 10,000 topics, with 1,000 idle connections.
    W14,
    /// First send after a start: empty, and after a kill with a filled log.
    W15,
    /// Produce and consume at once.
    W16,
}

/// Which scenarios, and against what.
#[derive(Debug, Clone, Args)]
pub(crate) struct SuiteArgs {
    /// Scenarios, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "w1,w3,w14,w15,w16")]
    scenario: Vec<Scenario>,
    /// Program to start as the server; without it the server of --nameserver is measured.
    #[arg(long, value_name = "FILE")]
    server_binary: Option<PathBuf>,
    /// Folder for the data of started servers [default: in the temporary folder].
    #[arg(long, value_name = "DIR", requires = "server_binary")]
    data: Option<PathBuf>,
    /// Process of a given server, for its CPU time, memory and system calls.
    #[arg(long, value_name = "PID", conflicts_with = "server_binary")]
    server_pid: Option<u32>,
    /// Core of the server.
    #[arg(long, default_value_t = 0)]
    server_core: u32,
    /// Core of the load generator.
    #[arg(long, default_value_t = 1)]
    generator_core: u32,
    /// Repetitions of each scenario.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Size of the log in W15, in MiB.
    #[arg(long, default_value_t = 1024)]
    log_mib: u64,
    #[command(flatten)]
    window: WindowArgs,
}

pub(crate) fn run(args: &SuiteArgs, context: &Context) -> anyhow::Result<Vec<Row>> {
    if let Err(error) = pin(std::process::id(), args.generator_core) {
        tracing::warn!(%error, "the generator runs on every core");
    }
    let mut rows = Vec::new();
    for _ in 0..args.rounds {
        for scenario in &args.scenario {
            let suite = Suite { args, nameserver: context.nameserver(), scenario: *scenario };
            rows.extend(suite.run()?);
        }
    }
    Ok(rows)
}

struct Suite<'a> {
    args: &'a SuiteArgs,
    nameserver: &'a str,
    scenario: Scenario,
}

/// The server of one scenario: started here, or given.
struct Subject {
    started: Option<Server>,
    nameserver: String,
    pid: Option<u32>,
    /// Removed with the scenario.
    data: Option<DataFolder>,
}

/// A folder that is removed with this value.
struct DataFolder(PathBuf);

impl Drop for DataFolder {
    fn drop(&mut self) {
        // A folder that is left behind wastes space and harms nothing.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Suite<'_> {
    fn run(&self) -> anyhow::Result<Vec<Row>> {
        match self.scenario {
            Scenario::W1 => self.produce("W1", |_| {}),
            Scenario::W2 => self.produce("W2", |load| load.body_bytes = 128),
            Scenario::W3 => self.one_in_flight(),
            Scenario::W4 => self.arrivals(),
            Scenario::W5 => self.sync_flush(),
            Scenario::W7 => self.produce("W7", |load| (load.topics, load.queues) = (64, 1)),
            Scenario::W8 => self.backlog(),
            Scenario::W14 => self.memory(),
            Scenario::W15 => self.start_up(),
            Scenario::W16 => {
                let subject = self.subject("async")?;
                let load = self.load(&subject);
                let target = target::prepare_at(&subject.nameserver, &load)?;
                end_to_end("W16", &load, &target, true)
            }
        }
    }

    fn settings(&self, binary: &Path, data: &Path, flush: &'static str) -> ServerSettings {
        ServerSettings {
            binary: binary.to_owned(),
            data: data.to_owned(),
            core: self.args.server_core,
            flush,
        }
    }

    fn subject(&self, flush: &'static str) -> anyhow::Result<Subject> {
        let Some(binary) = &self.args.server_binary else {
            return Ok(Subject {
                started: None,
                nameserver: self.nameserver.to_owned(),
                pid: self.args.server_pid,
                data: None,
            });
        };
        let parent = self.args.data.clone().unwrap_or_else(std::env::temp_dir);
        let data = DataFolder(parent.join(format!("gantry-bench-{:08x}", rand::random::<u32>())));
        let server = Server::start(&self.settings(binary, &data.0, flush))?;
        Ok(Subject {
            nameserver: server.nameserver.clone(),
            pid: Some(server.process.pid()),
            started: Some(server),
            data: Some(data),
        })
    }

    /// W1's load against `subject`.
    fn load(&self, subject: &Subject) -> LoadArgs {
        LoadArgs {
            topic: format!("gantry-bench-{:08x}", rand::random::<u32>()),
            queues: 4,
            topics: 1,
            body_bytes: 1024,
            connections: 4,
            in_flight: 64,
            rate: None,
            count: None,
            no_keys: false,
            server_pid: subject.pid,
            window: self.args.window.clone(),
        }
    }

    fn produce(&self, id: &str, change: impl FnOnce(&mut LoadArgs)) -> anyhow::Result<Vec<Row>> {
        let subject = self.subject("async")?;
        let mut load = self.load(&subject);
        change(&mut load);
        let target = target::prepare_at(&subject.nameserver, &load)?;
        Ok(vec![produce(&load, &target)?.row(id, &load)])
    }

    fn one_in_flight(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = self.produce("W3", |load| (load.connections, load.in_flight) = (1, 1))?;
        let echo_args =
            EchoArgs { server_core: self.args.server_core, window: self.args.window.clone() };
        rows.push(Row { scenario: "W3 echo".into(), ..echo(&echo_args)? });
        Ok(rows)
    }

    fn arrivals(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for rate in [1_000.0, 10_000.0, 50_000.0] {
            let subject = self.subject("async")?;
            let load = LoadArgs { rate: Some(rate), connections: 1, ..self.load(&subject) };
            let target = target::prepare_at(&subject.nameserver, &load)?;
            rows.extend(end_to_end("W4", &load, &target, true)?);
        }
        Ok(rows)
    }

    fn sync_flush(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (connections, in_flight) in [(1, 1), (4, 64)] {
            let subject = self.subject("sync")?;
            let load = LoadArgs { connections, in_flight, ..self.load(&subject) };
            let target = target::prepare_at(&subject.nameserver, &load)?;
            rows.push(produce(&load, &target)?.row("W5", &load));
        }
        Ok(rows)
    }

    fn backlog(&self) -> anyhow::Result<Vec<Row>> {
        const BACKLOG: u64 = 1_000_000;
        let subject = self.subject("async")?;
        let load = LoadArgs { count: Some(BACKLOG), ..self.load(&subject) };
        let fill = LoadArgs { window: no_warm_up(), ..load.clone() };
        let target = target::prepare_at(&subject.nameserver, &fill)?;
        produce(&fill, &target)?;
        let read = ConsumeArgs {
            topic: load.topic,
            group: "gantry-bench".into(),
            connections: 4,
            tag: "*".into(),
            commit: false,
            count: Some(BACKLOG),
            server_pid: subject.pid,
            window: no_warm_up(),
        };
        Ok(vec![Row { scenario: "W8".into(), ..consume(&read, &target)? }])
    }

    fn started<'s>(&self, subject: &'s Subject) -> anyhow::Result<&'s Server> {
        let reason = "needs a server of its own: give --server-binary";
        let id = self.scenario.to_possible_value().map(|value| value.get_name().to_owned());
        subject
            .started
            .as_ref()
            .ok_or_else(|| Failure::usage(format!("scenario {} {reason}", id.unwrap_or_default())))
    }

    fn memory(&self) -> anyhow::Result<Vec<Row>> {
        let subject = self.subject("async")?;
        let server = self.started(&subject)?;
        let idle = server.settled_memory()?;
        let connections: Vec<_> = (0..IDLE_CONNECTIONS)
            .map(|_| load::connect(server.remoting))
            .collect::<Result<Vec<TcpStream>, _>>()?;
        let connected = server.settled_memory()?;
        drop(connections);
        let before = server.settled_memory()?;
        let names = target::topic_names("gantry-bench", MANY_TOPICS);
        let start = Instant::now();
        with_client(&subject.nameserver, async |client| create_many(client, &names).await)?;
        let created_per_s = f64::from(MANY_TOPICS) / start.elapsed().as_secs_f64();
        let with_topics = server.settled_memory()?;
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let each = with_topics.saturating_sub(before) as f64 / f64::from(MANY_TOPICS);
        let row = |what: &str, figures| Row::of_figures("W14", what.into(), figures);
        Ok(vec![
            row("idle", [("anonymous_mib", mib(idle)), ("idle", 1.0)]),
            row(
                "1,000 idle connections",
                [
                    ("anonymous_mib", mib(connected)),
                    ("bytes_each", connected.saturating_sub(idle) as f64 / IDLE_CONNECTIONS as f64),
                ],
            ),
            row(
                "10,000 topics of 1 queue",
                [("anonymous_mib", mib(with_topics)), ("bytes_each", each)],
            ),
            row(
                "10,000 topics of 1 queue",
                [("created_per_s", created_per_s), ("topics", f64::from(MANY_TOPICS))],
            ),
        ])
    }

    fn start_up(&self) -> anyhow::Result<Vec<Row>> {
        let subject = self.subject("async")?;
        let server = self.started(&subject)?;
        let mut rows = vec![first_send(server, "empty")?];
        let load = LoadArgs {
            count: Some(self.args.log_mib * 1024 * 1024 / RECORD_BYTES),
            window: no_warm_up(),
            ..self.load(&subject)
        };
        let target = target::prepare_at(&subject.nameserver, &load)?;
        let answered = produce(&load, &target)?.answered;
        let Subject { started: Some(server), data: Some(data), .. } = subject else {
            return Ok(rows);
        };
        server.process.kill();
        let binary = self.args.server_binary.as_deref().unwrap_or(Path::new("gantry"));
        let server = Server::start(&self.settings(binary, &data.0, "async"))?;
        let mut row = first_send(&server, &format!("after kill, {} MiB log", self.args.log_mib))?;
        let kept = stored(&server, &target)?;
        row.figures.insert("answered".into(), answered as f64);
        row.figures.insert("lost".into(), answered.saturating_sub(kept) as f64);
        rows.push(row);
        server.process.stop()?;
        Ok(rows)
    }
}

/// A window that begins at once and ends with the budget of messages.
fn no_warm_up() -> WindowArgs {
    WindowArgs { warm_up: Duration::ZERO, duration: Duration::from_hours(1) }
}

/// The time from the start of the process to its `ready` line and to the first answered send.
fn first_send(server: &Server, what: &str) -> anyhow::Result<Row> {
    with_client(&server.nameserver, async |client| {
        let producer =
            Producer::new(client, ProducerSettings::new(GroupName::new("gantry-bench")?));
        let topic = TopicName::new("gantry-bench-first")?;
        producer.send(&Message::new(topic, "first")).await?;
        Ok(())
    })?;
    let sent_after = server.started_at.elapsed();
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let figures = [("ready_ms", millis(server.ready_after)), ("first_send_ms", millis(sent_after))];
    Ok(Row::of_figures("W15", what.into(), figures))
}

/// Messages that the topic of `target` holds.
fn stored(server: &Server, target: &Target) -> anyhow::Result<u64> {
    with_client(&server.nameserver, async |client| {
        let mut sum = 0;
        for topic in &target.topics {
            let bounds = Admin::new(client).topic_stats(topic).await?;
            sum += bounds.iter().map(|queue| queue.max_offset - queue.min_offset).sum::<u64>();
        }
        Ok(sum)
    })
}

async fn create_many(client: &gantry_client::Client, names: &[String]) -> anyhow::Result<()> {
    /// Requests in flight: enough to show what the server can do.
    const IN_FLIGHT: usize = 64;
    let progress = Progress::of(names.len() as u64);
    let mut requests = tokio::task::JoinSet::new();
    for (number, name) in names.iter().enumerate() {
        while requests.len() >= IN_FLIGHT {
            if let Some(created) = requests.join_next().await {
                created??;
            }
        }
        let config = gantry_model::TopicConfig::new(TopicName::new(name)?, 1);
        let admin = Admin::new(client);
        requests.spawn(async move { admin.declare_topic(&config).await });
        progress.tell("creating topics", number as u64);
    }
    while let Some(created) = requests.join_next().await {
        created??;
    }
    Ok(())
}
