//! What a server process costs: CPU time, anonymous memory and system calls, read from outside.
//! Invariant: a difference of two samples counts only what happened between them.
//! Starts nothing but `perf`, which counts system calls where the kernel lets it.

use std::{
    fs, io,
    process::{Child, Command, Stdio},
};

use rustix::thread::{CpuSet, sched_setaffinity};

/// The lowest priority that there is.
const LOWEST: i32 = 19;
/// Clock ticks of `/proc` a second; Linux fixes it for user space on every architecture.
const TICKS_PER_SECOND: u64 = 100;

/// Counters of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// User and system time since the process began, in microseconds.
    pub cpu_us: u64,
    /// Anonymous memory (`RssAnon`), in bytes.
    pub anonymous_bytes: u64,
    /// Calls of the read and write families (`syscr`, `syscw`) since the process began; socket
    /// calls such as `recvfrom` are not among them.
    pub read_write_calls: u64,
    /// Bytes that it caused to be read from a device (`read_bytes`) since it began.
    pub device_read_bytes: u64,
    /// Bytes that it gave to file systems for a device (`write_bytes`) since it began, in whole pages.
    pub device_bytes: u64,
}

impl Sample {
    /// Reads the counters of process `pid`.
    pub(crate) fn take(pid: u32) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (stat, status) = (read("stat")?, read("status")?);
        let calls = read("io").unwrap_or_default();
        Ok(Self {
            cpu_us: cpu_us(&stat).ok_or_else(|| unreadable("stat"))?,
            anonymous_bytes: field(&status, "RssAnon:").unwrap_or_default() * 1024,
            read_write_calls: field(&calls, "syscr:").unwrap_or_default()
                + field(&calls, "syscw:").unwrap_or_default(),
            device_read_bytes: field(&calls, "read_bytes:").unwrap_or_default(),
            device_bytes: field(&calls, "write_bytes:").unwrap_or_default(),
        })
    }
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} has an unknown form"))
}

fn cpu_us(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses and may hold anything, so count from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) * (1_000_000 / TICKS_PER_SECOND))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// How the system calls of a report were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CallSource {
    /// Every system call, counted by `perf stat -e raw_syscalls:sys_enter`.
    AllByPerf,
    /// Read and write calls on files alone, from `/proc/PID/io`.
    FileReadsAndWrites,
}

/// Counts the system calls of a process from now to [`CallCounter::finish`].
pub(crate) struct CallCounter {
    perf: Option<Child>,
    pid: u32,
    before: u64,
}

impl CallCounter {
    /// Starts to count; without `perf` it falls back to `/proc/PID/io`.
    pub(crate) fn start(pid: u32) -> io::Result<Self> {
        let before = Sample::take(pid)?.read_write_calls;
        let perf = Command::new("perf")
            .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .ok();
        Ok(Self { perf, pid, before })
    }

    /// Stops and says how many calls there were, and which were counted.
    pub(crate) fn finish(self) -> io::Result<(u64, CallSource)> {
        if let Some(calls) = self.perf.and_then(|perf| stop_perf(perf).ok().flatten()) {
            return Ok((calls, CallSource::AllByPerf));
        }
        let after = Sample::take(self.pid)?.read_write_calls;
        Ok((after.saturating_sub(self.before), CallSource::FileReadsAndWrites))
    }
}

/// `perf` prints its counters when it is interrupted.
fn stop_perf(perf: Child) -> io::Result<Option<u64>> {
    Command::new("kill").args(["-INT", &perf.id().to_string()]).status()?;
    let output = perf.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(text.lines().find_map(|line| {
        line.contains("raw_syscalls:sys_enter").then(|| line.split(',').next()?.parse().ok())?
    }))
}

/// Moves process `pid`, all its threads included, to processor core `core`, with `taskset`.
pub(crate) fn pin(pid: u32, core: u32) -> io::Result<()> {
    let status = Command::new("taskset")
        .args(["-acp", &core.to_string(), &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("taskset refused")) }
}

/// Moves the calling thread alone to processor core `core`.
pub(crate) fn pin_thread(core: u32) -> io::Result<()> {
    let mut cores = CpuSet::new();
    if core as usize >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such core"));
    }
    cores.set(core as usize);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Lets the calling thread sleep to the microsecond instead of up to 50 µs longer, where allowed.
pub(crate) fn sleep_precisely() {
    let Ok(path) = fs::read_link("/proc/thread-self") else { return };
    let Some(thread) = path.file_name().and_then(|name| name.to_str()) else { return };
    // Not allowed in some containers; then sleeps are merely longer.
    let _ = fs::write(format!("/proc/{thread}/timerslack_ns"), "1");
}

/// Leaves the processor to everybody else: the calling thread, and those that it starts from here on.
pub(crate) fn give_way() {
    // Lowering its own priority is everybody's right on Linux.
    let _ = rustix::process::nice(LOWEST);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_that_gives_way_has_the_lowest_priority_and_so_have_those_that_it_starts() {
        let usual = rustix::process::nice(0).unwrap();
        let nice = std::thread::spawn(|| {
            give_way();
            std::thread::spawn(|| rustix::process::nice(0).unwrap()).join().unwrap()
        });
        assert_eq!(nice.join().unwrap(), LOWEST);
        assert_eq!(rustix::process::nice(0).unwrap(), usual, "the others keep theirs");
    }

    #[test]
    fn cpu_time_is_found_behind_a_name_with_parentheses() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_us(stat), Some(2_000_000));
        assert_eq!(cpu_us("7 (x) S 1"), None);
    }

    #[test]
    fn own_process_can_be_sampled() {
        let sample = Sample::take(std::process::id()).unwrap();
        assert!(sample.anonymous_bytes > 0);
    }
}
