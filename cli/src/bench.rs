//! `gantry bench`: load, and what it costs the server.
//! Invariant: latencies count from the intended send time; counts, times and costs of a row cover one
//! window.
//! Leaves the commands to files of their names, the threads to `load` and `pull`, the measuring to `measure`, whole
//! scenarios to `suite`.

mod answer;
mod args;
mod bars;
mod cold;
mod compare;
mod consume;
mod device;
mod echo;
mod end_to_end;
mod filter;
mod interrupt;
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
mod produce;
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
mod stops;
mod suite;
mod target;
mod topics;

use std::{io, net::TcpListener, thread};

use clap::Subcommand;

use self::{
    args::{ConsumeArgs, EchoArgs, LoadArgs, WindowArgs},
    consume::{consume, consume_until},
    end_to_end::{EndToEnd, end_to_end},
    load::Shared,
    measure::{join, observe},
    produce::{Run, check_rate, connect_all, produce, produce_until, send, shape},
    report::{Row, table},
};
use crate::{context::Context, output, progress::Progress};

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Send: as fast as answers come (closed loop), or so many a second (open loop, --rate). Ctrl-C ends it early and
    /// shows what was measured until then.
    Produce(LoadArgs),
    /// Read what a topic holds, then wait for more. Ctrl-C ends it early as well.
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
            let run = produce_until(&args, &target, interrupt::note_signals()?)?;
            let figures = report::accepted_figures(&run.outcome);
            vec![Row { figures, ..run.row("produce", &args) }]
        }
        BenchCommand::Consume(args) => {
            let target = target::existing(context, &args.topic)?;
            let (mut row, outcome) = consume_until(&args, &target, interrupt::note_signals()?)?;
            row.figures.extend(report::read_figures(&outcome));
            vec![row]
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
