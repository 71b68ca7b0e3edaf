//! `gantry bench`: load, and what it costs the server.
//! Invariant: latencies count from the intended send time; counts, times and costs of a row cover one
//! window.
//! Leaves the threads to `load` and `pull`, the measuring to `measure`, whole scenarios to `suite`.

mod answer;
mod bars;
mod cold;
mod compare;
mod device;
mod echo;
mod filter;
mod leftovers;
mod load;
mod machine;
mod malformed;
mod markdown;
mod measure;
mod memory;
mod one_thread;
mod open;
mod peers;
mod process;
mod pull;
mod queues;
mod ratio;
mod recovery;
mod report;
mod request;
mod reuse;
mod scrape;
mod server;
mod start_up;
mod suite;
mod target;
mod topics;

use std::{io, net::TcpListener, sync::atomic::Ordering::Relaxed, thread, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::{
    load::{Outcome, Shared, connect},
    measure::{Measured, Window, join, observe},
    one_thread::Side,
    pull::PullShape,
    report::{Row, table},
    request::SendShape,
    target::Target,
};
use crate::{context::Context, exit::Failure, output, progress::Progress};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Send: as fast as answers come (closed loop), or so many a second (open loop, --rate).
    Produce(LoadArgs),
    /// Read what a topic holds, then wait for more.
    Consume(ConsumeArgs),
    /// Send and read at once, and measure from the intended send time to the arrival.
    E2e(LoadArgs),
    /// Round trips of the same size over loopback, without a message queue, for comparison.
    Echo(EchoArgs),
    /// Run scenarios of the performance budget.
    Suite(suite::SuiteArgs),
    /// Run scenarios against two servers in turn, and show both and their ratio.
    Compare(compare::CompareArgs),
    /// Peers that are no good clients, for soaks.
    #[command(hide = true)]
    Peers(peers::PeersArgs),
    /// The other side of `echo`.
    #[command(hide = true)]
    EchoServer,
}

/// How long to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct WindowArgs {
    /// Time that is measured.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Load before that.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
}

impl WindowArgs {
    fn window(&self) -> Window {
        Window { warm_up: self.warm_up, duration: self.duration }
    }
}

/// What to send.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Topic; it is created when missing.
    #[arg(long, default_value = "gantry-bench")]
    topic: String,
    /// Queues of the topic.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    queues: u32,
    /// Topics used in turn, named TOPIC-000000, TOPIC-000001 and so on; 1 uses TOPIC itself.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1024)]
    body_bytes: usize,
    /// Messages of one request: more than one are sent as a batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "rate")]
    batch: u32,
    /// Tags used in turn; none with 0.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    tags: u32,
    /// Connections, each with a thread of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Requests in flight on each connection, without --rate.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Messages a second, all connections together.
    #[arg(long)]
    rate: Option<f64>,
    /// End after so many messages.
    #[arg(long)]
    count: Option<u64>,
    /// Leave out `KEYS` and `UNIQ_KEY`.
    #[arg(long)]
    no_keys: bool,
    /// Process whose CPU time, memory and system calls are measured.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    #[command(flatten)]
    window: WindowArgs,
}

impl LoadArgs {
    /// Bytes of one request on the wire.
    fn frame_bytes(&self, target: &Target) -> usize {
        request::SendFrames::new(&shape(self, target, 0, 0), 1).frame(0).len()
    }
}

/// What to read.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConsumeArgs {
    /// Topic.
    #[arg(long, default_value = "gantry-bench")]
    topic: String,
    /// Consumer group.
    #[arg(long, default_value = "gantry-bench")]
    group: String,
    /// Connections; the queues are shared out among them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Subscription expression.
    #[arg(long, default_value = "*")]
    tag: String,
    /// Whether offsets are committed on the way.
    #[arg(long)]
    commit: bool,
    /// Count what the server looked at, not only what matched the expression.
    #[arg(long)]
    scanned: bool,
    /// End after so many messages.
    #[arg(long)]
    count: Option<u64>,
    /// Process whose CPU time, memory and system calls are measured.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    #[command(flatten)]
    window: WindowArgs,
}

/// What to compare with.
#[derive(Debug, Clone, Args)]
pub(crate) struct EchoArgs {
    /// Core on which the other side runs.
    #[arg(long, default_value_t = 0)]
    server_core: u32,
    /// Round trips a second; without it, one after the other.
    #[arg(long)]
    rate: Option<f64>,
    #[command(flatten)]
    window: WindowArgs,
}

pub(crate) fn run(command: BenchCommand, context: &Context) -> anyhow::Result<()> {
    let starts_servers = matches!(
        command,
        BenchCommand::Echo(_) | BenchCommand::Suite(_) | BenchCommand::Compare(_)
    );
    if starts_servers {
        leftovers::end_on_signals()?;
    }
    let rows = match command {
        BenchCommand::Produce(args) => {
            let target = target::prepare(context, &args)?;
            let run = produce(&args, &target)?;
            let figures = report::accepted_figures(&run.outcome);
            vec![Row { figures, ..run.row("produce", &args) }]
        }
        BenchCommand::Consume(args) => {
            let target = target::existing(context, &args.topic)?;
            vec![consume(&args, &target)?]
        }
        BenchCommand::E2e(args) => {
            let target = target::prepare(context, &args)?;
            end_to_end("e2e", &args, &target, &EndToEnd::default())?
        }
        BenchCommand::Echo(args) => vec![echo(&args)?],
        BenchCommand::Suite(args) => suite::run(&args, context)?,
        BenchCommand::Compare(args) => {
            let pairs = compare::run(&args)?;
            context.format.print(&pairs, ratio::Pairs::table)?;
            anyhow::ensure!(!pairs.has_failures(), "not every scenario came to its end");
            return Ok(());
        }
        BenchCommand::Peers(args) => vec![peers::run(&args)?],
        BenchCommand::EchoServer => return serve_echo(),
    };
    context.format.print(&rows, |rows| table(rows))?;
    anyhow::ensure!(
        rows.iter().all(|row| row.failure.is_none()),
        "not every scenario came to its end"
    );
    Ok(())
}

/// What a run of senders showed.
pub(crate) struct Run {
    pub measured: Measured,
    pub outcome: Outcome,
}

impl Run {
    fn row(self, scenario: &str, args: &LoadArgs) -> Row {
        Row::of_load(scenario, describe(args), self.measured, &self.outcome)
    }
}

fn describe(args: &LoadArgs) -> String {
    let pace = match args.rate {
        Some(rate) => format!("{rate:.0}/s"),
        None => format!("{} in flight", args.in_flight),
    };
    let topics = if args.topics == 1 { String::new() } else { format!(", {} topics", args.topics) };
    let batch =
        if args.batch == 1 { String::new() } else { format!("batches of {} × ", args.batch) };
    format!("{batch}{} B, {} × {pace}{topics}", args.body_bytes, args.connections)
}

fn shape(args: &LoadArgs, target: &Target, connection: u32, run: u32) -> SendShape {
    // Each connection has its own part of many topics; of few, all.
    let mine = |at: usize| target.topics.len() <= 64 || at as u32 % args.connections == connection;
    let topics = target.topics.iter().enumerate().filter(|(at, _)| mine(*at));
    SendShape {
        topics: topics.map(|(_, topic)| topic.clone()).collect(),
        queues: target.queues,
        broker_name: target.broker_name.clone(),
        body_bytes: args.body_bytes,
        keys: !args.no_keys,
        tags: args.tags,
        batch: args.batch,
        connection: connection as u16,
        run,
    }
}

/// Runs the senders of `args` against `target`.
pub(crate) fn produce(args: &LoadArgs, target: &Target) -> anyhow::Result<Run> {
    check_rate(args.rate)?;
    let shared = Shared::new(args.count).in_batches(args.batch);
    let progress = Progress::spinner();
    let connections = open(target, args.connections)?;
    let run = rand::random();
    Ok(thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter()
            .enumerate()
            .map(|(index, stream)| {
                let shape = shape(args, target, index as u32, run);
                let shared = &shared;
                scope.spawn(move || send(stream, &shape, args, shared))
            })
            .collect();
        let measured = observe(&shared, args.window.window(), args.server_pid, &threads, &progress);
        let outcome = join(threads)?;
        io::Result::Ok(Run { measured: measured?, outcome })
    })?)
}

fn send(
    stream: &std::net::TcpStream,
    shape: &SendShape,
    args: &LoadArgs,
    shared: &Shared,
) -> io::Result<Outcome> {
    match args.rate {
        Some(rate) => open::open_loop(stream, shape, rate / f64::from(args.connections), shared),
        None => load::closed_loop(stream, shape, args.in_flight as usize, shared),
    }
}

fn check_rate(rate: Option<f64>) -> anyhow::Result<()> {
    match rate {
        Some(rate) if !(rate > 0.0 && rate.is_finite()) => {
            Err(Failure::usage("--rate has to be a number above 0"))
        }
        _ => Ok(()),
    }
}

fn open(target: &Target, connections: u32) -> io::Result<Vec<std::net::TcpStream>> {
    (0..connections).map(|_| connect(target.address)).collect()
}

fn consume(args: &ConsumeArgs, target: &Target) -> anyhow::Result<Row> {
    let shared = Shared::new(args.count);
    let connections = open(target, args.connections.min(target.queues))?;
    let shapes: Vec<_> = (0..connections.len())
        .map(|index| PullShape {
            group: args.group.clone(),
            topic: args.topic.clone(),
            broker_name: target.broker_name.clone(),
            queues: (0..target.queues)
                .filter(|queue| *queue as usize % connections.len() == index)
                .map(|queue| (queue, target.min_offsets[queue as usize]))
                .collect(),
            expression: args.tag.clone(),
            commit: args.commit,
            stamped: false,
            scanned: args.scanned,
            one_of: 1,
        })
        .collect();
    let progress = Progress::spinner();
    let (measured, outcome) = thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter()
            .zip(&shapes)
            .map(|(stream, shape)| scope.spawn(|| pull::pull_loop(stream, shape, &shared)))
            .collect();
        let measured = observe(&shared, args.window.window(), args.server_pid, &threads, &progress);
        close(&connections);
        io::Result::Ok((measured?, join(threads)?))
    })?;
    let what = format!("{} connections, 32 per pull", connections.len());
    let mut row = Row::of_load("consume", what, measured, &outcome);
    if args.scanned {
        row.figures.insert("matched".into(), outcome.received as f64);
    }
    Ok(row)
}

/// Readers wait for messages that may never come: the end of their connection ends them.
fn close(connections: &[std::net::TcpStream]) {
    for stream in connections {
        // A connection that is gone already needs no closing.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

/// How to send and read at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndToEnd {
    /// Whether each pull commits the offset reached.
    pub commit: bool,
    /// Messages that senders may be ahead of the reader, so that it keeps up; only without --rate.
    pub lead_max: Option<u64>,
    /// Groups that each read everything, over a connection each.
    pub groups: u32,
    /// Number of the only tag that is read.
    pub tag: Option<u32>,
}

impl Default for EndToEnd {
    fn default() -> Self {
        Self { commit: false, lead_max: None, groups: 1, tag: None }
    }
}

/// Sends and reads at once. The first row is about sending, the second about arriving.
pub(crate) fn end_to_end(
    scenario: &str,
    args: &LoadArgs,
    target: &Target,
    how: &EndToEnd,
) -> anyhow::Result<Vec<Row>> {
    check_rate(args.rate)?;
    let mut senders = Shared::new(args.count).in_batches(args.batch);
    let readers = Shared::with_clock(senders.clock);
    if let Some(lead_max) = how.lead_max {
        senders = senders.ahead_of(&readers, lead_max, u64::from(how.groups));
    }
    let (sending, reading) = (open(target, args.connections)?, open(target, how.groups)?);
    let run = rand::random();
    let topic = target.topics.first().context("there is at least one topic")?;
    let pulls: Vec<_> = (0..how.groups)
        .map(|group| PullShape {
            group: format!("gantry-bench-e2e-{group}"),
            topic: topic.clone(),
            broker_name: target.broker_name.clone(),
            queues: (0..target.queues)
                .map(|queue| (queue, target.max_offsets[queue as usize]))
                .collect(),
            expression: how.tag.map_or_else(|| "*".into(), request::tag),
            commit: how.commit,
            stamped: true,
            scanned: false,
            one_of: how.tag.map_or(1, |_| u64::from(args.tags)),
        })
        .collect();
    let what = describe(args);
    let rows = |((sent_measured, read_measured), sent, arrived): Both| {
        let mut read = Row::of_load(scenario, format!("{what}, arrived"), read_measured, &arrived);
        if how.tag.is_some() {
            read.figures.extend(wake_ups(senders.done.load(Relaxed), &arrived));
        }
        vec![Row::of_load(scenario, format!("{what}, sent"), sent_measured, &sent), read]
    };
    if let (Some(rate), [stream], [pull]) = (args.rate, &sending[..], &pulls[..]) {
        let sender = Side { stream, shape: &shape(args, target, 0, run), shared: &senders };
        let reader = Side { stream: &reading[0], shape: pull, shared: &readers };
        return Ok(rows(on_one_thread(args, &sender, &reader, rate)?));
    }
    let progress = Progress::spinner();
    let result = thread::scope(|scope| {
        let pulling: Vec<_> = reading
            .iter()
            .zip(&pulls)
            .map(|(stream, shape)| scope.spawn(|| pull::pull_loop(stream, shape, &readers)))
            .collect();
        let threads: Vec<_> = sending
            .iter()
            .enumerate()
            .map(|(index, stream)| {
                let shape = shape(args, target, index as u32, run);
                let senders = &senders;
                scope.spawn(move || send(stream, &shape, args, senders))
            })
            .collect();
        let measured = measure::observe_pair(
            (&senders, &readers),
            args.window.window(),
            args.server_pid,
            &threads,
            &progress,
        );
        let sent = join(threads);
        wait_for_rest(&senders, &readers, u64::from(how.groups));
        readers.stop.store(true, Relaxed);
        close(&reading);
        let arrived = join(pulling);
        io::Result::Ok((measured?, sent?, arrived?))
    })?;
    Ok(rows(result))
}

/// What a run showed of its senders and its readers.
type Both = ((Measured, Measured), Outcome, Outcome);

fn on_one_thread(
    args: &LoadArgs,
    sender: &Side<'_, SendShape>,
    reader: &Side<'_, PullShape>,
    rate: f64,
) -> io::Result<Both> {
    let progress = Progress::spinner();
    let arrived = std::sync::Mutex::new(Outcome::new());
    let (measured, sent) = thread::scope(|scope| {
        let threads = vec![scope.spawn(|| {
            let (sent, read) = one_thread::send_and_read(sender, reader, rate)?;
            arrived.lock().expect("nobody else holds it").add(&read);
            Ok(sent)
        })];
        let both = (sender.shared, reader.shared);
        let (window, pid) = (args.window.window(), args.server_pid);
        let measured = measure::observe_pair(both, window, pid, &threads, &progress);
        let sent = join(threads);
        io::Result::Ok((measured?, sent?))
    })?;
    let arrived = arrived.into_inner().expect("the thread did not panic");
    Ok((measured, sent, arrived))
}

/// Answers to a waiting reader, from its first pull on: each is a wake-up, and one without messages is one in vain.
fn wake_ups(sent: u64, arrived: &Outcome) -> [(String, f64); 3] {
    let [with, without] = arrived.pulls.map(|count| count as f64);
    let unmatched = sent.saturating_sub(arrived.received).max(1) as f64;
    [
        ("answers_with_messages".into(), with),
        ("answers_without".into(), without),
        ("wake_ups_per_unmatched".into(), without / unmatched),
    ]
}

/// Messages in flight at the end of a run arrive soon, or the server lost them.
fn wait_for_rest(senders: &Shared, readers: &Shared, groups: u64) {
    const REST_WAIT_MAX: Duration = Duration::from_secs(5);
    let start = std::time::Instant::now();
    while readers.done.load(Relaxed) < groups * senders.done.load(Relaxed)
        && start.elapsed() < REST_WAIT_MAX
    {
        thread::sleep(Duration::from_millis(1));
    }
}

fn serve_echo() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    output::line(&listener.local_addr()?.to_string())?;
    Ok(echo::serve(&listener)?)
}

/// Measures the echo with its other side in a process of its own: one round trip after the other, or so many a second.
pub(crate) fn echo(args: &EchoArgs) -> anyhow::Result<Row> {
    let rate = args.rate;
    check_rate(rate)?;
    let (server, address) = server::start_echo(args.server_core)?;
    let shared = Shared::new(None);
    let progress = Progress::spinner();
    let (measured, outcome) = thread::scope(|scope| {
        let threads = vec![scope.spawn(|| match rate {
            Some(rate) => echo::measure_paced(address, rate, &shared),
            None => echo::measure(address, &shared),
        })];
        let pid = Some(server.pid());
        let measured = observe(&shared, args.window.window(), pid, &threads, &progress);
        io::Result::Ok((measured?, join(threads)?))
    })?;
    let pace = rate.map_or_else(String::new, |rate| format!(", {rate:.0}/s"));
    let what = format!("{} B there, {} B back{pace}", echo::REQUEST_BYTES, echo::ANSWER_BYTES);
    Ok(Row::of_load("echo", what, measured, &outcome))
}
