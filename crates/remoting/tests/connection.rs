//! Promises of a connection between the real server and the real client, or a raw socket.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use gantry_remoting::client::{
    CallError, Channel, ChannelHandler, ChannelSettings, ClosedBy, RefuseRequests,
};
use gantry_remoting::server::{
    Answers, CloseReason, Connection, Counters, Request, Server, ServerLimits, Service,
};
use gantry_remoting::{Command, Encoding, Frame, RequestCode, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

const ECHO: RequestCode = RequestCode(1);
/// Answered from another task.
const LATER: RequestCode = RequestCode(2);
/// Not answered.
const PARK: RequestCode = RequestCode(3);
/// Answered with what the client answers to a call of the server.
const CALL_BACK: RequestCode = RequestCode(4);
/// Answered with a body of 1 MiB.
const LARGE: RequestCode = RequestCode(5);
/// Leaves all further requests of the batch for the next hand-over.
const ONE_AT_A_TIME: RequestCode = RequestCode(6);
const LONG: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Echo {
    handed_over: AtomicUsize,
    closed: AtomicUsize,
    closed_signal: Notify,
}

impl Echo {
    async fn wait_closed(&self, count: usize) {
        loop {
            let signal = self.closed_signal.notified();
            if self.closed.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::timeout(LONG, signal).await.expect("connection is closed");
        }
    }
}

impl Service for Echo {
    fn handle(
        &self,
        connection: &Arc<Connection>,
        requests: &mut Vec<Request>,
        answers: &mut Answers,
    ) {
        self.handed_over.fetch_add(1, Ordering::SeqCst);
        while !requests.is_empty() {
            let request = requests.remove(0);
            let view = match request.view() {
                Ok(view) => view,
                Err(error) => return connection.reject(&error),
            };
            let reply = view.reply_to();
            let connection = Arc::clone(connection);
            match view.request_code() {
                ECHO => answers
                    .begin(reply, ResponseCode::SUCCESS)
                    .ext("k", view.ext.get("k").unwrap_or_default())
                    .body(&request.body),
                LATER => {
                    tokio::spawn(async move {
                        tokio::task::yield_now().await;
                        let code = ResponseCode::PULL_NOT_FOUND;
                        let _ = connection.answer(reply, code, Some("late"), |a| a.body(b""));
                    });
                }
                PARK => {}
                CALL_BACK => {
                    tokio::spawn(async move {
                        let call = Command::request(RequestCode::GET_CONSUMER_RUNNING_INFO);
                        let (code, body) = match connection.call(&call, LONG).await {
                            Ok(answer) => (answer.response_code(), answer.body),
                            Err(error) => (ResponseCode::SYSTEM_ERROR, error.to_string().into()),
                        };
                        let _ = connection.answer(reply, code, None, |a| a.body(&body));
                    });
                }
                LARGE => {
                    answers.begin(reply, ResponseCode::SUCCESS).body(&vec![7; 1 << 20]);
                }
                ONE_AT_A_TIME => {
                    answers.success(reply);
                    return;
                }
                code => {
                    let remark = format!(" request type {} not supported", code.0);
                    answers.refuse(reply, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, &remark);
                }
            }
        }
    }

    fn closed(&self, _connection: &Arc<Connection>) {
        self.closed.fetch_add(1, Ordering::SeqCst);
        self.closed_signal.notify_waiters();
    }
}

struct World {
    service: Arc<Echo>,
    server: Server<Echo>,
    counters: Arc<Counters>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    async fn new(limits: ServerLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Echo::default());
        let server = Server::new(Arc::clone(&service), limits);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(server.clone().serve(listener, stopped));
        Self { service, counters: server.counters(), server, address, stop, task }
    }

    async fn channel(&self) -> Channel {
        self.channel_with(Arc::new(RefuseRequests)).await
    }

    async fn channel_with(&self, handler: Arc<dyn ChannelHandler>) -> Channel {
        let settings = ChannelSettings::default();
        Channel::connect(&self.address.to_string(), &settings, handler).await.unwrap()
    }

    async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(LONG, self.task).await.expect("server stops").unwrap();
    }
}

fn encoded(command: &Command) -> BytesMut {
    let mut wire = BytesMut::new();
    command.encode(&mut wire).unwrap();
    wire
}

/// Reads until the server closes; a reset is an end as well.
async fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match tokio::time::timeout(LONG, socket.read_to_end(&mut bytes)).await.expect("end") {
        Ok(_) => bytes,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("{error}"),
    }
}

async fn read_answer(socket: &mut TcpStream, buffer: &mut BytesMut) -> Command {
    loop {
        if let Some(frame) = Frame::decode(buffer).unwrap() {
            return Command::from_frame(frame).unwrap();
        }
        assert_ne!(socket.read_buf(buffer).await.unwrap(), 0, "server closed");
    }
}

#[tokio::test]
async fn answer_has_the_opaque_and_encoding_of_its_request() {
    let world = World::new(ServerLimits::default()).await;
    let channel = world.channel().await;
    for encoding in [Encoding::Json, Encoding::Compact] {
        let mut request = Command::request(ECHO).with_ext("k", "v\u{1}").with_body("body");
        request.encoding = encoding;
        let answer = channel.call(&request, LONG).await.unwrap();
        assert_eq!((answer.encoding, answer.version, answer.is_response()), (encoding, 479, true));
        assert_eq!((answer.ext.get("k"), &answer.body[..]), (Some("v\u{1}"), &b"body"[..]));
    }
    world.stop().await;
}

#[tokio::test]
async fn calls_in_flight_are_matched_whatever_the_order_of_answers() {
    let world = World::new(ServerLimits::default()).await;
    let channel = world.channel().await;
    let mut calls = Vec::new();
    for n in 0..2000 {
        let code = if n % 3 == 0 { LATER } else { ECHO };
        let request = Command::request(code).with_body(n.to_string());
        calls.push((n, channel.begin_call(&request).unwrap()));
    }
    for (n, call) in calls {
        let answer = call.await.unwrap();
        if n % 3 == 0 {
            assert_eq!(answer.remark.as_deref(), Some("late"));
        } else {
            assert_eq!(answer.body, n.to_string());
        }
    }
    let hand_overs = world.service.handed_over.load(Ordering::SeqCst);
    assert!(hand_overs < 2000, "2000 requests came in {hand_overs} hand-overs");
    world.stop().await;
}

#[tokio::test]
async fn one_way_request_is_never_answered() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    let mut bytes = BytesMut::new();
    // Each kind of answer: at once, refused, later.
    for code in [ECHO, LARGE, RequestCode(999), LATER] {
        bytes.extend(encoded(&Command::request(code).one_way()));
    }
    let mut last = Command::request(ECHO).with_body("last");
    last.opaque = 77;
    bytes.extend(encoded(&last));
    socket.write_all(&bytes).await.unwrap();
    let mut buffer = BytesMut::new();
    let answer = read_answer(&mut socket, &mut buffer).await;
    assert_eq!((answer.opaque, &answer.body[..]), (77, &b"last"[..]));
    assert!(buffer.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn frame_that_arrives_byte_by_byte_is_served() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    socket.set_nodelay(true).unwrap();
    for byte in encoded(&Command::request(ECHO).with_body("slow")) {
        socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_answer(&mut socket, &mut BytesMut::new()).await;
    assert_eq!(&answer.body[..], b"slow");
    world.stop().await;
}

#[tokio::test]
async fn requests_left_by_the_service_come_again_in_order() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    let mut bytes = BytesMut::new();
    for opaque in 0..10 {
        let mut request = Command::request(ONE_AT_A_TIME);
        request.opaque = opaque;
        bytes.extend(encoded(&request));
    }
    socket.write_all(&bytes).await.unwrap();
    let mut buffer = BytesMut::new();
    for opaque in 0..10 {
        assert_eq!(read_answer(&mut socket, &mut buffer).await.opaque, opaque);
    }
    world.stop().await;
}

#[tokio::test]
async fn hand_over_holds_no_more_requests_than_the_limit() {
    let limits = ServerLimits { batch_requests_max: 2, ..ServerLimits::default() };
    let world = World::new(limits).await;
    let mut socket = world.socket().await;
    let wire = encoded(&Command::request(ECHO));
    socket.write_all(&wire.repeat(10)).await.unwrap();
    let mut buffer = BytesMut::new();
    for _ in 0..10 {
        read_answer(&mut socket, &mut buffer).await;
    }
    assert!(world.service.handed_over.load(Ordering::SeqCst) >= 5);
    world.stop().await;
}

#[tokio::test]
async fn broken_frame_closes_its_connection_after_what_came_before_it() {
    let world = World::new(ServerLimits::default()).await;
    let other = world.channel().await;
    let too_long = [1, 0, 0, 1];
    let overrun = [0, 0, 0, 4, 0, 0, 0, 1];
    let encoding = [0, 0, 0, 4, 2, 0, 0, 0];
    for broken in [&too_long[..], &overrun[..], &encoding[..]] {
        let mut socket = world.socket().await;
        let mut bytes = encoded(&Command::request(ECHO).with_body("before"));
        bytes.extend_from_slice(broken);
        socket.write_all(&bytes).await.unwrap();
        let mut received = BytesMut::from(&read_to_end(&mut socket).await[..]);
        let answer = Frame::decode(&mut received).unwrap().expect("answer to what came before");
        assert_eq!(&answer.body[..], b"before");
    }
    assert_eq!(world.counters.broken_frames.load(Ordering::SeqCst), 3);
    assert!(other.call(&Command::request(ECHO), LONG).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn broken_header_closes_its_connection_and_is_counted() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    socket.write_all(&[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'x']).await.unwrap();
    assert_eq!(read_to_end(&mut socket).await, b"");
    world.service.wait_closed(1).await;
    assert_eq!(world.counters.broken_frames.load(Ordering::SeqCst), 1);
    world.stop().await;
}

#[tokio::test]
async fn frame_limit_of_the_server_is_kept() {
    let limits = ServerLimits { frame_bytes_max: 1000, ..ServerLimits::default() };
    let world = World::new(limits).await;
    let channel = world.channel().await;
    assert!(channel.call(&Command::request(ECHO).with_body(vec![0; 500]), LONG).await.is_ok());
    let large = Command::request(ECHO).with_body(vec![0; 1001]);
    assert!(matches!(channel.call(&large, LONG).await, Err(CallError::Closed { .. })));
    assert_eq!(world.counters.broken_frames.load(Ordering::SeqCst), 1);
    world.stop().await;
}

#[tokio::test]
async fn tls_handshake_is_closed_and_counted() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    socket.write_all(&[0x16, 3, 1, 0, 5, 1]).await.unwrap();
    assert_eq!(read_to_end(&mut socket).await, b"");
    world.service.wait_closed(1).await;
    assert_eq!(world.counters.tls_refused.load(Ordering::SeqCst), 1);
    world.stop().await;
}

#[tokio::test]
async fn connection_beyond_the_limit_is_refused_until_one_ends() {
    let limits = ServerLimits { connections_max: 1, ..ServerLimits::default() };
    let world = World::new(limits).await;
    let first = world.channel().await;
    first.call(&Command::request(ECHO), LONG).await.unwrap();
    assert_eq!(read_to_end(&mut world.socket().await).await, b"");
    assert_eq!(world.counters.refused_connections.load(Ordering::SeqCst), 1);
    drop(first);
    world.service.wait_closed(1).await;
    let second = world.channel().await;
    assert!(second.call(&Command::request(ECHO), LONG).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let idle_timeout = Duration::from_millis(40);
    let world = World::new(ServerLimits { idle_timeout, ..ServerLimits::default() }).await;
    let channel = world.channel().await;
    assert_eq!(tokio::time::timeout(LONG, channel.closed()).await.unwrap(), ClosedBy::Server);
    world.service.wait_closed(1).await;
    assert_eq!(world.counters.idle_closed.load(Ordering::SeqCst), 1);
    world.stop().await;
}

#[tokio::test]
async fn peer_that_does_not_read_is_closed_and_others_are_served() {
    let limits = ServerLimits { outbound_bytes_max: 1 << 20, ..ServerLimits::default() };
    let world = World::new(limits).await;
    let mut silent = world.socket().await;
    silent.write_all(&encoded(&Command::request(PARK))).await.unwrap();
    let connection = loop {
        if let Some(connection) = world.server.connections().pop() {
            break connection;
        }
        tokio::task::yield_now().await;
    };
    let push = Command::request(RequestCode(40)).with_body(vec![0; 256 << 10]);
    // Socket buffers take a few MiB; then the bytes wait here, up to the limit.
    let mut sent = 0;
    while connection.one_way(&push).is_ok() {
        sent += 1;
        assert!(sent < 400, "100 MiB wait for a peer that does not read");
        tokio::task::yield_now().await;
    }
    world.service.wait_closed(1).await;
    assert_eq!(world.counters.slow_readers_closed.load(Ordering::SeqCst), 1);
    assert!(world.channel().await.call(&Command::request(ECHO), LONG).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn large_answers_arrive_whole_however_slowly_they_are_read() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    let wire = encoded(&Command::request(LARGE));
    socket.write_all(&wire.repeat(20)).await.unwrap();
    let mut buffer = BytesMut::new();
    for _ in 0..20 {
        tokio::task::yield_now().await;
        let answer = read_answer(&mut socket, &mut buffer).await;
        assert!(answer.body.len() == 1 << 20 && answer.body.iter().all(|&byte| byte == 7));
    }
    world.stop().await;
}

/// Answers each request of the server with its code as body.
struct AnswerCode(mpsc::UnboundedSender<Command>);

impl ChannelHandler for AnswerCode {
    fn request(&self, channel: &Channel, request: Command) {
        let body = request.code.to_string();
        let answer = Command::answer(request.reply_to(), ResponseCode::SUCCESS).with_body(body);
        channel.answer(&request, &answer).unwrap();
        let _ = self.0.send(request);
    }
}

#[tokio::test]
async fn server_calls_its_client_while_the_client_calls_it() {
    let world = World::new(ServerLimits::default()).await;
    let (sender, mut received) = mpsc::unbounded_channel();
    let channel = world.channel_with(Arc::new(AnswerCode(sender))).await;
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let code = if n % 2 == 0 { CALL_BACK } else { ECHO };
            channel.begin_call(&Command::request(code).with_body("echo")).unwrap()
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let expected = if n % 2 == 0 { "307" } else { "echo" };
        assert_eq!(call.await.unwrap().body, expected);
    }
    assert_eq!(received.recv().await.unwrap().code, 307);
    let connection = world.server.connections().pop().unwrap();
    connection.one_way(&Command::request(RequestCode(40)).with_ext("consumerGroup", "g")).unwrap();
    let pushed = loop {
        let request = received.recv().await.unwrap();
        if request.code == 40 {
            break request;
        }
    };
    assert!(pushed.is_one_way());
    assert_eq!(pushed.ext.get("consumerGroup"), Some("g"));
    world.stop().await;
}

#[tokio::test]
async fn call_of_the_server_ends_with_the_connection() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    socket.write_all(&encoded(&Command::request(PARK))).await.unwrap();
    let connection = loop {
        if let Some(connection) = world.server.connections().pop() {
            break connection;
        }
        tokio::task::yield_now().await;
    };
    let call = tokio::spawn({
        let connection = Arc::clone(&connection);
        async move { connection.call(&Command::request(RequestCode(307)), LONG).await }
    });
    read_answer(&mut socket, &mut BytesMut::new()).await;
    drop(socket);
    let error = call.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("307") && error.contains("ended"), "{error}");
    world.service.wait_closed(1).await;
    assert!(connection.one_way(&Command::request(RequestCode(40))).is_err());
    world.stop().await;
}

#[tokio::test]
async fn answer_to_no_call_is_dropped_and_the_connection_lives() {
    let world = World::new(ServerLimits::default()).await;
    let mut socket = world.socket().await;
    let mut stray = Command::request(RequestCode(0));
    stray.flag = 1;
    let mut bytes = encoded(&stray);
    bytes.extend(encoded(&Command::request(ECHO).with_body("next")));
    socket.write_all(&bytes).await.unwrap();
    // The service of this test stops a batch at a stray answer; what follows comes again.
    let answer = read_answer(&mut socket, &mut BytesMut::new()).await;
    assert_eq!(&answer.body[..], b"next");
    world.stop().await;
}

#[tokio::test]
async fn call_that_is_not_answered_times_out_and_the_channel_lives() {
    let world = World::new(ServerLimits::default()).await;
    let channel = world.channel().await;
    let parked = channel.call(&Command::request(PARK), Duration::from_millis(20)).await;
    assert!(matches!(parked, Err(CallError::Timeout { code: 3, .. })), "{parked:?}");
    assert!(channel.call(&Command::request(ECHO), LONG).await.is_ok());
    world.stop().await;
}

#[tokio::test]
async fn calls_fail_at_once_when_the_connection_breaks() {
    let world = World::new(ServerLimits::default()).await;
    let channel = world.channel().await;
    let parked: Vec<_> =
        (0..10).map(|_| channel.begin_call(&Command::request(PARK)).unwrap()).collect();
    channel.call(&Command::request(ECHO), LONG).await.unwrap();
    for connection in world.server.connections() {
        connection.close(CloseReason::Service("test"));
    }
    for call in parked {
        let outcome = tokio::time::timeout(LONG, call).await.expect("call ends");
        let Err(CallError::Closed { reason, .. }) = outcome else { panic!("answered") };
        assert_eq!(reason, ClosedBy::Server);
    }
    assert!(channel.is_closed());
    assert!(channel.begin_call(&Command::request(ECHO)).is_err());
    world.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_the_last_handle_is_dropped_arrives() {
    let world = World::new(ServerLimits::default()).await;
    let channel = world.channel().await;
    for _ in 0..100 {
        channel.one_way(&Command::request(ECHO).with_body(vec![0; 10_000])).unwrap();
    }
    drop(channel);
    world.service.wait_closed(1).await;
    assert!(world.counters.bytes_read.load(Ordering::SeqCst) > 1_000_000);
    world.stop().await;
}

#[tokio::test]
async fn stopping_server_serves_until_the_drain_is_over_and_closes_then() {
    let limits =
        ServerLimits { drain_timeout: Duration::from_millis(300), ..ServerLimits::default() };
    let world = World::new(limits).await;
    let channel = world.channel().await;
    channel.call(&Command::request(ECHO), LONG).await.unwrap();
    world.stop.send_replace(true);
    // The listener is gone at once, the connection is still served.
    while TcpStream::connect(world.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    channel.call(&Command::request(ECHO), LONG).await.unwrap();
    let World { service, task, counters, .. } = world;
    tokio::time::timeout(LONG, task).await.expect("server stops").unwrap();
    assert_eq!(tokio::time::timeout(LONG, channel.closed()).await.unwrap(), ClosedBy::Server);
    service.wait_closed(1).await;
    assert_eq!(counters.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn connect_to_nobody_is_an_error_with_the_address() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = ChannelSettings::default();
    let error = Channel::connect(&unused.to_string(), &settings, Arc::new(RefuseRequests)).await;
    assert!(error.unwrap_err().to_string().contains(&unused.to_string()));
}

#[tokio::test]
async fn request_of_the_server_that_the_client_does_not_know_is_refused() {
    let world = World::new(ServerLimits::default()).await;
    let channel = world.channel().await;
    let answer = channel.call(&Command::request(CALL_BACK), LONG).await.unwrap();
    assert_eq!(answer.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    world.stop().await;
}
