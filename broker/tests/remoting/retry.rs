//! Send-back: request code 36, and sends to retry topics.

use gantry_model::{GroupConfig, GroupName};
use gantry_record::OffsetMessageId;
use gantry_remoting::{Command, RequestCode, client::Channel};

use super::world::*;

fn send_back(position: u64, group: &str, level: i32) -> Command {
    let fields = [
        ("offset", position.to_string()),
        ("group", group.to_owned()),
        ("delayLevel", level.to_string()),
        ("maxReconsumeTimes", "16".to_owned()),
    ];
    let fields: Vec<_> = fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
    request(RequestCode::CONSUMER_SEND_MSG_BACK, &fields)
}

async fn stored(channel: &Channel) -> u64 {
    let answer = call(channel, send("orders", &[("TAGS", "t"), ("UNIQ_KEY", "U")], "failed")).await;
    field(&answer, "msgId").parse::<OffsetMessageId>().unwrap().position.0
}

#[tokio::test]
async fn message_sent_back_comes_again_on_the_retry_topic_with_one_more_attempt() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let position = stored(&channel).await;
    assert_eq!(code(&channel, send_back(position, "g", 1)).await, 0);
    let answer = call(&channel, pull_waiting("g", "%RETRY%g", 0, "*", 15_000)).await;
    let found = messages(&answer);
    let [message] = found.as_slice() else { panic!("one message: {answer:?}") };
    assert_eq!((message.body(), message.reconsume_times()), (&b"failed"[..], 1));
    assert_eq!(message.property("RETRY_TOPIC"), Some("orders"));
    assert_eq!(message.property("UNIQ_KEY"), Some("U"));
    let origin: OffsetMessageId = message.property("ORIGIN_MESSAGE_ID").unwrap().parse().unwrap();
    assert_eq!(origin.position.0, position);
    assert_eq!(message.property("DELAY"), None);

    let again = send_back(message.position().0, "g", 1);
    assert_eq!(code(&channel, again).await, 0);
    let answer = call(&channel, pull_waiting("g", "%RETRY%g", 1, "*", 15_000)).await;
    let message = messages(&answer)[0];
    assert_eq!(message.reconsume_times(), 2);
    assert_eq!(message.property("RETRY_TOPIC"), Some("orders"));
    world.stop().await;
}

#[tokio::test]
async fn message_given_up_goes_to_the_dead_letter_topic_at_once() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let position = stored(&channel).await;
    assert_eq!(code(&channel, send_back(position, "g", -1)).await, 0);
    let none_left = send_back(position, "g", 0).with_ext("maxReconsumeTimes", "0");
    assert_eq!(code(&channel, none_left).await, 0);
    let answer = call(&channel, pull("dlq", "%DLQ%g", 0, "*")).await;
    assert_eq!(bodies(&answer), ["failed", "failed"]);
    assert_eq!(messages(&answer)[0].property("RETRY_TOPIC"), Some("orders"));
    world.stop().await;
}

#[tokio::test]
async fn send_back_of_nothing_or_to_nobody_is_refused() {
    let world = World::start().await;
    let services = world.broker.services();
    let channel = world.connect().await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let position = stored(&channel).await;
    assert_eq!(code(&channel, send_back(position, "unknown", 0)).await, 26);
    assert_eq!(code(&channel, send_back(position + 1, "g", 0)).await, 1);
    assert_eq!(code(&channel, send_back(u64::MAX >> 1, "g", 0)).await, 1);
    let negative = send_back(position, "g", 0).with_ext("offset", "-1");
    assert_eq!(code(&channel, negative).await, 1);
    let forgetful = GroupName::new("forgetful").unwrap();
    let forgetful = GroupConfig { retry_queue_nums: 0, ..GroupConfig::new(forgetful) };
    services.groups.put(forgetful, services.clock.now()).unwrap();
    assert_eq!(code(&channel, send_back(position, "forgetful", 0)).await, 0);
    assert!(services.topics.get("%RETRY%forgetful").is_none());
    world.stop().await;
}

#[tokio::test]
async fn forged_record_in_a_body_cannot_be_sent_back() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, heartbeat("c", "g", &[])).await;
    stored(&channel).await;
    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    let mut fields = send("orders", &[], "");
    fields.body = pulled.body.clone();
    let answer = call(&channel, fields).await;
    let outer: OffsetMessageId = field(&answer, "msgId").parse().unwrap();
    for inner in 80..100 {
        assert_eq!(code(&channel, send_back(outer.position.0 + inner, "g", 0)).await, 1);
    }
    world.stop().await;
}

#[tokio::test]
async fn client_that_sends_to_a_retry_topic_too_often_ends_in_dead_letters() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let to_retry = |attempts: &str| {
        send("%RETRY%g", &[("DELAY", "1")], attempts).with_ext("j", attempts).with_ext("l", "3")
    };
    assert_eq!(code(&channel, to_retry("4")).await, 0);
    assert_eq!(bodies(&call(&channel, pull("d", "%DLQ%g", 0, "*")).await), ["4"]);
    assert_eq!(code(&channel, to_retry("3")).await, 0);
    let answer = call(&channel, pull_waiting("g", "%RETRY%g", 0, "*", 15_000)).await;
    assert_eq!(bodies(&answer), ["3"]);
    world.stop().await;
}
