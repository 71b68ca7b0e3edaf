//! Memory: a broker believes no length before the bytes are there.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use bytes::BytesMut;
use gantry_remoting::client::{Channel, ChannelSettings, RefuseRequests};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::world::*;

/// Connections that announce a frame each, and its size: together 4.7 GiB.
const CONNECTIONS: usize = 300;
const ANNOUNCED: u32 = (16 << 20) - 4;
/// What all of them together may cost: 8 KiB each to read into, and what the allocator takes at once.
const RESIDENT_MAX: u64 = 64 << 20;
const RESERVED_MAX: u64 = 2 << 30;

/// The broker in a process of its own, whose memory can be told from the test's.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// A field of the process's status, in bytes.
    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

fn start(dir: &std::path::Path) -> (Program, String) {
    let settings = format!(
        "data_dir: {}\nbind: 127.0.0.1\nremoting_port: 0\nvip_channel: false\ngrpc_port: 0\nhttp_port: 0\n\
         segment_size: 16Mi\n",
        dir.join("data").display()
    );
    let file = dir.join("broker.yaml");
    fs::write(&file, settings).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry-broker"));
    let child = command.arg("--config").arg(file).stdout(Stdio::piped()).spawn().unwrap();
    let mut program = Program(child);
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
    let ready = ready.expect("it serves");
    let address = ready.split(' ').find_map(|pair| pair.strip_prefix("remoting="));
    (program, address.unwrap().to_owned())
}

/// Has a small request answered over a new connection.
async fn served(address: &str) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let header = br#"{"code":31999,"opaque":1}"#;
    stream.write_all(&(4 + header.len() as u32).to_be_bytes()).await.unwrap();
    stream.write_all(&(header.len() as u32).to_be_bytes()).await.unwrap();
    stream.write_all(header).await.unwrap();
    soon(stream.readable()).await.unwrap();
}

#[tokio::test]
async fn announced_frames_take_no_memory_before_their_bytes_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let (program, address) = start(dir.path());
    served(&address).await;
    let (resident, reserved) = (program.memory("VmRSS"), program.memory("VmSize"));
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = [ANNOUNCED.to_be_bytes(), [0, 0xFF, 0xFF, 0xF0], *b"{\"co"].concat();
        stream.write_all(&head).await.unwrap();
        streams.push(stream);
    }
    // Each byte costs a read, so that every connection was looked at and grew what it wants to grow.
    for stream in &mut streams {
        stream.write_all(b"d").await.unwrap();
        served(&address).await;
    }
    let taken = program.memory("VmRSS").saturating_sub(resident);
    assert!(taken < RESIDENT_MAX, "{taken} bytes in memory for {CONNECTIONS} words");
    let taken = program.memory("VmSize").saturating_sub(reserved);
    assert!(taken < RESERVED_MAX, "{taken} bytes reserved for {CONNECTIONS} words");
}

/// Peers that ask and do not read.
const SLOW_READERS: usize = 100;
/// What each asks for at once: 25 MiB, more than the system holds.
const PULLS_EACH: usize = 200;
/// What all of them together may cost: 256 KiB of answers and one answer more each.
const UNREAD_MAX: u64 = 100 << 20;

#[tokio::test]
async fn peers_that_do_not_read_make_the_broker_hold_little() {
    let dir = tempfile::tempdir().unwrap();
    let (program, address) = start(dir.path());
    let channel =
        Channel::connect(&address, &ChannelSettings::default(), Arc::new(RefuseRequests)).await;
    let channel = channel.unwrap();
    let body = "x".repeat(4096);
    for _ in 0..32 {
        assert_eq!(code(&channel, send("unread", &[], &body)).await, 0);
    }
    let mut pulls = BytesMut::new();
    for _ in 0..PULLS_EACH {
        pull("readers", "unread", 0, "*").encode(&mut pulls).unwrap();
    }
    let anonymous = program.memory("RssAnon");
    let mut streams = Vec::new();
    for _ in 0..SLOW_READERS {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(&pulls).await.unwrap();
        streams.push(stream);
    }
    // The first answers leave when all answers that the broker makes of one read are in its memory.
    for stream in &streams {
        soon(stream.readable()).await.unwrap();
    }
    let taken = program.memory("RssAnon").saturating_sub(anonymous);
    assert!(taken < UNREAD_MAX, "{taken} bytes held for {SLOW_READERS} peers that do not read");
}
