//! A long life in small segments: three generations of the log go, the broker is killed, and all views are lost.
//! Invariant: clients see the same topics, groups and offsets as before, and each message that waits waits as before:
//! carrying it out of a segment that goes changes its place in the log alone.
//! Leaves every other entry to the tests of the store.

use std::{fs, path::Path, time::UNIX_EPOCH};

use gantry_model::{
    PhysicalOffset, QueueId,
    properties::{REAL_QUEUE_ID, REAL_TOPIC, UNIQ_KEY},
};
use gantry_record::RecordView;
use gantry_remoting::{Command, RequestCode as Code, client::Channel};
use gantry_store::{
    Now, Store, StoreOptions,
    change::{PARK_TOPIC, TIMER_TOPIC},
};
use serde_json::Value;

use super::{
    program::Program,
    world::{bodies, call, code, field, heartbeat, pull, request, send, until},
};

const IDLE_MESSAGES: u64 = 1000;
/// Two segments, the least log there is: what is above goes.
const SETTINGS: &str = "retention_size: 32Mi";
const GENERATION_MESSAGES: usize = 40;
const DUE_SECONDS: &str = "15";
/// Delay levels whose queues hold messages.
const LEVELS: [u32; 2] = [17, 18];

async fn number(channel: &Channel, code: Code, topic: &str) -> u64 {
    let answer = call(channel, request(code, &[("topic", topic), ("queueId", "0")])).await;
    field(&answer, "offset").parse().unwrap()
}

async fn fill(channel: &Channel) {
    for _ in 0..IDLE_MESSAGES {
        assert_eq!(code(channel, send("idle", &[], "idle")).await, 0);
    }
    for group in ["g1", "g2"] {
        call(channel, heartbeat("c", group, &[("idle", "*", 1)])).await;
        let fields = [
            ("consumerGroup", group),
            ("topic", "idle"),
            ("queueId", "0"),
            ("commitOffset", "321"),
        ];
        assert_eq!(code(channel, request(Code::UPDATE_CONSUMER_OFFSET, &fields)).await, 0);
    }
    let group = r#"{"groupName":"g2","retryMaxTimes":7,"retryQueueNums":1}"#;
    let define = Command::request(Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).with_body(group);
    assert_eq!(code(channel, define).await, 0);
    for delay in
        [("DELAY", "18"), ("DELAY", "18"), ("DELAY", "17"), ("TIMER_DELAY_SEC", DUE_SECONDS)]
    {
        assert_eq!(code(channel, send("delayed", &[delay], delay.1)).await, 0);
    }
}

/// Sends until what the log held before has gone.
async fn one_generation(channel: &Channel) {
    let body = "x".repeat(1 << 20);
    let before = match call(channel, send("busy", &[], &body)).await {
        answer if answer.code == 0 => field(&answer, "queueOffset").parse::<u64>().unwrap(),
        answer => panic!("{answer:?}"),
    };
    for _ in 0..GENERATION_MESSAGES {
        assert_eq!(code(channel, send("busy", &[], &body)).await, 0);
    }
    until(async || (number(channel, Code::GET_MIN_OFFSET, "busy").await > before).then_some(()))
        .await;
}

async fn body(channel: &Channel, code: Code, fields: &[(&str, &str)]) -> Value {
    let answer = call(channel, request(code, fields)).await;
    assert_eq!(answer.code, 0, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// All that a client can see of topics, groups, offsets and bounds.
async fn seen(channel: &Channel) -> Vec<String> {
    let mut seen = Vec::new();
    for topic in ["idle", "busy", "delayed", "%RETRY%g1"] {
        let config = body(channel, Code::GET_TOPIC_CONFIG, &[("topic", topic)]).await;
        seen.push(format!("topic {config}"));
        for code in [Code::GET_MIN_OFFSET, Code::GET_MAX_OFFSET] {
            // Where a message becomes due meanwhile, and where retention may go on between the look and the kill.
            let moves = topic == "delayed" || (topic, code) == ("busy", Code::GET_MIN_OFFSET);
            if !moves {
                seen.push(format!("{topic} {code} {}", number(channel, code, topic).await));
            }
        }
    }
    for group in ["g1", "g2"] {
        let config = body(channel, Code::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", group)]).await;
        seen.push(format!("group {config}"));
        let fields = [("consumerGroup", group), ("topic", "idle"), ("queueId", "0")];
        let answer = call(channel, request(Code::QUERY_CONSUMER_OFFSET, &fields)).await;
        seen.push(format!("offset {group} {}", field(&answer, "offset")));
    }
    seen
}

/// What waits for a time in a store: everything of each message but its place, in order, and where each is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// On the queues of delay levels.
    by_level: Vec<String>,
    /// By a due time of its own.
    by_time: Vec<String>,
    positions: Vec<PhysicalOffset>,
    /// Ends of the delay levels' queues. Each time that retention carries what waits they grow.
    ends: Vec<u64>,
}

/// What waits in the data of a broker that has ended.
fn waiting(data: &Path) -> Waiting {
    let options = StoreOptions { segment_bytes: 16 << 20, ..StoreOptions::new(data) };
    let wall_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let now = Now { wall_ms, monotonic_ms: 0 };
    let (store, _) = Store::open(options, now).unwrap();
    let mut waiting = Waiting::default();
    for timer in store.due_timers(u64::MAX - 1, 100).unwrap() {
        assert!(timer.position >= store.log_start(), "{timer:?}");
        let bytes = store.read_record(timer.position).unwrap().unwrap();
        let record = RecordView::parse(&bytes).unwrap();
        let [id, topic, queue] =
            [UNIQ_KEY, REAL_TOPIC, REAL_QUEUE_ID].map(|key| record.property(key));
        let message = format!(
            "queue {:?} due {} {id:?} born {} to {topic:?} {queue:?}: {:?}",
            record.queue(),
            timer.due_ms,
            record.born_time_ms(),
            record.body()
        );
        match record.topic() {
            PARK_TOPIC => waiting.by_level.push(message),
            TIMER_TOPIC => waiting.by_time.push(message),
            other => panic!("a message of {other} waits"),
        }
        waiting.positions.push(timer.position);
    }
    waiting.by_level.sort_unstable();
    let parked = store.topic(PARK_TOPIC).unwrap();
    let end = |level| store.queue_bounds(&parked, QueueId(level - 1)).unwrap().max.0;
    waiting.ends.extend(LEVELS.map(end));
    store.close(now).unwrap();
    waiting
}

/// The same of a copy of the data, with its views or without.
fn waiting_in_copy(data: &Path, has_views: bool) -> Waiting {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(data).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), copy.path().join(entry.file_name()));
        if !entry.file_type().unwrap().is_dir() {
            fs::copy(from, to).unwrap();
        } else if has_views || entry.file_name() != "views" {
            copy_folder(&from, &to);
        }
    }
    waiting(copy.path())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Ends of the queues of the delay levels, as clients see them.
async fn level_ends(channel: &Channel) -> Vec<u64> {
    let state = body(channel, Code::GET_BROKER_RUNTIME_INFO, &[]).await;
    let end = |level| {
        let progress = state["table"][format!("scheduleMessageOffset_{level}")].as_str().unwrap();
        progress.split_once(',').unwrap().1.parse().unwrap()
    };
    LEVELS.map(end).into()
}

// Waiting for the process blocks the thread, and its clients go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn clients_see_the_same_when_views_are_rebuilt_after_three_generations_have_gone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let program = Program::serving(dir.path(), SETTINGS);
    fill(&program.connect().await).await;
    program.terminate();
    let (status, log) = program.ended();
    assert!(status.success(), "{log}");
    let filled = waiting(&data);
    assert_eq!(filled.by_level.len(), 3, "{filled:?}");

    let program = Program::serving(dir.path(), SETTINGS);
    let channel = program.connect().await;
    for _ in 0..3 {
        one_generation(&channel).await;
    }
    let before = seen(&channel).await;
    let busy_min = number(&channel, Code::GET_MIN_OFFSET, "busy").await;
    drop(program);

    let killed = waiting_in_copy(&data, true);
    assert_eq!(killed, waiting_in_copy(&data, false), "what the log says is what the views say");
    assert_eq!(killed.by_level, filled.by_level, "carried, and changed in nothing else");
    assert!(killed.by_time.is_empty() || killed.by_time == filled.by_time, "{killed:?}");
    assert!(killed.positions.iter().min() > filled.positions.iter().max(), "{killed:?}");

    fs::remove_dir_all(data.join("views")).unwrap();
    let program = Program::serving(dir.path(), SETTINGS);
    assert!(program.log().contains("views_rebuilt=true"), "{}", program.log());
    let channel = program.connect().await;
    assert_eq!(seen(&channel).await, before);
    let busy_min_now = number(&channel, Code::GET_MIN_OFFSET, "busy").await;
    assert!(busy_min_now >= busy_min, "{busy_min_now} after {busy_min}");
    for (end, before) in level_ends(&channel).await.into_iter().zip(&killed.ends) {
        assert!(end >= *before, "{end} after {before}");
    }
    for code in [Code::GET_MIN_OFFSET, Code::GET_MAX_OFFSET] {
        assert_eq!(number(&channel, code, "idle").await, IDLE_MESSAGES, "{code}");
    }
    let answer = call(&channel, send("idle", &[], "next")).await;
    assert_eq!(field(&answer, "queueOffset"), IDLE_MESSAGES.to_string());
    let answer = call(&channel, pull("g1", "idle", IDLE_MESSAGES as i64, "*")).await;
    assert_eq!(bodies(&answer), ["next"]);
    // The one that is due comes, even if it came and went before the kill, and comes once; the others wait.
    until(async || {
        let state = body(&channel, Code::GET_BROKER_RUNTIME_INFO, &[]).await;
        (state["table"]["timerCongestNum"] == "3").then_some(())
    })
    .await;
    assert_eq!(number(&channel, Code::GET_MAX_OFFSET, "delayed").await, 1);
    drop(program);
    let left = waiting(&data);
    assert_eq!((left.by_level, left.by_time), (filled.by_level, vec![]));
}
