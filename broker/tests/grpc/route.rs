//! `QueryRoute` and `Heartbeat`.

use gantry_proto::v2::{
    Address, AddressScheme, ClientType, Code, Endpoints, HeartbeatRequest, MessageType,
    QueryRouteRequest, QueryRouteResponse,
};

use super::{
    client::{Client, code, connect, create, of_client, topic},
    world::World,
};

async fn query(
    client: &mut Client,
    name: &str,
    endpoints: Option<Endpoints>,
) -> QueryRouteResponse {
    let request = QueryRouteRequest { topic: Some(topic(name)), endpoints };
    client.query_route(of_client(request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn route_names_each_queue_and_sends_the_client_back_the_way_it_came() {
    let world = World::start().await;
    create(&world, "orders", None);
    create(&world, "steps", Some("FIFO"));
    let mut client = connect(&world).await;
    let addresses = vec![Address { host: "shop-broker-0.ns.svc".into(), port: 8081 }];
    let through = Endpoints { scheme: AddressScheme::DomainName.into(), addresses };
    let answer = query(&mut client, "orders", Some(through.clone())).await;
    assert_eq!(code(answer.status.as_ref()), Code::Ok);
    let [queue] = answer.message_queues.as_slice() else { panic!("one queue: {answer:?}") };
    assert_eq!((queue.id, queue.topic.clone()), (0, Some(topic("orders"))));
    assert_eq!(queue.accept_message_types, [i32::from(MessageType::Normal)]);
    let broker = queue.broker.as_ref().unwrap();
    assert_eq!((broker.name.as_str(), broker.id), ("broker-a", 0));
    assert_eq!(broker.endpoints.as_ref(), Some(&through));

    let answer = query(&mut client, "steps", None).await;
    let queue = &answer.message_queues[0];
    assert_eq!(queue.accept_message_types, [i32::from(MessageType::Fifo)]);
    let own = queue.broker.clone().unwrap().endpoints.unwrap();
    let grpc = world.broker.addresses().grpc;
    let expected = Address { host: grpc.ip().to_string(), port: grpc.port().into() };
    assert_eq!((own.scheme(), own.addresses), (AddressScheme::IPv4, vec![expected]));
    world.stop().await;
}

#[tokio::test]
async fn route_of_no_topic_says_which_kind_of_no() {
    let world = World::start().await;
    let mut client = connect(&world).await;
    for (name, expected) in [
        ("unknown", Code::TopicNotFound),
        ("", Code::IllegalTopic),
        ("a/b", Code::IllegalTopic),
        ("TBW102", Code::IllegalTopic),
    ] {
        let answer = query(&mut client, name, None).await;
        assert_eq!(code(answer.status.as_ref()), expected, "{name:?}");
        assert!(answer.message_queues.is_empty());
    }
    let missing = QueryRouteRequest::default();
    let answer = client.query_route(of_client(missing)).await.unwrap().into_inner();
    assert_eq!(code(answer.status.as_ref()), Code::IllegalTopic);
    world.stop().await;
}

#[tokio::test]
async fn heartbeat_of_a_producer_is_taken_and_of_an_unknown_kind_refused() {
    let world = World::start().await;
    let mut client = connect(&world).await;
    for (kind, expected) in
        [(ClientType::Producer, Code::Ok), (ClientType::Unspecified, Code::UnrecognizedClientType)]
    {
        let request = HeartbeatRequest { client_type: kind.into(), group: None };
        let answer = client.heartbeat(of_client(request)).await.unwrap().into_inner();
        assert_eq!(code(answer.status.as_ref()), expected, "{kind:?}");
    }
    world.stop().await;
}
