//! `gantry`: administration, messages by hand, load generator, and a server for one machine.
//! Invariant: results go to standard output, everything else to standard error, and the exit code says
//! how it ended.
//! Leaves the work to `commands`, `bench` and `standalone`.

mod bench;
mod commands;
mod context;
mod exit;
mod output;
mod progress;
mod standalone;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    commands::{cluster, group, message, offset, store, topic},
    context::{Context, GlobalArgs},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Administer Gantry and RocketMQ, send and read messages, generate load, or serve on one machine.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, after_help = exit::EXIT_CODES_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, delete and look at topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Create, delete and look at consumer groups.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Look at clusters and brokers.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Look at and move the offsets of consumer groups.
    #[command(subcommand)]
    Offset(offset::OffsetCommand),
    /// Send, read and find messages.
    #[command(subcommand)]
    Message(message::MessageCommand),
    /// Look into the folder of a broker's store, and check it. Nothing is changed; the broker may run.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Serve: name server and broker in this process.
    Standalone(Box<standalone::StandaloneArgs>),
    /// Generate load and measure.
    #[command(subcommand)]
    Bench(Box<bench::BenchCommand>),
    /// Print the version.
    Version,
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let nameserver = cli.global.nameserver.clone();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if exit::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gantry: {}", exit::sentence(&error, &nameserver));
            exit::exit_of(&error).into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Topic(command) => Context::block_on(topic::run(command, &context)),
        Command::Group(command) => Context::block_on(group::run(command, &context)),
        Command::Cluster(command) => Context::block_on(cluster::run(command, &context)),
        Command::Offset(command) => Context::block_on(offset::run(command, &context)),
        Command::Message(command) => Context::block_on(message::run(command, &context)),
        Command::Store(command) => store::run(command, &context),
        Command::Standalone(args) => standalone::run(*args),
        Command::Bench(command) => bench::run(*command, &context),
        Command::Version => Ok(output::line(&format!("gantry {}", env!("CARGO_PKG_VERSION")))?),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "gantry", &mut io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_is_declared_once_and_has_a_help_text() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("4  no server answers"), "{help}");
    }

    #[test]
    fn standalone_takes_the_flags_that_tests_rely_on() {
        let line = "gantry standalone --data D --bind 127.0.0.1 --nameserver-port 1 --remoting-port 4 \
                    --grpc-port 5 --http-port 6 --flush sync --advertise h --cluster-name c \
                    --broker-name b --auto-create-topics false --apply DIR";
        assert!(Cli::try_parse_from(line.split_whitespace()).is_ok());
    }
}
