//! Loopback echo: what a round trip costs without a message queue, measured beside the real thing.
//! Invariant: requests and answers have the sizes of a send and its answer.
//! Leaves placing of the two sides on processor cores to its callers.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::atomic::Ordering::Relaxed,
    thread,
};

use super::load::{Outcome, Shared, connect};

/// Sizes of a 1 KiB send with ids, and of its answer, in bytes.
pub(crate) const REQUEST_BYTES: usize = 1_450;
pub(crate) const ANSWER_BYTES: usize = 380;

/// Answers every `REQUEST_BYTES` bytes with `ANSWER_BYTES` bytes until the process ends.
pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        thread::spawn(move || {
            let (mut request, answer) = ([0; REQUEST_BYTES], [b'a'; ANSWER_BYTES]);
            // A peer that leaves ends its thread; the listener goes on.
            while stream.read_exact(&mut request).is_ok() && stream.write_all(&answer).is_ok() {}
        });
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
