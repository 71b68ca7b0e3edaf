//! Frames that are none: each ends its own connection, and is counted once.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::world::*;

/// A frame whose length and header length say `length` and `header`, and what follows them.
fn frame(length: u32, encoding: u8, header: u32, rest: &[u8]) -> Vec<u8> {
    let head = (u32::from(encoding) << 24 | header).to_be_bytes();
    [&length.to_be_bytes()[..], &head, rest].concat()
}

/// A frame whose lengths are true.
fn honest(encoding: u8, header: &[u8]) -> Vec<u8> {
    frame(4 + header.len() as u32, encoding, header.len() as u32, header)
}

/// A compact header with these announced lengths of its remark and its fields, and what follows them.
fn compact(remark: i32, fields: i32, rest: &[u8]) -> Vec<u8> {
    let fixed = [0, 10, 0, 1, 0xDF, 0, 0, 0, 1, 0, 0, 0, 0];
    honest(1, &[&fixed[..], &remark.to_be_bytes(), &fields.to_be_bytes(), rest].concat())
}

fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let deep = format!(r#"{{"code":10,"x":{}"#, "[".repeat(100_000));
    vec![
        ("text of another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("length below its least", frame(3, 0, 0, &[])),
        ("length zero", frame(0, 0, 0, &[])),
        ("huge length", frame(16 << 20, 0, 2, b"{}")),
        ("negative length", frame(u32::MAX, 0, 2, b"{}")),
        ("header longer than its frame", frame(8, 0, 5, b"{}{}")),
        ("header of the greatest length", frame(8, 0, 0x00FF_FFFF, b"{}{}")),
        ("unknown encoding", honest(2, b"{}")),
        ("negative encoding", honest(0xFF, b"{}")),
        ("JSON header that is none", honest(0, b"{{{{")),
        ("JSON header that ends too early", honest(0, br#"{"code":10"#)),
        ("JSON header with a code beyond any", honest(0, br#"{"code":99999999999}"#)),
        ("JSON header nested without end", honest(0, deep.as_bytes())),
        ("empty compact header", honest(1, b"")),
        ("compact header with a huge remark", compact(i32::MAX, 0, &[])),
        ("compact header with a negative remark", compact(-1, 0, &[])),
        ("compact header with huge fields", compact(0, i32::MAX, &[])),
        ("compact header with negative fields", compact(0, -5, &[])),
        ("compact header with a huge key", compact(0, 4, &[0x7F, 0xFF, b'a', b'b'])),
        ("compact header with a negative key", compact(0, 2, &[0xFF, 0xFF])),
        ("compact header with a huge value", compact(0, 7, &[0, 1, b'a', 0x7F, 0xFF, 0xFF, 0xFF])),
        ("compact header with a negative value", compact(0, 7, &[0, 1, b'a', 0xFF, 0, 0, 0])),
        ("compact header with bytes too many", compact(0, 0, b"more")),
    ]
}

fn counted(world: &World) -> f64 {
    let text = world.telemetry.render_metrics();
    let line = text.lines().find(|line| line.starts_with("gantry_broken_frames_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn each_broken_frame_ends_its_own_connection_and_is_counted_once() {
    let world = World::start().await;
    let other = world.connect().await;
    let address = world.broker.addresses().remoting;
    for (number, (what, bytes)) in broken_frames().into_iter().enumerate() {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = Vec::new();
        // It may end with a reset, when bytes were left unread.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        assert!(answer.is_empty(), "{what}: {answer:?}");
        let expected = number as f64 + 1.0;
        until(async || (counted(&world) >= expected).then_some(())).await;
        assert!((counted(&world) - expected).abs() < 0.5, "{what}: {}", counted(&world));
        assert_eq!(code(&other, send("orders", &[], what)).await, 0);
    }
    world.stop().await;
}

#[tokio::test]
async fn requests_in_front_of_a_broken_frame_are_answered() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.broker.addresses().remoting).await.unwrap();
    let request = br#"{"code":31999,"language":"JAVA","version":401,"opaque":7,"flag":0}"#;
    stream.write_all(&[honest(0, request), frame(u32::MAX, 0, 0, &[])].concat()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("31999 not supported"), "{answer}");
    world.stop().await;
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_own_grpc_connection() {
    let world = World::start().await;
    let address = world.broker.addresses().grpc;
    // A frame of HTTP/2 that announces 16 MiB behind a right preface, and no preface at all.
    let announced = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xFF; 9]].concat();
    for bytes in [announced, vec![0x7F; 64]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    TcpStream::connect(address).await.unwrap();
    world.stop().await;
}
