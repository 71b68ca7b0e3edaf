//! Sending and reading at once.
//! Invariant: a latency counts from the intended send time to the arrival; messages in flight at the end are waited for.
//! Leaves the loops to `load`, `open`, `pull` and `one_thread`, and the measuring to `measure`.

use std::{
    io,
    sync::{Mutex, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    args::LoadArgs,
    consume::close,
    load::{Outcome, Shared},
    measure::{self, Measured, join},
    one_thread::{self, Side},
    produce::{check_rate, connect_all, describe, send, shape},
    pull::{self, PullShape},
    report::Row,
    request::{self, SendShape},
    target::Target,
};
use crate::progress::Progress;

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
    let (sending, reading) =
        (connect_all(target, args.connections)?, connect_all(target, how.groups)?);
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
    let arrived = Mutex::new(Outcome::new());
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
    let start = Instant::now();
    while readers.done.load(Relaxed) < groups * senders.done.load(Relaxed)
        && start.elapsed() < REST_WAIT_MAX
    {
        thread::sleep(Duration::from_millis(1));
    }
}
