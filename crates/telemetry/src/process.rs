//! Metrics of the process itself, read from `/proc` at each scrape.
//! Invariant: what cannot be read is left out, never guessed; nothing is read between scrapes.
//! Leaves everything that needs more than `/proc/self` to the components.

use std::fs;

use metrics::{Unit, describe_gauge, gauge};

/// Clock ticks in a second: what Linux reports CPU time in, 100 wherever it runs on a server.
const TICKS_PER_SECOND: f64 = 100.0;

const RESIDENT: &str = "process_resident_memory_bytes";
const ANONYMOUS: &str = "process_anonymous_memory_bytes";
const VIRTUAL: &str = "process_virtual_memory_bytes";
const THREADS: &str = "process_threads";
const CPU: &str = "process_cpu_seconds_total";
const OPEN_FILES: &str = "process_open_fds";

pub(crate) fn describe() {
    describe_gauge!(RESIDENT, Unit::Bytes, "Memory of the process that is in RAM.");
    describe_gauge!(ANONYMOUS, Unit::Bytes, "Memory in RAM that no file backs.");
    describe_gauge!(VIRTUAL, Unit::Bytes, "Address space of the process.");
    describe_gauge!(THREADS, Unit::Count, "Threads of the process.");
    describe_gauge!(CPU, Unit::Seconds, "User and system CPU time since the start.");
    describe_gauge!(OPEN_FILES, Unit::Count, "Open files and sockets.");
}

pub(crate) fn record() {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        for (key, metric) in [("VmRSS", RESIDENT), ("RssAnon", ANONYMOUS), ("VmSize", VIRTUAL)] {
            set(metric, status_number(&status, key).map(|kibibytes| kibibytes * 1024.0));
        }
        set(THREADS, status_number(&status, "Threads"));
    }
    set(CPU, fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)));
    // The folder itself is open while it is read.
    let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1));
    set(OPEN_FILES, files.map(|count| count as f64));
}

fn set(metric: &'static str, value: Option<f64>) {
    if let Some(value) = value {
        gauge!(metric).set(value);
    }
}

/// The number after `Key:` in `/proc/self/status`; memory is in KiB there.
fn status_number(status: &str, key: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat`: fields 14 and 15, counted after the name in
/// parentheses, which may itself hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_key_alone() {
        let status = "Name:\tx\nVmRSS:\t  2048 kB\nRssAnon:\t 1024 kB\nThreads:\t7\n";
        assert_eq!(status_number(status, "VmRSS"), Some(2048.0));
        assert_eq!(status_number(status, "Threads"), Some(7.0));
        assert_eq!(status_number(status, "Vm"), None);
    }

    #[test]
    fn cpu_time_is_read_behind_a_hostile_name() {
        let stat = "1 (a) b) 9) S 0 1 1 0 -1 0 0 0 0 0 150 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("no stat"), None);
    }
}
