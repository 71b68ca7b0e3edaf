//! How long the whole machine stood still, as a virtual one does that has used up its share of the host.
//! Invariant: time counts only while a thread of high priority was overdue on every processor that is watched.
//! Says nothing of one processor alone: a long turn of some other thread looks the same there.

use std::{
    fs, io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    process::nice,
    thread::{CpuSet, sched_setaffinity},
};

/// How long each thread sleeps: seldom enough to cost nothing that could be measured.
const SLEEP: Duration = Duration::from_millis(5);
/// Delays below are those of any scheduler.
const OVERDUE: Duration = Duration::from_millis(10);
/// Processors that are watched at most: what stops the machine stops these too.
const WATCHED_MAX: usize = 4;
/// The highest priority; without the right to it a thread keeps its own.
const HIGHEST: i32 = -20;

/// Times in which a thread should have run and did not, in order.
type Overdue = Vec<Range<Instant>>;

/// Watches until [`StopWatch::finish`], or until it is dropped.
pub(super) struct StopWatch {
    has_ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<Overdue>>>,
}

impl StopWatch {
    pub(super) fn start() -> Self {
        let has_ended = Arc::new(AtomicBool::new(false));
        let watch = |cpu| {
            let has_ended = has_ended.clone();
            thread::spawn(move || watch(cpu, &has_ended))
        };
        let threads = processors().into_iter().take(WATCHED_MAX).map(watch).collect();
        Self { has_ended, threads }
    }

    /// How long all processors stood still at once since the start; `None` where that cannot be watched.
    pub(super) fn finish(mut self) -> Option<Duration> {
        self.has_ended.store(true, Relaxed);
        // A processor that this process may not use refuses its thread.
        let overdue = self.threads.drain(..).filter_map(|thread| thread.join().ok()?.ok());
        let at_once = overdue.reduce(|a, b| at_once(&a, &b))?;
        Some(at_once.iter().map(|range| range.end - range.start).sum())
    }
}

impl Drop for StopWatch {
    fn drop(&mut self) {
        self.has_ended.store(true, Relaxed);
    }
}

fn processors() -> Vec<usize> {
    let names = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten();
    let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("cpu")?.parse().ok()).collect()
}

fn watch(cpu: usize, has_ended: &AtomicBool) -> io::Result<Overdue> {
    let mut here = CpuSet::new();
    here.set(cpu);
    sched_setaffinity(None, &here)?;
    // What is seen without the right is less sure, and still all processors have to agree.
    let _ = nice(HIGHEST);
    let mut overdue = Vec::new();
    while !has_ended.load(Relaxed) {
        let due = Instant::now() + SLEEP;
        thread::sleep(SLEEP);
        let now = Instant::now();
        if now - due > OVERDUE {
            overdue.push(due..now);
        }
    }
    Ok(overdue)
}

/// What two lists have in common.
fn at_once(a: &[Range<Instant>], b: &[Range<Instant>]) -> Overdue {
    let common = |a: &Range<Instant>, b: &Range<Instant>| a.start.max(b.start)..a.end.min(b.end);
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| common(a, b)));
    pairs.filter(|range| range.start < range.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_overdue_on_every_processor_counts() {
        let start = Instant::now();
        let range = |(from, to): (u64, u64)| {
            start + Duration::from_millis(from)..start + Duration::from_millis(to)
        };
        let a: Overdue = [(0, 30), (50, 80), (100, 120)].map(range).into();
        let b: Overdue = [(10, 60), (110, 111)].map(range).into();
        let expected: Overdue = [(10, 30), (50, 60), (110, 111)].map(range).into();
        assert_eq!(at_once(&a, &b), expected);
        assert_eq!(at_once(&a, &[]), []);
    }

    #[test]
    fn a_watch_that_is_given_up_ends_its_threads() {
        let mut watch = StopWatch::start();
        let threads: Vec<_> = watch.threads.drain(..).collect();
        drop(watch);
        // A thread that went on would hold the test up for good.
        assert!(threads.into_iter().all(|thread| thread.join().is_ok()));
    }

    #[test]
    fn at_least_one_processor_is_watched() {
        let watch = StopWatch::start();
        assert!(!watch.threads.is_empty());
        assert!(watch.finish().is_some());
    }
}
