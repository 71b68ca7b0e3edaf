//! Senders: closed loop (always so many in flight), and what it shares with the open one.
//! Invariant: a latency counts from the time at which the message should have left, so that a
//! server that stalls does not hide the messages that could not be sent meanwhile.
//! Leaves set-up, measuring of the server and printing to its callers.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;

use super::{
    answer::{Answer, AnswerReader},
    request::{OPAQUE_BASE, SendFrames, SendShape},
};

/// Silence after which a server counts as gone.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages that an open-loop connection may have in flight: at 50,000 a second it is 80 ms of
/// stall per thousand. Beyond it the sender waits, and the wait is part of the latency.
pub(crate) const OPEN_LOOP_IN_FLIGHT: usize = 4096;
/// How often a sender that is too far ahead looks whether the readers have come nearer.
const LEAD_LOOK: Duration = Duration::from_micros(100);
/// Pieces of one vectored write; the kernel takes 1024.
pub(super) const WRITE_PIECES_MAX: usize = 1024;

/// Time since the run began, and the wall clock that belongs to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    start_wall_ms: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_wall_ms: wall.as_millis() as u64 }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(super) fn wall_ms(&self, at_ns: u64) -> u64 {
        self.start_wall_ms + at_ns / 1_000_000
    }
}

/// What the threads of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub clock: Clock,
    /// Set once: send nothing more, wait for what is in flight.
    pub stop: AtomicBool,
    /// Latencies count from messages intended at or after this time, in nanoseconds of the clock.
    pub measure_from_ns: AtomicU64,
    /// Messages answered well (or received), warm-up included.
    pub done: Arc<AtomicU64>,
    /// Messages answered with an error.
    pub failed: AtomicU64,
    /// Messages still allowed to be sent.
    pub budget: AtomicU64,
    /// Messages after which the run is over.
    wanted: u64,
    /// Messages of one request.
    batch: u64,
    /// What senders may not leave behind.
    lead: Option<Lead>,
    /// Whether the server is killed on purpose: the end of a connection ends its sender well.
    ends_with_server: bool,
    /// Set by a signal: the window ends.
    interrupted: Arc<AtomicBool>,
}

/// Readers that senders wait for, so that both go at the rate that the server can keep up with.
#[derive(Debug)]
struct Lead {
    received: Arc<AtomicU64>,
    messages_max: u64,
    /// Readers that each get every message.
    groups: u64,
}

impl Shared {
    /// A run that sends at most `count` messages.
    pub(crate) fn new(count: Option<u64>) -> Self {
        Self {
            clock: Clock::start(),
            stop: AtomicBool::new(false),
            measure_from_ns: AtomicU64::new(u64::MAX),
            done: Arc::default(),
            failed: AtomicU64::new(0),
            budget: AtomicU64::new(count.unwrap_or(u64::MAX)),
            wanted: count.unwrap_or(u64::MAX),
            batch: 1,
            lead: None,
            ends_with_server: false,
            interrupted: Arc::default(),
        }
    }

    /// A run whose window ends early when `interrupted` is set.
    pub(crate) fn until(self, interrupted: Arc<AtomicBool>) -> Self {
        Self { interrupted, ..self }
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    /// A run that goes on until the server is killed, and remembers what it has answered.
    pub(crate) fn until_killed() -> Self {
        Self { ends_with_server: true, ..Self::new(None) }
    }

    /// A run whose requests have so many messages each.
    pub(crate) fn in_batches(self, messages: u32) -> Self {
        Self { batch: u64::from(messages), ..self }
    }

    /// A run whose senders are never more than so many messages ahead of `readers`, what is in flight left out.
    pub(crate) fn ahead_of(self, readers: &Self, messages_max: u64, groups: u64) -> Self {
        Self {
            lead: Some(Lead { received: Arc::clone(&readers.done), messages_max, groups }),
            ..self
        }
    }

    fn is_too_far_ahead(&self) -> bool {
        self.lead.as_ref().is_some_and(|lead| {
            let received = lead.received.load(Relaxed);
            self.done.load(Relaxed).saturating_sub(received / lead.groups) > lead.messages_max
        })
    }

    /// Whether as many messages came through as the run wants.
    pub(crate) fn is_complete(&self) -> bool {
        self.done.load(Relaxed) >= self.wanted
    }

    /// Whether nothing more may be sent.
    pub(crate) fn is_spent(&self) -> bool {
        self.budget.load(Relaxed) == 0
    }

    /// A run without a budget whose times are those of another.
    pub(crate) fn with_clock(clock: Clock) -> Self {
        Self { clock, ..Self::new(None) }
    }

    /// Takes the messages of up to `wanted` requests off the budget; returns how many requests may be sent.
    pub(crate) fn take(&self, wanted: usize) -> usize {
        if self.stop.load(Relaxed) {
            return 0;
        }
        let messages = wanted as u64 * self.batch;
        let before = self.budget.fetch_update(Relaxed, Relaxed, |left| {
            Some(if left == u64::MAX { left } else { left.saturating_sub(messages) })
        });
        // The last batch may go beyond the budget, so that at least as much is sent as is wanted.
        before.map_or(0, |left| left.min(messages).div_ceil(self.batch) as usize)
    }
}

/// Latencies and refusals of one thread.
pub(crate) struct Outcome {
    /// Latencies, in nanoseconds.
    pub latency: Histogram<u64>,
    /// In open loops, of messages answered well and from the time at which they really left: what a client's timeout
    /// looks at. How long its sender was held up is not part of it.
    pub accepted: Histogram<u64>,
    /// Answer codes other than success, with their counts.
    pub refusals: BTreeMap<i32, u64>,
    /// What the first answer of each of these codes said.
    pub remarks: BTreeMap<i32, String>,
    /// Connection and sequence of each message answered well, in runs that end with the server.
    pub answered: Vec<(u16, u64)>,
    /// Messages that readers were given.
    pub received: u64,
    /// Answers to readers that brought messages, and that brought none.
    pub pulls: [u64; 2],
    /// Messages that were gone before readers came to them, as the server told.
    pub skipped: u64,
    /// Messages that readers were led past without being told why: with an expression, those that do not match it.
    pub passed: u64,
}

impl Outcome {
    pub(crate) fn new() -> Self {
        Self {
            latency: latencies(),
            accepted: latencies(),
            refusals: BTreeMap::new(),
            remarks: BTreeMap::new(),
            answered: Vec::new(),
            received: 0,
            pulls: [0; 2],
            skipped: 0,
            passed: 0,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, latencies) in
            [(&mut self.latency, &other.latency), (&mut self.accepted, &other.accepted)]
        {
            sum.add(latencies).expect("all histograms have the same bounds");
        }
        for (code, count) in &other.refusals {
            *self.refusals.entry(*code).or_default() += count;
        }
        for (code, remark) in &other.remarks {
            self.remarks.entry(*code).or_insert_with(|| remark.clone());
        }
        self.answered.extend_from_slice(&other.answered);
        self.received += other.received;
        self.skipped += other.skipped;
        self.passed += other.passed;
        self.pulls = [self.pulls[0] + other.pulls[0], self.pulls[1] + other.pulls[1]];
    }

    pub(crate) fn record(&mut self, latency_ns: u64) {
        self.latency.saturating_record(latency_ns);
    }

    fn note_refusal(&mut self, answer: &Answer<'_>) {
        let count = self.refusals.entry(answer.code).or_default();
        *count += 1;
        if *count == 1 {
            self.remarks.insert(answer.code, answer.remark().unwrap_or_default());
        }
    }
}

/// 1 µs to 60 s with three digits: about 90 KiB.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3)
        .expect("the bounds are constants and valid")
}

/// Times of one message, in nanoseconds of the clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentAt {
    /// When it should have left.
    pub intended_ns: u64,
    /// When it left, where that may be later.
    pub left_ns: Option<u64>,
}

/// Opens a connection for the generator.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Keeps `in_flight` messages in flight until the run stops, its budget is spent, or the server is killed on purpose.
pub(crate) fn closed_loop(
    stream: &TcpStream,
    shape: &SendShape,
    in_flight: usize,
    shared: &Shared,
) -> io::Result<Outcome> {
    let mut outcome = Outcome::new();
    match run_closed_loop(stream, shape, in_flight, shared, &mut outcome) {
        Err(_) if shared.ends_with_server => Ok(outcome),
        result => result.map(|()| outcome),
    }
}

fn run_closed_loop(
    mut stream: &TcpStream,
    shape: &SendShape,
    in_flight: usize,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let mut frames = SendFrames::new(shape, in_flight);
    let mut answers = AnswerReader::new();
    let (mut sent_at_ns, mut sequences) = (vec![0; in_flight], vec![0; in_flight]);
    let mut answered = Vec::new();
    let mut free: Vec<usize> = (0..in_flight).collect();
    let mut outstanding = 0;
    loop {
        let is_waiting = shared.is_too_far_ahead() && !shared.stop.load(Relaxed);
        let count = if is_waiting { 0 } else { shared.take(free.len()) };
        if count > 0 {
            let now_ns = shared.clock.now_ns();
            for slot in &free[..count] {
                sequences[*slot] = frames.renew(*slot, shared.clock.wall_ms(now_ns), now_ns);
                sent_at_ns[*slot] = now_ns;
            }
            write_frames(&mut stream, &frames, &free[..count])?;
            free.drain(..count);
            outstanding += count;
        }
        if outstanding == 0 && is_waiting {
            thread::sleep(LEAD_LOOK);
            continue;
        }
        if outstanding == 0 {
            return Ok(());
        }
        answers.fill(&mut stream)?;
        let before = free.len();
        take_answers(&mut answers, outcome, shared, in_flight, |slot, is_good| {
            free.push(slot);
            if is_good && shared.ends_with_server {
                answered.push((shape.connection, sequences[slot]));
            }
            SentAt { intended_ns: sent_at_ns[slot], left_ns: None }
        })?;
        outcome.answered.append(&mut answered);
        outstanding -= free.len() - before;
    }
}

pub(super) fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server gave no answer for 30 s")
}

/// Counts every complete answer; `finish` frees a slot, told whether its message was answered well, and says when the
/// message was intended and when it left.
pub(super) fn take_answers(
    answers: &mut AnswerReader,
    outcome: &mut Outcome,
    shared: &Shared,
    slots: usize,
    mut finish: impl FnMut(usize, bool) -> SentAt,
) -> io::Result<()> {
    let now_ns = shared.clock.now_ns();
    let measure_from_ns = shared.measure_from_ns.load(Relaxed);
    let (mut done, mut failed) = (0, 0);
    while let Some(answer) = answers.next()? {
        if !answer.response {
            continue;
        }
        let slot = answer.opaque.wrapping_sub(OPAQUE_BASE) as usize;
        if slot >= slots {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "answer to no request"));
        }
        let SentAt { intended_ns, left_ns } = finish(slot, answer.code == 0);
        let is_measured = intended_ns >= measure_from_ns;
        if answer.code == 0 {
            done += shared.batch;
            if let Some(left_ns) = left_ns.filter(|_| is_measured) {
                outcome.accepted.saturating_record(now_ns.saturating_sub(left_ns));
            }
        } else {
            failed += shared.batch;
            outcome.note_refusal(&answer);
        }
        if is_measured {
            outcome.record(now_ns.saturating_sub(intended_ns));
        }
    }
    shared.done.fetch_add(done, Relaxed);
    shared.failed.fetch_add(failed, Relaxed);
    Ok(())
}

/// Writes the frames of `slots` with as few calls as the kernel allows.
pub(super) fn write_frames(
    stream: &mut impl Write,
    frames: &SendFrames,
    slots: &[usize],
) -> io::Result<()> {
    for slots in slots.chunks(WRITE_PIECES_MAX) {
        let mut pieces: Vec<_> =
            slots.iter().map(|slot| IoSlice::new(frames.frame(*slot))).collect();
        let mut pieces = &mut pieces[..];
        while !pieces.is_empty() {
            match stream.write_vectored(pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => IoSlice::advance_slices(&mut pieces, bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_wait_for_readers_by_messages_and_not_by_copies_of_them() {
        let readers = Shared::new(None);
        let senders = Shared::new(None).ahead_of(&readers, 100, 10);
        senders.done.store(201, Relaxed);
        readers.done.store(1_000, Relaxed);
        assert!(senders.is_too_far_ahead(), "every group has read 100 of 201");
        readers.done.store(1_010, Relaxed);
        assert!(!senders.is_too_far_ahead(), "every group has read 101 of 201");
    }

    #[test]
    fn budget_is_of_messages_however_many_a_request_has() {
        let shared = Shared::new(Some(100)).in_batches(32);
        assert_eq!((shared.take(2), shared.take(5), shared.take(1)), (2, 2, 0));
        let shared = Shared::new(None).in_batches(32);
        assert_eq!(shared.take(7), 7);
    }
}
