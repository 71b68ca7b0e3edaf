//! Promises of the budget over all connections: peers that do not read, or send half a frame, cost a bounded amount
//! together, and those that read are served all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use gantry_remoting::client::{Channel, ChannelSettings, RefuseRequests};
use gantry_remoting::server::{Answers, Connection, Request, Server, ServerLimits, Service};
use gantry_remoting::{Command, RequestCode, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const ECHO: RequestCode = RequestCode(1);
/// Answered with `ANSWER_BYTES`.
const LARGE: RequestCode = RequestCode(2);
/// The same from another task, in its turn.
const LATE: RequestCode = RequestCode(3);

const ANSWER_BYTES: usize = 64 * 1024;
/// What all connections of these tests may hold: half of it for bytes that wait for peers.
const HELD_MAX: usize = 4 << 20;
/// What one connection may hold for a moment before others are closed for it: answers enough for one hand-over and
/// one more, in a buffer that has doubled, and the requests behind them.
const ONE_MORE: usize = 1 << 20;
const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Giver {
    late_made: Arc<AtomicUsize>,
    /// Requests taken.
    taken: AtomicUsize,
}

impl Service for Giver {
    fn handle(
        &self,
        connection: &Arc<Connection>,
        requests: &mut Vec<Request>,
        answers: &mut Answers,
    ) {
        let mut taken = 0;
        for request in requests.iter() {
            taken += 1;
            let view = request.view().unwrap();
            let reply = view.reply_to();
            match view.request_code() {
                LARGE => answers.begin(reply, ResponseCode::SUCCESS).body(&vec![7; ANSWER_BYTES]),
                LATE => {
                    let (connection, made) = (Arc::clone(connection), Arc::clone(&self.late_made));
                    tokio::spawn(async move {
                        let Some(_turn) = connection.late_turn().await else { return };
                        made.fetch_add(1, Ordering::SeqCst);
                        let body = vec![7; ANSWER_BYTES];
                        let answered = connection
                            .answer(reply, ResponseCode::SUCCESS, None, |a| a.body(&body));
                        answered.unwrap();
                    });
                }
                _ => answers.success(reply),
            }
            if answers.are_enough() {
                break;
            }
        }
        requests.drain(..taken);
        self.taken.fetch_add(taken, Ordering::SeqCst);
    }

    fn closed(&self, _connection: &Arc<Connection>) {}
}

struct World {
    service: Arc<Giver>,
    server: Server<Giver>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let limits = ServerLimits { held_bytes_max: HELD_MAX, ..ServerLimits::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Giver::default());
        let server = Server::new(Arc::clone(&service), limits);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(server.clone().serve(listener, stopped));
        Self { service, server, address, stop, task }
    }

    async fn channel(&self) -> Channel {
        let settings = ChannelSettings::default();
        let refuse = Arc::new(RefuseRequests);
        Channel::connect(&self.address.to_string(), &settings, refuse).await.unwrap()
    }

    /// A peer for which the system holds little.
    async fn small_socket(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    fn holders_closed(&self) -> u64 {
        self.server.counters().holders_closed.load(Ordering::SeqCst)
    }

    /// A good client is served, and no more is held than may be.
    async fn check_good_client(&self, channel: &Channel) {
        let answer = channel.call(&Command::request(ECHO), LONG).await.unwrap();
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
        let held = self.server.held_bytes();
        assert!(held <= HELD_MAX + ONE_MORE, "{held} bytes held");
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(LONG, self.task).await.expect("server stops").unwrap();
        assert_eq!(self.server.held_bytes(), 0, "everything was given back");
    }
}

fn wire(code: RequestCode, count: usize) -> Vec<u8> {
    let mut wire = BytesMut::new();
    Command::request(code).encode(&mut wire).unwrap();
    wire.repeat(count)
}

fn echoes(count: usize, body_bytes: usize) -> Vec<u8> {
    let mut wire = BytesMut::new();
    Command::request(ECHO).with_body(vec![7; body_bytes]).encode(&mut wire).unwrap();
    wire.repeat(count)
}

#[tokio::test]
async fn peers_that_do_not_read_are_closed_when_all_together_hold_too_much() {
    let world = World::new().await;
    let good = world.channel().await;
    let mut slow = Vec::new();
    // The system takes a few MiB for each before the server holds anything.
    let requests = wire(LARGE, 400);
    while world.holders_closed() == 0 {
        assert!(slow.len() < 400, "{} bytes held", world.server.held_bytes());
        let mut socket = world.small_socket().await;
        // It may be the one that is closed.
        let _ = socket.write_all(&requests).await;
        slow.push(socket);
        world.check_good_client(&good).await;
    }
    assert!(!good.is_closed());
    for _ in 0..100 {
        let answer = good.call(&Command::request(LARGE), LONG).await.unwrap();
        assert_eq!(answer.body.len(), ANSWER_BYTES);
        world.check_good_client(&good).await;
    }
    drop((good, slow));
    world.stop().await;
}

#[tokio::test]
async fn peers_that_send_half_a_frame_are_closed_when_all_together_hold_too_much() {
    let world = World::new().await;
    let good = world.channel().await;
    let mut half = BytesMut::new();
    half.put_u32(8 << 20);
    half.put_u32(100);
    half.put_bytes(b' ', 1 << 20);
    let mut slow = Vec::new();
    while world.holders_closed() == 0 {
        assert!(slow.len() < 100, "{} bytes held", world.server.held_bytes());
        let mut socket = world.small_socket().await;
        let _ = socket.write_all(&half).await;
        slow.push(socket);
        // It is a frame that doubles the buffer as it grows.
        let answer = good.call(&Command::request(ECHO), LONG).await.unwrap();
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
        let held = world.server.held_bytes();
        assert!(held <= HELD_MAX + 4 * ONE_MORE, "{held} bytes held");
    }
    world.check_good_client(&good).await;
    drop((good, slow));
    world.stop().await;
}

#[tokio::test]
async fn late_answers_wait_for_a_peer_that_does_not_read_and_all_of_them_arrive() {
    const COUNT: usize = 400;
    let world = World::new().await;
    let good = world.channel().await;
    let mut socket = world.small_socket().await;
    socket.write_all(&wire(LATE, COUNT)).await.unwrap();
    let made = || world.service.late_made.load(Ordering::SeqCst);
    // They are made until the system takes no more for the peer.
    let mut before = 0;
    loop {
        for _ in 0..50 {
            world.check_good_client(&good).await;
        }
        if made() > 0 && made() == before {
            break;
        }
        before = made();
    }
    assert!(made() < COUNT, "an answer is made when there is room for it");
    let mut arrived = 0;
    let mut buffer = vec![0; 256 * 1024];
    while arrived < COUNT * ANSWER_BYTES {
        arrived += tokio::time::timeout(LONG, socket.read(&mut buffer)).await.unwrap().unwrap();
    }
    assert_eq!(made(), COUNT);
    drop((good, socket));
    world.stop().await;
}

#[tokio::test]
async fn peers_that_do_not_read_keep_no_buffers_from_those_that_do() {
    let world = World::new().await;
    let good = world.channel().await;
    let mut slow = Vec::new();
    let busy = echoes(1000, 1000);
    for _ in 0..16 {
        let mut socket = world.small_socket().await;
        // Each has buffers of a busy connection when it stops to read.
        let (mut answers, mut requests) = socket.split();
        let mut buffer = vec![0; busy.len()];
        tokio::select! {
            written = requests.write_all(&busy) => written.unwrap(),
            () = async { while answers.read(&mut buffer).await.unwrap() > 0 {} } => panic!("closed"),
        }
        // It may be the one that is closed.
        let _ = socket.write_all(&wire(LARGE, 400)).await;
        slow.push(socket);
    }
    let taken = || world.service.taken.load(Ordering::SeqCst);
    let asked = 50;
    // Until nothing is done for them any more.
    let mut before = 0;
    loop {
        for _ in 0..asked {
            world.check_good_client(&good).await;
        }
        if taken() == before + asked {
            break;
        }
        before = taken();
    }
    let held = world.server.held_bytes();
    // What waits may be so much; the other half is free but for the good client's.
    assert!(held <= HELD_MAX / 2 + 64 * 1024, "{held} bytes held");
    assert!(held >= ANSWER_BYTES, "{held} bytes held: they wait");
    drop((good, slow));
    world.stop().await;
}

#[tokio::test]
async fn more_connections_than_may_keep_buffers_are_all_served() {
    let world = World::new().await;
    let mut channels = Vec::new();
    for _ in 0..300 {
        let channel = world.channel().await;
        let answer = channel.call(&Command::request(LARGE), LONG).await.unwrap();
        assert_eq!(answer.body.len(), ANSWER_BYTES);
        channels.push(channel);
        assert!(world.server.held_bytes() <= HELD_MAX, "{} bytes held", world.server.held_bytes());
    }
    for channel in &channels {
        world.check_good_client(channel).await;
    }
    assert_eq!(world.holders_closed(), 0);
    drop(channels);
    world.stop().await;
}

#[tokio::test]
async fn one_connection_alone_may_send_a_frame_beyond_the_budget() {
    let world = World::new().await;
    let good = world.channel().await;
    let large = Command::request(ECHO).with_body(vec![7; 2 * HELD_MAX]);
    let answer = good.call(&large, LONG).await.unwrap();
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    assert_eq!(world.holders_closed(), 0);
    drop(good);
    world.stop().await;
}
