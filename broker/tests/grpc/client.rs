//! A client as the SDKs are: it says who it is in the metadata of every call.

use gantry_model::{TopicConfig, TopicName};
use gantry_proto::v2::{
    Code, Message, Resource, SendMessageRequest, SendMessageResponse, Status, SystemProperties,
    messaging_service_client::MessagingServiceClient,
};
use tonic::{Request, transport::Channel};

use super::world::World;

pub(crate) type Client = MessagingServiceClient<Channel>;

pub(crate) async fn connect(world: &World) -> Client {
    let address = format!("http://{}", world.broker.addresses().grpc);
    // Above the server's own limit, so that the server is what refuses.
    MessagingServiceClient::connect(address)
        .await
        .unwrap()
        .max_encoding_message_size(64 * 1024 * 1024)
}

/// The request with the metadata of a client.
pub(crate) fn of_client<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-mq-client-id", "client-1".parse().unwrap());
    request
}

pub(crate) fn topic(name: &str) -> Resource {
    Resource { name: name.into(), ..Resource::default() }
}

pub(crate) fn message(to: &str, id: &str, body: &str) -> Message {
    Message {
        topic: Some(topic(to)),
        body: body.to_owned().into(),
        system_properties: Some(SystemProperties {
            message_id: id.into(),
            ..SystemProperties::default()
        }),
        ..Message::default()
    }
}

pub(crate) async fn send(client: &mut Client, messages: Vec<Message>) -> SendMessageResponse {
    client.send_message(of_client(SendMessageRequest { messages })).await.unwrap().into_inner()
}

pub(crate) fn code(status: Option<&Status>) -> Code {
    status.expect("every answer has a status").code()
}

/// Makes a topic with one queue.
pub(crate) fn create(world: &World, name: &str, kind: Option<&str>) {
    let services = world.broker.services();
    let mut config = TopicConfig::new(TopicName::new(name).unwrap(), 1);
    if let Some(kind) = kind {
        config.attributes.insert("message.type".into(), kind.into());
    }
    services.topics.put(config, services.clock.now()).unwrap();
}
