//! Open loop and reader on one thread, which sleeps until a message is due or an answer is there.
//! Invariant: a thread each for sending, answers and reading would cost the generator three wakes a message and add its
//! own queueing to every latency; here one wake serves all that is ready.
//! Leaves what a message and an answer are to `load` and `pull`.

use std::{io, net::TcpStream, sync::atomic::Ordering::Relaxed, time::Duration};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    answer::AnswerReader,
    load::{
        ANSWER_TIMEOUT, OPEN_LOOP_IN_FLIGHT, Outcome, SentAt, Shared, silent, take_answers,
        write_frames,
    },
    process,
    pull::{PullShape, Puller},
    request::{SendFrames, SendShape},
};

/// Messages sent before the connections are looked at again: what is late must not keep the reader from reading.
pub(super) const SENT_PER_TURN: usize = 64;
/// Time after the last answer in which the last messages have to arrive.
const REST_WAIT_MAX: Duration = Duration::from_secs(5);

/// One side of a run: its connection, what it does there, and its counters.
pub(crate) struct Side<'a, Shape> {
    pub stream: &'a TcpStream,
    pub shape: &'a Shape,
    pub shared: &'a Shared,
}

/// Sends `rate_per_s` messages a second, each at its own time, and reads them, until the senders are told to stop or
/// their budget is spent, and everything that was answered has arrived. Returns what was sent and what arrived.
pub(crate) fn send_and_read(
    sending: &Side<'_, SendShape>,
    reading: &Side<'_, PullShape>,
    rate_per_s: f64,
) -> io::Result<(Outcome, Outcome)> {
    process::sleep_precisely();
    let mut puller = Puller::start(reading.stream, reading.shape, reading.shared)?;
    let mut sender = Sender::new(sending, rate_per_s);
    let mut rest_until_ns = None;
    loop {
        let due_ns = sender.send_due()?;
        let now_ns = sending.shared.clock.now_ns();
        let wait_ns = if let Some(due_ns) = due_ns {
            due_ns.saturating_sub(now_ns)
        } else if sender.outstanding() > 0 {
            ANSWER_TIMEOUT.as_nanos() as u64
        } else if reading.shared.done.load(Relaxed) < wanted(sending, reading.shape) {
            let until = rest_until_ns.get_or_insert(now_ns + REST_WAIT_MAX.as_nanos() as u64);
            until.saturating_sub(now_ns)
        } else {
            break;
        };
        let ready = wait(&[sending.stream, reading.stream], wait_ns)?;
        if ready == [false; 2] && due_ns.is_none() {
            if sender.outstanding() > 0 {
                return Err(silent());
            }
            // The reader lacks messages: the rows show it.
            break;
        }
        if ready[0] {
            sender.take()?;
        }
        if ready[1] && !puller.turn()? {
            break;
        }
    }
    Ok((sender.outcome, puller.outcome))
}

/// Messages that the reader has to get of those that were answered.
fn wanted(sending: &Side<'_, SendShape>, reader: &PullShape) -> u64 {
    sending.shared.done.load(Relaxed) / reader.one_of
}

/// Waits until one of the streams can be read, or for so long; says which can.
pub(super) fn wait<const N: usize>(
    streams: &[&TcpStream; N],
    wait_ns: u64,
) -> io::Result<[bool; N]> {
    let timeout = Timespec {
        tv_sec: (wait_ns / 1_000_000_000) as i64,
        tv_nsec: (wait_ns % 1_000_000_000) as i64,
    };
    let mut polled = streams.map(|stream| PollFd::new(stream, PollFlags::IN));
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok([false; N]),
        Err(error) => return Err(error.into()),
    }
    // A closed or broken connection is told by the read.
    Ok(polled.map(|fd| !fd.revents().is_empty()))
}

/// The open loop's state.
struct Sender<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    frames: SendFrames,
    answers: AnswerReader,
    outcome: Outcome,
    start_ns: u64,
    interval_ns: f64,
    sent: u64,
    is_spent: bool,
    free: Vec<usize>,
    sent_at_ns: Vec<u64>,
}

impl<'a> Sender<'a> {
    fn new(side: &Side<'a, SendShape>, rate_per_s: f64) -> Self {
        Self {
            stream: side.stream,
            shared: side.shared,
            frames: SendFrames::new(side.shape, OPEN_LOOP_IN_FLIGHT),
            answers: AnswerReader::new(),
            outcome: Outcome::new(),
            start_ns: side.shared.clock.now_ns(),
            interval_ns: 1e9 / rate_per_s,
            sent: 0,
            is_spent: false,
            free: (0..OPEN_LOOP_IN_FLIGHT).collect(),
            sent_at_ns: vec![0; OPEN_LOOP_IN_FLIGHT],
        }
    }

    fn outstanding(&self) -> usize {
        OPEN_LOOP_IN_FLIGHT - self.free.len()
    }

    fn intended_ns(&self) -> u64 {
        self.start_ns + (self.sent as f64 * self.interval_ns) as u64
    }

    /// Sends what is due; returns when the next one is. `None` when nothing will be sent before an answer comes, or
    /// any more.
    fn send_due(&mut self) -> io::Result<Option<u64>> {
        let mut batch = Vec::new();
        let now_ns = self.shared.clock.now_ns();
        while !self.is_spent && batch.len() < SENT_PER_TURN && self.intended_ns() <= now_ns {
            let Some(slot) = self.free.pop() else { break };
            if self.shared.take(1) == 0 {
                self.free.push(slot);
                self.is_spent = true;
                break;
            }
            let at_ns = self.intended_ns();
            self.frames.renew(slot, self.shared.clock.wall_ms(at_ns), at_ns);
            self.sent_at_ns[slot] = at_ns;
            batch.push(slot);
            self.sent += 1;
        }
        write_frames(&mut self.stream, &self.frames, &batch)?;
        self.is_spent |= self.shared.stop.load(Relaxed);
        Ok((!self.is_spent && !self.free.is_empty()).then(|| self.intended_ns()))
    }

    /// Takes the answers that are there.
    fn take(&mut self) -> io::Result<()> {
        self.answers.fill(&mut self.stream)?;
        let Self { answers, outcome, shared, free, sent_at_ns, .. } = self;
        take_answers(answers, outcome, shared, OPEN_LOOP_IN_FLIGHT, |slot, _| {
            free.push(slot);
            SentAt { intended_ns: sent_at_ns[slot], left_ns: None }
        })
    }
}
