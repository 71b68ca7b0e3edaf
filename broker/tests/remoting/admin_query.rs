//! Looking messages up: request codes 12 (by key or unique id) and 33 (by place).

use bytes::Bytes;
use gantry_model::{PhysicalOffset, QueueId, QueueOffset};
use gantry_record::{Draft, RecordView, encode};
use gantry_remoting::{Command, RequestCode as Code, client::Channel};

use super::world::*;

fn by_key(topic: &str, key: &str) -> Command {
    let fields = [
        ("topic", topic),
        ("key", key),
        ("maxNum", "32"),
        ("beginTimestamp", "0"),
        ("endTimestamp", &i64::MAX.to_string()),
    ];
    request(Code::QUERY_MESSAGE, &fields)
}

fn at(position: i64) -> Command {
    request(Code::VIEW_MESSAGE_BY_ID, &[("offset", &position.to_string())])
}

async fn put(channel: &Channel, topic: &str, entries: &[(&str, &str)], body: &str) {
    assert_eq!(code(channel, send(topic, entries, body)).await, 0);
}

/// Where the only message with this body lies.
async fn position_of(channel: &Channel, topic: &str, body: &[u8]) -> i64 {
    let answer = call(channel, pull("readers", topic, 0, "*")).await;
    let found = messages(&answer).into_iter().find(|message| message.body() == body);
    found.unwrap().position().0 as i64
}

#[tokio::test]
async fn messages_are_found_by_each_of_their_keys_newest_first_and_no_others() {
    let world = World::start().await;
    let channel = world.connect().await;
    put(&channel, "orders", &[("KEYS", "k1 k2")], "one").await;
    put(&channel, "orders", &[("KEYS", "k2")], "two").await;
    put(&channel, "orders", &[("KEYS", "k3")], "three").await;
    put(&channel, "bills", &[("KEYS", "k2")], "four").await;
    let found = call(&channel, by_key("orders", "k2")).await;
    assert_eq!(bodies(&found), ["two", "one"]);
    assert_eq!(bodies(&call(&channel, by_key("orders", "k1")).await), ["one"]);
    assert_eq!(bodies(&call(&channel, by_key("bills", "k2")).await), ["four"]);
    assert_eq!(code(&channel, by_key("orders", "k")).await, 22);
    assert_eq!(code(&channel, by_key("unknown", "k2")).await, 22);
    world.stop().await;
}

#[tokio::test]
async fn query_by_key_keeps_to_its_number_and_its_times() {
    let world = World::start().await;
    let channel = world.connect().await;
    for number in 0..70 {
        put(&channel, "orders", &[("KEYS", "k")], &number.to_string()).await;
    }
    for (wanted, given) in [("1", 1), ("-5", 1), ("33", 33), ("2147483647", 64)] {
        let found = call(&channel, by_key("orders", "k").with_ext("maxNum", wanted)).await;
        assert_eq!(bodies(&found).len(), given, "{wanted}");
        assert_eq!(bodies(&found)[0], "69");
    }
    let newest = call(&channel, by_key("orders", "k")).await;
    let stored_ms = messages(&newest)[0].store_time_ms();
    let later = by_key("orders", "k").with_ext("beginTimestamp", (stored_ms + 1).to_string());
    assert_eq!(code(&channel, later).await, 22);
    let never = by_key("orders", "k").with_ext("endTimestamp", "-1");
    assert_eq!(code(&channel, never).await, 22);
    world.stop().await;
}

#[tokio::test]
async fn answer_to_a_query_tells_how_far_it_looked() {
    let world = World::start().await;
    let channel = world.connect().await;
    put(&channel, "orders", &[("KEYS", "k")], "one").await;
    let found = call(&channel, by_key("orders", "k")).await;
    let record = messages(&found)[0];
    let end = record.position().0 + u64::from(record.size());
    assert_eq!(field(&found, "indexLastUpdatePhyoffset"), end.to_string());
    assert_eq!(field(&found, "indexLastUpdateTimestamp"), record.store_time_ms().to_string());
    let missing = call(&channel, by_key("orders", "other")).await;
    assert_eq!(field(&missing, "indexLastUpdatePhyoffset"), end.to_string());
    world.stop().await;
}

#[tokio::test]
async fn message_is_found_by_its_unique_id_whatever_number_is_wanted() {
    let world = World::start().await;
    let channel = world.connect().await;
    let unique = "7F00000100002A139A5C6B1D7E3F0001";
    put(&channel, "orders", &[("UNIQ_KEY", unique)], "one").await;
    put(&channel, "orders", &[("UNIQ_KEY", unique)], "the same again").await;
    let wanted =
        by_key("orders", unique).with_ext("_UNIQUE_KEY_QUERY", "true").with_ext("maxNum", "0");
    assert_eq!(bodies(&call(&channel, wanted).await), ["the same again", "one"]);
    world.stop().await;
}

#[tokio::test]
async fn keys_are_found_after_a_restart() {
    let world = World::start().await;
    let channel = world.connect().await;
    put(&channel, "orders", &[("KEYS", "k")], "one").await;
    let dir = world.stop().await;
    let world = World::start_in(dir, |_| {}).await;
    let channel = world.connect().await;
    assert_eq!(bodies(&call(&channel, by_key("orders", "k")).await), ["one"]);
    world.stop().await;
}

#[tokio::test]
async fn message_is_viewed_at_its_place_and_nowhere_else() {
    let world = World::start().await;
    let channel = world.connect().await;
    put(&channel, "orders", &[], "one").await;
    let position = position_of(&channel, "orders", b"one").await;
    assert_eq!(bodies(&call(&channel, at(position)).await), ["one"]);
    for wrong in [position + 1, position - 1, 0, -1, i64::MIN, i64::MAX, position + 100_000] {
        let answer = call(&channel, at(wrong)).await;
        assert_eq!((answer.code, answer.body.len()), (1, 0), "{wrong}");
    }
    world.stop().await;
}

/// A record that is whole, claims to lie at `position`, and was never stored.
fn forged(like: &RecordView<'_>, position: PhysicalOffset) -> Vec<u8> {
    let draft = Draft { body: b"forged", ..like.draft() };
    let mut bytes = Vec::new();
    let slot = encode(&draft, &mut bytes).unwrap();
    slot.seal(&mut bytes, QueueOffset(0), position, like.store_time_ms());
    assert!(RecordView::verify(&bytes, position).is_ok());
    bytes
}

#[tokio::test]
async fn record_forged_inside_a_body_is_never_viewed() {
    let world = World::start().await;
    let channel = world.connect().await;
    put(&channel, "orders", &[], "first").await;
    let first = call(&channel, pull("readers", "orders", 0, "*")).await;
    let first = messages(&first)[0];
    assert_eq!((first.queue(), first.queue_offset()), (QueueId(0), QueueOffset(0)));
    // Sent once to learn where the body lies, and again as one that fits there.
    let filler = "x".repeat(forged(&first, PhysicalOffset(0)).len());
    put(&channel, "orders", &[], &filler).await;
    let seen = call(&channel, pull("readers", "orders", 1, "*")).await;
    let seen = messages(&seen)[0];
    let body_at = seen.body().as_ptr() as usize - seen.bytes().as_ptr() as usize;
    let next = seen.position().0 + u64::from(seen.size());
    let inside = PhysicalOffset(next + body_at as u64);
    let forged = forged(&first, inside);
    let carrier = send("orders", &[], "").with_body(Bytes::from(forged.clone()));
    assert_eq!(code(&channel, carrier).await, 0);
    let carrier_at = position_of(&channel, "orders", &forged).await;
    assert_eq!(carrier_at as u64, next, "the forged record lies where it claims to");
    let answer = call(&channel, at(inside.0 as i64)).await;
    assert_eq!((answer.code, answer.body.len()), (1, 0));
    assert_eq!(code(&channel, at(carrier_at)).await, 0);
    world.stop().await;
}
