//! Membership and queue locks: request codes 34, 35, 38, 40, 41, 42, 46.

use gantry_remoting::{Command, RequestCode};

use super::world::*;

fn list(group: &str) -> Command {
    request(RequestCode::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", group)])
}

#[tokio::test]
async fn heartbeat_makes_group_and_retry_topic_and_lists_the_member() {
    let world = World::start().await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, list("g")).await, 1, "nobody is online");
    let answer = call(&channel, heartbeat("c1", "g", &[("orders", "*", 1)])).await;
    assert_eq!(answer.code, 0);
    assert_eq!(field(&answer, "IS_SUPPORT_HEART_BEAT_V2"), "true");
    assert_eq!(field(&answer, "IS_SUB_CHANGE"), "true");
    let members = call(&channel, list("g")).await;
    assert_eq!(&members.body[..], br#"{"consumerIdList":["c1"]}"#);
    let services = world.broker.services();
    let retry = services.topics.get("%RETRY%g").unwrap();
    assert_eq!((retry.config.write_queues, retry.config.perm.0), (1, 6));
    assert!(services.groups.get("g").is_some());
    world.stop().await;
}

#[tokio::test]
async fn members_are_told_when_one_joins_leaves_or_drops() {
    let world = World::start().await;
    let (handler, mut notices) = Requests::new();
    let first = world.connect_with(handler).await;
    let mut notice = async || {
        let notice = soon(notices.recv()).await.unwrap();
        assert_eq!(notice.code, RequestCode::NOTIFY_CONSUMER_IDS_CHANGED.0);
        assert!(notice.is_one_way());
        assert_eq!(field(&notice, "consumerGroup"), "g");
    };
    call(&first, heartbeat("c1", "g", &[])).await;
    notice().await;
    let second = world.connect().await;
    call(&second, heartbeat("c2", "g", &[])).await;
    notice().await;
    let members = call(&first, list("g")).await;
    assert_eq!(&members.body[..], br#"{"consumerIdList":["c1","c2"]}"#);
    let leave = [("clientID", "c2"), ("consumerGroup", "g"), ("producerGroup", "producers")];
    assert_eq!(code(&second, request(RequestCode::UNREGISTER_CLIENT, &leave)).await, 0);
    notice().await;
    call(&second, heartbeat("c2", "g", &[])).await;
    notice().await;
    second.close();
    notice().await;
    let members = call(&first, list("g")).await;
    assert_eq!(&members.body[..], br#"{"consumerIdList":["c1"]}"#);
    world.stop().await;
}

#[tokio::test]
async fn group_that_may_not_be_made_is_skipped_in_silence() {
    let world = World::start_with(|settings| settings.auto_create_groups = false).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, heartbeat("c1", "g", &[])).await, 0);
    assert_eq!(code(&channel, list("g")).await, 1);
    assert!(world.broker.services().topics.get("%RETRY%g").is_none());
    world.stop().await;
}

#[tokio::test]
async fn newer_heartbeat_without_subscriptions_keeps_the_known_ones() {
    let world = World::start().await;
    let channel = world.connect().await;
    let mut body: serde_json::Value =
        serde_json::from_slice(&heartbeat("c1", "g", &[("orders", "a", 1)]).body).unwrap();
    body["heartbeatFingerprint"] = 7.into();
    let beat = |body: &serde_json::Value| {
        Command::request(RequestCode::HEART_BEAT).with_body(body.to_string())
    };
    let changed = async |body: &serde_json::Value| {
        let answer = call(&channel, beat(body)).await;
        field(&answer, "IS_SUB_CHANGE").to_owned()
    };
    assert_eq!(changed(&body).await, "true");
    body["withoutSub"] = true.into();
    body["consumerDataSet"][0]["subscriptionDataSet"] = serde_json::json!([]);
    assert_eq!(changed(&body).await, "false");
    body["heartbeatFingerprint"] = 8.into();
    assert_eq!(changed(&body).await, "true");
    let group = world.broker.services().members.consumer_group("g").unwrap();
    assert_eq!(group.subscriptions["orders"].expression, "a");
    world.stop().await;
}

#[tokio::test]
async fn heartbeat_that_cannot_be_read_is_refused() {
    let world = World::start().await;
    let channel = world.connect().await;
    for (body, expected) in [("", 1), ("[]", 29), ("{\"clientID\":5}", 1), ("{}", 29)] {
        let beat = Command::request(RequestCode::HEART_BEAT).with_body(body);
        assert_eq!(code(&channel, beat).await, expected, "{body}");
    }
    world.stop().await;
}

#[tokio::test]
async fn queue_is_locked_by_one_member_until_it_lets_go() {
    let world = World::start().await;
    let channel = world.connect().await;
    let locks = |code: RequestCode, client: &str, queues: &[i32]| {
        let queues: Vec<_> = queues
            .iter()
            .map(|id| serde_json::json!({"brokerName": "broker-a", "queueId": id, "topic": "orders"}))
            .collect();
        let body = serde_json::json!({"clientId": client, "consumerGroup": "g", "mqSet": queues});
        Command::request(code).with_body(body.to_string())
    };
    let lock = async |client, queues: &[i32]| {
        let answer = call(&channel, locks(RequestCode::LOCK_BATCH_MQ, client, queues)).await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let held = body["lockOKMQSet"].as_array().unwrap().clone();
        held.iter().map(|queue| queue["queueId"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lock("a", &[0, 1]).await, [0, 1]);
    assert_eq!(lock("b", &[1, 2]).await, [2]);
    let unlock = locks(RequestCode::UNLOCK_BATCH_MQ, "a", &[1]);
    assert_eq!(code(&channel, unlock).await, 0);
    assert_eq!(lock("b", &[0, 1, 2]).await, [1, 2]);
    assert_eq!(code(&channel, locks(RequestCode::LOCK_BATCH_MQ, "a", &[-1])).await, 29);
    let broken = Command::request(RequestCode::LOCK_BATCH_MQ).with_body("{");
    assert_eq!(code(&channel, broken).await, 1);
    world.stop().await;
}

#[tokio::test]
async fn client_learns_which_expressions_the_broker_reads() {
    let world = World::start().await;
    let channel = world.connect().await;
    let check = |kind: &str, expression: &str| {
        let body = serde_json::json!({
            "clientId": "c", "group": "g",
            "subscriptionData": {"topic": "t", "subString": expression, "expressionType": kind},
        });
        Command::request(RequestCode::CHECK_CLIENT_CONFIG).with_body(body.to_string())
    };
    assert_eq!(code(&channel, check("TAG", "a || b")).await, 0);
    assert_eq!(code(&channel, check("TAG", "||")).await, 23);
    assert_eq!(code(&channel, check("SQL92", "a = 1")).await, 1);
    world.stop().await;
}
