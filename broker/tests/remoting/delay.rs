//! Delay levels and due times.

use std::time::{SystemTime, UNIX_EPOCH};

use gantry_model::settings::{Bytes, FlushMode};

use super::world::*;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[tokio::test]
async fn delayed_message_comes_once_after_its_time_and_without_the_delay() {
    for flush in [FlushMode::Async, FlushMode::Sync] {
        let world = World::start_with(|settings| settings.flush = flush).await;
        let channel = world.connect().await;
        let due_ms = now_ms() + 1_000;
        let entries = [("DELAY", "1"), ("TAGS", "t"), ("KEYS", "k"), ("UNIQ_KEY", "U")];
        let answer = call(&channel, send("orders", &entries, "late")).await;
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(code(&channel, pull("g", "orders", 0, "*")).await, 19, "not there yet");
        let answer = call(&channel, pull_waiting("g", "orders", 0, "t", 15_000)).await;
        let found = messages(&answer);
        let [message] = found.as_slice() else { panic!("one message: {answer:?}") };
        assert!(message.store_time_ms() >= due_ms, "never early");
        assert_eq!(message.body(), b"late");
        assert_eq!(message.property("KEYS"), Some("k"));
        for gone in ["DELAY", "REAL_TOPIC", "REAL_QID", "TIMER_OUT_MS"] {
            assert_eq!(message.property(gone), None, "{gone}");
        }
        let services = world.broker.services();
        until(async || services.store.next_due_ms().is_none().then_some(())).await;
        assert_eq!(code(&channel, pull("g", "orders", 1, "*")).await, 19, "only once");
        world.stop().await;
    }
}

#[tokio::test]
async fn timed_messages_come_in_the_order_of_their_times_and_past_ones_at_once() {
    let world = World::start().await;
    let channel = world.connect().await;
    let now = now_ms();
    let at = |offset_ms: u64| (now + offset_ms).to_string();
    for (body, time) in [("third", at(900)), ("second", at(600))] {
        let entries = [("TIMER_DELIVER_MS", time.as_str())];
        assert_eq!(code(&channel, send("orders", &entries, body)).await, 0);
    }
    assert_eq!(code(&channel, send("orders", &[("TIMER_DELIVER_MS", "5")], "first")).await, 0);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let answer =
            call(&channel, pull_waiting("g", "orders", seen.len() as i64, "*", 15_000)).await;
        let late = messages(&answer).iter().all(|message| {
            let body = message.body();
            let due = if body == b"third" {
                900
            } else if body == b"second" {
                600
            } else {
                0
            };
            message.store_time_ms() >= now + due
        });
        assert!(late, "never early");
        seen.extend(bodies(&answer));
    }
    assert_eq!(seen, ["first", "second", "third"]);
    world.stop().await;
}

#[tokio::test]
async fn delayed_message_survives_a_restart() {
    let world = World::start().await;
    let channel = world.connect().await;
    let entries = [("TIMER_DELAY_MS", "1500")];
    assert_eq!(code(&channel, send("orders", &entries, "late")).await, 0);
    let world = World::start_in(world.stop().await, |_| {}).await;
    let channel = world.connect().await;
    let answer = call(&channel, pull_waiting("g", "orders", 0, "*", 15_000)).await;
    assert_eq!(bodies(&answer), ["late"]);
    world.stop().await;
}

#[tokio::test]
async fn message_of_a_topic_that_was_made_again_never_reaches_its_successor() {
    let world = World::start().await;
    let channel = world.connect().await;
    let entries = [("TIMER_DELAY_MS", "400")];
    assert_eq!(code(&channel, send("orders", &entries, "of the old one")).await, 0);
    let services = world.broker.services();
    services.topics.delete("orders", services.clock.now()).unwrap().unwrap();
    assert_eq!(code(&channel, send("orders", &[], "of the new one")).await, 0);
    until(async || services.store.next_due_ms().is_none().then_some(())).await;
    let answer = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(bodies(&answer), ["of the new one"]);
    world.stop().await;
}

#[tokio::test]
async fn beyond_a_quarter_of_the_log_messages_that_wait_are_refused_and_others_taken() {
    let world = World::start_with(|settings| settings.retention_size = Some(Bytes::mib(32))).await;
    let channel = world.connect().await;
    let store = &world.broker.services().store;
    assert_eq!(code(&channel, send("orders", &[], "at once")).await, 0);
    until(async || store.pending_bytes()).await;
    let body = "m".repeat(3 << 20);
    let late = || send("orders", &[("TIMER_DELAY_SEC", "3600")], &body);
    for _ in 0..3 {
        assert_eq!(code(&channel, late()).await, 0);
    }
    let pending = store.pending_bytes().unwrap();
    assert!(pending > 9 << 20, "{pending}");
    for entry in [("TIMER_DELAY_SEC", "3600"), ("DELAY", "18")] {
        let refused = call(&channel, send("orders", &[entry], "late")).await;
        let remark = refused.remark.unwrap();
        assert_eq!(refused.code, 1, "{remark}");
        let rule = format!("take {pending} bytes of the log, no more are taken beyond 8388608");
        assert!(remark.contains(&rule), "{remark}");
    }
    assert_eq!(code(&channel, send("orders", &[], &body)).await, 0);
    assert!(world.telemetry.render_metrics().contains("gantry_timers_pending_bytes"));
    world.stop().await;
}
