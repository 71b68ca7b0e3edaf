//! Pulls: request codes 11 and 361.

use gantry_model::{GroupConfig, GroupName, Permission, TopicConfig, TopicName};
use gantry_remoting::{Command, RequestCode, client::Channel};

use super::world::*;

async fn fill(channel: &Channel, topic: &str, tags: &[&str]) {
    for (number, tag) in tags.iter().enumerate() {
        let answer = call(channel, send(topic, &[("TAGS", tag)], &number.to_string())).await;
        assert_eq!(answer.code, 0, "{answer:?}");
    }
}

/// Code, next, least and greatest offset.
fn outcome(answer: &Command) -> (i32, &str, &str, &str) {
    let part = |name| field(answer, name);
    assert_eq!(part("suggestWhichBrokerId"), "0");
    (answer.code, part("nextBeginOffset"), part("minOffset"), part("maxOffset"))
}

#[tokio::test]
async fn each_state_of_a_queue_has_its_code_and_all_four_fields() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a", "b", "a"]).await;
    let cases = [
        (0, "*", (0, "3", "0", "3"), "FOUND"),
        (1, "a", (0, "3", "0", "3"), "FOUND"),
        (0, "z", (20, "3", "0", "3"), "NO_MATCHED_MESSAGE"),
        (3, "*", (19, "3", "0", "3"), "OFFSET_OVERFLOW_ONE"),
        (9, "*", (21, "3", "0", "3"), "OFFSET_OVERFLOW_BADLY"),
        (-1, "*", (21, "0", "0", "3"), "OFFSET_TOO_SMALL"),
    ];
    for (offset, expression, expected, remark) in cases {
        let answer = call(&channel, pull("g", "orders", offset, expression)).await;
        assert_eq!(outcome(&answer), expected, "offset {offset}");
        assert_eq!(answer.remark.as_deref(), Some(remark));
    }
    let empty = |offset| pull("g", "orders", offset, "*").with_ext("queueId", "1");
    assert_eq!(outcome(&call(&channel, empty(0)).await), (19, "0", "0", "0"));
    assert_eq!(outcome(&call(&channel, empty(5)).await), (21, "0", "0", "0"));
    world.stop().await;
}

#[tokio::test]
async fn answer_holds_no_more_than_asked_and_no_more_than_the_limit() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &[""; 40]).await;
    for (asked, given) in [("3", 3), ("1000", 32), ("0", 1), ("-5", 1)] {
        let request = pull("g", "orders", 0, "*").with_ext("maxMsgNums", asked);
        assert_eq!(messages(&call(&channel, request).await).len(), given, "asked for {asked}");
    }
    let body = "x".repeat(100_000);
    for _ in 0..5 {
        call(&channel, send("large", &[], &body)).await;
    }
    assert_eq!(messages(&call(&channel, pull("g", "large", 0, "*")).await).len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn checks_refuse_in_the_protocols_order() {
    let world = World::start_with(|settings| {
        settings.auto_create_groups = false;
        settings.lite_pull = false;
    })
    .await;
    let services = world.broker.services();
    let now = services.clock.now();
    let group = |name| GroupConfig::new(GroupName::new(name).unwrap());
    services.groups.put(group("g"), now).unwrap();
    services.groups.put(GroupConfig { consume_enable: false, ..group("idle") }, now).unwrap();
    let topic = |name| TopicConfig::new(TopicName::new(name).unwrap(), 2);
    services.topics.put(topic("orders"), now).unwrap();
    let closed = topic("closed").with_permission(Permission(Permission::WRITE));
    services.topics.put(closed, now).unwrap();

    let channel = world.connect().await;
    let plain = |group, topic| pull(group, topic, 0, "*");
    let lite = Command { code: RequestCode::LITE_PULL_MESSAGE.0, ..plain("g", "orders") };
    let cases = [
        (lite, 16, Some("1")),
        (plain("unknown", "nowhere"), 26, None),
        (plain("idle", "nowhere"), 16, Some("2")),
        (plain("g", "nowhere"), 17, None),
        (plain("g", "closed"), 16, Some("3")),
        (plain("g", "orders").with_ext("queueId", "2"), 29, None),
        (plain("g", "orders").with_ext("queueId", "-1"), 29, None),
        (plain("g", "orders").with_ext("subscription", "||"), 23, None),
        (plain("g", "orders").with_ext("expressionType", "SQL92"), 1, None),
        (plain("g", "orders").with_ext("sysFlag", "0"), 24, None),
        (plain("g", "orders").with_ext("queueOffset", "x"), 29, None),
        (plain("g", "orders"), 19, None),
    ];
    for (request, expected, forbidden) in cases {
        let answer = call(&channel, request.clone()).await;
        assert_eq!(answer.code, expected, "{request:?} {answer:?}");
        assert_eq!(answer.ext.get("forbiddenType"), forbidden, "{request:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn subscription_of_the_heartbeat_filters_and_its_version_counts() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a", "b"]).await;
    call(&channel, heartbeat("c", "g", &[("orders", "b", 10)])).await;
    let known = |version| {
        pull("g", "orders", 0, "ignored").with_ext("sysFlag", "0").with_ext("subVersion", version)
    };
    assert_eq!(bodies(&call(&channel, known("0")).await), ["1"]);
    assert_eq!(bodies(&call(&channel, known("10")).await), ["1"]);
    assert_eq!(code(&channel, known("11")).await, 25);
    assert_eq!(code(&channel, known("0").with_ext("topic", "%RETRY%g")).await, 24);
    world.stop().await;
}

#[tokio::test]
async fn held_pull_is_answered_by_a_wanted_message_and_by_no_other() {
    let world = World::start().await;
    let (consumer, producer) = (world.connect().await, world.connect().await);
    fill(&producer, "orders", &["a"]).await;
    let waiting = consumer.begin_call(&pull_waiting("g", "orders", 1, "b", 60_000)).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    fill(&producer, "orders", &["a", "c"]).await;
    assert_eq!(services.holds.len(), 1, "messages that it does not want leave it held");
    call(&producer, send("orders", &[("TAGS", "b")], "wanted")).await;
    let answer = soon(waiting).await.unwrap();
    assert_eq!(bodies(&answer), ["wanted"]);
    assert_eq!(outcome(&answer), (0, "4", "0", "4"));
    world.stop().await;
}

#[tokio::test]
async fn held_pull_is_answered_when_its_time_is_up() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a"]).await;
    let answer = call(&channel, pull_waiting("g", "orders", 1, "*", 1)).await;
    assert_eq!(outcome(&answer), (19, "1", "0", "1"));
    world.stop().await;
}

#[tokio::test]
async fn held_pull_of_a_queue_without_messages_gets_the_first_one() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a"]).await;
    let request = pull_waiting("g", "orders", 0, "*", 60_000).with_ext("queueId", "2");
    let waiting = channel.begin_call(&request).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    call(&channel, send("orders", &[], "first").with_ext("e", "2")).await;
    assert_eq!(bodies(&soon(waiting).await.unwrap()), ["first"]);
    world.stop().await;
}

#[tokio::test]
async fn connection_that_closes_takes_its_held_pulls_along() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a"]).await;
    let waiting = channel.begin_call(&pull_waiting("g", "orders", 1, "*", 60_000)).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    channel.close();
    until(async || services.holds.is_empty().then_some(())).await;
    assert!(soon(waiting).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn pull_beyond_the_number_that_may_be_held_is_busy() {
    let world = World::start_with(|settings| settings.held_pulls_max = 1).await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a"]).await;
    let _held = channel.begin_call(&pull_waiting("g", "orders", 1, "*", 60_000)).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    let answer = call(&channel, pull_waiting("g", "orders", 1, "*", 60_000)).await;
    assert_eq!(answer.code, 2);
    assert!(answer.remark.unwrap().starts_with("[OVERLOAD]system busy"));
    world.stop().await;
}

#[tokio::test]
async fn offset_is_committed_on_the_way() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a", "b"]).await;
    let request =
        pull("g", "orders", 1, "*").with_ext("sysFlag", "5").with_ext("commitOffset", "1");
    assert_eq!(code(&channel, request).await, 0);
    let fields = [("consumerGroup", "g"), ("topic", "orders"), ("queueId", "0")];
    let answer = call(&channel, request_of(&fields)).await;
    assert_eq!((answer.code, field(&answer, "offset")), (0, "1"));
    world.stop().await;
}

fn request_of(fields: &[(&str, &str)]) -> Command {
    request(RequestCode::QUERY_CONSUMER_OFFSET, fields)
}

#[tokio::test]
async fn consumer_that_keeps_pulling_gets_every_message_once_and_in_order() {
    let world = World::start().await;
    let (consumer, producer) = (world.connect().await, world.connect().await);
    call(&producer, send("orders", &[], "0")).await;
    let sending = tokio::spawn(async move {
        for number in 1..200 {
            call(&producer, send("orders", &[], &number.to_string())).await;
            if number % 20 == 0 {
                // Lets the consumer catch up and wait again.
                tokio::task::yield_now().await;
            }
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let answer =
            call(&consumer, pull_waiting("g", "orders", seen.len() as i64, "*", 1_000)).await;
        seen.extend(bodies(&answer));
    }
    assert_eq!(seen, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    sending.await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn request_behind_a_send_sees_its_message() {
    let world = World::start().await;
    let channel = world.connect().await;
    fill(&channel, "orders", &["a"]).await;
    // Both leave with one write.
    let sent = channel.begin_call(&send("orders", &[], "mine")).unwrap();
    let pulled = channel.begin_call(&pull("g", "orders", 1, "*")).unwrap();
    assert_eq!(soon(sent).await.unwrap().code, 0);
    assert_eq!(bodies(&soon(pulled).await.unwrap()), ["mine"]);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn message_that_arrives_while_its_pull_is_being_held_is_not_missed() {
    let world = World::start().await;
    let (consumer, producer) = (world.connect().await, world.connect().await);
    fill(&producer, "orders", &["a"]).await;
    for offset in 1..3_000 {
        let request = pull_waiting("g", "orders", offset, "*", 600_000);
        let pulled = consumer.begin_call(&request).unwrap();
        let sent = producer.begin_call(&send("orders", &[], "x")).unwrap();
        assert_eq!(soon(sent).await.unwrap().code, 0);
        assert_eq!(soon(pulled).await.unwrap().code, 0, "the client waits no longer than 30 s");
    }
    world.stop().await;
}
