//! Threads for what waits for the disk: cold reads and look-ups.
//! Invariant: they have a lower priority than the threads that answer, so a reader far behind gets what the processor
//! has left; work is done in the order in which it came.
//! Leaves bounding what waits to whoever hands it over.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};

type Job = Box<dyn FnOnce() + Send>;

/// Priority of the threads, the lowest there is: one that answers gets nearly all of a processor that both want.
const NICE: i32 = 19;

/// What waits for a thread.
#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    has_ended: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    /// The next job; `None` when there is none left and none will come.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.has_ended {
                return None;
            }
            self.changed.wait(&mut waiting);
        }
    }
}

/// The threads; they end when this is dropped and what was handed over is done.
pub(crate) struct ColdThreads {
    queue: Arc<Queue>,
}

impl ColdThreads {
    /// Starts `count` threads, at least one.
    pub(crate) fn start(count: u32) -> io::Result<Self> {
        let threads = Self { queue: Arc::default() };
        for number in 0..count.max(1) {
            let queue = Arc::clone(&threads.queue);
            let work = move || {
                be_nice();
                while let Some(job) = queue.next() {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a cold read panicked; its connection gets no answer");
                    }
                }
            };
            thread::Builder::new().name(format!("cold-read-{number}")).spawn(work)?;
        }
        Ok(threads)
    }

    /// Hands work over.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.queue.waiting.lock().jobs.push_back(Box::new(job));
        self.queue.changed.notify_one();
    }
}

impl Drop for ColdThreads {
    fn drop(&mut self) {
        self.queue.waiting.lock().has_ended = true;
        self.queue.changed.notify_all();
    }
}

fn be_nice() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "cold reads have the priority of everything else");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_at_a_lower_priority_and_a_panic_ends_no_thread() {
        let threads = ColdThreads::start(1).unwrap();
        threads.run(|| panic!("one of the jobs"));
        let (tell, told) = std::sync::mpsc::channel();
        // A nice value that does not change is the one that is.
        threads.run(move || tell.send(rustix::process::nice(0)).unwrap());
        let lowered = told.recv().unwrap().unwrap();
        assert!(lowered >= NICE, "{lowered}");
        assert!(rustix::process::nice(0).unwrap() < lowered, "the others keep theirs");
    }
}
