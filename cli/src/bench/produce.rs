//! Senders of one run, each on a connection and a thread of its own.
//! Invariant: connections of many topics share them out; of few topics each connection sends to all.
//! Leaves the loops to `load` and `open`, and the measuring to `measure`.

use std::{
    io,
    net::TcpStream,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use super::{
    args::LoadArgs,
    load::{self, Outcome, Shared, connect},
    measure::{Measured, join, observe},
    open,
    report::Row,
    request::{SendFrames, SendShape},
    target::Target,
};
use crate::{exit::Failure, progress::Progress};

impl LoadArgs {
    /// Bytes of one request on the wire.
    pub(super) fn frame_bytes(&self, target: &Target) -> usize {
        SendFrames::new(&shape(self, target, 0, 0), 1).frame(0).len()
    }
}

/// What a run of senders showed.
pub(crate) struct Run {
    pub measured: Measured,
    pub outcome: Outcome,
}

impl Run {
    pub(super) fn row(self, scenario: &str, args: &LoadArgs) -> Row {
        Row::of_load(scenario, describe(args), self.measured, &self.outcome)
    }
}

pub(super) fn describe(args: &LoadArgs) -> String {
    let pace = match args.rate {
        Some(rate) => format!("{rate:.0}/s"),
        None => format!("{} in flight", args.in_flight),
    };
    let topics = if args.topics == 1 { String::new() } else { format!(", {} topics", args.topics) };
    let batch =
        if args.batch == 1 { String::new() } else { format!("batches of {} × ", args.batch) };
    format!("{batch}{} B, {} × {pace}{topics}", args.body_bytes, args.connections)
}

pub(super) fn shape(args: &LoadArgs, target: &Target, connection: u32, run: u32) -> SendShape {
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
    produce_until(args, target, Arc::default())
}

/// The same; what is measured ends early when `interrupted` is set.
pub(super) fn produce_until(
    args: &LoadArgs,
    target: &Target,
    interrupted: Arc<AtomicBool>,
) -> anyhow::Result<Run> {
    check_rate(args.rate)?;
    let shared = Shared::new(args.count).in_batches(args.batch).until(interrupted);
    let progress = Progress::spinner();
    let connections = connect_all(target, args.connections)?;
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

pub(super) fn send(
    stream: &TcpStream,
    shape: &SendShape,
    args: &LoadArgs,
    shared: &Shared,
) -> io::Result<Outcome> {
    match args.rate {
        Some(rate) => open::open_loop(stream, shape, rate / f64::from(args.connections), shared),
        None => load::closed_loop(stream, shape, args.in_flight as usize, shared),
    }
}

pub(super) fn check_rate(rate: Option<f64>) -> anyhow::Result<()> {
    match rate {
        Some(rate) if !(rate > 0.0 && rate.is_finite()) => {
            Err(Failure::usage("--rate has to be a number above 0"))
        }
        _ => Ok(()),
    }
}

pub(super) fn connect_all(target: &Target, connections: u32) -> io::Result<Vec<TcpStream>> {
    (0..connections).map(|_| connect(target.address)).collect()
}
