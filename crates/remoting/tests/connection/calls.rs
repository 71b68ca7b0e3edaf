//! Calls in both directions, and how they end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{CallError, Channel, ChannelHandler, ChannelSettings, ClosedBy, RefuseRequests},
    server::{CloseReason, ServerLimits},
};
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc};

use super::world::{CALL_BACK, ECHO, LONG, PARK, World, encoded, read_answer};

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
