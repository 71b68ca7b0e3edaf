//! Promise of turns: a connection that always has more to read does not keep another one waiting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use gantry_remoting::server::{Answers, Connection, Request, Server, ServerLimits, Service};
use gantry_remoting::{Command, RequestCode};
use tokio::net::TcpListener;
use tokio::sync::watch;

const PING: RequestCode = RequestCode(1);
/// One of very many, and never answered.
const FLOOD: RequestCode = RequestCode(2);

const FLOOD_BODY: usize = 64 * 1024;
/// More than a server reads at a time.
const AHEAD: u64 = 384 * 1024;
/// Turns that the flood may have while a ping waits: few, where without giving way it is hundreds.
const TURNS_MAX: u64 = 8;
const PINGS: usize = 100;
const LONG: Duration = Duration::from_secs(30);

/// Lets the flood stay ahead, and counts its turns.
#[derive(Default)]
struct Watcher {
    written: AtomicU64,
    handled: AtomicU64,
    turns: AtomicU64,
    /// Turns of the flood when the last ping was handled.
    turns_at_ping: AtomicU64,
    over: AtomicBool,
}

impl Service for Watcher {
    fn handle(&self, _: &Arc<Connection>, requests: &mut Vec<Request>, answers: &mut Answers) {
        let mut flooded = 0;
        for request in requests.drain(..) {
            let view = request.view().unwrap();
            if view.request_code() == PING {
                self.turns_at_ping.store(self.turns.load(SeqCst), SeqCst);
                answers.success(view.reply_to());
            } else {
                flooded += request.body.len() as u64;
            }
        }
        if flooded > 0 {
            self.turns.fetch_add(1, SeqCst);
            let handled = self.handled.fetch_add(flooded, SeqCst) + flooded;
            while self.written.load(SeqCst) < handled + AHEAD && !self.over.load(SeqCst) {
                thread::yield_now();
            }
        }
    }

    fn closed(&self, _: &Arc<Connection>) {}
}

/// Writes without pause until the test is over.
fn flood(address: SocketAddr, watcher: &Watcher) {
    let mut frame = BytesMut::new();
    let body = vec![7; FLOOD_BODY].into();
    Command { body, ..Command::request(FLOOD) }.encode(&mut frame).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    while !watcher.over.load(SeqCst) {
        stream.write_all(&frame).unwrap();
        watcher.written.fetch_add(FLOOD_BODY as u64, SeqCst);
    }
}

/// One ping and its answer. Returns how many turns the flood had from when the ping was there until it was handled.
fn ping(peer: &mut TcpStream, watcher: &Watcher) -> u64 {
    let mut frame = BytesMut::new();
    Command::request(PING).encode(&mut frame).unwrap();
    peer.write_all(&frame).unwrap();
    let before = watcher.turns.load(SeqCst);
    let mut length = [0; 4];
    peer.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    peer.read_exact(&mut answer).unwrap();
    // It may have been handled before the count was read.
    watcher.turns_at_ping.load(SeqCst).saturating_sub(before)
}

#[test]
fn connection_that_always_has_more_lets_others_have_their_turns() {
    // One thread for all connections, so that the turns are in a row.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let watcher = Arc::new(Watcher::default());
    let (stop, stopped) = watch::channel(false);
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(Arc::clone(&watcher), ServerLimits::default());
    let served = runtime.spawn(server.serve(listener, stopped));
    let flooding = Arc::clone(&watcher);
    let flooder = thread::spawn(move || flood(address, &flooding));
    while watcher.turns.load(SeqCst) < 10 {
        thread::yield_now();
    }

    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_nodelay(true).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    let mut waited: Vec<u64> = (0..PINGS).map(|_| ping(&mut peer, &watcher)).collect();
    watcher.over.store(true, SeqCst);
    flooder.join().unwrap();
    stop.send_replace(true);
    runtime.block_on(async { tokio::time::timeout(LONG, served).await.unwrap().unwrap() });
    waited.sort_unstable();
    assert!(waited[PINGS - 1] <= TURNS_MAX, "turns of the flood while pings waited: {waited:?}");
}
