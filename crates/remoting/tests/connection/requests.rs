//! Requests of a client, and their answers.

use std::sync::atomic::Ordering;

use bytes::BytesMut;
use gantry_remoting::{Command, Encoding, RequestCode, server::ServerLimits};
use tokio::io::AsyncWriteExt;

use super::world::{ECHO, LARGE, LATER, LONG, ONE_AT_A_TIME, World, encoded, read_answer};

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
