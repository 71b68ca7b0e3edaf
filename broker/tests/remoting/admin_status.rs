//! State and configuration of the broker: request codes 26 and 28, and 306, 316, 329, which ask for upkeep.

use std::collections::BTreeMap;

use gantry_model::settings::Bytes;
use gantry_remoting::{Command, RequestCode as Code, client::Channel};
use serde_json::Value;

use super::world::*;

/// Keys that tools need: a missing one loses them all figures of the broker.
const KEYS: &[&str] = &[
    "bootTimestamp",
    "runtime",
    "brokerActive",
    "brokerVersion",
    "brokerVersionDesc",
    "putMessageEntireTimeMax",
    "getMessageEntireTimeMax",
    "putMessageTimesTotal",
    "putMessageFailedTimes",
    "putMessageSizeTotal",
    "dispatchMaxBuffer",
    "putMessageAverageSize",
    "putMessageDistributeTime",
    "putTps",
    "getFoundTps",
    "getMissTps",
    "getTotalTps",
    "getTransferredTps",
    "getTransferedTps",
    "putLatency99",
    "putLatency999",
    "commitLogDiskRatio",
    "consumeQueueDiskRatio",
    "commitLogMinOffset",
    "commitLogMaxOffset",
    "msgPutTotalYesterdayMorning",
    "msgPutTotalTodayMorning",
    "msgPutTotalTodayNow",
    "msgGetTotalYesterdayMorning",
    "msgGetTotalTodayMorning",
    "msgGetTotalTodayNow",
    "dispatchBehindBytes",
    "pageCacheLockTimeMills",
    "earliestMessageTimeStamp",
    "startAcceptSendRequestTimeStamp",
    "remainTransientStoreBufferNumbs",
    "timerReadBehind",
    "timerOffsetBehind",
    "timerCongestNum",
    "timerEnqueueTps",
    "timerDequeueTps",
    "remainHowManyDataToFlush",
    "remainHowManyDataToCommit",
    "commitLogDirCapacity",
    "sendThreadPoolQueueSize",
    "sendThreadPoolQueueCapacity",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "pullThreadPoolQueueCapacity",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "litePullThreadPoolQueueSize",
    "queryThreadPoolQueueSize",
    "queryThreadPoolQueueCapacity",
    "queryThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueSize",
    "EndTransactionQueueSize",
    "EndTransactionThreadPoolQueueCapacity",
];

async fn state(channel: &Channel) -> BTreeMap<String, String> {
    let answer = call(channel, Command::request(Code::GET_BROKER_RUNTIME_INFO)).await;
    assert_eq!(answer.code, 0, "{answer:?}");
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    serde_json::from_value(body["table"].clone()).unwrap()
}

fn number(state: &BTreeMap<String, String>, key: &str) -> i64 {
    state[key].parse().unwrap_or_else(|_| panic!("{key} is a number: {}", state[key]))
}

fn rates(state: &BTreeMap<String, String>, key: &str) -> Vec<f64> {
    state[key].split(' ').map(|rate| rate.parse().unwrap()).collect()
}

async fn put(channel: &Channel, entries: &[(&str, &str)], body: &str) {
    assert_eq!(code(channel, send("orders", entries, body)).await, 0);
}

#[tokio::test]
async fn state_has_every_key_that_tools_need_in_the_form_they_parse() {
    let world = World::start().await;
    let state = state(&world.connect().await).await;
    for key in KEYS {
        assert!(state.contains_key(*key), "{key} is missing");
    }
    assert_eq!((&*state["brokerVersion"], &*state["brokerVersionDesc"]), ("479", "V5_3_3"));
    assert_eq!(state["brokerActive"], "true");
    for key in ["putTps", "getFoundTps", "getMissTps", "getTotalTps", "getTransferredTps"] {
        assert_eq!(rates(&state, key), [0.0; 3], "{key}");
    }
    for key in ["commitLogDiskRatio", "consumeQueueDiskRatio"] {
        let ratio: f64 = state[key].parse().unwrap();
        assert!((0.0..=1.0).contains(&ratio), "{key} is {ratio}");
    }
    let capacity: Vec<_> = state["commitLogDirCapacity"].split(' ').collect();
    let [_, ":", total, total_unit, "Free", ":", free, free_unit] = capacity[..] else {
        panic!("{capacity:?}")
    };
    assert!(total.parse::<f64>().unwrap() > 0.0 && free.parse::<f64>().unwrap() > 0.0);
    assert!(total_unit.ends_with("B,") && free_unit.ends_with("B."), "{capacity:?}");
    world.stop().await;
}

#[tokio::test]
async fn state_counts_what_was_put_and_read() {
    let world = World::start().await;
    let channel = world.connect().await;
    for body in ["123", "12345"] {
        put(&channel, &[], body).await;
    }
    assert_eq!(code(&channel, send("a/b", &[], "refused")).await, 29);
    assert_eq!(bodies(&call(&channel, pull("readers", "orders", 0, "*")).await).len(), 2);
    call(&channel, pull("readers", "orders", 2, "*")).await;
    let state = state(&channel).await;
    let cases = [
        ("putMessageTimesTotal", 2),
        ("putMessageSizeTotal", 8),
        ("putMessageFailedTimes", 1),
        ("msgPutTotalTodayNow", 2),
        ("msgGetTotalTodayNow", 2),
        ("msgPutTotalTodayMorning", 0),
    ];
    for (key, expected) in cases {
        assert_eq!(number(&state, key), expected, "{key}");
    }
    assert_eq!(state["putMessageAverageSize"], "4.0");
    let ranges = state["putMessageDistributeTime"].split(' ');
    let counts = ranges.map(|range| range.rsplit_once(':').unwrap().1.parse::<i32>().unwrap());
    assert_eq!((counts.clone().count(), counts.sum::<i32>()), (13, 2));
    for key in ["putTps", "getFoundTps", "getMissTps", "getTransferredTps"] {
        assert!(rates(&state, key).iter().all(|rate| *rate > 0.0), "{key}: {}", state[key]);
    }
    assert_eq!(state["getTransferredTps"], state["getTransferedTps"]);
    assert!(number(&state, "commitLogMaxOffset") > number(&state, "commitLogMinOffset"));
    assert!(number(&state, "earliestMessageTimeStamp") > 1_700_000_000_000);
    world.stop().await;
}

#[tokio::test]
async fn state_tells_how_far_each_delay_level_is() {
    let world = World::start().await;
    let channel = world.connect().await;
    put(&channel, &[("DELAY", "1")], "soon").await;
    put(&channel, &[("DELAY", "18")], "in two hours").await;
    put(&channel, &[("DELAY", "18")], "in two hours").await;
    let waiting = state(&channel).await;
    assert_eq!(waiting["scheduleMessageOffset_18"], "0,2");
    assert!(!waiting.contains_key("scheduleMessageOffset_2"));
    let channel = &channel;
    let done = until(|| async move {
        let state = state(channel).await;
        (state["timerCongestNum"] == "2").then_some(state)
    })
    .await;
    assert_eq!(done["scheduleMessageOffset_1"], "1,1");
    assert_eq!((&*done["scheduleMessageOffset_18"], &*done["timerReadBehind"]), ("0,2", "0"));
    world.stop().await;
}

#[tokio::test]
async fn configuration_is_that_of_the_settings() {
    let world = World::start_with(|settings| {
        settings.cluster_name = "c1".into();
        settings.broker_name = "b1".into();
        settings.auto_create_topics = false;
        settings.name_servers = vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()];
    })
    .await;
    let channel = world.connect().await;
    let answer = call(&channel, Command::request(Code::GET_BROKER_CONFIG)).await;
    let version: Value = serde_json::from_str(field(&answer, "version")).unwrap();
    assert!(version["timestamp"].as_i64().unwrap() > 1_700_000_000_000, "{version}");
    let text = std::str::from_utf8(&answer.body).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let port = format!("listenPort={}", world.broker.addresses().remoting.port());
    let expected = [
        "brokerClusterName=c1",
        "brokerName=b1",
        "brokerId=0",
        "brokerIP1=127.0.0.1",
        "autoCreateTopicEnable=false",
        "namesrvAddr=127.0.0.1:1;127.0.0.1:2",
        "flushDiskType=ASYNC_FLUSH",
        "fileReservedTime=72",
        &port,
    ];
    for line in expected {
        assert!(lines.contains(&line), "{line} is missing in\n{text}");
    }
    world.stop().await;
}

#[tokio::test]
async fn upkeep_may_be_asked_for() {
    let world = World::start().await;
    let channel = world.connect().await;
    let asked = [
        Code::CLEAN_EXPIRED_CONSUMEQUEUE,
        Code::CLEAN_UNUSED_TOPIC,
        Code::DELETE_EXPIRED_COMMITLOG,
    ];
    for asked in asked {
        assert_eq!(code(&channel, Command::request(asked)).await, 0, "{asked}");
    }
    world.stop().await;
}

#[tokio::test]
async fn damaged_record_is_found_by_the_scrub_shown_and_passed_over_by_a_pull() {
    let world = World::start_with(|settings| settings.scrub_rate = Bytes::kib(0)).await;
    let channel = world.connect().await;
    for body in ["first", "damaged", "last"] {
        put(&channel, &[], body).await;
    }
    let dir = world.stop().await;
    let log = dir.path().join("log").join(format!("{:020}", 0));
    let mut bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(7).position(|window| window == b"damaged").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).unwrap();

    // The first pass begins at the start.
    let world = World::start_in(dir, |_| {}).await;
    let channel = world.connect().await;
    let found = until(async || {
        let state = state(&channel).await;
        (state["scrubRunning"] == "false" && number(&state, "scrubBytes") > 0).then_some(state)
    })
    .await;
    assert_eq!((number(&found, "damagedRecords"), number(&found, "damagedFiles")), (1, 0));
    let newest = &found["damageNewest"];
    assert!(newest.contains(&log.display().to_string()), "{newest}");

    let answer = call(&channel, pull("readers", "orders", 0, "*")).await;
    assert_eq!(bodies(&answer), ["first", "last"]);
    assert_eq!(field(&answer, "nextBeginOffset"), "3");
    assert_eq!(number(&state(&channel).await, "damagedRecords"), 1, "counted once");
    world.stop().await;
}
