//! What every test needs: a server, and commands against it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A `gantry standalone`; dropping it kills the process and removes its folder.
pub(crate) struct World {
    process: Child,
    nameserver: String,
    broker: String,
    dir: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = gantry(&["standalone", "--bind", "127.0.0.1", "--data"]);
        command.arg(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
        for port in ["--nameserver-port", "--remoting-port", "--grpc-port", "--http-port"] {
            command.args([port, "0"]);
        }
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        // The first line, or the end of the output if the server did not start.
        BufReader::new(output).read_line(&mut line).unwrap();
        let value = |key| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        let [nameserver, broker] = ["nameserver=", "remoting="]
            .map(|key| value(key).unwrap_or_else(|| panic!("{key} in {line:?}")).to_owned());
        Self { process, nameserver, broker, dir }
    }

    /// Folder of all data.
    pub(crate) fn dir(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// A command against the server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = gantry(arguments);
        command.env("GANTRY_NAMESERVER", &self.nameserver);
        command
    }

    /// Runs a command against the server.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        run(&mut self.command(arguments))
    }

    /// Output of a command that has to succeed.
    pub(crate) fn table(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, &*ended.err), (0, ""), "{arguments:?}: {ended:?}");
        ended.out
    }

    /// The same as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let out = self.table(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// One sentence of a command that has to fail with this code and print nothing else.
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!((ended.code, &*ended.out), (code, ""), "{arguments:?}: {ended:?}");
        ended.err
    }
}

impl World {
    /// Ends the server as a terminal does, and waits until it has ended.
    pub(crate) fn stop(&mut self) {
        let kill = format!("kill -TERM {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It fails only when the process has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The built program with these arguments, and nothing of the caller's settings.
pub(crate) fn gantry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command.args(arguments).env_remove("GANTRY_NAMESERVER").stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
}

/// Words of each line of a table.
pub(crate) fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}
