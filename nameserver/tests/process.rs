//! The `gantry-nameserver` program: it says where it serves, and stops on SIGTERM.
//! Invariant: each test leaves no process behind.
//! Leaves what a running server answers to the tests of the remoting port.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

/// A child process, killed when the test is done with it.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-nameserver"));
    command.args(["--bind", "127.0.0.1", "--port", "0", "--http-port", "0"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn sigterm_ends_it_with_success_while_a_client_is_connected() {
    let mut server = Program(program(&[]).spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
    let ready = ready.expect("it serves");
    let address = |key: &str| {
        let pair = ready.split(' ').find_map(|pair| pair.strip_prefix(key));
        pair.and_then(|value| value.strip_prefix('=')).unwrap().to_owned()
    };
    let _idle = TcpStream::connect(address("nameserver")).unwrap();
    let mut http = TcpStream::connect(address("http")).unwrap();
    http.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let kill = format!("kill -TERM {}", server.0.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn wrong_key_ends_it_with_one_line_that_names_it() {
    let output = program(&["--scan-intervall", "5s"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("scan-intervall") && error.lines().count() == 1, "{error}");
}
