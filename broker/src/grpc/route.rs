//! `QueryRoute`: which queues a topic has, and where they are.
//! Invariant: every listed queue can be read and written, ids begin at 0, and a client is sent back to the address
//! that it came through, so that Services and port forwards keep working.
//! Lists the queues of this broker group.

use std::net::IpAddr;

use gantry_model::{Permission, TopicConfig, TopicName};
use gantry_proto::v2::{
    Address, AddressScheme, Broker, Code, Endpoints, MessageQueue, MessageType, QueryRouteRequest,
    QueryRouteResponse, Resource,
};

use super::status::{self, Refusal};
use crate::services::Services;

/// Topic attribute that says which messages it takes.
pub(super) const MESSAGE_TYPE: &str = "message.type";

pub(super) fn query(
    services: &Services,
    port: u16,
    request: &QueryRouteRequest,
) -> QueryRouteResponse {
    match route(services, port, request) {
        Ok(message_queues) => QueryRouteResponse { status: Some(status::ok()), message_queues },
        Err(refusal) => refused(refusal),
    }
}

pub(super) fn refused(refusal: Refusal) -> QueryRouteResponse {
    QueryRouteResponse { status: Some(refusal.into()), message_queues: Vec::new() }
}

fn route(
    services: &Services,
    port: u16,
    request: &QueryRouteRequest,
) -> Result<Vec<MessageQueue>, Refusal> {
    let resource = request.topic.clone().unwrap_or_default();
    let topic = topic_name(&resource)?;
    let topic = services.topics.get(&topic).ok_or_else(|| not_found(&topic))?;
    let endpoints = match &request.endpoints {
        Some(endpoints) if !endpoints.addresses.is_empty() => endpoints.clone(),
        _ => own_endpoints(services, port),
    };
    let broker =
        Broker { name: services.settings.broker_name.clone(), id: 0, endpoints: Some(endpoints) };
    let config = &topic.config;
    let types = accepted_types(config);
    let queues = (0..config.read_queues.min(config.write_queues)).map(|id| MessageQueue {
        topic: Some(resource.clone()),
        id: id as i32,
        permission: permission(config.perm).into(),
        broker: Some(broker.clone()),
        accept_message_types: types.iter().map(|kind| (*kind).into()).collect(),
    });
    Ok(queues.collect())
}

/// The name of a topic that clients may use.
pub(super) fn topic_name(resource: &Resource) -> Result<TopicName, Refusal> {
    let name = TopicName::new(&resource.name)
        .map_err(|error| Refusal::new(Code::IllegalTopic, error.to_string()))?;
    if gantry_model::is_system_topic(&name) {
        let message = format!("topic {name} is one of the broker's own");
        return Err(Refusal::new(Code::IllegalTopic, message));
    }
    Ok(name)
}

pub(super) fn not_found(topic: &TopicName) -> Refusal {
    Refusal::new(Code::TopicNotFound, format!("topic {topic} does not exist, create it first"))
}

fn permission(perm: Permission) -> gantry_proto::v2::Permission {
    use gantry_proto::v2::Permission as Wire;
    match (perm.readable(), perm.writable()) {
        (true, true) => Wire::ReadWrite,
        (true, false) => Wire::Read,
        (false, true) => Wire::Write,
        (false, false) => Wire::None,
    }
}

/// Which messages the topic takes; several SDKs fail on a topic that says nothing.
pub(super) fn accepted_types(config: &TopicConfig) -> Vec<MessageType> {
    let kind = config.attributes.get(MESSAGE_TYPE).map_or("NORMAL", String::as_str);
    match kind {
        "FIFO" => vec![MessageType::Fifo],
        "DELAY" => vec![MessageType::Delay],
        "TRANSACTION" => vec![MessageType::Transaction],
        "MIXED" | "UNSPECIFIED" => vec![
            MessageType::Normal,
            MessageType::Fifo,
            MessageType::Delay,
            MessageType::Transaction,
        ],
        _ => vec![MessageType::Normal],
    }
}

fn own_endpoints(services: &Services, port: u16) -> Endpoints {
    let host = services.settings.advertised_host();
    let scheme = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => AddressScheme::IPv4,
        Ok(IpAddr::V6(_)) => AddressScheme::IPv6,
        Err(_) => AddressScheme::DomainName,
    };
    let addresses = vec![Address { host, port: port.into() }];
    Endpoints { scheme: scheme.into(), addresses }
}
