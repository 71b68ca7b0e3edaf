//! Open loop: a sender of so many messages a second, come what may, and the reader of its answers.
//! Invariant: each message has its own time, and waits for one of the slots in flight when the server is behind; slots
//! come back once for each read of answers, so that a sender that is held up neither wakes nor writes for each of them.
//! Leaves counting to `load`.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{
    answer::AnswerReader,
    load::{
        ANSWER_TIMEOUT, OPEN_LOOP_IN_FLIGHT, Outcome, SentAt, Shared, WRITE_PIECES_MAX, silent,
        take_answers, write_frames,
    },
    process,
    request::{SendFrames, SendShape},
};

/// Times of a message: written by its sender, read by its reader.
#[derive(Debug, Default)]
struct Times {
    intended_ns: AtomicU64,
    left_ns: AtomicU64,
}

/// Slots that no message is in.
struct Slots {
    free: Vec<usize>,
    freed: mpsc::Receiver<Vec<usize>>,
}

impl Slots {
    /// One that is free already.
    fn take(&mut self) -> Option<usize> {
        if self.free.is_empty() {
            self.free = self.freed.try_recv().ok()?;
        }
        self.free.pop()
    }

    /// The next one that becomes free; `None` when the server is silent.
    fn wait(&mut self) -> Option<usize> {
        while self.free.is_empty() {
            self.free = self.freed.recv_timeout(ANSWER_TIMEOUT).ok()?;
        }
        self.free.pop()
    }
}

/// Sends `rate_per_s` messages a second, each at its own time, until the run stops.
pub(crate) fn open_loop(
    stream: &TcpStream,
    shape: &SendShape,
    rate_per_s: f64,
    shared: &Shared,
) -> io::Result<Outcome> {
    let times: Vec<Times> = (0..OPEN_LOOP_IN_FLIGHT).map(|_| Times::default()).collect();
    let (free, freed) = mpsc::channel();
    let mut slots = Slots { free: (0..OPEN_LOOP_IN_FLIGHT).collect(), freed };
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(stream, shared, &times, &free));
        let sent = send(stream, shape, rate_per_s, shared, &times, &mut slots);
        if sent.is_err() {
            shared.stop.store(true, Relaxed);
        }
        // Every slot taken has been sent, so all of them come back, and then the reader may go.
        if sent.is_ok() {
            let _ = (0..OPEN_LOOP_IN_FLIGHT).all(|_| slots.wait().is_some());
        }
        let _ = stream.shutdown(Shutdown::Both);
        let outcome = reader.join().expect("the reader does not panic");
        sent.and(outcome)
    })
}

fn send(
    mut stream: &TcpStream,
    shape: &SendShape,
    rate_per_s: f64,
    shared: &Shared,
    times: &[Times],
    slots: &mut Slots,
) -> io::Result<()> {
    process::sleep_precisely();
    let mut frames = SendFrames::new(shape, OPEN_LOOP_IN_FLIGHT);
    let interval_ns = 1e9 / rate_per_s;
    let start_ns = shared.clock.now_ns();
    let (mut sent, mut batch) = (0_u64, Vec::with_capacity(WRITE_PIECES_MAX));
    let intended = |number: u64| start_ns + (number as f64 * interval_ns) as u64;
    loop {
        let mut now_ns = shared.clock.now_ns();
        while batch.len() < WRITE_PIECES_MAX && intended(sent) <= now_ns {
            if shared.take(1) == 0 {
                return write_frames(&mut stream, &frames, &batch);
            }
            let slot = if let Some(slot) = slots.take() {
                slot
            } else {
                write_frames(&mut stream, &frames, &batch)?;
                batch.clear();
                let slot = slots.wait().ok_or_else(silent)?;
                now_ns = shared.clock.now_ns();
                slot
            };
            let at_ns = intended(sent);
            frames.renew(slot, shared.clock.wall_ms(at_ns), at_ns);
            times[slot].intended_ns.store(at_ns, Relaxed);
            times[slot].left_ns.store(now_ns, Relaxed);
            batch.push(slot);
            sent += 1;
        }
        write_frames(&mut stream, &frames, &batch)?;
        batch.clear();
        if shared.stop.load(Relaxed) {
            return Ok(());
        }
        let wait_ns = intended(sent).saturating_sub(shared.clock.now_ns());
        if wait_ns > 0 {
            thread::sleep(Duration::from_nanos(wait_ns));
        }
    }
}

fn read(
    mut stream: &TcpStream,
    shared: &Shared,
    times: &[Times],
    free: &mpsc::Sender<Vec<usize>>,
) -> io::Result<Outcome> {
    let mut answers = AnswerReader::new();
    let mut outcome = Outcome::new();
    loop {
        match answers.fill(&mut stream) {
            Ok(()) => {}
            // The sender shuts the connection down after the last answer.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(outcome),
            Err(_) if shared.stop.load(Relaxed) => return Ok(outcome),
            Err(error) => return Err(error),
        }
        let mut slots = Vec::new();
        take_answers(&mut answers, &mut outcome, shared, times.len(), |slot, _| {
            slots.push(slot);
            let Times { intended_ns, left_ns } = &times[slot];
            SentAt { intended_ns: intended_ns.load(Relaxed), left_ns: Some(left_ns.load(Relaxed)) }
        })?;
        // The sender may have left already; then nobody needs them.
        let _ = free.send(slots);
    }
}
