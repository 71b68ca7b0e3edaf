//! Two servers, scenario by scenario, round by round in turn, and the ratio of what they did.
//! Invariant: both have fresh data for each scenario, the same core, the same load and the same warm-up, and only one
//! of them runs at a time: the other is stopped, so that not even its housekeeping takes the core.
//! Leaves the loads to `suite` and the page to `markdown`. A server is any program that starts like `gantry standalone`.

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use gantry_client::Admin;

use super::{
    WindowArgs, machine,
    markdown::write_beside,
    process::pin,
    ratio::{Pairs, Reason},
    report::Row,
    server::{Server, ServerSettings},
    suite::{DataFolder, Scenario, Suite, SuiteArgs},
    target::with_client,
};

/// Messages after which a server counts as warm, however short that took.
const WARM_MESSAGES: u64 = 2_000_000;
/// Longest time until a server that was stopped for a while is known to its name server again: a broker may count as
/// silent meanwhile, and tells the name server of itself every 30 seconds.
const KNOWN_AGAIN_MAX: Duration = Duration::from_secs(90);

/// Which servers, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// Program of the server that is measured; it starts like `gantry standalone`.
    #[arg(long, value_name = "FILE")]
    a: PathBuf,
    /// Program of the server beside it, such as `scripts/apache`.
    #[arg(long, value_name = "FILE")]
    b: PathBuf,
    /// Names of both, for the page.
    #[arg(long, num_args = 2, default_values = ["Gantry", "Apache RocketMQ"])]
    names: Vec<String>,
    /// Load on each server before a scenario's first round: this long, or two million messages.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    server_warm_up: Duration,
    #[command(flatten)]
    suite: SuiteArgs,
}

/// One of the two, while a scenario runs.
struct Contender {
    server: Server,
    /// Removed after the server has ended: fields are dropped in order.
    _data: DataFolder,
    idle_bytes: u64,
}

/// Runs every scenario against both, writes the page after each, and returns what both did.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<Pairs> {
    if let Err(error) = pin(std::process::id(), args.suite.generator_core) {
        tracing::warn!(%error, "the generator runs on every core");
    }
    let (began, load_before) = (SystemTime::now(), machine::load_now());
    let mut pairs = Pairs::new(&args.names);
    let write = |pairs: &Pairs, running: Option<String>| {
        let load_before = load_before.clone();
        args.suite
            .write(began, load_before, running, |path, making| write_beside(path, pairs, making))
    };
    for scenario in &args.suite.scenario {
        write(&pairs, Some(scenario.id()))?;
        if let Some(why) = scenario.not_compared() {
            let (scenario, why) = (scenario.id().to_uppercase(), why.to_owned());
            pairs.reasons.push(Reason { scenario, why, is_failure: false });
        } else if let Err(error) = compare(args, *scenario, &mut pairs) {
            tracing::error!("scenario {}: {error:#}", scenario.id());
            let (scenario, why) = (scenario.id().to_uppercase(), format!("{error:#}"));
            pairs.reasons.push(Reason { scenario, why, is_failure: true });
        } else if let Some(rest) = scenario.rest_not_compared() {
            let (scenario, why) = (scenario.id().to_uppercase(), rest.to_owned());
            pairs.reasons.push(Reason { scenario, why, is_failure: false });
        }
    }
    write(&pairs, None)?;
    Ok(pairs)
}

fn compare(args: &CompareArgs, scenario: Scenario, pairs: &mut Pairs) -> anyhow::Result<()> {
    if scenario == Scenario::W15 {
        return compare_starts(args, pairs);
    }
    let flush = if scenario == Scenario::W5 { "sync" } else { "async" };
    let mut both = Vec::new();
    for (name, binary) in args.names.iter().zip([&args.a, &args.b]) {
        let one = start(args, binary, flush).with_context(|| format!("start {name}"))?;
        warm_up(args, &one).with_context(|| format!("warm {name} up"))?;
        one.server.process.pause()?;
        both.push(one);
    }
    pairs.idle([both[0].idle_bytes, both[1].idle_bytes]);
    let rounds = if args.suite.once.contains(&scenario) { 1 } else { args.suite.rounds };
    for _ in 0..rounds {
        for (side, one) in both.iter().enumerate() {
            let name = &args.names[side];
            one.server.process.resume()?;
            one.wait_until_known().with_context(|| format!("wait for {name}"))?;
            let rows = measure(args, scenario, one).with_context(|| format!("measure {name}"))?;
            pairs.add(side, rows);
            one.server.process.pause()?;
        }
    }
    both.into_iter().try_for_each(|one| one.server.process.stop())
}

/// Starts are compared with servers of their own, one after the other, as a start finds the machine.
fn compare_starts(args: &CompareArgs, pairs: &mut Pairs) -> anyhow::Result<()> {
    let scenario = Scenario::W15;
    let rounds = if args.suite.once.contains(&scenario) { 1 } else { args.suite.rounds };
    for _ in 0..rounds {
        for (side, binary) in [&args.a, &args.b].into_iter().enumerate() {
            let own = SuiteArgs { server_binary: Some(binary.clone()), ..args.suite.clone() };
            let suite = Suite { args: &own, nameserver: "", scenario };
            let rows = suite.start_up_compared();
            pairs.add(side, rows.with_context(|| format!("measure {}", args.names[side]))?);
        }
    }
    Ok(())
}

impl Contender {
    /// Waits until the name server names the broker.
    fn wait_until_known(&self) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_millis(50);
        let start = Instant::now();
        with_client(&self.server.nameserver, async |client| {
            let admin = Admin::new(client);
            while admin.primaries(None).await?.is_empty() {
                let waited = start.elapsed();
                anyhow::ensure!(waited < KNOWN_AGAIN_MAX, "no broker is known after {waited:?}");
                thread::sleep(LOOK);
            }
            Ok(())
        })
    }
}

fn start(args: &CompareArgs, binary: &Path, flush: &'static str) -> anyhow::Result<Contender> {
    let data = DataFolder::new(args.suite.data.as_deref());
    let (binary, core) = (binary.to_owned(), args.suite.server_core);
    let settings = ServerSettings { binary, data: data.path(), core, flush, more: vec![] };
    let server = Server::start(&settings)?;
    let idle_bytes = super::process::Sample::take(server.process.pid())?.anonymous_bytes;
    Ok(Contender { server, _data: data, idle_bytes })
}

/// The suite's arguments against a server that runs.
fn given(args: &CompareArgs, one: &Contender) -> SuiteArgs {
    let server_pid = Some(one.server.process.pid());
    SuiteArgs { server_binary: None, server_pid, ..args.suite.clone() }
}

fn measure(args: &CompareArgs, scenario: Scenario, one: &Contender) -> anyhow::Result<Vec<Row>> {
    let args = given(args, one);
    Suite { args: &args, nameserver: &one.server.nameserver, scenario }.run()
}

fn warm_up(args: &CompareArgs, one: &Contender) -> anyhow::Result<()> {
    let window = WindowArgs { warm_up: Duration::ZERO, duration: args.server_warm_up };
    let args = SuiteArgs { window, ..given(args, one) };
    let suite = Suite { args: &args, nameserver: &one.server.nameserver, scenario: Scenario::W1 };
    suite.produce("warm-up", |load| load.count = Some(WARM_MESSAGES)).map(drop)
}

impl Scenario {
    /// Its id as the command line has it.
    pub(crate) fn id(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What of it two servers are not compared by, and why.
    fn rest_not_compared(self) -> Option<&'static str> {
        match self {
            Self::W5 => Some(
                "segments that are written again, of async, device: they need settings, or the machine, for one server alone",
            ),
            Self::W7 => Some(
                "more topics than above: Apache RocketMQ takes a folder and a mapped file for each queue, and minutes to make them",
            ),
            Self::W15 => {
                Some("views to be made again: only Gantry's can be taken away and be told apart")
            }
            _ => None,
        }
    }

    /// Why two servers are not compared by it.
    fn not_compared(self) -> Option<&'static str> {
        match self {
            Self::W7Queues => Some("Apache RocketMQ has a folder and a mapped file for each queue"),
            Self::W8Cold => Some(
                "Apache RocketMQ maps its log into memory: its pages cannot be dropped while it runs",
            ),
            Self::W14 => Some(
                "memory at rest is in line `idle`, memory under load in every line; the rest is about single topics and connections of Gantry",
            ),
            _ => None,
        }
    }
}
