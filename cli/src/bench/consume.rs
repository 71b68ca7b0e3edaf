//! Readers of one run, each on a connection and a thread of its own.
//! Invariant: each queue is read by one of them.
//! Leaves the loop to `pull`, and the measuring to `measure`.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use super::{
    args::ConsumeArgs,
    load::{Outcome, Shared},
    measure::{join, observe},
    produce::connect_all,
    pull::{self, PullShape},
    report::Row,
    target::Target,
};
use crate::progress::Progress;

pub(super) fn consume(args: &ConsumeArgs, target: &Target) -> anyhow::Result<Row> {
    consume_until(args, target, Arc::default()).map(|(row, _)| row)
}

/// The same; what is measured ends early when `interrupted` is set.
pub(super) fn consume_until(
    args: &ConsumeArgs,
    target: &Target,
    interrupted: Arc<AtomicBool>,
) -> anyhow::Result<(Row, Outcome)> {
    let shared = Shared::new(args.count).until(interrupted);
    let connections = connect_all(target, args.connections.min(target.queues))?;
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
    Ok((row, outcome))
}

/// Readers wait for messages that may never come: the end of their connection ends them.
pub(super) fn close(connections: &[TcpStream]) {
    for stream in connections {
        // A connection that is gone already needs no closing.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
