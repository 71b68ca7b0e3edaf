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

/// Together they announce 4.7 GiB; 8 KiB each is what there is to read into.
#[test]
fn announced_frames_take_no_memory_before_their_bytes_are_there() {
    let mut server = Program(program(&[]).spawn().unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
    let ready = ready.expect("it serves");
    let address = ready.split(' ').find_map(|pair| pair.strip_prefix("nameserver=")).unwrap();
    let memory = |field: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    ask(address);
    let (resident, reserved) = (memory("VmRSS"), memory("VmSize"));
    let announced = ((16_u32 << 20) - 4).to_be_bytes();
    let head = [announced, [0, 0xFF, 0xFF, 0xF0], *b"{\"co"].concat();
    let connect = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&head).unwrap();
        stream
    };
    let mut streams: Vec<_> = (0..300).map(connect).collect();
    // One more byte is one more read, and the answer to another comes after it was looked at.
    for stream in &mut streams {
        stream.write_all(b"d").unwrap();
        ask(address);
    }
    let (resident, reserved) =
        (memory("VmRSS").saturating_sub(resident), memory("VmSize").saturating_sub(reserved));
    assert!(resident < 64 << 20, "{resident} bytes in memory");
    assert!(reserved < 2 << 30, "{reserved} bytes reserved");
}

/// Has a small request answered over a new connection.
fn ask(address: &str) {
    let header = br#"{"code":31999,"opaque":1}"#;
    let size = header.len() as u32;
    let mut stream = TcpStream::connect(address).unwrap();
    let frame = [&(4 + size).to_be_bytes()[..], &size.to_be_bytes(), header].concat();
    stream.write_all(&frame).unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn data_folder_in_use_ends_it_with_one_line_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--data-dir", dir.path().to_str().unwrap()];
    let mut first = Program(program(&arguments).spawn().unwrap());
    let mut lines = BufReader::new(first.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("ready ")));
    let output = program(&arguments).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let last = error.lines().last().unwrap();
    assert!(last.contains("in use") && last.contains(arguments[1]), "{error}");
    assert!(first.0.try_wait().unwrap().is_none(), "the first serves on");
}

#[test]
fn wrong_key_ends_it_with_one_line_that_names_it() {
    let output = program(&["--scan-intervall", "5s"]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("scan-intervall") && error.lines().count() == 1, "{error}");
}
