//! A `gantry standalone` process on loopback that can be killed and started again in its old place.
//! Invariant: at most one process runs for each data folder, and none outlives its `Server`.
//! Sends no message: see `load`.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a start may take before the test gives up: recovery of a log of some 100 MiB takes a
/// second or two, a busy machine makes it ten times that.
const READY_SECONDS_MAX: u64 = 120;

/// How a server is started, each time alike.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    data: PathBuf,
    flush: &'static str,
    ports: [u16; 4],
}

impl Settings {
    /// Settings with free ports; `flush` is `sync` or `async`.
    pub(crate) fn new(data: &Path, flush: &'static str) -> Self {
        Self { data: data.to_owned(), flush, ports: free_ports() }
    }

    /// Where the broker listens for remoting.
    pub(crate) fn broker(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        command.arg("standalone").args(["--bind", "127.0.0.1", "--flush", self.flush]);
        command.arg("--data").arg(&self.data);
        let names = ["--nameserver-port", "--remoting-port", "--grpc-port", "--http-port"];
        for (name, port) in names.iter().zip(self.ports) {
            command.arg(name).arg(port.to_string());
        }
        command.stdout(Stdio::piped());
        command
    }
}

/// A running server; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
}

impl Server {
    /// Starts the server and returns when it says that it is ready.
    pub(crate) fn start(settings: &Settings) -> Self {
        let mut process = settings.command().spawn().expect("the server binary can be run");
        let output = process.stdout.take().expect("its output is piped");
        let server = Self { process };
        wait_until_ready(output);
        server
    }

    /// Ends the process as a power cut would: it gets no chance to write or to say goodbye.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // On Unix this is SIGKILL by process id; it fails only when the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads the output on a thread, which ends with the process, so that a full pipe never stops the server.
fn wait_until_ready(output: ChildStdout) {
    let (lines, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens any more once the server is ready.
            let _ = lines.send(line);
        }
    });
    loop {
        match ready.recv_timeout(Duration::from_secs(READY_SECONDS_MAX)) {
            Ok(line) if line.starts_with("ready ") => return,
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the server ended at its start"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("the server was not ready within {READY_SECONDS_MAX} s")
            }
        }
    }
}

/// Four ports that nobody listens at. All are held until the last is known, so they differ.
fn free_ports() -> [u16; 4] {
    let listeners =
        [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound listener has an address").port())
}
