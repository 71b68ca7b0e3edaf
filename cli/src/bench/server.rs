//! Servers that a benchmark starts itself: Gantry, and the other side of the echo.
//! Invariant: a server that was started here ends with the value that holds it, and when a signal ends this process.
//! Leaves its settings to the scenarios. Placing on cores is done by `taskset`, where there is one.

use std::{
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

use super::{leftovers, process};

/// Time for a server to stop after SIGTERM.
const STOP_WAIT_MAX: Duration = Duration::from_mins(1);

/// A process, and those that it started, which end with this value.
pub(crate) struct Process {
    child: Child,
    /// Whether it has not been waited for.
    is_running: bool,
}

impl Process {
    fn new(child: Child) -> Self {
        leftovers::note_group(Pid::from_child(&child));
        Self { child, is_running: true }
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes the processor away from it and from those that it started.
    pub(crate) fn pause(&self) -> io::Result<()> {
        Ok(kill_process_group(self.group(), Signal::STOP)?)
    }

    /// Gives the processor back.
    pub(crate) fn resume(&self) -> io::Result<()> {
        Ok(kill_process_group(self.group(), Signal::CONT)?)
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Asks it to stop and waits for that.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.resume()?;
        kill_process(self.group(), Signal::TERM)?;
        let start = Instant::now();
        // It is not waited for here: its number stays its own until its group has been ended.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(self.group()), options)?.is_none() {
            anyhow::ensure!(start.elapsed() < STOP_WAIT_MAX, "the server did not stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end();
        Ok(())
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn end(&mut self) {
        if !std::mem::take(&mut self.is_running) {
            return;
        }
        leftovers::forget_group(self.group());
        // Both fail only when what they are about has ended by itself.
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts `program` on `core`.
fn spawn(
    program: &Path,
    arguments: &[String],
    core: u32,
) -> anyhow::Result<(Process, ChildStdout)> {
    let mut child = Command::new("taskset")
        .args(["-c", &core.to_string()])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {} with taskset", program.display()))?;
    let output = child.stdout.take();
    let process = Process::new(child);
    let output = output.context("its output is piped")?;
    Ok((process, output))
}

fn first_line(output: ChildStdout) -> anyhow::Result<String> {
    let mut line = String::new();
    let mut output = BufReader::new(output);
    let bytes = output.read_line(&mut line).context("read the first line of the server")?;
    anyhow::ensure!(bytes > 0, "the server ended before it was ready");
    // The pipe stays open, so that later lines do not end the server; it prints next to nothing.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    Ok(line.trim().to_owned())
}

/// Starts the other side of the echo.
pub(crate) fn start_echo(core: u32) -> anyhow::Result<(Process, SocketAddr)> {
    let program = std::env::current_exe()?;
    let arguments = ["bench", "echo-server"].map(str::to_owned);
    let (process, output) = spawn(&program, &arguments, core)?;
    let address = first_line(output)?.parse()?;
    Ok((process, address))
}

/// How to start Gantry.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub binary: PathBuf,
    pub data: PathBuf,
    pub core: u32,
    /// `sync` or `async`.
    pub flush: &'static str,
    /// Further arguments, which only Gantry itself knows.
    pub more: Vec<String>,
}

/// A running Gantry.
pub(crate) struct Server {
    pub process: Process,
    pub nameserver: String,
    pub remoting: SocketAddr,
    /// Where its metrics are, if it has any.
    pub http: Option<SocketAddr>,
    /// From the start of the process to its `ready` line.
    pub ready_after: Duration,
    /// When the process was started.
    pub started_at: Instant,
}

impl Server {
    /// Starts `gantry standalone` and waits until it is ready.
    pub(crate) fn start(settings: &ServerSettings) -> anyhow::Result<Self> {
        let mut arguments = vec!["standalone".to_owned(), "--data".into()];
        arguments.push(settings.data.display().to_string());
        arguments.extend(["--flush".into(), settings.flush.into()]);
        for (name, port) in ["nameserver", "remoting", "grpc", "http"].iter().zip(free_ports()?) {
            arguments.extend([format!("--{name}-port"), port.to_string()]);
        }
        arguments.extend(settings.more.iter().cloned());
        let started_at = Instant::now();
        let (process, output) = spawn(&settings.binary, &arguments, settings.core)?;
        let line = first_line(output)?;
        let ready_after = started_at.elapsed();
        let value = |key: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(key));
            found.with_context(|| format!("the server said {line:?}, expected {key}…"))
        };
        Ok(Self {
            nameserver: value("nameserver=")?.to_owned(),
            remoting: value("remoting=")?.parse()?,
            http: value("http=").ok().map(str::parse).transpose()?,
            process,
            ready_after,
            started_at,
        })
    }

    /// Waits until it writes next to nothing to the device: what an earlier load has left to do is done.
    pub(crate) fn settle_device(&self) -> anyhow::Result<()> {
        const LOOK: Duration = Duration::from_secs(1);
        const LOOKS_MAX: usize = 60;
        // A mark, a checkpoint: a load writes more than this with each sync.
        const BYTES_MAX: u64 = 64 * 1024;
        let written =
            || process::Sample::take(self.process.pid()).map(|sample| sample.device_bytes);
        let mut before = written()?;
        for _ in 0..LOOKS_MAX {
            std::thread::sleep(LOOK);
            let now = written()?;
            if now - before <= BYTES_MAX {
                return Ok(());
            }
            before = now;
        }
        anyhow::bail!("the server goes on writing without load")
    }

    /// Anonymous memory once it has come to rest, in bytes: the median of two seconds in which it hardly changed.
    pub(crate) fn settled_memory(&self) -> anyhow::Result<u64> {
        const LOOK: Duration = Duration::from_millis(100);
        const LOOKS: usize = 20;
        const LOOKS_MAX: usize = 300;
        // Less than a page for each of 10,000 topics makes 40 MiB: this is far below what anybody compares.
        const CHANGE_MAX: u64 = 256 * 1024;
        let mut last = std::collections::VecDeque::with_capacity(LOOKS);
        for _ in 0..LOOKS_MAX {
            if last.len() == LOOKS {
                last.pop_front();
            }
            last.push_back(process::Sample::take(self.process.pid())?.anonymous_bytes);
            let (least, most) = (last.iter().min(), last.iter().max());
            if last.len() == LOOKS && most.zip(least).is_some_and(|(a, b)| a - b <= CHANGE_MAX) {
                let mut sorted = Vec::from(last);
                sorted.sort_unstable();
                return Ok(sorted[LOOKS / 2]);
            }
            std::thread::sleep(LOOK);
        }
        anyhow::bail!("the server's memory does not come to rest: {last:?}")
    }
}

/// Ports that were free a moment ago.
fn free_ports() -> std::io::Result<[u16; 4]> {
    let listeners: Vec<_> =
        (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
