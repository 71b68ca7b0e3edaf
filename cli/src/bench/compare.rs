//! Two servers, scenario by scenario, round by round in turn, and the ratio of what they did.
//! Invariant: both have fresh data for each scenario, the same core, the same load and the same warm-up, and only one
//! of them is under load at a time.
//! Leaves the loads to `suite` and the page to `markdown`. A server is any program that starts like `gantry standalone`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{
    WindowArgs,
    markdown::{self, Making},
    process::pin,
    ratio::Pairs,
    report::Row,
    server::{Server, ServerSettings},
    suite::{DataFolder, Scenario, Suite, SuiteArgs},
};
use crate::exit::Failure;

/// Messages after which a server counts as warm, however short that took.
const WARM_MESSAGES: u64 = 2_000_000;
/// Scenarios that count starts and restarts of Gantry's own store.
const OWN_SERVERS_ONLY: [Scenario; 3] = [Scenario::W8Cold, Scenario::W14, Scenario::W15];

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

/// Runs every scenario against both, writes the page, and returns what both did.
pub(crate) fn run(args: &CompareArgs) -> anyhow::Result<Pairs> {
    if let Some(scenario) = args.suite.scenario.iter().find(|one| OWN_SERVERS_ONLY.contains(one)) {
        return Err(Failure::usage(format!(
            "scenario {scenario:?} is about one server: see suite"
        )));
    }
    if let Err(error) = pin(std::process::id(), args.suite.generator_core) {
        tracing::warn!(%error, "the generator runs on every core");
    }
    let (began, load_before) = (SystemTime::now(), markdown::load_now());
    let mut pairs = Pairs::new(&args.names);
    for scenario in &args.suite.scenario {
        compare(args, *scenario, &mut pairs)
            .with_context(|| format!("scenario {}", scenario.id()))?;
    }
    if let Some(path) = &args.suite.report {
        let SuiteArgs { revision, made_by: command, rounds, .. } = &args.suite;
        let making = Making { revision, command, rounds: *rounds, began, load_before };
        std::fs::write(path, markdown::comparison(&pairs, &making))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(pairs)
}

fn compare(args: &CompareArgs, scenario: Scenario, pairs: &mut Pairs) -> anyhow::Result<()> {
    let flush = if scenario == Scenario::W5 { "sync" } else { "async" };
    let a = start(args, &args.a, flush)?;
    let b = start(args, &args.b, flush)?;
    pairs.idle([a.idle_bytes, b.idle_bytes]);
    for one in [&a, &b] {
        warm_up(args, one)?;
    }
    for _ in 0..args.suite.rounds {
        for (side, one) in [&a, &b].into_iter().enumerate() {
            pairs.add(side, measure(args, scenario, one)?);
        }
    }
    a.server.process.stop()?;
    b.server.process.stop()
}

fn start(args: &CompareArgs, binary: &Path, flush: &'static str) -> anyhow::Result<Contender> {
    let data = DataFolder::new(args.suite.data.as_deref());
    let (binary, core) = (binary.to_owned(), args.suite.server_core);
    let server =
        Server::start(&ServerSettings { binary, data: data.path(), core, flush, more: vec![] })?;
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
}
