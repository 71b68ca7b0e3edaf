//! What is refused, and how: in band for what an application did wrong, as a gRPC error for what is not served.

use gantry_proto::v2::{
    AckMessageRequest, Code, HeartbeatRequest, Message, QueryAssignmentRequest, QueryRouteRequest,
    ReceiveMessageRequest, SendMessageRequest,
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tonic::Code as Transport;

use super::{
    client::{Client, code, connect, create, message, of_client, send},
    world::{World, call, pull, soon, until},
};

const MIB: usize = 1024 * 1024;

async fn refused(client: &mut Client, messages: Vec<Message>, expected: Code) {
    let count = messages.len();
    let answer = send(client, messages).await;
    assert_eq!(code(answer.status.as_ref()), expected, "{answer:?}");
    // Every SDK reads the entries, some of them alone.
    assert_eq!(answer.entries.len(), count);
    for entry in &answer.entries {
        assert_eq!(code(entry.status.as_ref()), expected);
    }
}

#[tokio::test]
async fn each_wrong_send_has_its_code_and_stores_nothing() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    let client = &mut client;
    let ok = || message("orders", "1", "x");
    refused(client, vec![], Code::MessageCorrupted).await;
    refused(client, vec![ok(), message("others", "2", "x")], Code::MessageCorrupted).await;
    refused(client, vec![message("unknown", "1", "x")], Code::TopicNotFound).await;
    refused(client, vec![message("../etc", "1", "x")], Code::IllegalTopic).await;
    refused(client, vec![message(&"t".repeat(128), "1", "x")], Code::IllegalTopic).await;
    refused(client, vec![Message { topic: None, ..ok() }], Code::IllegalTopic).await;
    refused(client, vec![message("orders", " ", "x")], Code::IllegalMessageId).await;
    let nameless = Message { system_properties: None, ..ok() };
    refused(client, vec![nameless], Code::IllegalMessageId).await;
    refused(client, vec![message("orders", "1", "")], Code::MessageBodyEmpty).await;
    let large = message("orders", "1", &"x".repeat(4 * MIB + 1));
    refused(client, vec![large], Code::MessageBodyTooLarge).await;
    // The first of two is right, and is not stored without the second.
    refused(client, vec![ok(), message("orders", "2", "")], Code::MessageBodyEmpty).await;
    let channel = world.connect().await;
    let answer = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_ne!(answer.code, 0, "{answer:?}");
    world.stop().await;
}

#[tokio::test]
async fn message_beyond_the_limit_of_the_wire_is_a_grpc_error_and_the_connection_serves_on() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    let messages = vec![message("orders", "1", &"x".repeat(17 * MIB))];
    let error = client.send_message(of_client(SendMessageRequest { messages })).await.unwrap_err();
    assert!(
        matches!(error.code(), Transport::OutOfRange | Transport::ResourceExhausted),
        "{error:?}"
    );
    let answer = send(&mut client, vec![message("orders", "1", "x")]).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    world.stop().await;
}

#[tokio::test]
async fn client_without_an_id_is_refused_by_every_call() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    let route = client.query_route(QueryRouteRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(route.status.as_ref()), Code::ClientIdRequired);
    let beat = client.heartbeat(HeartbeatRequest::default()).await.unwrap().into_inner();
    assert_eq!(code(beat.status.as_ref()), Code::ClientIdRequired);
    let messages = vec![message("orders", "1", "x")];
    let sent = client.send_message(SendMessageRequest { messages }).await.unwrap().into_inner();
    assert_eq!(code(sent.status.as_ref()), Code::ClientIdRequired);
    world.stop().await;
}

#[tokio::test]
async fn connection_beyond_the_limit_is_closed_and_finds_room_when_another_ends() {
    let world = World::start_with(|settings| settings.connections_max = 1).await;
    create(&world, "orders", None);
    let mut first = connect(&world).await;
    assert_eq!(
        code(send(&mut first, vec![message("orders", "1", "x")]).await.status.as_ref()),
        Code::Ok
    );
    let mut second = TcpStream::connect(world.broker.addresses().grpc).await.unwrap();
    assert!(matches!(soon(second.read(&mut [0])).await, Ok(0) | Err(_)));
    drop(first);
    until(async || {
        let beat = of_client(HeartbeatRequest::default());
        let address = format!("http://{}", world.broker.addresses().grpc);
        let mut third = Client::connect(address).await.ok()?;
        third.heartbeat(beat).await.ok()
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn stopping_broker_refuses_messages() {
    let world = World::start().await;
    create(&world, "orders", None);
    let mut client = connect(&world).await;
    world.broker.services().lifecycle.stop();
    refused(&mut client, vec![message("orders", "1", "x")], Code::InternalServerError).await;
    world.stop().await;
}

#[tokio::test]
async fn call_of_a_later_version_is_unimplemented_by_name() {
    let world = World::start().await;
    let mut client = connect(&world).await;
    let received = client.receive_message(of_client(ReceiveMessageRequest::default())).await;
    let assigned = client.query_assignment(of_client(QueryAssignmentRequest::default())).await;
    let acked = client.ack_message(of_client(AckMessageRequest::default())).await;
    let telemetry = client.telemetry(of_client(futures::stream::empty())).await;
    for (call, error) in [
        ("ReceiveMessage", received.err().unwrap()),
        ("query_assignment", assigned.err().unwrap()),
        ("ack_message", acked.err().unwrap()),
        ("Telemetry", telemetry.err().unwrap()),
    ] {
        assert_eq!(error.code(), Transport::Unimplemented, "{call}");
        assert!(error.message().contains("is not served by this version"), "{error}");
    }
    world.stop().await;
}
