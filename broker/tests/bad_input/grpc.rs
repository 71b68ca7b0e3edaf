//! What gRPC clients may send: the bad is answered in band, and stores nothing.

use gantry_proto::v2::{Code, Message, QueryRouteRequest, SendMessageRequest, SystemProperties};
use prost_types::Timestamp;

use super::{
    client::{code, connect, create, message, of_client, topic},
    requests::bad_names,
    world::*,
};

#[tokio::test]
async fn topics_with_path_parts_control_characters_or_too_many_bytes_are_refused_in_band() {
    let world = World::start().await;
    let mut client = connect(&world).await;
    let before = world.broker.services().topics.all().len();
    for name in bad_names() {
        let request = SendMessageRequest { messages: vec![message(&name, "1", "x")] };
        let answer = client.send_message(of_client(request)).await.unwrap().into_inner();
        assert_eq!(code(answer.status.as_ref()), Code::IllegalTopic, "{name:.20?}");
        let request = QueryRouteRequest { topic: Some(topic(&name)), endpoints: None };
        let answer = client.query_route(of_client(request)).await.unwrap().into_inner();
        assert_eq!(code(answer.status.as_ref()), Code::IllegalTopic, "{name:.20?}");
        assert!(answer.status.unwrap().message.len() < 1000, "the reason, in short");
    }
    assert_eq!(world.broker.services().topics.all().len(), before);
    world.stop().await;
}

#[tokio::test]
async fn negative_and_extreme_numbers_are_answered_and_the_connection_serves_on() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    let with = |change: &dyn Fn(&mut SystemProperties)| {
        let mut properties = message("orders", "1", "x").system_properties.unwrap();
        change(&mut properties);
        Message { system_properties: Some(properties), ..message("orders", "1", "x") }
    };
    let time = |seconds, nanos| {
        move |p: &mut SystemProperties| {
            p.delivery_timestamp = Some(Timestamp { seconds, nanos });
        }
    };
    let cases = [
        (with(&time(i64::MAX, i32::MAX)), Code::MessagePropertyConflictWithType),
        (with(&time(i64::MAX, i32::MIN)), Code::MessagePropertyConflictWithType),
        (with(&time(i64::MIN, i32::MIN)), Code::IllegalDeliveryTime),
        (with(&time(-1, -1)), Code::IllegalDeliveryTime),
        // What the broker does not know, or sets itself, it passes over.
        (with(&|p| p.message_type = i32::MIN), Code::Ok),
        (with(&|p| p.body_encoding = i32::MAX), Code::Ok),
        (with(&|p| p.queue_id = i32::MIN), Code::Ok),
        (with(&|p| p.delivery_attempt = Some(i32::MIN)), Code::Ok),
    ];
    for (message, expected) in cases {
        let shown = format!("{:?}", message.system_properties);
        let request = SendMessageRequest { messages: vec![message] };
        let answer = client.send_message(of_client(request)).await.unwrap().into_inner();
        assert_eq!(code(answer.status.as_ref()), expected, "{shown}");
    }
    world.stop().await;
}
