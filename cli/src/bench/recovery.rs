//! Start-up, scenario W15: the first send of an empty server, and what a killed one still has.
//! Invariant: after the kill every message of the topic is read back and compared, byte for byte and by its id, with what
//! was sent and answered; counts alone prove nothing.
//! Leaves the load to `load`, processes to `server`, folders to `suite`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

use gantry_client::{Admin, Client, Message, Producer, ProducerSettings, PullReader};
use gantry_model::{GroupName, TopicName};

use super::{
    LoadArgs, connect_all,
    load::Shared,
    measure::join,
    report::Row,
    request::{body, number_of},
    send,
    server::Server,
    shape,
    target::{self, Target, with_client},
};
use crate::progress::Progress;

/// Messages of one pull.
const PULL_MESSAGES: u32 = 32;
/// Bytes of a body that tell the intended send time and not the message.
const STAMP_BYTES: usize = 8;

/// The time from the start of the process to its `ready` line and to the first answered send.
pub(crate) fn first_send(server: &Server, what: &str) -> anyhow::Result<Row> {
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

/// What a killed server had answered.
pub(crate) struct Promised {
    target: Target,
    run: u32,
    body_bytes: usize,
    answered: Vec<(u16, u64)>,
    /// Answer codes other than success, with their counts.
    pub refusals: BTreeMap<i32, u64>,
}

/// Loads a server as `args` says and kills it in the middle, once it has answered `messages`.
pub(crate) fn load_and_kill(
    server: Server,
    args: &LoadArgs,
    messages: u64,
) -> anyhow::Result<Promised> {
    let target = target::prepare_at(&server.nameserver, args)?;
    let connections = connect_all(&target, args.connections)?;
    let (shared, run, progress) = (Shared::until_killed(), rand::random(), Progress::of(messages));
    let outcome = thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter()
            .enumerate()
            .map(|(index, stream)| {
                let shape = shape(args, &target, index as u32, run);
                let shared = &shared;
                scope.spawn(move || send(stream, &shape, args, shared))
            })
            .collect();
        wait_for(messages, &shared, &threads, &progress);
        server.process.kill();
        join(threads)
    })?;
    let (answered, refusals) = (outcome.answered, outcome.refusals);
    anyhow::ensure!(answered.len() as u64 >= messages, "the load ended before the kill");
    Ok(Promised { target, run, body_bytes: args.body_bytes, answered, refusals })
}

fn wait_for<T>(
    messages: u64,
    shared: &Shared,
    threads: &[thread::ScopedJoinHandle<'_, T>],
    progress: &Progress,
) {
    let running = || !threads.iter().all(thread::ScopedJoinHandle::is_finished);
    while shared.done.load(Relaxed) < messages && running() {
        progress.tell("filling the log", shared.done.load(Relaxed));
        thread::sleep(Duration::from_millis(5));
    }
}

/// What was found when everything was read back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Messages read.
    pub read: u64,
    /// Answered messages that are not there.
    pub lost: u64,
    /// Messages that are there twice.
    pub doubled: u64,
    /// Messages whose body, or whose id, is not one that was sent.
    pub changed: u64,
    /// Messages that come behind a later one of their connection and queue, or whose offset is not the next.
    pub misplaced: u64,
}

impl Found {
    /// Whether every answered message is there once, as it was sent, in its place.
    pub(crate) fn is_clean(&self) -> bool {
        *self == Self { read: self.read, ..Self::default() }
    }

    /// Whether every answered message is there once, as it was sent, wherever: not every server keeps the order of what
    /// one connection has in flight.
    pub(crate) fn is_complete(&self) -> bool {
        Self { misplaced: 0, ..*self }.is_clean()
    }
}

impl Promised {
    /// Messages that had been answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.len() as u64
    }

    /// Reads every message back from `server` and compares.
    pub(crate) fn compare(&self, server: &Server) -> anyhow::Result<Found> {
        let mut check = Check::new(self.run, self.body_bytes);
        with_client(&server.nameserver, async |client| {
            for topic in &self.target.topics {
                read_topic(client, topic, &mut check).await?;
            }
            Ok(())
        })?;
        Ok(check.finish(&self.answered))
    }
}

async fn read_topic(client: &Client, topic: &str, check: &mut Check) -> anyhow::Result<()> {
    let reader = PullReader::new(client, GroupName::new("gantry-bench-compare")?, "*");
    let queues = Admin::new(client).topic_stats(topic).await?;
    let progress = Progress::of(queues.iter().map(|queue| queue.max_offset).sum());
    for bounds in queues {
        let mut offset = bounds.min_offset;
        check.begin_queue(offset);
        while offset < bounds.max_offset {
            let batch = reader.pull(&bounds.queue, offset, PULL_MESSAGES, Duration::ZERO).await?;
            for message in &batch.messages {
                check.see(message.offset.0, message.id(), &message.body);
            }
            anyhow::ensure!(batch.next_offset > offset, "{} ends at {offset}", bounds.queue);
            offset = batch.next_offset;
            progress.tell("reading everything back", check.found.read);
        }
    }
    Ok(())
}

/// Compares messages one after another.
struct Check {
    run: u32,
    body: Vec<u8>,
    found: Found,
    /// Numbers seen, for each connection.
    seen: HashMap<u16, Vec<bool>>,
    next_offset: u64,
    /// Last number of each connection in this queue.
    last: HashMap<u16, u64>,
}

impl Check {
    fn new(run: u32, body_bytes: usize) -> Self {
        Self {
            run,
            body: body(body_bytes),
            found: Found::default(),
            seen: HashMap::new(),
            next_offset: 0,
            last: HashMap::new(),
        }
    }

    fn begin_queue(&mut self, offset: u64) {
        self.next_offset = offset;
        self.last.clear();
    }

    fn see(&mut self, offset: u64, unique_id: &str, body: &[u8]) {
        self.found.read += 1;
        let stamp = STAMP_BYTES.min(self.body.len());
        let is_whole = body.get(stamp..) == Some(&self.body[stamp..]);
        let is_next = offset == self.next_offset;
        self.next_offset = offset + 1;
        let Some((connection, number)) = number_of(unique_id, self.run).filter(|_| is_whole) else {
            self.found.changed += 1;
            return;
        };
        let is_later = self.last.insert(connection, number).is_none_or(|last| last < number);
        self.found.misplaced += u64::from(!is_next || !is_later);
        let seen = self.seen.entry(connection).or_default();
        let number = number as usize;
        if seen.len() <= number {
            seen.resize(number + 1, false);
        }
        self.found.doubled += u64::from(std::mem::replace(&mut seen[number], true));
    }

    fn finish(mut self, answered: &[(u16, u64)]) -> Found {
        let is_there = |(connection, number): &(u16, u64)| {
            let seen = self.seen.get(connection);
            seen.and_then(|seen| seen.get(*number as usize)).copied().unwrap_or(false)
        };
        self.found.lost = answered.iter().filter(|message| !is_there(message)).count() as u64;
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unique_id(connection: u16, number: u64) -> String {
        format!("7F000001000000AB{connection:04X}{number:012X}")
    }

    fn check(messages: &[(u64, u16, u64, &[u8])], answered: &[(u16, u64)]) -> Found {
        let mut check = Check::new(0xAB, 100);
        check.begin_queue(0);
        for (offset, connection, number, body) in messages {
            check.see(*offset, &unique_id(*connection, *number), body);
        }
        check.finish(answered)
    }

    #[test]
    fn answered_and_unanswered_messages_in_order_are_no_finding() {
        let body = body(100);
        let found =
            check(&[(0, 1, 0, &body), (1, 2, 0, &body), (2, 1, 3, &body)], &[(1, 0), (1, 3)]);
        assert_eq!(found, Found { read: 3, ..Found::default() });
        assert!(found.is_clean());
    }

    #[test]
    fn each_kind_of_harm_is_found() {
        let body = body(100);
        let mut other = body.clone();
        other[50] ^= 1;
        let found = check(&[(0, 1, 0, &body)], &[(1, 0), (1, 1), (2, 0)]);
        assert_eq!(found, Found { read: 1, lost: 2, ..Found::default() });
        assert!(!found.is_clean());
        let found = check(&[(0, 1, 0, &other)], &[(1, 0)]);
        assert_eq!(found, Found { read: 1, lost: 1, changed: 1, ..Found::default() });
        assert!(!found.is_complete());
        let found = check(&[(0, 1, 5, &body), (1, 1, 4, &body)], &[]);
        assert_eq!(found, Found { read: 2, misplaced: 1, ..Found::default() });
        assert!(found.is_complete() && !found.is_clean());
        let found = check(&[(0, 1, 5, &body), (2, 1, 6, &body)], &[]);
        assert_eq!(found, Found { read: 2, misplaced: 1, ..Found::default() });
        let found = check(&[(0, 1, 5, &body), (1, 1, 5, &body)], &[]);
        assert_eq!(found, Found { read: 2, doubled: 1, misplaced: 1, ..Found::default() });
    }
}
