//! Loopback echo: what a round trip costs without a message queue, measured beside the real thing.
//! Invariant: requests and answers have the sizes of a send and its answer; at a fixed rate times count from the
//! intended send, as those of the real thing do.
//! Leaves placing of the two sides on processor cores to its callers.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::Ordering::Relaxed,
    thread,
};

use super::{
    load::{ANSWER_TIMEOUT, OPEN_LOOP_IN_FLIGHT, Outcome, Shared, connect, silent},
    one_thread::{SENT_PER_TURN, wait},
    process,
};

/// Sizes of a 1 KiB send with ids, and of its answer, in bytes.
pub(crate) const REQUEST_BYTES: usize = 1_450;
pub(crate) const ANSWER_BYTES: usize = 380;
/// Requests that are answered with one write where they came together.
const ANSWERED_AT_ONCE: usize = 64;

/// Answers every `REQUEST_BYTES` bytes with `ANSWER_BYTES` bytes until the process ends.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        thread::spawn(move || {
            // A peer that leaves ends its thread; the listener goes on.
            let _ = answer(&mut stream);
        });
    }
}

/// Answers what one peer sends until it leaves.
fn answer(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut requests = vec![0; ANSWERED_AT_ONCE * REQUEST_BYTES];
    let answers = vec![b'a'; ANSWERED_AT_ONCE * ANSWER_BYTES];
    let mut part_bytes = 0;
    loop {
        let read = stream.read(&mut requests[part_bytes..])?;
        if read == 0 {
            return Ok(());
        }
        let bytes = part_bytes + read;
        stream.write_all(&answers[..bytes / REQUEST_BYTES * ANSWER_BYTES])?;
        part_bytes = bytes % REQUEST_BYTES;
    }
}

/// One round trip after the other until the run stops.
pub(crate) fn measure(address: SocketAddr, shared: &Shared) -> io::Result<Outcome> {
    let mut stream = connect(address)?;
    let mut outcome = Outcome::new();
    let (request, mut answer) = ([b'a'; REQUEST_BYTES], [0; ANSWER_BYTES]);
    while shared.take(1) > 0 {
        let start_ns = shared.clock.now_ns();
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        if start_ns >= shared.measure_from_ns.load(Relaxed) {
            outcome.record(shared.clock.now_ns() - start_ns);
        }
        shared.done.fetch_add(1, Relaxed);
    }
    Ok(outcome)
}

/// Round trips at a fixed rate, each begun at its own time whether or not those before it have ended, until the run
/// stops.
pub(crate) fn measure_paced(
    address: SocketAddr,
    rate_per_s: f64,
    shared: &Shared,
) -> io::Result<Outcome> {
    process::sleep_precisely();
    let mut paced = Paced::new(connect(address)?, rate_per_s, shared);
    loop {
        let due_ns = paced.send_due()?;
        let wait_ns = match due_ns {
            Some(due_ns) => due_ns.saturating_sub(shared.clock.now_ns()),
            None if paced.in_flight.is_empty() => return Ok(paced.outcome),
            None => ANSWER_TIMEOUT.as_nanos() as u64,
        };
        match wait(&[&paced.stream], wait_ns)? {
            [true] => paced.take()?,
            [false] if due_ns.is_none() => return Err(silent()),
            [false] => {}
        }
    }
}

/// A connection on which requests leave at a fixed rate.
struct Paced<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    start_ns: u64,
    interval_ns: f64,
    sent: u64,
    /// When each request without an answer should have left, the oldest first.
    in_flight: VecDeque<u64>,
    /// Bytes of an answer that has not come completely.
    part_bytes: usize,
    buffer: Vec<u8>,
    requests: Vec<u8>,
    outcome: Outcome,
}

impl<'a> Paced<'a> {
    fn new(stream: TcpStream, rate_per_s: f64, shared: &'a Shared) -> Self {
        Self {
            stream,
            shared,
            start_ns: shared.clock.now_ns(),
            interval_ns: 1e9 / rate_per_s,
            sent: 0,
            in_flight: VecDeque::with_capacity(OPEN_LOOP_IN_FLIGHT),
            part_bytes: 0,
            buffer: vec![0; OPEN_LOOP_IN_FLIGHT * ANSWER_BYTES],
            requests: vec![b'a'; SENT_PER_TURN * REQUEST_BYTES],
            outcome: Outcome::new(),
        }
    }

    fn intended_ns(&self) -> u64 {
        self.start_ns + (self.sent as f64 * self.interval_ns) as u64
    }

    /// Sends what is due; says when the next one is, unless none will be sent before an answer comes, or any more.
    fn send_due(&mut self) -> io::Result<Option<u64>> {
        let now_ns = self.shared.clock.now_ns();
        let room = SENT_PER_TURN.min(OPEN_LOOP_IN_FLIGHT - self.in_flight.len());
        let mut requests = 0;
        while requests < room && self.intended_ns() <= now_ns && self.shared.take(1) > 0 {
            self.in_flight.push_back(self.intended_ns());
            self.sent += 1;
            requests += 1;
        }
        self.stream.write_all(&self.requests[..requests * REQUEST_BYTES])?;
        let goes_on = !self.shared.stop.load(Relaxed) && !self.shared.is_spent();
        let has_room = self.in_flight.len() < OPEN_LOOP_IN_FLIGHT;
        Ok((goes_on && has_room).then(|| self.intended_ns()))
    }

    /// Takes the answers that are there.
    fn take(&mut self) -> io::Result<()> {
        let read = self.stream.read(&mut self.buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now_ns = self.shared.clock.now_ns();
        let measure_from_ns = self.shared.measure_from_ns.load(Relaxed);
        let answers = (self.part_bytes + read) / ANSWER_BYTES;
        self.part_bytes = (self.part_bytes + read) % ANSWER_BYTES;
        for _ in 0..answers {
            let intended_ns = self.in_flight.pop_front().ok_or_else(unasked)?;
            if intended_ns >= measure_from_ns {
                self.outcome.record(now_ns.saturating_sub(intended_ns));
            }
        }
        self.shared.done.fetch_add(answers as u64, Relaxed);
        Ok(())
    }
}

fn unasked() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "answer to no request")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its pieces one by one, and keeps what is written.
    struct Pieces(VecDeque<usize>, usize);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().unwrap_or_default();
            assert!(bytes <= into.len(), "the test gives no more than fits");
            Ok(bytes)
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_request_is_answered_once_however_its_bytes_arrive() {
        for pieces in [
            vec![REQUEST_BYTES; 5],
            vec![5 * REQUEST_BYTES],
            vec![1, REQUEST_BYTES, 3 * REQUEST_BYTES, REQUEST_BYTES - 1],
        ] {
            let mut peer = Pieces(pieces.clone().into(), 0);
            answer(&mut peer).unwrap();
            assert_eq!(peer.1, 5 * ANSWER_BYTES, "{pieces:?}");
        }
    }

    #[test]
    fn paced_echo_counts_from_the_intended_send_and_ends_with_its_budget() {
        const REQUESTS: usize = OPEN_LOOP_IN_FLIGHT + 500;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared::new(Some(REQUESTS as u64));
        shared.measure_from_ns.store(0, Relaxed);
        let outcome = thread::scope(|scope| {
            // All are due within half a millisecond, but some find no room before there are answers.
            let measured = scope.spawn(|| measure_paced(address, 1e7, &shared));
            let (mut stream, _) = listener.accept().unwrap();
            let mut held_up = true;
            for requests in [OPEN_LOOP_IN_FLIGHT, REQUESTS - OPEN_LOOP_IN_FLIGHT] {
                stream.read_exact(&mut vec![0; requests * REQUEST_BYTES]).unwrap();
                let all_sent_ns = shared.clock.now_ns();
                while held_up && shared.clock.now_ns() < all_sent_ns + 1_000_000 {
                    thread::yield_now();
                }
                held_up = false;
                stream.write_all(&vec![b'a'; requests * ANSWER_BYTES]).unwrap();
            }
            measured.join().unwrap().unwrap()
        });
        assert_eq!(outcome.latency.len(), REQUESTS as u64);
        assert_eq!(shared.done.load(Relaxed), REQUESTS as u64);
        let least_ns = outcome.latency.min();
        assert!(
            least_ns >= 890_000,
            "{least_ns} ns: what waited for room did not wait for nothing"
        );
    }
}
