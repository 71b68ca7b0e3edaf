//! Administration of topics, groups and clients: request codes 17, 18, 21, 200 to 207, 215, 225, 300 to 309, 328,
//! 343, 345, 351, 352.

use bytes::Bytes;
use gantry_remoting::{Command, RequestCode as Code, client::Channel};
use serde_json::{Value, json};

use super::world::*;

fn create(topic: &str, changes: &[(&str, &str)]) -> Command {
    let fields = [
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", "2"),
        ("writeQueueNums", "2"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", "false"),
    ];
    let plain = request(Code::UPDATE_AND_CREATE_TOPIC, &fields);
    changes.iter().fold(plain, |request, (key, value)| request.with_ext(*key, *value))
}

fn of_topic(code: Code, topic: &str) -> Command {
    request(code, &[("topic", topic)])
}

fn with_json(code: Code, body: &Value) -> Command {
    Command::request(code).with_body(body.to_string())
}

fn value(answer: &Command) -> Value {
    assert_eq!(answer.code, 0, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn created_topic_is_there_with_its_attributes_and_survives_a_restart() {
    let world = World::start().await;
    let channel = world.connect().await;
    let fifo = create("orders", &[("attributes", "+message.type=FIFO"), ("order", "true")]);
    assert_eq!(code(&channel, fifo).await, 0);
    let dir = world.stop().await;
    let world = World::start_in(dir, |_| {}).await;
    let channel = world.connect().await;
    let config = value(&call(&channel, of_topic(Code::GET_TOPIC_CONFIG, "orders")).await);
    assert_eq!(config["topicName"], "orders");
    assert_eq!(config["attributes"], json!({ "message.type": "FIFO" }));
    assert_eq!((&config["readQueueNums"], &config["order"]), (&json!(2), &json!(true)));
    let removed = create("orders", &[("attributes", "-message.type"), ("writeQueueNums", "4")]);
    assert_eq!(code(&channel, removed).await, 0);
    let answer = call(&channel, Command::request(Code::GET_ALL_TOPIC_CONFIG)).await;
    let table = value(&answer);
    let topics = table["topicConfigTable"].as_object().unwrap();
    assert_eq!(topics["orders"]["attributes"], json!({}));
    assert_eq!(topics["orders"]["writeQueueNums"], 4);
    assert_eq!(field(&answer, "totalTopicNum"), topics.len().to_string());
    world.stop().await;
}

/// Part of the topic table as newer clients ask for it: its version, its names, and the total.
async fn part(channel: &Channel, first: usize, version: &str) -> (String, Vec<String>, usize) {
    let first = first.to_string();
    let fields = [("topicSeq", &*first), ("dataVersion", version), ("maxTopicNum", "2000")];
    let answer = call(channel, request(Code::GET_ALL_TOPIC_CONFIG, &fields)).await;
    let table = value(&answer);
    let names = table["topicConfigTable"].as_object().unwrap().keys().cloned().collect();
    let total = field(&answer, "totalTopicNum").parse().unwrap();
    (table["dataVersion"].to_string(), names, total)
}

#[tokio::test]
async fn topic_table_comes_in_parts_that_join_and_begins_anew_after_a_change() {
    let world = World::start().await;
    let channel = world.connect().await;
    let topics: Vec<_> = (0..2_100)
        .map(|number| json!({"topicName": format!("t-{number:04}"), "perm": 6, "readQueueNums": 1, "writeQueueNums": 1}))
        .collect();
    let list = json!({ "topicConfigList": topics });
    assert_eq!(code(&channel, with_json(Code::UPDATE_AND_CREATE_TOPIC_LIST, &list)).await, 0);
    let whole = value(&call(&channel, Command::request(Code::GET_ALL_TOPIC_CONFIG)).await);
    let all: Vec<_> = whole["topicConfigTable"].as_object().unwrap().keys().cloned().collect();

    let (version, mut names, total) = part(&channel, 0, "").await;
    assert_eq!((names.len(), total), (2_000, all.len()));
    let (same, rest, _) = part(&channel, names.len(), &version).await;
    assert_eq!(same, version);
    let first = names.clone();
    names.extend(rest);
    assert_eq!(names, all);

    assert_eq!(code(&channel, create("later", &[])).await, 0);
    let (changed, again, more) = part(&channel, 2_000, &version).await;
    assert_ne!(changed, version);
    assert_eq!((again.len(), &again[0], more), (2_000, &first[0], total + 1));
    world.stop().await;
}

#[tokio::test]
async fn illegal_topic_is_refused_and_nothing_is_made() {
    let world = World::start().await;
    let channel = world.connect().await;
    let cases = [
        (create("a/b", &[]), 29),
        (create("", &[]), 29),
        (create("TBW102", &[]), 29),
        (create("DefaultCluster", &[]), 29),
        (create("t", &[("readQueueNums", "0")]), 29),
        (create("t", &[("writeQueueNums", "4000000000")]), 29),
        (create("t", &[("readQueueNums", "-1")]), 29),
        (create("t", &[("readQueueNums", "many")]), 29),
        (create("t", &[("perm", "64")]), 29),
        (create("t", &[("topicFilterType", "NO_TAG")]), 29),
        (create("t", &[("attributes", "+colour=red")]), 1),
        (create("t", &[("attributes", "-message.type")]), 1),
        (request(Code::UPDATE_AND_CREATE_TOPIC, &[("topic", "t")]), 29),
    ];
    for (request, expected) in cases {
        assert_eq!(code(&channel, request.clone()).await, expected, "{request:?}");
    }
    assert_eq!(code(&channel, of_topic(Code::GET_TOPIC_CONFIG, "t")).await, 17);
    world.stop().await;
}

#[tokio::test]
async fn list_of_topics_is_made_whole_or_not_at_all() {
    let world = World::start().await;
    let channel = world.connect().await;
    let topic =
        |name: &str| json!({"topicName": name, "perm": 6, "readQueueNums": 1, "writeQueueNums": 1});
    let list = |names: &[&str]| {
        let topics: Vec<_> = names.iter().map(|name| topic(name)).collect();
        with_json(Code::UPDATE_AND_CREATE_TOPIC_LIST, &json!({ "topicConfigList": topics }))
    };
    for names in [["a", "TBW102"], ["a", "b/c"]] {
        assert_eq!(code(&channel, list(&names)).await, 29, "{names:?}");
        assert_eq!(code(&channel, of_topic(Code::GET_TOPIC_CONFIG, "a")).await, 17);
    }
    assert_eq!(code(&channel, list(&["a", "b"])).await, 0);
    for name in ["a", "b"] {
        assert_eq!(code(&channel, of_topic(Code::GET_TOPIC_CONFIG, name)).await, 0);
    }
    assert_eq!(code(&channel, list(&[])).await, 0);
    world.stop().await;
}

#[tokio::test]
async fn deleted_topic_is_gone_with_its_offsets_and_system_topics_stay() {
    let world = World::start().await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, create("orders", &[])).await, 0);
    call(&channel, heartbeat("c", "g", &[])).await;
    let commit = request(
        Code::UPDATE_CONSUMER_OFFSET,
        &[("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0"), ("commitOffset", "3")],
    );
    assert_eq!(code(&channel, commit).await, 0);
    let delete = |topic| of_topic(Code::DELETE_TOPIC_IN_BROKER, topic);
    assert_eq!(code(&channel, delete("orders")).await, 0);
    assert_eq!(code(&channel, of_topic(Code::GET_TOPIC_CONFIG, "orders")).await, 17);
    let of_group = request(Code::QUERY_TOPICS_BY_CONSUMER, &[("group", "g")]);
    assert_eq!(value(&call(&channel, of_group).await)["topicList"], json!([]));
    assert_eq!(code(&channel, delete("nowhere")).await, 0);
    assert_eq!(code(&channel, delete("")).await, 29);
    assert_eq!(code(&channel, delete("a/b")).await, 29);
    assert_eq!(code(&channel, delete("TBW102")).await, 29);
    world.stop().await;
}

#[tokio::test]
async fn statistics_show_the_bounds_of_every_queue() {
    let world = World::start().await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, create("orders", &[])).await, 0);
    for body in ["x", "y"] {
        assert_eq!(code(&channel, send("orders", &[], body)).await, 0);
    }
    let answer = call(&channel, of_topic(Code::GET_TOPIC_STATS_INFO, "orders")).await;
    assert_eq!(answer.code, 0);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains(r#"{"brokerName":"broker-a","queueId":0,"topic":"orders"}:{"#), "{text}");
    assert!(text.contains(r#""maxOffset":2,"minOffset":0"#), "{text}");
    assert!(text.contains(r#""queueId":1,"topic":"orders"}:{"lastUpdateTimestamp":0,"#), "{text}");
    assert_eq!(code(&channel, of_topic(Code::GET_TOPIC_STATS_INFO, "nowhere")).await, 17);
    world.stop().await;
}

#[tokio::test]
async fn readers_of_a_topic_and_topics_of_a_reader_are_found_online_or_by_offsets() {
    let world = World::start().await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, create("orders", &[])).await, 0);
    call(&channel, heartbeat("c", "g", &[("orders", "*", 1)])).await;
    let readers = call(&channel, of_topic(Code::QUERY_TOPIC_CONSUME_BY_WHO, "orders")).await;
    assert_eq!(value(&readers), json!({ "groupList": ["g"] }));
    let nobody = call(&channel, of_topic(Code::QUERY_TOPIC_CONSUME_BY_WHO, "nowhere")).await;
    assert_eq!(value(&nobody), json!({ "groupList": [] }));
    let of_group = request(Code::QUERY_TOPICS_BY_CONSUMER, &[("group", "g")]);
    assert_eq!(value(&call(&channel, of_group).await)["topicList"], json!(["orders"]));
    let system = Command::request(Code::GET_SYSTEM_TOPIC_LIST_FROM_BROKER);
    let system = value(&call(&channel, system).await);
    let system = system["topicList"].as_array().unwrap();
    assert!(system.contains(&json!("TBW102")) && !system.contains(&json!("orders")), "{system:?}");
    world.stop().await;
}

#[tokio::test]
async fn group_is_made_changed_listed_and_deleted() {
    let world = World::start().await;
    let channel = world.connect().await;
    let put = |config: Value| with_json(Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &config);
    let get = |group| request(Code::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", group)]);
    let delete = |group| request(Code::DELETE_SUBSCRIPTIONGROUP, &[("groupName", group)]);
    assert_eq!(code(&channel, get("g")).await, 26);
    assert_eq!(code(&channel, put(json!({"groupName": "g", "retryMaxTimes": 3}))).await, 0);
    assert_eq!(value(&call(&channel, get("g")).await)["retryMaxTimes"], 3);
    let list = json!({"groupConfigList": [{"groupName": "h"}, {"groupName": "i"}]});
    let list = with_json(Code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST, &list);
    assert_eq!(code(&channel, list).await, 0);
    let answer = call(&channel, Command::request(Code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG)).await;
    let table = value(&answer);
    let groups = table["subscriptionGroupTable"].as_object().unwrap();
    assert!(["g", "h", "i"].iter().all(|group| groups.contains_key(*group)), "{groups:?}");
    assert_eq!(field(&answer, "totalGroupNum"), groups.len().to_string());
    assert_eq!(code(&channel, delete("g")).await, 0);
    assert_eq!(code(&channel, get("g")).await, 26);
    assert_eq!(code(&channel, delete("g")).await, 0);
    let bad = [
        put(json!({"groupName": "a/b"})),
        put(json!({})),
        put(json!([])),
        delete("a/b"),
        delete("TOOLS_CONSUMER"),
        put(json!({"groupName": "g", "retryMaxTimes": 9_000_000_000_u64})),
    ];
    for request in bad {
        assert_eq!(code(&channel, request.clone()).await, 29, "{request:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn connections_and_subscriptions_are_listed_while_their_clients_are_online() {
    let world = World::start().await;
    let channel = world.connect().await;
    let consumers =
        |group| request(Code::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", group)]);
    let producers =
        |group| request(Code::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", group)]);
    assert_eq!(code(&channel, consumers("g")).await, 206);
    assert_eq!(code(&channel, producers("producers")).await, 1);
    call(&channel, heartbeat("c", "g", &[("orders", "TagA || TagB", 1)])).await;
    let online = value(&call(&channel, consumers("g")).await);
    assert_eq!(online["connectionSet"][0]["clientId"], "c");
    assert_eq!(online["consumeType"], "CONSUME_PASSIVELY");
    assert_eq!(online["messageModel"], "CLUSTERING");
    let wanted = &online["subscriptionTable"]["orders"];
    assert_eq!(wanted["tagsSet"], json!(["TagA", "TagB"]));
    assert_eq!(wanted["codeSet"], json!([2_598_919, 2_598_920]));
    let online = value(&call(&channel, producers("producers")).await);
    assert_eq!(online["connectionSet"][0]["clientId"], "c");
    let all = value(&call(&channel, Command::request(Code::GET_ALL_PRODUCER_INFO)).await);
    assert_eq!(all["data"]["producers"][0]["clientId"], "c");
    let subscription =
        |topic| request(Code::QUERY_SUBSCRIPTION_BY_CONSUMER, &[("group", "g"), ("topic", topic)]);
    let found = value(&call(&channel, subscription("orders")).await);
    assert_eq!(found["subscriptionData"]["subString"], "TagA || TagB");
    let none = value(&call(&channel, subscription("nowhere")).await);
    assert_eq!(none, json!({"group": "g", "topic": "nowhere"}));
    world.stop().await;
}

#[tokio::test]
async fn question_to_a_client_is_passed_on_and_its_answer_comes_back() {
    let world = World::start().await;
    let (handler, mut requests) = Requests::new();
    let (client, tool) = (world.connect_with(handler).await, world.connect().await);
    let beat = heartbeat("c", "g", &[("orders", "*", 1)]);
    call(&client, Command { version: 479, ..beat }).await;
    let joined = soon(requests.recv()).await.unwrap();
    assert_eq!(joined.code, Code::NOTIFY_CONSUMER_IDS_CHANGED.0);
    let sent = call(&tool, send("orders", &[], "x")).await;
    let id = field(&sent, "msgId").to_owned();
    let info = |client| {
        let fields = [("consumerGroup", "g"), ("clientId", client), ("jstackEnable", "false")];
        request(Code::GET_CONSUMER_RUNNING_INFO, &fields)
    };
    assert_eq!(code(&tool, info("another")).await, 1);
    let answering = async {
        let asked = requests.recv().await.unwrap();
        assert_eq!(asked.code, Code::GET_CONSUMER_RUNNING_INFO.0);
        assert_eq!(field(&asked, "clientId"), "c");
        let reply = Command::answer(asked.reply_to(), gantry_remoting::ResponseCode::SUCCESS);
        client.answer(&asked, &reply.with_body(Bytes::from_static(b"{}"))).unwrap();
    };
    let (answer, ()) = soon(async { tokio::join!(call(&tool, info("c")), answering) }).await;
    assert_eq!((answer.code, &answer.body[..]), (0, &b"{}"[..]));

    let directly = |id: &str| {
        let fields =
            [("consumerGroup", "g"), ("clientId", "c"), ("msgId", id), ("topic", "orders")];
        request(Code::CONSUME_MESSAGE_DIRECTLY, &fields)
    };
    assert_eq!(code(&tool, directly("no id")).await, 29);
    let answering = async {
        let asked = requests.recv().await.unwrap();
        assert_eq!(field(&asked, "brokerName"), "broker-a");
        assert_eq!(bodies(&asked), ["x"]);
        let reply = Command::answer(asked.reply_to(), gantry_remoting::ResponseCode::SUCCESS);
        client.answer(&asked, &reply).unwrap();
    };
    let (answer, ()) = soon(async { tokio::join!(call(&tool, directly(&id)), answering) }).await;
    assert_eq!(answer.code, 0);

    let leaving = async {
        requests.recv().await.unwrap();
        client.close();
    };
    let (answer, ()) = soon(async { tokio::join!(call(&tool, info("c")), leaving) }).await;
    assert_eq!(answer.code, 1, "a client that leaves answers nothing");
    assert_eq!(code(&tool, info("c")).await, 1);
    world.stop().await;
}
