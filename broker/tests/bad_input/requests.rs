//! Requests that are frames, but ask for what cannot be: names, sizes and numbers.

use gantry_remoting::{Command, RequestCode as Code, client::Channel};
use serde_json::json;

use super::world::*;

/// Names that no topic and no group may have.
pub(crate) fn bad_names() -> Vec<String> {
    let fixed =
        ["../etc", "a/b", "a\\b", ".", "..", "a.b", "a\u{0}b", "a\nb", "a\u{1b}[31m", "a b", "名"];
    let mut names: Vec<String> = fixed.iter().map(|name| (*name).to_owned()).collect();
    names.extend(["t".repeat(256), "t".repeat(100_000)]);
    names
}

/// Requests that name `name`, with the codes that refuse it.
fn of_topic(name: &str) -> Vec<(&'static str, Command, i32)> {
    let create = [
        ("topic", name),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "1"),
        ("writeQueueNums", "1"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    let commit = [("consumerGroup", "g"), ("topic", name), ("queueId", "0"), ("commitOffset", "0")];
    let list = json!({ "topicConfigList": [{"topicName": name, "perm": 6, "readQueueNums": 1, "writeQueueNums": 1}] });
    vec![
        ("send", send(name, &[], "x"), 29),
        ("create", request(Code::UPDATE_AND_CREATE_TOPIC, &create), 29),
        (
            "create several",
            Command::request(Code::UPDATE_AND_CREATE_TOPIC_LIST).with_body(list.to_string()),
            29,
        ),
        ("pull", pull("g", name, 0, "*"), 17),
        ("commit", request(Code::UPDATE_CONSUMER_OFFSET, &commit), 17),
    ]
}

fn of_group(name: &str) -> Vec<(&'static str, Command, i32)> {
    let commit =
        [("consumerGroup", name), ("topic", "orders"), ("queueId", "0"), ("commitOffset", "0")];
    let definition = json!({ "groupName": name });
    vec![
        ("pull, group", pull(name, "orders", 0, "*"), 29),
        ("commit", request(Code::UPDATE_CONSUMER_OFFSET, &commit), 29),
        (
            "create",
            Command::request(Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP)
                .with_body(definition.to_string()),
            29,
        ),
    ]
}

/// Says what is wrong with the answer to a request that is to be refused with a reason of a few words.
async fn not_refused(
    channel: &Channel,
    what: &str,
    request: Command,
    expected: i32,
) -> Option<String> {
    let answer = call(channel, request).await;
    let remark = answer.remark.unwrap_or_default();
    let is_right = answer.code == expected && (1..1000).contains(&remark.len());
    (!is_right).then(|| format!("{what}: {} instead of {expected}: {remark:.200}", answer.code))
}

async fn refused(channel: &Channel, cases: Vec<(String, Command, i32)>) {
    let mut wrong = Vec::new();
    for (what, request, expected) in cases {
        wrong.extend(not_refused(channel, &what, request, expected).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every topic and every group that there is.
fn made(world: &World) -> Vec<String> {
    let services = world.broker.services();
    let (topics, groups) = (services.topics.all(), services.groups.all());
    let topics = topics.iter().map(|topic| topic.config.topic_name.to_string());
    let mut all: Vec<String> =
        topics.chain(groups.iter().map(|group| group.group_name.to_string())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn names_with_path_parts_control_characters_or_too_many_bytes_make_nothing() {
    let world = World::start().await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "x")).await, 0);
    call(&channel, heartbeat("c", "g", &[])).await;
    let before = made(&world);
    let mut cases = Vec::new();
    for name in bad_names() {
        let shown: String = name.escape_debug().take(20).collect();
        let of_both = of_topic(&name).into_iter().chain(of_group(&name));
        cases.extend(
            of_both.map(|(what, request, code)| (format!("{what} {shown}"), request, code)),
        );
        call(&channel, heartbeat("c", &name, &[(&name, "*", 1)])).await;
    }
    refused(&channel, cases).await;
    assert_eq!(made(&world), before);
    world.stop().await;
}

#[tokio::test]
async fn negative_numbers_are_refused_and_store_nothing() {
    let world = World::start().await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "first")).await, 0);
    call(&channel, heartbeat("c", "g", &[])).await;
    let commit = |queue, offset| {
        let fields = [
            ("consumerGroup", "g"),
            ("topic", "orders"),
            ("queueId", queue),
            ("commitOffset", offset),
        ];
        request(Code::UPDATE_CONSUMER_OFFSET, &fields)
    };
    let create = |read, write| {
        let fields = [
            ("topic", "t"),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", read),
            ("writeQueueNums", write),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
        ];
        request(Code::UPDATE_AND_CREATE_TOPIC, &fields)
    };
    let back = |offset, level| {
        let fields = [("offset", offset), ("group", "g"), ("delayLevel", level)];
        request(Code::CONSUMER_SEND_MSG_BACK, &fields)
    };
    let view = |offset| request(Code::VIEW_MESSAGE_BY_ID, &[("offset", offset)]);
    let cases = [
        ("pull: queue", pull("g", "orders", 0, "*").with_ext("queueId", "-1"), 29),
        ("pull: offset", pull("g", "orders", -1, "*"), 21),
        ("pull: offset, least", pull("g", "orders", i64::MIN, "*"), 21),
        ("commit: queue", commit("-1", "1"), 29),
        ("commit: offset", commit("0", "-1"), 29),
        ("commit: offset, least", commit("0", "-9223372036854775808"), 29),
        ("create: read queues", create("-1", "1"), 29),
        ("create: write queues", create("1", "-2147483648"), 29),
        ("send-back: place", back("-1", "0"), 1),
        ("view: place", view("-1"), 1),
        ("view: place, least", view("-9223372036854775808"), 1),
    ];
    let cases = cases.map(|(what, request, expected)| (what.to_owned(), request, expected));
    refused(&channel, cases.into()).await;
    let counted = pull("g", "orders", 0, "*").with_ext("maxMsgNums", "-5");
    let answer = call(&channel, counted).await;
    assert!(answer.code != 0 || bodies(&answer).len() <= 1, "{answer:?}");
    assert_eq!(bodies(&call(&channel, pull("g", "orders", 0, "*")).await), ["first"]);
    world.stop().await;
}

/// In RocketMQ a level of 0 or less is none, a time that is past is now, and a negative queue is any.
#[tokio::test]
async fn negative_delays_delay_nothing_and_a_negative_queue_is_any() {
    let world = World::start().await;
    let channel = world.connect().await;
    let delays = [
        ("DELAY", "-1"),
        ("DELAY", "-2147483648"),
        ("TIMER_DELIVER_MS", "-1"),
        ("TIMER_DELAY_MS", "-9223372036854775808"),
    ];
    for (key, value) in delays {
        assert_eq!(code(&channel, send("orders", &[(key, value)], "x")).await, 0, "{key} {value}");
    }
    until(async || {
        let answer = call(&channel, pull("g", "orders", 0, "*")).await;
        (answer.code == 0 && bodies(&answer).len() == delays.len()).then_some(())
    })
    .await;
    for queue in ["-2", "-2147483648"] {
        let answer = call(&channel, send("orders", &[], "x").with_ext("e", queue)).await;
        assert_eq!(answer.code, 0, "{answer:?}");
        assert!(field(&answer, "queueId").parse::<u32>().unwrap() < 8, "{answer:?}");
    }
    let beyond = send("orders", &[], "x").with_ext("e", "-2147483649");
    assert_eq!(code(&channel, beyond).await, 29);
    for code in [Code::GET_MAX_OFFSET, Code::GET_MIN_OFFSET] {
        let answer = call(&channel, request(code, &[("topic", "orders"), ("queueId", "-1")])).await;
        assert_eq!(field(&answer, "offset"), "0", "a queue that is none holds nothing");
    }
    world.stop().await;
}

#[tokio::test]
async fn body_above_the_limit_is_refused_alone_and_the_connection_serves_on() {
    let world = World::start().await;
    let channel = world.connect().await;
    let largest = "x".repeat(4 << 20);
    assert_eq!(code(&channel, send("orders", &[], &largest)).await, 0);
    let larger = send("orders", &[], &(largest + "x"));
    refused(&channel, vec![("one byte more".into(), larger, 13)]).await;
    assert_eq!(code(&channel, send("orders", &[], "after")).await, 0);
    world.stop().await;
}

#[tokio::test]
async fn body_that_multiplies_itself_by_references_is_refused() {
    let world = World::start().await;
    let channel = world.connect().await;
    let large = "x".repeat(100_000);
    let references = vec![r#"{"$ref":"$.large"}"#; 10_000].join(",");
    let body = format!(r#"{{"large":"{large}","topicConfigList":[{references}]}}"#);
    let several = Command::request(Code::UPDATE_AND_CREATE_TOPIC_LIST).with_body(body);
    let answer = call(&channel, several).await;
    assert_ne!(answer.code, 0);
    assert!(answer.remark.is_some_and(|remark| remark.contains("references")));
    world.stop().await;
}
