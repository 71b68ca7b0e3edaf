//! What closes a connection, and that it harms no other.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::BytesMut;
use gantry_remoting::{
    Command, Frame, RequestCode,
    client::{CallError, ClosedBy},
    server::ServerLimits,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::world::{ECHO, LONG, PARK, World, encoded, read_to_end};

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
