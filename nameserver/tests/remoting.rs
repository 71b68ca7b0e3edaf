//! The name server over real connections: what brokers, clients and tools see.
//! Each test starts its own server on a free port, and waits for conditions, never for time.

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flate2::{Compression, write::ZlibEncoder};
use gantry_model::settings::{Bytes, Duration as SettingDuration, NameServerSettings};
use gantry_nameserver::{NameServer, RunningNameServer};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{Channel, ChannelSettings, RefuseRequests},
};
use gantry_telemetry::Telemetry;

const PATIENCE: Duration = Duration::from_secs(20);
/// Go's client, and Java clients before 4.9.4.
const OLD_VERSION: i32 = 317;

fn settings() -> NameServerSettings {
    NameServerSettings {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        scan_interval: SettingDuration::from_millis(100),
        ..NameServerSettings::default()
    }
}

async fn start(settings: NameServerSettings) -> RunningNameServer {
    NameServer::start(settings, &Telemetry::new().unwrap()).await.unwrap()
}

async fn connect(server: &RunningNameServer) -> Channel {
    let settings = ChannelSettings::default();
    Channel::connect(&server.addr.to_string(), &settings, Arc::new(RefuseRequests)).await.unwrap()
}

async fn call(channel: &Channel, request: Command) -> Command {
    channel.call(&request, PATIENCE).await.unwrap()
}

fn request(code: RequestCode, fields: &[(&str, &str)]) -> Command {
    fields
        .iter()
        .fold(Command::request(code), |request, (key, value)| request.with_ext(*key, *value))
}

/// Body with `count` topics named `T0`, `T1` and so on, all with 8 queues.
fn topics(count: usize) -> String {
    let topic = |n| {
        format!(r#""T{n}":{{"perm":6,"readQueueNums":8,"topicName":"T{n}","writeQueueNums":8}}"#)
    };
    let table: Vec<_> = (0..count).map(topic).collect();
    format!(
        r#"{{"filterServerList":[],"topicConfigSerializeWrapper":{{"dataVersion":{{"counter":1,"stateVersion":0,"timestamp":1700000000000}},"topicConfigTable":{{{}}}}}}}"#,
        table.join(",")
    )
}

fn registration(broker: &str, id: &str, addr: &str) -> Command {
    let fields = [
        ("brokerName", broker),
        ("brokerAddr", addr),
        ("clusterName", "DefaultCluster"),
        ("haServerAddr", "10.0.0.9:10912"),
        ("brokerId", id),
        ("enableActingMaster", "false"),
        ("compressed", "false"),
        ("bodyCrc32", "0"),
    ];
    request(RequestCode::REGISTER_BROKER, &fields).with_body(topics(2))
}

/// Registers a master and a replica of `broker-a`.
async fn register_pair(channel: &Channel) {
    for (id, addr) in [("0", "10.0.0.1:10911"), ("1", "10.0.0.2:10911")] {
        let answer = call(channel, registration("broker-a", id, addr)).await;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{:?}", answer.remark);
    }
}

async fn route_of(channel: &Channel, topic: &str) -> Command {
    call(channel, request(RequestCode::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)])).await
}

/// Asks until the topic has no route any more.
async fn wait_until_gone(channel: &Channel, topic: &str) {
    let gone = async {
        while route_of(channel, topic).await.response_code() != ResponseCode::TOPIC_NOT_EXIST {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the route should end");
}

fn text(command: &Command) -> &str {
    std::str::from_utf8(&command.body).unwrap()
}

#[tokio::test]
async fn registered_pair_is_answered_in_the_form_that_the_client_reads() {
    let server = start(settings()).await;
    let channel = connect(&server).await;
    register_pair(&channel).await;
    let standard = r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;
    let legacy = standard.replace(r#""0":"#, "0:").replace(r#""1":"#, "1:");
    let ask = |version| {
        let mut ask = request(RequestCode::GET_ROUTEINFO_BY_TOPIC, &[("topic", "T1")]);
        ask.version = version;
        ask
    };
    assert_eq!(text(&call(&channel, ask(401)).await), standard);
    assert_eq!(text(&call(&channel, ask(OLD_VERSION)).await), legacy);
    let asks = ask(OLD_VERSION).with_ext("acceptStandardJsonOnly", "true");
    assert_eq!(text(&call(&channel, asks).await), standard);
    let info = call(&channel, request(RequestCode::GET_BROKER_CLUSTER_INFO, &[])).await;
    assert_eq!(
        text(&info),
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#
    );
    server.stop().await;
}

#[tokio::test]
async fn replica_learns_its_master_and_unknown_topics_are_named() {
    let server = start(settings()).await;
    let channel = connect(&server).await;
    register_pair(&channel).await;
    let answer = call(&channel, registration("broker-a", "1", "10.0.0.2:10911")).await;
    assert_eq!(answer.ext.get("masterAddr"), Some("10.0.0.1:10911"));
    assert_eq!(answer.ext.get("haServerAddr"), Some("10.0.0.9:10912"));
    let answer = route_of(&channel, "nowhere").await;
    assert_eq!(answer.response_code(), ResponseCode::TOPIC_NOT_EXIST);
    assert!(answer.remark.unwrap().contains("nowhere"));
    server.stop().await;
}

#[tokio::test]
async fn broker_is_forgotten_when_its_connection_ends() {
    let server = start(settings()).await;
    let (broker, client) = (connect(&server).await, connect(&server).await);
    register_pair(&broker).await;
    assert_eq!(route_of(&client, "T1").await.response_code(), ResponseCode::SUCCESS);
    broker.close();
    wait_until_gone(&client, "T1").await;
    server.stop().await;
}

#[tokio::test]
async fn broker_that_came_back_on_another_connection_stays() {
    let server = start(settings()).await;
    let (old, new, client) =
        (connect(&server).await, connect(&server).await, connect(&server).await);
    register_pair(&old).await;
    let mut other = registration("broker-b", "0", "10.0.0.3:10911");
    other.body = topics(4).into();
    call(&old, other).await;
    register_pair(&new).await;
    old.close();
    // Only broker-b serves T3: once that is gone, the old connection's end has been handled.
    wait_until_gone(&client, "T3").await;
    assert_eq!(route_of(&client, "T1").await.response_code(), ResponseCode::SUCCESS);
    server.stop().await;
}

#[tokio::test]
async fn silent_broker_is_forgotten_by_the_clock_and_its_connection_closed() {
    let seconds = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&seconds);
    let server = NameServer::start_with_clock(
        settings(),
        &Telemetry::new().unwrap(),
        Arc::new(move || Duration::from_secs(clock.load(Ordering::SeqCst))),
    )
    .await
    .unwrap();
    let (broker, client) = (connect(&server).await, connect(&server).await);
    register_pair(&broker).await;
    seconds.store(100, Ordering::SeqCst);
    let alive = [
        ("clusterName", "DefaultCluster"),
        ("brokerName", "broker-a"),
        ("brokerAddr", "10.0.0.1:10911"),
    ];
    call(&broker, request(RequestCode::BROKER_HEARTBEAT, &alive)).await;
    seconds.store(121, Ordering::SeqCst);
    // The replica was silent: its connection is closed, and the master with it.
    tokio::time::timeout(PATIENCE, broker.closed()).await.expect("the connection should end");
    wait_until_gone(&client, "T1").await;
    server.stop().await;
}

#[tokio::test]
async fn topic_that_its_broker_no_longer_has_is_unknown_at_once() {
    let server = start(settings()).await;
    let channel = connect(&server).await;
    register_pair(&channel).await;
    let withdrawal = topics(1)
        .replace(r#""perm":6"#, r#""perm":0"#)
        .replace(r#"QueueNums":8"#, r#"QueueNums":0"#);
    let told = registration("broker-a", "0", "10.0.0.1:10911").with_body(withdrawal);
    assert_eq!(call(&channel, told).await.response_code(), ResponseCode::SUCCESS);
    let unknown = route_of(&channel, "T0").await.response_code();
    assert_eq!(unknown, ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(route_of(&channel, "T1").await.response_code(), ResponseCode::SUCCESS);
    server.stop().await;
}

/// Asks a server that forgets what a table does not name.
#[tokio::test]
async fn whole_table_hides_topics_that_it_lacks_and_a_part_of_one_hides_none() {
    let forgetful =
        NameServerSettings { delete_topic_with_broker_registration: true, ..settings() };
    let server = start(forgetful).await;
    let channel = connect(&server).await;
    let register = |count, partial: &str| {
        let whole = registration("broker-a", "0", "10.0.0.1:10911").with_body(topics(count));
        if partial.is_empty() { whole } else { whole.with_ext("gantryPartial", partial) }
    };
    call(&channel, register(4, "")).await;
    for partial in ["true", "false", ""] {
        assert_eq!(call(&channel, register(2, partial)).await.code, 0);
        let expected =
            if partial == "true" { ResponseCode::SUCCESS } else { ResponseCode::TOPIC_NOT_EXIST };
        assert_eq!(route_of(&channel, "T3").await.response_code(), expected, "{partial:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn unregistered_broker_is_forgotten_and_the_other_stays() {
    let server = start(settings()).await;
    let channel = connect(&server).await;
    register_pair(&channel).await;
    let member = |addr, id| {
        let fields = [
            ("brokerName", "broker-a"),
            ("brokerAddr", addr),
            ("clusterName", "DefaultCluster"),
            ("brokerId", id),
        ];
        request(RequestCode::UNREGISTER_BROKER, &fields)
    };
    call(&channel, member("10.0.0.1:10911", "0")).await;
    let group = [("clusterName", "DefaultCluster"), ("brokerName", "broker-a")];
    let members = call(&channel, request(RequestCode::GET_BROKER_MEMBER_GROUP, &group)).await;
    assert_eq!(
        text(&members),
        r#"{"brokerMemberGroup":{"brokerAddrs":{1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#
    );
    call(&channel, member("10.0.0.2:10911", "1")).await;
    let gone = route_of(&channel, "T1").await.response_code();
    assert_eq!(gone, ResponseCode::TOPIC_NOT_EXIST);
    server.stop().await;
}

async fn put(channel: &Channel, namespace: &str, key: &str, value: &str) -> Command {
    let fields = [("namespace", namespace), ("key", key), ("value", value)];
    call(channel, request(RequestCode::PUT_KV_CONFIG, &fields)).await
}

async fn get(channel: &Channel, key: &str) -> Command {
    let fields = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", key)];
    call(channel, request(RequestCode::GET_KV_CONFIG, &fields)).await
}

fn with_folder(folder: &Path) -> NameServerSettings {
    NameServerSettings { data_dir: Some(folder.into()), order_message_enable: true, ..settings() }
}

#[tokio::test]
async fn keys_are_there_after_a_restart_and_reach_brokers_and_routes() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(with_folder(folder.path())).await;
    let channel = connect(&server).await;
    let answer = put(&channel, "ORDER_TOPIC_CONFIG", "T1", "broker-a:4").await;
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    put(&channel, "ORDER_TOPIC_CONFIG", "gone", "x").await;
    let fields = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "gone")];
    call(&channel, request(RequestCode::DELETE_KV_CONFIG, &fields)).await;
    server.stop().await;

    let server = start(with_folder(folder.path())).await;
    let channel = connect(&server).await;
    assert_eq!(get(&channel, "T1").await.ext.get("value"), Some("broker-a:4"));
    assert_eq!(get(&channel, "gone").await.response_code(), ResponseCode::QUERY_NOT_FOUND);
    let list = request(RequestCode::GET_KVLIST_BY_NAMESPACE, &[fields[0]]);
    assert_eq!(text(&call(&channel, list).await), r#"{"table":{"T1":"broker-a:4"}}"#);
    let answer = call(&channel, registration("broker-a", "0", "10.0.0.1:10911")).await;
    assert_eq!(text(&answer), r#"{"table":{"T1":"broker-a:4"}}"#);
    let route = route_of(&channel, "T1").await;
    assert!(text(&route).contains(r#""orderTopicConf":"broker-a:4""#), "{}", text(&route));
    server.stop().await;
}

#[tokio::test]
async fn keys_beyond_the_limit_or_without_a_name_are_refused() {
    let server = start(NameServerSettings { kv_bytes_max: Bytes::kib(64), ..settings() }).await;
    let channel = connect(&server).await;
    let answer = put(&channel, "N", "k", &"v".repeat(65 * 1024)).await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("65536"));
    let answer = put(&channel, "", "k", "v").await;
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(answer.remark.unwrap().contains("namespace"));
    server.stop().await;
}

#[tokio::test]
async fn bad_registration_is_refused_with_its_reason_and_the_connection_goes_on() {
    let server =
        start(NameServerSettings { register_bytes_max: Bytes::mib(1), ..settings() }).await;
    let channel = connect(&server).await;
    let good = || registration("broker-a", "0", "10.0.0.1:10911");
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 4 << 20]).unwrap();
    let bomb = encoder.finish().unwrap();
    for (bad, reason) in [
        (good().with_ext("bodyCrc32", "12345"), "checksum"),
        (good().with_body("garbage"), "not what it should be"),
        (good().with_ext("compressed", "true"), "inflate"),
        (good().with_ext("compressed", "true").with_body(bomb), "1048576"),
        (good().with_ext("brokerId", "-1"), "brokerId"),
        (good().with_ext("brokerId", "seven"), "brokerId"),
        (good().with_ext("brokerName", ""), "brokerName"),
        (good().with_ext("brokerAddr", "a,b:1"), "brokerAddr"),
        (good().with_ext("heartbeatTimeoutMillis", "-5"), "heartbeatTimeoutMillis"),
        (good().with_body(topics(1)), "whole table"),
    ] {
        let answer = call(&channel, bad).await;
        assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR, "{reason}");
        let remark = answer.remark.unwrap();
        assert!(remark.contains(reason), "{reason} in {remark}");
    }
    let lists = call(&channel, request(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[])).await;
    assert_eq!(text(&lists), r#"{"topicList":[]}"#);
    assert_eq!(call(&channel, good()).await.response_code(), ResponseCode::SUCCESS);
    server.stop().await;
}

#[tokio::test]
async fn administration_requests_do_what_tools_expect() {
    let server = start(settings()).await;
    let channel = connect(&server).await;
    register_pair(&channel).await;
    let broker = [("brokerName", "broker-a")];
    let wiped = call(&channel, request(RequestCode::WIPE_WRITE_PERM_OF_BROKER, &broker)).await;
    assert_eq!(wiped.ext.get("wipeTopicCount"), Some("2"));
    assert!(text(&route_of(&channel, "T1").await).contains(r#""perm":4"#));
    let added = call(&channel, request(RequestCode::ADD_WRITE_PERM_OF_BROKER, &broker)).await;
    assert_eq!(added.ext.get("addTopicCount"), Some("2"));
    let topic = request(RequestCode::REGISTER_TOPIC_IN_NAMESRV, &[("topic", "N")]);
    let body = r#"{"brokerDatas":[],"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":2,"topicSysFlag":2,"writeQueueNums":2}]}"#;
    call(&channel, topic.with_body(body)).await;
    for (code, fields, expected) in [
        (
            RequestCode::GET_TOPICS_BY_CLUSTER,
            &[("cluster", "DefaultCluster")][..],
            r#"{"topicList":["N","T0","T1"]}"#,
        ),
        (RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST, &[], r#"{"topicList":["N"]}"#),
        (RequestCode::GET_UNIT_TOPIC_LIST, &[], r#"{"topicList":[]}"#),
        (
            RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS,
            &[],
            r#"{"brokerAddr":"10.0.0.1:10911","topicList":["DefaultCluster","broker-a"]}"#,
        ),
    ] {
        assert_eq!(text(&call(&channel, request(code, fields)).await), expected);
    }
    call(&channel, request(RequestCode::DELETE_TOPIC_IN_NAMESRV, &[("topic", "N")])).await;
    assert_eq!(route_of(&channel, "N").await.response_code(), ResponseCode::TOPIC_NOT_EXIST);
    let config = call(&channel, request(RequestCode::GET_NAMESRV_CONFIG, &[])).await;
    assert!(text(&config).contains("broker_expiry=2m\n"), "{}", text(&config));
    let change = request(RequestCode::UPDATE_NAMESRV_CONFIG, &[]).with_body("a=b");
    assert_eq!(call(&channel, change).await.response_code(), ResponseCode::NO_PERMISSION);
    let unknown = call(&channel, request(RequestCode(9999), &[])).await;
    assert_eq!(unknown.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(unknown.remark.as_deref(), Some(" request type 9999 not supported"));
    server.stop().await;
}

#[tokio::test]
async fn data_version_says_whether_to_register_again() {
    let server = start(settings()).await;
    let channel = connect(&server).await;
    let ask = |counter: i64| {
        let fields = [
            ("brokerName", "broker-a"),
            ("brokerAddr", "10.0.0.1:10911"),
            ("clusterName", "DefaultCluster"),
            ("brokerId", "0"),
        ];
        let version =
            format!(r#"{{"counter":{counter},"stateVersion":0,"timestamp":1700000000000}}"#);
        request(RequestCode::QUERY_DATA_VERSION, &fields).with_body(version)
    };
    let answer = call(&channel, ask(1)).await;
    assert_eq!((answer.ext.get("changed"), text(&answer)), (Some("true"), ""));
    register_pair(&channel).await;
    let answer = call(&channel, ask(1)).await;
    assert_eq!(answer.ext.get("changed"), Some("false"));
    assert_eq!(text(&answer), r#"{"counter":1,"stateVersion":0,"timestamp":1700000000000}"#);
    assert_eq!(call(&channel, ask(2)).await.ext.get("changed"), Some("true"));
    server.stop().await;
}

#[tokio::test]
async fn ready_when_the_expected_brokers_have_registered_or_the_wait_is_over() {
    let seconds = Arc::new(AtomicU64::new(0));
    for by_waiting in [false, true] {
        seconds.store(0, Ordering::SeqCst);
        let telemetry = Telemetry::new().unwrap();
        let clock = Arc::clone(&seconds);
        let expected_brokers = vec!["broker-a".to_owned(), "broker-b".to_owned()];
        let server = NameServer::start_with_clock(
            NameServerSettings { expected_brokers, ..settings() },
            &telemetry,
            Arc::new(move || Duration::from_secs(clock.load(Ordering::SeqCst))),
        )
        .await
        .unwrap();
        let channel = connect(&server).await;
        register_pair(&channel).await;
        let report = telemetry.ready();
        let reason = report.answers[0].1.as_ref().unwrap_err();
        assert!(reason.contains("broker-b") && !reason.contains("broker-a"), "{reason}");
        if by_waiting {
            seconds.store(10, Ordering::SeqCst);
        } else {
            call(&channel, registration("broker-b", "0", "10.0.0.3:10911")).await;
        }
        assert!(telemetry.ready().is_ready());
        server.stop().await;
    }
}

#[tokio::test]
async fn table_of_many_topics_is_served_and_metrics_count_it() {
    const COUNT: usize = 20_000;
    let telemetry = Telemetry::new().unwrap();
    let server = NameServer::start(settings(), &telemetry).await.unwrap();
    let channel = connect(&server).await;
    let mut whole = registration("broker-a", "0", "10.0.0.1:10911");
    whole.body = topics(COUNT).into();
    assert_eq!(call(&channel, whole).await.response_code(), ResponseCode::SUCCESS);
    assert_eq!(route_of(&channel, "T19999").await.response_code(), ResponseCode::SUCCESS);
    // Answers of many megabytes, asked for together, leave in batches.
    let list = request(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]);
    let pending: Vec<_> = (0..20).map(|_| channel.begin_call(&list).unwrap()).collect();
    for answer in pending {
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(text(&answer).matches("\"T").count(), COUNT);
    }
    let metrics = telemetry.render_metrics();
    for expected in ["gantry_nameserver_topics 20000", "gantry_nameserver_brokers 1"] {
        assert!(metrics.contains(expected), "{expected} in {metrics}");
    }
    server.stop().await;
}

#[tokio::test]
async fn stopped_server_frees_its_port() {
    let server = start(settings()).await;
    let port = server.addr.port();
    let _open = connect(&server).await;
    server.stop().await;
    start(NameServerSettings { port, ..settings() }).await.stop().await;
}
