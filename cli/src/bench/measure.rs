//! One measured run: threads that load, a window that is measured, a server that is watched.
//! Invariant: counts, times and server costs of a run cover the same window.
//! Leaves what the threads do to `load`, `pull` and `echo`.

use std::{
    io,
    sync::atomic::Ordering::Relaxed,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    load::{Outcome, Shared},
    process::{CallCounter, CallSource, Sample},
    stops::StopWatch,
};
use crate::progress::Progress;

/// How often a run looks whether it is complete: what a window may be too long.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// When to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Load before the window.
    pub warm_up: Duration,
    /// Length of the window; it ends earlier when the budget of messages is spent.
    pub duration: Duration,
}

/// Latency percentiles, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(clippy::struct_field_names, reason = "names that programs read carry their unit")]
pub(crate) struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// The percentiles, if anything was recorded.
    pub(crate) fn of(outcome: &Outcome) -> Option<Self> {
        Self::of_histogram(&outcome.latency)
    }

    /// The percentiles of nanoseconds, if anything was recorded.
    pub(crate) fn of_histogram(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        })
    }
}

/// What the server spent in the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct ServerCost {
    /// User and system time for each message, in microseconds.
    pub cpu_us_per_message: f64,
    /// Share of one core that it used.
    pub cores: f64,
    /// Anonymous memory at the end of the window, in bytes.
    pub anonymous_bytes: u64,
    /// Bytes written to the device for each message.
    pub device_bytes_per_message: f64,
    /// System calls for each message.
    pub calls_per_message: f64,
    /// Which calls were counted.
    pub calls_counted: CallSource,
}

/// What a window showed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measured {
    pub messages: u64,
    pub failed: u64,
    pub seconds: f64,
    pub rate_per_s: f64,
    pub server: Option<ServerCost>,
    /// Processor time that the load generator itself spent for each message, in microseconds.
    pub generator_cpu_us_per_message: f64,
    /// Time in the window in which the whole machine stood still, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_stopped_ms: Option<f64>,
}

/// Watches a run whose threads are `threads`: warm-up, window, stop. Then the threads drain.
pub(crate) fn observe<T>(
    shared: &Shared,
    window: Window,
    server_pid: Option<u32>,
    threads: &[ScopedJoinHandle<'_, T>],
    progress: &Progress,
) -> io::Result<Measured> {
    observe_pair((shared, shared), window, server_pid, threads, progress).map(|(first, _)| first)
}

/// The same with two counts over one window: what was sent and what arrived. Stops the first.
pub(crate) fn observe_pair<T>(
    pair: (&Shared, &Shared),
    window: Window,
    server_pid: Option<u32>,
    threads: &[ScopedJoinHandle<'_, T>],
    progress: &Progress,
) -> io::Result<(Measured, Measured)> {
    let measured = watch(pair, window, server_pid, threads, progress);
    pair.0.stop.store(true, Relaxed);
    measured
}

fn watch<T>(
    (first, second): (&Shared, &Shared),
    window: Window,
    server_pid: Option<u32>,
    threads: &[ScopedJoinHandle<'_, T>],
    progress: &Progress,
) -> io::Result<(Measured, Measured)> {
    // A reader that has all it wants may still wait for more.
    let running = || {
        !second.is_complete()
            && !first.is_interrupted()
            && !threads.iter().all(ScopedJoinHandle::is_finished)
    };
    let wait = |duration: Duration, message: &str| {
        let start = Instant::now();
        while start.elapsed() < duration && running() {
            progress.tell(message, first.done.load(Relaxed));
            thread::sleep(LOOK_INTERVAL.min(duration.saturating_sub(start.elapsed())));
        }
    };
    wait(window.warm_up, "warming up");
    let calls = server_pid.map(CallCounter::start).transpose()?;
    let before = [Counters::take(first, server_pid)?, Counters::take(second, server_pid)?];
    for shared in [first, second] {
        shared.measure_from_ns.store(shared.clock.now_ns(), Relaxed);
    }
    let stops = StopWatch::start();
    wait(window.duration, "measuring");
    let after = [Counters::take(first, server_pid)?, Counters::take(second, server_pid)?];
    let calls = calls.map(CallCounter::finish).transpose()?;
    let machine_stopped_ms = stops.finish().map(|stopped| stopped.as_secs_f64() * 1e3);
    let measured = |index: usize| Measured {
        machine_stopped_ms,
        ..compare(&before[index], &after[index], calls)
    };
    Ok((measured(0), measured(1)))
}

struct Counters {
    at: Instant,
    done: u64,
    failed: u64,
    server: Option<Sample>,
    generator_cpu_us: u64,
}

impl Counters {
    fn take(shared: &Shared, server_pid: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            done: shared.done.load(Relaxed),
            failed: shared.failed.load(Relaxed),
            server: server_pid.map(Sample::take).transpose()?,
            generator_cpu_us: Sample::take(std::process::id())?.cpu_us,
        })
    }
}

fn compare(before: &Counters, after: &Counters, calls: Option<(u64, CallSource)>) -> Measured {
    let messages = after.done - before.done;
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let each = |amount: u64| amount as f64 / messages.max(1) as f64;
    let server = before.server.zip(after.server).zip(calls);
    let server = server.map(|((before, after), (calls, calls_counted))| ServerCost {
        cpu_us_per_message: each(after.cpu_us - before.cpu_us),
        cores: (after.cpu_us - before.cpu_us) as f64 / 1e6 / seconds,
        anonymous_bytes: after.anonymous_bytes,
        device_bytes_per_message: each(after.device_bytes - before.device_bytes),
        calls_per_message: each(calls),
        calls_counted,
    });
    Measured {
        messages,
        failed: after.failed - before.failed,
        seconds,
        rate_per_s: messages as f64 / seconds,
        server,
        generator_cpu_us_per_message: each(after.generator_cpu_us - before.generator_cpu_us),
        machine_stopped_ms: None,
    }
}

/// Joins the threads of a run and adds up what they saw.
pub(crate) fn join(threads: Vec<ScopedJoinHandle<'_, io::Result<Outcome>>>) -> io::Result<Outcome> {
    let mut sum = Outcome::new();
    for thread in threads {
        sum.add(&thread.join().expect("load threads do not panic")?);
    }
    Ok(sum)
}
