//! Offsets and queue bounds: request codes 14, 15, 29 to 32.

use gantry_model::settings::FlushMode;
use gantry_record::RecordView;
use gantry_remoting::{Command, RequestCode};

use super::world::*;

fn query(group: &str, topic: &str, queue: &str) -> Command {
    let fields = [("consumerGroup", group), ("topic", topic), ("queueId", queue)];
    request(RequestCode::QUERY_CONSUMER_OFFSET, &fields)
}

fn update(group: &str, topic: &str, queue: &str, offset: &str) -> Command {
    let request = query(group, topic, queue).with_ext("commitOffset", offset);
    Command { code: RequestCode::UPDATE_CONSUMER_OFFSET.0, ..request }
}

fn queue(code: RequestCode, topic: &str, queue: &str) -> Command {
    request(code, &[("topic", topic), ("queueId", queue)])
}

#[tokio::test]
async fn committed_offset_is_answered_in_both_flush_modes_and_survives_a_restart() {
    for flush in [FlushMode::Async, FlushMode::Sync] {
        let world = World::start_with(|settings| settings.flush = flush).await;
        let channel = world.connect().await;
        call(&channel, send("orders", &[], "x")).await;
        call(&channel, heartbeat("c", "g", &[])).await;
        assert_eq!(code(&channel, update("g", "orders", "0", "1")).await, 0);
        channel.one_way(&update("g", "orders", "1", "0")).unwrap();
        channel.one_way(&update("g", "orders", "2", "7")).unwrap();
        let answer = call(&channel, query("g", "orders", "2")).await;
        assert_eq!((answer.code, field(&answer, "offset")), (0, "7"));

        let dir = world.stop().await;
        let world = World::start_in(dir, |settings| settings.flush = flush).await;
        let channel = world.connect().await;
        for (queue, offset) in [("0", "1"), ("1", "0"), ("2", "7")] {
            let answer = call(&channel, query("g", "orders", queue)).await;
            assert_eq!((answer.code, field(&answer, "offset")), (0, offset), "queue {queue}");
        }
        assert_eq!(
            code(&channel, update("g", "orders", "0", "0")).await,
            0,
            "backwards is allowed"
        );
        world.stop().await;
    }
}

#[tokio::test]
async fn group_without_an_offset_starts_a_young_queue_at_its_beginning() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, send("orders", &[], "x")).await;
    for queue in ["0", "1"] {
        let answer = call(&channel, query("new", "orders", queue)).await;
        assert_eq!((answer.code, field(&answer, "offset")), (0, "0"), "queue {queue}");
    }
    let strict = query("new", "orders", "0").with_ext("setZeroIfNotFound", "false");
    assert_eq!(code(&channel, strict).await, 22);
    for unknown in
        [query("new", "nowhere", "0"), query("new", "orders", "99"), query("new", "orders", "-1")]
    {
        assert_eq!(
            code(&channel, unknown).await,
            22,
            "22 and not an error, or the client keeps asking"
        );
    }
    world.stop().await;
}

#[tokio::test]
async fn commit_for_an_unknown_group_topic_or_queue_is_refused() {
    let world = World::start().await;
    let channel = world.connect().await;
    call(&channel, send("orders", &[], "x")).await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let cases = [
        (update("unknown", "orders", "0", "1"), 26),
        (update("g/h", "orders", "0", "1"), 29),
        (update("g", "nowhere", "0", "1"), 17),
        (update("g", "orders", "99", "1"), 29),
        (update("g", "orders", "-1", "1"), 29),
        (update("g", "orders", "0", "-1"), 29),
        (query("g", "orders", "0").with_ext("x", "y"), 0),
    ];
    for (request, expected) in cases {
        assert_eq!(code(&channel, request.clone()).await, expected, "{request:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn bounds_and_times_of_a_queue_are_answered_and_an_unknown_one_has_none() {
    let world = World::start().await;
    let channel = world.connect().await;
    for body in ["a", "b", "c"] {
        call(&channel, send("orders", &[], body)).await;
    }
    let pulled = call(&channel, pull("g", "orders", 0, "*")).await;
    let times: Vec<u64> = messages(&pulled).iter().map(RecordView::store_time_ms).collect();
    let offset = async |request| {
        let answer = call(&channel, request).await;
        assert_eq!(answer.code, 0, "{answer:?}");
        field(&answer, "offset").to_owned()
    };
    assert_eq!(offset(queue(RequestCode::GET_MAX_OFFSET, "orders", "0")).await, "3");
    assert_eq!(offset(queue(RequestCode::GET_MIN_OFFSET, "orders", "0")).await, "0");
    let earliest =
        call(&channel, queue(RequestCode::GET_EARLIEST_MSG_STORETIME, "orders", "0")).await;
    assert_eq!(field(&earliest, "timestamp"), times[0].to_string());

    let search = |time: u64| {
        queue(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, "orders", "0")
            .with_ext("timestamp", time.to_string())
    };
    assert_eq!(offset(search(0)).await, "0");
    assert_eq!(offset(search(times[2] + 1_000)).await, "3");
    let upper = search(times[2] + 1_000).with_ext("boundaryType", "UPPER");
    assert_eq!(offset(upper).await, "2");

    for (topic, id) in [("nowhere", "0"), ("orders", "99"), ("orders", "-3")] {
        assert_eq!(offset(queue(RequestCode::GET_MAX_OFFSET, topic, id)).await, "0");
        assert_eq!(offset(queue(RequestCode::GET_MIN_OFFSET, topic, id)).await, "0");
        let earliest =
            call(&channel, queue(RequestCode::GET_EARLIEST_MSG_STORETIME, topic, id)).await;
        assert_eq!(field(&earliest, "timestamp"), "-1");
    }
    world.stop().await;
}
