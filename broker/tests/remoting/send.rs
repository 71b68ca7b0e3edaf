//! Sends: request codes 10, 310, 320.

use gantry_model::settings::FlushMode;
use gantry_record::{BatchItem, OffsetMessageId, put_batch_item};
use gantry_remoting::{Command, RequestCode};

use super::world::*;

fn batch(topic: &str, items: &[(&str, &str)]) -> Command {
    let mut body = Vec::new();
    for (text, properties) in items {
        let item = BatchItem { flag: 0, body: text.as_bytes(), properties: properties.as_bytes() };
        put_batch_item(&item, &mut body).unwrap();
    }
    let single = send(topic, &[("UNIQ_KEY", "OUTER")], "");
    Command { code: RequestCode::SEND_BATCH_MESSAGE.0, ..single }
        .with_ext("m", "true")
        .with_body(body)
}

#[tokio::test]
async fn message_is_stored_and_read_back_with_the_brokers_stamp() {
    let world = World::start().await;
    let channel = world.connect().await;
    let entries = [("TAGS", "TagA"), ("KEYS", "k1 k2"), ("UNIQ_KEY", "U1"), ("POP_CK", "x")];
    let answer = call(&channel, send("orders", &entries, "hello")).await;
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(field(&answer, "queueId"), "0");
    assert_eq!(field(&answer, "queueOffset"), "0");
    assert_eq!(field(&answer, "transactionId"), "U1");
    assert_eq!(field(&answer, "MSG_REGION"), "DefaultRegion");
    assert_eq!(field(&answer, "TRACE_ON"), "true");

    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(pulled.code, 0, "{pulled:?}");
    let found = messages(&pulled);
    let [message] = found.as_slice() else { panic!("one message: {found:?}") };
    assert_eq!(message.body(), b"hello");
    assert_eq!(message.flag(), 7);
    assert_eq!(message.born_time_ms(), 1_700_000_000_000);
    assert_eq!(message.property("TAGS"), Some("TagA"));
    assert_eq!(message.property("CLUSTER"), Some("DefaultCluster"));
    assert_eq!(message.property("POP_CK"), None);
    assert_eq!(message.born_host(), channel.local());
    let id: OffsetMessageId = field(&answer, "msgId").parse().unwrap();
    assert_eq!(id.host, world.broker.addresses().remoting);
    assert_eq!(id.position, message.position());
    world.stop().await;
}

#[tokio::test]
async fn request_of_the_first_version_uses_long_names() {
    let world = World::start().await;
    let channel = world.connect().await;
    let fields = [
        ("producerGroup", "producers"),
        ("topic", "orders"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "3"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1"),
        ("flag", "0"),
    ];
    let answer = call(&channel, request(RequestCode::SEND_MESSAGE, &fields).with_body("x")).await;
    assert_eq!((answer.code, field(&answer, "queueId")), (0, "3"));
    assert_eq!(field(&answer, "transactionId").len(), 32, "the broker gave it a unique id");
    world.stop().await;
}

#[tokio::test]
async fn batch_becomes_messages_with_consecutive_offsets_and_joined_ids() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, send("orders", &[], "first")).await;
    let items = [("one", "UNIQ_KEY\u{1}A\u{2}"), ("two", "UNIQ_KEY\u{1}B\u{2}TAGS\u{1}t")];
    let answer = call(&channel, batch("orders", &items)).await;
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(field(&answer, "queueOffset"), "1");
    assert_eq!(field(&answer, "msgId").split(',').count(), 2);
    let pulled = call(&channel, pull("g", "orders", 1, "*")).await;
    assert_eq!(bodies(&pulled), ["one", "two"]);
    let tagged = call(&channel, pull("g", "orders", 0, "t")).await;
    assert_eq!(bodies(&tagged), ["two"]);
    world.stop().await;
}

#[tokio::test]
async fn batch_that_is_broken_or_of_a_wrong_kind_is_refused_as_a_whole() {
    let world = World::start().await;
    let channel = world.connect().await;
    let delayed = batch("orders", &[("ok", ""), ("late", "DELAY\u{1}1\u{2}")]);
    assert_eq!(code(&channel, delayed).await, 13);
    for body in [&b""[..], b"\x00", b"\x00\x00\x00\xff broken", &[0xFF; 40]] {
        let broken = batch("orders", &[]).with_body(body);
        assert_eq!(code(&channel, broken).await, 13, "{body:?}");
    }
    assert_eq!(code(&channel, batch("%RETRY%g", &[("x", "")])).await, 13);
    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(pulled.code, 19, "nothing was stored: {pulled:?}");
    world.stop().await;
}

#[tokio::test]
async fn unknown_topic_is_made_from_the_template_and_from_no_other_topic() {
    let world = World::start().await;
    let channel = world.connect().await;
    let with_template = |topic: &str, template: &str| send(topic, &[], "x").with_ext("c", template);
    for template in ["DefaultCluster", "broker-a", "nowhere", ""] {
        let answer = call(&channel, with_template("made", template)).await;
        assert_eq!(answer.code, 17, "{template}");
        assert_eq!(field(&answer, "MSG_REGION"), "DefaultRegion");
        assert!(answer.remark.unwrap().contains("topic[made] not exist"));
    }
    assert_eq!(code(&channel, with_template("made", "TBW102")).await, 0);
    let topic = world.broker.services().topics.get("made").unwrap();
    assert_eq!((topic.config.write_queues, topic.config.perm.0), (4, 6));
    let many = with_template("wide", "TBW102").with_ext("d", "5000");
    assert_eq!(code(&channel, many).await, 0);
    assert_eq!(world.broker.services().topics.get("wide").unwrap().config.write_queues, 8);
    world.stop().await;
}

#[tokio::test]
async fn topics_are_not_made_when_that_is_switched_off() {
    let world = World::start_with(|settings| settings.auto_create_topics = false).await;
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("made", &[], "x")).await, 17);
    assert!(world.broker.services().topics.get("TBW102").is_none());
    world.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_protocols_codes() {
    let world = World::start().await;
    let channel = world.connect().await;
    let large = "x".repeat(4 * 1024 * 1024 + 1);
    let long = "k".repeat(32_700);
    let plain = || send("orders", &[], "x");
    assert_eq!(code(&channel, plain()).await, 0);
    let cases = [
        ("illegal name", send("a/b", &[], "x"), 29),
        ("blank name", send("", &[], "x"), 29),
        ("long name", send(&"t".repeat(128), &[], "x"), 29),
        ("reserved topic", send("SCHEDULE_TOPIC_XXXX", &[], "x"), 16),
        ("timer topic", send("rmq_sys_wheel_timer", &[], "x"), 16),
        ("queue beyond the last", plain().with_ext("e", "8"), 29),
        ("queue that is no number", plain().with_ext("e", "many"), 29),
        ("large body", send("orders", &[], &large), 13),
        ("large properties", send("orders", &[("k", &long)], "x"), 13),
        ("half message", send("orders", &[("TRAN_MSG", "true")], "x"), 16),
        ("half message by its flag", plain().with_ext("f", "4"), 16),
        ("inner batch", send("orders", &[("INNER_NUM", "2")], "x"), 13),
        ("timer too far", send("orders", &[("TIMER_DELAY_SEC", "259201")], "x"), 13),
        ("timer that is no number", send("orders", &[("TIMER_DELAY_MS", "soon")], "x"), 13),
    ];
    for (what, request, expected) in cases {
        let answer = call(&channel, request).await;
        assert_eq!(answer.code, expected, "{what}: {answer:?}");
    }
    assert_eq!(code(&channel, plain().with_ext("e", "-1")).await, 0);
    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    assert!(bodies(&pulled).len() <= 2, "only what was answered with 0 is stored");
    world.stop().await;
}

#[tokio::test]
async fn missing_field_is_named_in_the_refusal() {
    let world = World::start().await;
    let channel = world.connect().await;
    let answer = call(&channel, request(RequestCode::SEND_MESSAGE_V2, &[("b", "orders")])).await;
    assert_eq!(answer.code, 29);
    assert!(answer.remark.unwrap().contains("missing"));
    world.stop().await;
}

#[tokio::test]
async fn one_way_send_is_stored_and_never_answered() {
    let world = World::start().await;
    let channel = world.connect().await;
    channel.one_way(&send("orders", &[], "quiet")).unwrap();
    channel.one_way(&send("a/b", &[], "refused in silence")).unwrap();
    let pulled = call(&channel, pull_waiting("g", "orders", 0, "*", 15_000)).await;
    assert_eq!(bodies(&pulled), ["quiet"]);
    world.stop().await;
}

#[tokio::test]
async fn every_message_of_a_burst_gets_its_own_answer_in_both_flush_modes() {
    for flush in [FlushMode::Async, FlushMode::Sync] {
        let world = World::start_with(|settings| settings.flush = flush).await;
        let channel = world.connect().await;
        let calls: Vec<_> = (0..500)
            .map(|number| {
                let wait = if number % 5 == 0 { "false" } else { "true" };
                let request = send("orders", &[("WAIT", wait)], &number.to_string());
                channel.begin_call(&request).unwrap()
            })
            .collect();
        let mut offsets = Vec::new();
        for call in calls {
            let answer = soon(call).await.unwrap();
            assert_eq!(answer.code, 0, "{answer:?}");
            offsets.push(field(&answer, "queueOffset").parse::<u64>().unwrap());
        }
        assert_eq!(offsets, (0..500).collect::<Vec<_>>());
        world.stop().await;
    }
}

#[tokio::test]
async fn vip_channel_serves_the_same_topics() {
    let world = World::start().await;
    let vip = world.broker.addresses().vip.unwrap();
    assert_eq!(vip.port() + 2, world.broker.addresses().remoting.port());
    let settings = gantry_remoting::client::ChannelSettings::default();
    let handler = std::sync::Arc::new(gantry_remoting::client::RefuseRequests);
    let channel =
        gantry_remoting::client::Channel::connect(&vip.to_string(), &settings, handler).await;
    assert_eq!(code(&channel.unwrap(), send("orders", &[], "x")).await, 0);
    world.stop().await;
}
