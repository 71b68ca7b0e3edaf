//! Threads for what waits for the disk: cold reads and look-ups.
//! Invariant: cold reads that go on have a lower priority than the threads that answer, so a reader far behind gets what
//! the processor has left; one that may be found not to be behind, for a page that was missing is there now, is not left
//! behind by waiting for the processor. A person waits for a look-up. Both have threads of their own with everybody's
//! priority, too few to take much from those that send. Work is done in the order in which it came.
//! Leaves bounding what waits to whoever hands it over.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};

use crate::services::behind::Onset;

type Job = Box<dyn FnOnce() + Send>;

/// Priority of cold reads, the lowest there is: a thread that answers gets nearly all of a processor that both want.
const NICE: i32 = 19;
/// Threads of look-ups: while one goes through a long range, another is answered.
const LOOK_UPS: u32 = 2;
/// Threads of cold reads that begin or look: while one waits for the disk, another is answered.
const ONSETS: u32 = 2;

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
pub(crate) struct DiskThreads {
    queue: Arc<Queue>,
}

impl DiskThreads {
    /// Threads for look-ups.
    pub(crate) fn for_look_ups() -> io::Result<Self> {
        Self::start("look-up", LOOK_UPS, || {})
    }

    fn start(name: &str, count: u32, begin: fn()) -> io::Result<Self> {
        let threads = Self { queue: Arc::default() };
        for number in 0..count {
            let queue = Arc::clone(&threads.queue);
            let work = move || {
                begin();
                while let Some(job) = queue.next() {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        tracing::error!("a read of the disk panicked; its request gets no answer");
                    }
                }
            };
            thread::Builder::new().name(format!("{name}-{number}")).spawn(work)?;
        }
        Ok(threads)
    }

    /// Hands work over.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.queue.waiting.lock().jobs.push_back(Box::new(job));
        self.queue.changed.notify_one();
    }
}

impl Drop for DiskThreads {
    fn drop(&mut self) {
        self.queue.waiting.lock().has_ended = true;
        self.queue.changed.notify_all();
    }
}

/// Threads for cold reads.
pub(crate) struct ColdThreads {
    begin: DiskThreads,
    go_on: DiskThreads,
}

impl ColdThreads {
    /// `count` for reads that go on, at least one.
    pub(crate) fn start(count: u32) -> io::Result<Self> {
        Ok(Self {
            begin: DiskThreads::start("cold-begin", ONSETS, || {})?,
            go_on: DiskThreads::start("cold-read", count.max(1), be_nice)?,
        })
    }

    /// Those for a read that begins so.
    pub(crate) fn of(&self, onset: Onset) -> &DiskThreads {
        match onset {
            Onset::MissedOnce | Onset::Missed | Onset::Looks => &self.begin,
            Onset::GoesOn => &self.go_on,
        }
    }
}

fn be_nice() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "cold reads have the priority of everything else");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Longest wait for a job.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// The nice value of the thread that does the next job.
    fn nice_of(threads: &DiskThreads) -> i32 {
        let (tell, told) = std::sync::mpsc::channel();
        // A nice value that does not change is the one that is.
        threads.run(move || tell.send(rustix::process::nice(0)).unwrap());
        told.recv_timeout(PATIENCE).expect("the job waits behind another").unwrap()
    }

    #[test]
    fn cold_reads_that_go_on_have_a_lower_priority_and_a_panic_ends_no_thread() {
        let threads = ColdThreads::start(1).unwrap();
        threads.of(Onset::GoesOn).run(|| panic!("one of the jobs"));
        let lowered = nice_of(threads.of(Onset::GoesOn));
        assert!(lowered >= NICE, "{lowered}");
        assert!(rustix::process::nice(0).unwrap() < lowered, "the others keep theirs");
    }

    #[test]
    fn cold_reads_that_begin_or_look_have_the_priority_of_everybody_and_wait_for_none_that_goes_on()
    {
        let threads = ColdThreads::start(1).unwrap();
        let (go_on, gone_on) = std::sync::mpsc::channel::<()>();
        threads.of(Onset::GoesOn).run(move || assert!(gone_on.recv().is_err()));
        for onset in [Onset::MissedOnce, Onset::Missed, Onset::Looks] {
            assert_eq!(nice_of(threads.of(onset)), rustix::process::nice(0).unwrap());
        }
        drop(go_on);
    }

    #[test]
    fn look_ups_wait_behind_no_cold_read_and_have_the_priority_of_everybody() {
        let (cold, look_ups) =
            (ColdThreads::start(1).unwrap(), DiskThreads::for_look_ups().unwrap());
        let (go_on, gone_on) = std::sync::mpsc::channel::<()>();
        // Goes on when the look-up is done.
        cold.of(Onset::GoesOn).run(move || assert!(gone_on.recv().is_err()));
        assert_eq!(nice_of(&look_ups), rustix::process::nice(0).unwrap());
        drop(go_on);
    }
}
