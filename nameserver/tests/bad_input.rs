//! What a broken or hostile peer may send to a name server: frames, names, sizes and numbers.
//! Invariant: each is answered by its code, or ends its own connection and is counted; no route and no key comes of
//! it, and others are served on.
//! Leaves bodies of registrations to the tests beside this one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use gantry_model::settings::NameServerSettings;
use gantry_nameserver::{NameServer, RunningNameServer};
use gantry_remoting::{
    Command, RequestCode as Code,
    client::{Channel, ChannelSettings, RefuseRequests},
};
use gantry_telemetry::Telemetry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Longest time that anything may take: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start() -> (RunningNameServer, Telemetry) {
    let settings = NameServerSettings {
        bind: IpAddr::from([127, 0, 0, 1]),
        port: 0,
        ..NameServerSettings::default()
    };
    let telemetry = Telemetry::new().unwrap();
    (NameServer::start(settings, &telemetry).await.unwrap(), telemetry)
}

async fn connect(server: &RunningNameServer) -> Channel {
    let settings = ChannelSettings::default();
    Channel::connect(&server.addr.to_string(), &settings, Arc::new(RefuseRequests)).await.unwrap()
}

async fn call(channel: &Channel, code: Code, fields: &[(&str, &str)], body: &str) -> Command {
    let request = fields
        .iter()
        .fold(Command::request(code), |request, (key, value)| request.with_ext(*key, *value));
    channel.call(&request.with_body(body.to_owned()), PATIENCE).await.unwrap()
}

fn counted(telemetry: &Telemetry) -> f64 {
    let text = telemetry.render_metrics();
    let mut lines = text.lines();
    let line = lines.find(|line| line.starts_with("gantry_nameserver_broken_frames_total"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

#[tokio::test]
async fn each_broken_frame_ends_its_own_connection_and_is_counted() {
    let (server, telemetry) = start().await;
    let other = connect(&server).await;
    let frames: [(&str, &[u8]); 7] = [
        ("text of another protocol", b"GET / HTTP/1.1\r\n\r\n"),
        ("length below its least", &[0, 0, 0, 3, 0, 0, 0, 0]),
        ("huge length", &[1, 0, 0, 0, 0, 0, 0, 2, b'{', b'}']),
        ("negative length", &[0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 2, b'{', b'}']),
        ("header longer than its frame", &[0, 0, 0, 6, 0, 0, 0, 9, b'{', b'}']),
        ("unknown encoding", &[0, 0, 0, 6, 7, 0, 0, 2, b'{', b'}']),
        ("header that is none", &[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'{']),
    ];
    for (number, (what, bytes)) in frames.into_iter().enumerate() {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // It may end with a reset, when bytes were left unread.
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok() && answer.is_empty(), "{what}: {answer:?}");
        let all_counted = async {
            while counted(&telemetry) < number as f64 + 1.0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, all_counted).await.expect(what);
        let lists = call(&other, Code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], "").await;
        assert_eq!(lists.code, 0, "{what}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bad_names_and_numbers_have_their_codes_and_make_nothing() {
    let (server, _telemetry) = start().await;
    let channel = connect(&server).await;
    let long = "t".repeat(100_000);
    for name in ["../etc", "a/b", "a\u{0}b", "a\nb", "a b", "", &long] {
        let answer = call(&channel, Code::GET_ROUTEINFO_BY_TOPIC, &[("topic", name)], "").await;
        let expected = if name.is_empty() { 1 } else { 17 };
        assert_eq!(answer.code, expected, "{name:.20?}");
        assert!(answer.remark.unwrap().len() < 1000, "{name:.20?}: the reason, in short");
        for id in ["0", "-1", "-9223372036854775808", "many"] {
            let fields = [
                ("brokerName", name),
                ("brokerAddr", "10.0.0.1:10911"),
                ("clusterName", "C"),
                ("brokerId", id),
            ];
            for code in [Code::REGISTER_BROKER, Code::UNREGISTER_BROKER] {
                let answer = call(&channel, code, &fields, "").await;
                // A name server knows brokers by any name without control characters.
                let is_legal = id == "0" && ["../etc", "a/b", "a b"].contains(&name);
                assert_eq!(answer.code == 0, is_legal, "{code} {name:.20?} {id}: {answer:?}");
            }
        }
        let fields = [("topic", name)];
        let queues = r#"{"queueDatas":[{"brokerName":"b","perm":6,"readQueueNums":-1}]}"#;
        let answer = call(&channel, Code::REGISTER_TOPIC_IN_NAMESRV, &fields, queues).await;
        assert_ne!(answer.code, 0, "{name:.20?}: {answer:?}");
    }
    let lists = call(&channel, Code::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[], "").await;
    assert_eq!(&lists.body[..], br#"{"topicList":[]}"#);
    server.stop().await;
}
