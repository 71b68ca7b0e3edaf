//! What a broken or hostile peer may send.

use gantry_remoting::{Command, RequestCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::world::*;

#[tokio::test]
async fn unknown_code_is_answered_and_the_connection_goes_on() {
    let world = World::start().await;
    let channel = world.connect().await;
    let answer = call(&channel, Command::request(RequestCode(31_999))).await;
    assert_eq!(answer.code, 3);
    assert_eq!(answer.remark.as_deref(), Some(" request type 31999 not supported"));
    assert_eq!(code(&channel, send("orders", &[], "x")).await, 0);
    world.stop().await;
}

#[tokio::test]
async fn broken_frame_closes_its_connection_alone_and_is_counted() {
    let world = World::start().await;
    let other = world.connect().await;
    let address = world.broker.addresses().remoting;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x7F; 64],
        &[0, 0, 0, 8, 0, 0, 0, 4, b'{', b'{', b'{', b'{'],
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // Closed, with or without a reset.
        let _ = soon(stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    let counted = || {
        let text = world.telemetry.render_metrics();
        let line = text.lines().find(|line| line.starts_with("gantry_broken_frames_total"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    until(async || counted().filter(|count| *count >= 3.0)).await;
    assert_eq!(code(&other, send("orders", &[], "x")).await, 0);
    world.stop().await;
}

#[tokio::test]
async fn fields_of_hostile_size_and_kind_are_refused() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, send("orders", &[], "x")).await;
    let huge = "9".repeat(100_000);
    for number in
        ["", " 1", "1.5", "0x10", "99999999999999999999", "-9223372036854775809", huge.as_str()]
    {
        let request = pull("g", "orders", 0, "*").with_ext("queueOffset", number);
        assert_eq!(code(&channel, request).await, 29, "{number:.40}");
    }
    let extreme = pull("g", "orders", i64::MAX, "*");
    assert_eq!(code(&channel, extreme).await, 21);
    let extreme = pull("g", "orders", i64::MIN, "*").with_ext("maxMsgNums", "-2147483648");
    assert_eq!(code(&channel, extreme).await, 21);
    world.stop().await;
}
