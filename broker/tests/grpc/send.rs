//! Messages that go in by one door and come out by the other.

use std::time::Duration;

use gantry_proto::v2::Code;

use super::{
    client::{code, connect, create, message, send},
    world::{World, bodies, call, messages, pull, pull_waiting, send as remoting_send, soon},
};

#[tokio::test]
async fn message_sent_by_grpc_is_received_by_remoting_with_its_properties() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    let mut sent = message("orders", "01ID", "hello");
    let system = sent.system_properties.as_mut().unwrap();
    system.tag = Some("paid".into());
    system.keys = vec!["k1".into(), "k2".into()];
    sent.user_properties.insert("region".into(), "north".into());
    let answer = send(&mut client, vec![sent]).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    let [entry] = answer.entries.as_slice() else { panic!("one entry: {answer:?}") };
    assert_eq!((entry.message_id.as_str(), entry.offset), ("01ID", 0));

    let channel = world.connect().await;
    let answer = call(&channel, pull("g", "orders", 0, "paid")).await;
    let records = messages(&answer);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].body(), b"hello");
    let expected = [("UNIQ_KEY", "01ID"), ("TAGS", "paid"), ("KEYS", "k1 k2"), ("region", "north")];
    for (key, value) in expected {
        assert_eq!(records[0].property(key), Some(value), "{key}");
    }
    world.stop().await;
}

#[tokio::test]
async fn message_sent_by_grpc_wakes_a_pull_that_remoting_holds() {
    let world = World::start().await;
    create(&world, "orders", None);
    let channel = world.connect().await;
    let waiting = channel.begin_call(&pull_waiting("g", "orders", 0, "*", 60_000)).unwrap();
    let services = world.broker.services();
    super::world::until(async || (services.holds.len() == 1).then_some(())).await;
    let mut client = connect(&world).await;
    assert_eq!(
        code(send(&mut client, vec![message("orders", "1", "x")]).await.status.as_ref()),
        Code::Ok
    );
    assert_eq!(bodies(&soon(waiting).await.unwrap()), ["x"]);
    world.stop().await;
}

#[tokio::test]
async fn both_doors_count_the_same_queue_offsets() {
    let world = World::start().await;
    create(&world, "orders", None);
    let channel = world.connect().await;
    assert_eq!(call(&channel, remoting_send("orders", &[], "a")).await.code, 0);
    let mut client = connect(&world).await;
    let batch = vec![message("orders", "1", "b"), message("orders", "2", "c")];
    let answer = send(&mut client, batch).await;
    let offsets: Vec<_> = answer.entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, [1, 2]);
    let answer = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(bodies(&answer), ["a", "b", "c"]);
    world.stop().await;
}

#[tokio::test]
async fn stop_waits_for_no_idle_client_and_keeps_what_was_answered() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    assert_eq!(
        code(send(&mut client, vec![message("orders", "1", "x")]).await.status.as_ref()),
        Code::Ok
    );
    let dir = tokio::time::timeout(Duration::from_secs(20), world.stop()).await.unwrap();
    let world = World::start_in(dir, |_| {}).await;
    let channel = world.connect().await;
    assert_eq!(bodies(&call(&channel, pull("g", "orders", 0, "*")).await), ["x"]);
    drop(client);
    world.stop().await;
}
