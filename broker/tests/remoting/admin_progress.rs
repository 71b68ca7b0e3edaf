//! Progress of groups and moving them: request codes 43, 45, 208, 222, 223, 303, 314, 315, 317, 321; 25 is refused.

use std::sync::Arc;

use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{Channel, ChannelHandler},
    command::{
        broker::BrokerStats,
        progress::{
            BrokerConsumeStats, ConsumeStats, ConsumeTimeSpans, ConsumerOffsets, ConsumerStatus,
            DelayOffsets, ResetOffsetBody,
        },
        query::ConsumeQueueBody,
    },
    json::JsonBody,
};

use super::world::*;

async fn send_some(channel: &Channel, topic: &str, count: usize) {
    for number in 0..count {
        assert_eq!(code(channel, send(topic, &[], &format!("m{number}"))).await, 0);
    }
}

fn commit(group: &str, topic: &str, queue: &str, offset: &str) -> Command {
    let fields =
        [("consumerGroup", group), ("topic", topic), ("queueId", queue), ("commitOffset", offset)];
    request(RequestCode::UPDATE_CONSUMER_OFFSET, &fields)
}

fn reset(group: &str, topic: &str, queue: &str, offset: &str, timestamp: &str) -> Command {
    let fields = [
        ("group", group),
        ("topic", topic),
        ("queueId", queue),
        ("offset", offset),
        ("timestamp", timestamp),
        ("isForce", "true"),
    ];
    request(RequestCode::INVOKE_BROKER_TO_RESET_OFFSET, &fields)
}

fn stats(group: &str) -> Command {
    request(RequestCode::GET_CONSUME_STATS, &[("consumerGroup", group)])
}

async fn offset(channel: &Channel, group: &str, topic: &str) -> String {
    let fields = [("consumerGroup", group), ("topic", topic), ("queueId", "0")];
    let answer = call(channel, request(RequestCode::QUERY_CONSUMER_OFFSET, &fields)).await;
    field(&answer, "offset").to_owned()
}

async fn body<T: JsonBody>(channel: &Channel, request: Command) -> T {
    let answer = call(channel, request).await;
    assert_eq!(answer.code, 0, "{answer:?}");
    T::from_json(&answer.body).unwrap()
}

/// A broker with five messages in queue 0 of `orders` and a group that consumed two.
async fn world_of_two_in_five() -> (World, Channel) {
    let world = World::start().await;
    let channel = world.connect().await;
    send_some(&channel, "orders", 5).await;
    call(&channel, heartbeat("c", "g", &[("orders", "*", 1)])).await;
    assert_eq!(code(&channel, commit("g", "orders", "0", "2")).await, 0);
    (world, channel)
}

#[tokio::test]
async fn progress_shows_what_is_left_in_each_queue() {
    let (world, channel) = world_of_two_in_five().await;
    let answer = call(&channel, stats("g")).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains(r#""offsetTable":{{"brokerName":"#), "{text}");
    let stats: ConsumeStats = body(&channel, stats("g")).await;
    let (queue, first) = &stats.offset_table.0[0];
    assert_eq!((queue.topic.as_str(), queue.queue_id), ("orders", 0));
    assert_eq!((first.broker_offset, first.consumer_offset, first.pull_offset), (5, 2, 2));
    assert!(first.last_timestamp > 0);
    let others = stats.offset_table.0[1..].iter();
    assert!(others.clone().count() > 0);
    assert!(others.clone().all(|(_, at)| (at.broker_offset, at.last_timestamp) == (0, 0)));

    let all: BrokerConsumeStats =
        body(&channel, request(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]))
            .await;
    assert_eq!((all.total_diff, all.total_inflight_diff), (3, 0));
    assert_eq!(all.consume_stats_list[0]["g"][0].offset_table.0[0].1, *first);
    let ordered: BrokerConsumeStats =
        body(&channel, request(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "true")]))
            .await;
    assert!(ordered.consume_stats_list.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn progress_of_an_online_group_leaves_out_what_it_no_longer_subscribes_to() {
    let (world, channel) = world_of_two_in_five().await;
    send_some(&channel, "old", 1).await;
    call(&channel, commit("g", "old", "0", "1")).await;
    let topics = async |request| {
        let stats: ConsumeStats = body(&channel, request).await;
        let names = stats.offset_table.0.into_iter().map(|(queue, _)| queue.topic);
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(topics(stats("g")).await, ["orders"]);
    assert!(topics(stats("g").with_ext("topic", "old")).await.is_empty());
    let listed = stats("g").with_ext("topicList", "old;nowhere;orders");
    assert_eq!(topics(listed).await, ["old", "orders"]);
    assert!(topics(stats("nobody")).await.is_empty());
    let leave = [("clientID", "c"), ("consumerGroup", "g")];
    call(&channel, request(RequestCode::UNREGISTER_CLIENT, &leave)).await;
    assert_eq!(topics(stats("g")).await, ["old", "orders"]);
    world.stop().await;
}

#[tokio::test]
async fn reset_is_shown_by_the_next_pull_once_and_commits_before_it_change_nothing() {
    let (world, channel) = world_of_two_in_five().await;
    let answer = call(&channel, reset("g", "orders", "0", "1", "0")).await;
    assert_eq!(answer.code, 0, "{answer:?}");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let expected = r#""queueId":0,"topic":"orders"}:1}}"#;
    assert!(text.starts_with(r#"{"offsetTable":{{"#) && text.ends_with(expected), "{text}");

    let ignored = call(&channel, commit("g", "orders", "0", "4")).await;
    assert_eq!(
        (ignored.code, ignored.remark.as_deref()),
        (0, Some("Offset has been previously reset"))
    );
    channel.one_way(&commit("g", "orders", "0", "5")).unwrap();
    let other_queue = commit("g", "orders", "1", "0");
    assert_eq!(code(&channel, other_queue).await, 0);
    assert_eq!(offset(&channel, "g", "orders").await, "1");
    let on_the_way =
        pull("g", "orders", 5, "*").with_ext("sysFlag", "5").with_ext("commitOffset", "5");
    let moved = call(&channel, on_the_way).await;
    assert_eq!((moved.code, field(&moved, "nextBeginOffset")), (21, "1"));
    assert_eq!(offset(&channel, "g", "orders").await, "1");

    let again = call(&channel, pull("g", "orders", 1, "*")).await;
    assert_eq!((again.code, bodies(&again).len()), (0, 4));
    assert_eq!(code(&channel, commit("g", "orders", "0", "3")).await, 0);
    assert_eq!(offset(&channel, "g", "orders").await, "3");
    world.stop().await;
}

#[tokio::test]
async fn consumer_that_starts_where_its_group_was_moved_reads_on_at_once() {
    let (world, channel) = world_of_two_in_five().await;
    assert_eq!(code(&channel, reset("g", "orders", "0", "1", "0")).await, 0);
    let start = offset(&channel, "g", "orders").await.parse().unwrap();
    let read = call(&channel, pull("g", "orders", start, "*")).await;
    assert_eq!((read.code, bodies(&read).len()), (0, 4));
    assert_eq!(code(&channel, commit("g", "orders", "0", "5")).await, 0);
    assert_eq!(offset(&channel, "g", "orders").await, "5");
    world.stop().await;
}

#[tokio::test]
async fn held_pull_is_woken_by_a_reset_of_its_queue() {
    let (world, channel) = world_of_two_in_five().await;
    let consumer = world.connect().await;
    let waiting = consumer.begin_call(&pull_waiting("g", "orders", 5, "*", 600_000)).unwrap();
    let services = world.broker.services();
    until(async || (services.holds.len() == 1).then_some(())).await;
    assert_eq!(code(&channel, reset("g", "orders", "-1", "-1", "0")).await, 0);
    let moved = soon(waiting).await.unwrap();
    assert_eq!((moved.code, field(&moved, "nextBeginOffset")), (21, "0"));
    world.stop().await;
}

#[tokio::test]
async fn reset_by_time_moves_all_queues_of_an_offline_group_and_survives_a_restart() {
    let world = World::start().await;
    let channel = world.connect().await;
    send_some(&channel, "orders", 3).await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let table: ResetOffsetBody = body(&channel, reset("g", "orders", "-1", "-1", "-1")).await;
    let offsets: Vec<i64> = table.offset_table.0.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [3, 0, 0, 0], "-1 is the end of each queue");
    let table: ResetOffsetBody = body(&channel, reset("g", "orders", "0", "-1", "1")).await;
    assert_eq!(table.offset_table.0[0].1, 0, "the first message since 1970");
    assert_eq!(code(&channel, reset("g", "orders", "0", "2", "0")).await, 0);
    drop(channel);
    let world = World::start_in(world.stop().await, |_| {}).await;
    let channel = world.connect().await;
    assert_eq!(offset(&channel, "g", "orders").await, "2");
    assert_eq!(code(&channel, commit("g", "orders", "0", "3")).await, 0);
    assert_eq!(offset(&channel, "g", "orders").await, "3");
    world.stop().await;
}

#[tokio::test]
async fn reset_of_what_is_not_there_is_refused_and_changes_nothing() {
    let (world, channel) = world_of_two_in_five().await;
    let cases = [
        (reset("g", "nowhere", "0", "1", "0"), 17),
        (reset("nobody", "orders", "0", "1", "0"), 26),
        (reset("g", "orders", "99", "1", "0"), 29),
        (reset("g", "orders", "0", "7", "0"), 1),
        (reset("g", "orders", "0", "-5", "0"), 1),
    ];
    for (request, expected) in cases {
        assert_eq!(code(&channel, request.clone()).await, expected, "{request:?}");
    }
    assert_eq!(offset(&channel, "g", "orders").await, "2");
    assert_eq!(code(&channel, commit("g", "orders", "0", "3")).await, 0);
    assert_eq!(offset(&channel, "g", "orders").await, "3");
    world.stop().await;
}

#[tokio::test]
async fn offsets_of_a_group_are_cloned_and_listed() {
    let (world, channel) = world_of_two_in_five().await;
    call(&channel, heartbeat("d", "h", &[])).await;
    let clone = |from: &str, to: &str, topic: &str| {
        let fields = [("srcGroup", from), ("destGroup", to), ("topic", topic), ("offline", "true")];
        request(RequestCode::CLONE_GROUP_OFFSET, &fields)
    };
    for (request, expected) in [
        (clone("g", "h", "orders"), 0),
        (clone("g", "nobody", "orders"), 26),
        (clone("nobody", "h", "orders"), 26),
        (clone("g", "h", "nowhere"), 17),
    ] {
        assert_eq!(code(&channel, request.clone()).await, expected, "{request:?}");
    }
    assert_eq!(offset(&channel, "h", "orders").await, "2");
    let all: ConsumerOffsets =
        body(&channel, Command::request(RequestCode::GET_ALL_CONSUMER_OFFSET)).await;
    assert_eq!(all.offset_table["orders@g"][&0], 2);
    assert_eq!(all.offset_table["orders@h"][&0], 2);
    let delay: DelayOffsets =
        body(&channel, Command::request(RequestCode::GET_ALL_DELAY_OFFSET)).await;
    assert!(delay.offset_table.is_empty());
    world.stop().await;
}

#[tokio::test]
async fn time_spans_say_how_far_a_group_is_behind() {
    let (world, channel) = world_of_two_in_five().await;
    let fields = [("topic", "orders"), ("group", "g")];
    let spans: ConsumeTimeSpans =
        body(&channel, request(RequestCode::QUERY_CONSUME_TIME_SPAN, &fields)).await;
    let first = &spans.consume_time_span_set[0];
    assert!(first.min_time_stamp > 0 && first.min_time_stamp <= first.consume_time_stamp);
    assert!(first.consume_time_stamp <= first.max_time_stamp && first.delay_time >= 0);
    assert_eq!(spans.consume_time_span_set[1].max_time_stamp_str, "1970-01-01#00:00:00:000");
    let unknown = request(RequestCode::QUERY_CONSUME_TIME_SPAN, &[("topic", "x"), ("group", "g")]);
    assert_eq!(code(&channel, unknown).await, 17);
    world.stop().await;
}

#[tokio::test]
async fn rates_count_what_was_sent_fetched_and_sent_back() {
    let (world, channel) = world_of_two_in_five().await;
    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    let position = messages(&pulled)[0].position().0.to_string();
    let back = [("group", "g"), ("offset", &*position), ("delayLevel", "1"), ("unitMode", "false")];
    assert_eq!(code(&channel, request(RequestCode::CONSUMER_SEND_MSG_BACK, &back)).await, 0);
    let view = |name: &str, key: &str| {
        let fields = [("statsName", name), ("statsKey", key)];
        request(RequestCode::VIEW_BROKER_STATS_DATA, &fields)
    };
    let cluster = gantry_model::settings::BrokerSettings::default().cluster_name;
    for (name, key, sum) in [
        ("TOPIC_PUT_NUMS", "orders", 5),
        ("GROUP_GET_NUMS", "orders@g", 5),
        ("SNDBCK_PUT_NUMS", "orders@g", 1),
        ("BROKER_GET_NUMS", &cluster, 5),
    ] {
        let stats: BrokerStats = body(&channel, view(name, key)).await;
        assert_eq!((stats.stats_minute.sum, stats.stats_day.sum), (sum, sum), "{name}");
        assert!(stats.stats_minute.tps > 0.0);
    }
    assert_eq!(code(&channel, view("TOPIC_PUT_NUMS", "nowhere")).await, 1);
    assert_eq!(code(&channel, view("NO_SUCH", "orders")).await, 1);
    world.stop().await;
}

#[tokio::test]
async fn index_of_a_queue_is_shown_with_what_the_group_would_get() {
    let world = World::start().await;
    let channel = world.connect().await;
    for tag in ["a", "b", "a"] {
        call(&channel, send("orders", &[("TAGS", tag)], "x")).await;
    }
    call(&channel, heartbeat("c", "g", &[("orders", "a", 1)])).await;
    let look = |index: &str, count: &str| {
        let fields = [
            ("topic", "orders"),
            ("queueId", "0"),
            ("index", index),
            ("count", count),
            ("consumerGroup", "g"),
        ];
        request(RequestCode::QUERY_CONSUME_QUEUE, &fields)
    };
    let index: ConsumeQueueBody = body(&channel, look("1", "2147483647")).await;
    assert_eq!((index.min_queue_index, index.max_queue_index), (0, 3));
    let passes: Vec<bool> = index.queue_data.iter().map(|entry| entry.eval).collect();
    assert_eq!(passes, [false, true]);
    assert_eq!(index.subscription_data.unwrap().sub_string, "a");
    for (from, count) in [("9", "5"), ("0", "-1"), ("9223372036854775807", "2")] {
        let none: ConsumeQueueBody = body(&channel, look(from, count)).await;
        assert!(none.queue_data.is_empty(), "{from} {count}");
    }
    assert_eq!(code(&channel, look("0", "1").with_ext("queueId", "-1")).await, 29);
    assert_eq!(code(&channel, look("0", "1").with_ext("topic", "nowhere")).await, 17);
    world.stop().await;
}

#[tokio::test]
async fn settings_are_not_changed_from_afar() {
    let world = World::start().await;
    let channel = world.connect().await;
    let change = Command::request(RequestCode::UPDATE_BROKER_CONFIG).with_body("flush=sync\n");
    assert_eq!(code(&channel, change).await, 16);
    world.stop().await;
}

/// A consumer that says where it is.
struct Located;

impl ChannelHandler for Located {
    fn request(&self, channel: &Channel, request: Command) {
        if request.code != RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT.0 {
            return;
        }
        let body = format!(
            r#"{{"consumerTable":{{}},"messageQueueTable":{{{{"brokerName":"b","queueId":0,"topic":"{}"}}:4}}}}"#,
            field(&request, "topic")
        );
        let answer = Command::answer(request.reply_to(), ResponseCode::SUCCESS).with_body(body);
        channel.answer(&request, &answer).unwrap();
    }
}

#[tokio::test]
async fn members_are_asked_where_they_are_and_those_that_cannot_say_are_left_out() {
    let world = World::start().await;
    let (located, mute) = (world.connect_with(Arc::new(Located)).await, world.connect().await);
    let ask = request(
        RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS,
        &[("topic", "orders"), ("group", "g")],
    );
    assert_eq!(code(&mute, ask.clone()).await, 1, "nobody is online");
    call(&located, heartbeat("c1", "g", &[])).await;
    call(&mute, heartbeat("c2", "g", &[])).await;
    let status: ConsumerStatus = body(&mute, ask.clone()).await;
    assert_eq!(status.consumer_table.keys().collect::<Vec<_>>(), ["c1"]);
    let (queue, offset) = &status.consumer_table["c1"].0[0];
    assert_eq!((queue.topic.as_str(), *offset), ("orders", 4));
    assert_eq!(code(&mute, ask.with_ext("clientAddr", "c3")).await, 1);
    world.stop().await;
}
