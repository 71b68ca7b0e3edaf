//! Clients as administrators see them: request codes 203, 204, 328, 345; 307 and 309, passed on to one.
//! Invariant: an answer lists a client of several connections as often as it is connected.
//! Leaves membership to the services. Source: RocketMQ remoting, request codes 203, 204, 307, 309, 328, 345.

use std::{sync::Arc, time::Duration};

use gantry_record::OffsetMessageId;
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::{
        groups::{
            AllProducers, ClientConnection, ConsumerConnections, GroupAndTopic, GroupSubscription,
            ProducerConnections, ProducerGroup, ProducerInfo,
        },
        heartbeat::{
            ConsumerGroup, SubscriptionData, consume_from_where, consume_type, expression_type,
            message_model,
        },
        progress::{ConsumeDirectly, RunningInfoRequest},
    },
    server::{Answers, CallError},
};
use gantry_store::Now;

use super::{
    super::{
        Call,
        call::{send, write_refusal},
        client::connection_of,
    },
    Refusal, end_with,
};
use crate::services::members::{
    ConsumeType, ConsumerGroup as OnlineGroup, ExpressionKind, Member, MessageModel, Subscription,
};

/// Longest time that a client has for an answer.
const RELAY_TIMEOUT: Duration = Duration::from_secs(10);
/// Oldest protocol version that answers questions about itself.
const RELAY_VERSION_MIN: i32 = 62;

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    match call.view.request_code() {
        RequestCode::GET_CONSUMER_CONNECTION_LIST => {
            let consumers = consumers(call);
            end_with(call, consumers);
        }
        RequestCode::GET_PRODUCER_CONNECTION_LIST => {
            let producers = producers(call);
            end_with(call, producers);
        }
        RequestCode::GET_ALL_PRODUCER_INFO => {
            let producers = all_producers(call);
            end_with(call, Ok(producers));
        }
        RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER => {
            let subscription = subscription(call);
            end_with(call, subscription);
        }
        RequestCode::GET_CONSUMER_RUNNING_INFO => {
            if let Err(refusal) = running_info(call) {
                call.refuse(&refusal);
            }
        }
        RequestCode::CONSUME_MESSAGE_DIRECTLY => {
            if let Err(refusal) = consume_directly(call) {
                call.refuse(&refusal);
            }
        }
        _ => return false,
    }
    true
}

/// Answers 203.
fn consumers(call: &Call<'_, '_>) -> Result<ConsumerConnections, Refusal> {
    let ConsumerGroup { consumer_group } = call.view.fields()?;
    let online = call.services().members.consumer_group(consumer_group);
    let Some(online) = online else {
        let remark = format!("the consumer group[{consumer_group}] not online");
        return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
    };
    Ok(connections_of(&online))
}

fn connections_of(online: &OnlineGroup) -> ConsumerConnections {
    let subscriptions = online.subscriptions.iter();
    // An empty text is none of the values that tools know.
    let consume_from = match online.consume_from.as_str() {
        "" => consume_from_where::LAST_OFFSET,
        known => known,
    };
    ConsumerConnections {
        connection_set: online.members.values().map(connection).collect(),
        consume_from_where: Some(consume_from.into()),
        consume_type: Some(
            match online.consume_type {
                ConsumeType::Pull => consume_type::ACTIVELY,
                ConsumeType::Push => consume_type::PASSIVELY,
                ConsumeType::Pop => consume_type::POP,
            }
            .into(),
        ),
        message_model: Some(
            match online.model {
                MessageModel::Broadcasting => message_model::BROADCASTING,
                MessageModel::Clustering => message_model::CLUSTERING,
            }
            .into(),
        ),
        subscription_table: subscriptions
            .map(|(topic, subscription)| (topic.to_string(), data(subscription)))
            .collect(),
    }
}

fn connection(member: &Member) -> ClientConnection {
    ClientConnection {
        client_addr: member.info.client.address().to_string(),
        client_id: member.info.client_id.clone(),
        language: member.info.language.into(),
        version: member.info.version,
    }
}

/// The subscription as tools read it.
pub(super) fn data(subscription: &Subscription) -> SubscriptionData {
    let tags = match subscription.kind {
        ExpressionKind::Tag => tags(&subscription.expression),
        ExpressionKind::Other(_) => Vec::new(),
    };
    SubscriptionData {
        class_filter_mode: false,
        code_set: tags.iter().map(|tag| java_hash(tag)).collect(),
        expression_type: Some(match &subscription.kind {
            ExpressionKind::Tag => expression_type::TAG.into(),
            ExpressionKind::Other(name) => name.clone(),
        }),
        sub_string: subscription.expression.clone(),
        sub_version: subscription.version,
        tags_set: tags,
        topic: subscription.topic.to_string(),
    }
}

/// The tags that an expression names; one for everything names none.
fn tags(expression: &str) -> Vec<String> {
    let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty() && *tag != "*");
    tags.map(str::to_owned).collect()
}

/// The hash by which Java clients compare tags.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16()
        .fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// Answers 204.
fn producers(call: &Call<'_, '_>) -> Result<ProducerConnections, Refusal> {
    let ProducerGroup { producer_group } = call.view.fields()?;
    let online = call.services().members.producer_group(producer_group);
    let Some(online) = online else {
        let remark = format!("the producer group[{producer_group}] not exist");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    Ok(ProducerConnections { connection_set: online.values().map(connection).collect() })
}

/// Answers 328.
fn all_producers(call: &Call<'_, '_>) -> AllProducers {
    let members = &call.services().members;
    let groups = members.producer_group_names().into_iter();
    let data = groups.filter_map(|group| {
        let online = members.producer_group(&group)?;
        let each = online.values().map(|member| producer(member, call.now)).collect();
        Some((group.to_string(), each))
    });
    AllProducers { data: data.collect() }
}

fn producer(member: &Member, now: Now) -> ProducerInfo {
    let age = now.monotonic_ms.saturating_sub(member.seen_ms);
    ProducerInfo {
        client_id: member.info.client_id.clone(),
        language: member.info.language.into(),
        last_update_timestamp: now.wall_ms.saturating_sub(age) as i64,
        remote_ip: member.info.client.address().to_string(),
        version: member.info.version,
    }
}

/// Answers 345; a group or topic that nobody is online for has no subscription.
fn subscription(call: &Call<'_, '_>) -> Result<GroupSubscription, Refusal> {
    let GroupAndTopic { group, topic, .. } = call.view.fields()?;
    let found = call.services().members.with_consumer_group(group, |online| {
        let subscription = online?.subscriptions.get(topic?)?;
        Some(Arc::clone(subscription))
    });
    Ok(GroupSubscription {
        group: group.into(),
        subscription_data: found.as_deref().map(data),
        topic: topic.map(str::to_owned),
    })
}

/// Passes 307 on to the client, and its answer back.
fn running_info(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let fields: RunningInfoRequest<'_> = call.view.fields()?;
    let RunningInfoRequest { consumer_group: group, client_id, .. } = fields;
    let member = member(call, group, client_id)?;
    relay(call, &member, Command::from_view(call.view, call.body.clone()))
}

/// Passes 309 on to the client, with the message that it names.
fn consume_directly(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let fields: ConsumeDirectly<'_> = call.view.fields()?;
    let services = call.services();
    let member = member(call, fields.consumer_group, fields.client_id.unwrap_or(""))?;
    let id: Result<OffsetMessageId, _> = fields.msg_id.unwrap_or("").parse();
    let id = id.map_err(|error| Refusal::of(ResponseCode::INVALID_PARAMETER, &error))?;
    let Some(record) = services.store.read_at(id.position)? else {
        let remark = format!("no message has the id {id}");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    let topic = fields.topic.and_then(|topic| services.topics.get(topic));
    let group = services.groups.get(fields.consumer_group);
    let header = ConsumeDirectly {
        broker_name: Some(&services.settings.broker_name),
        topic_sys_flag: topic.map(|topic| topic.config.topic_sys_flag as i32),
        group_sys_flag: group.map(|group| group.group_sys_flag),
        ..fields
    };
    let request = Command::request(RequestCode::CONSUME_MESSAGE_DIRECTLY)
        .with_header(&header)
        .with_body(record);
    relay(call, &member, request)
}

/// The member of that id, if it can be asked.
fn member(call: &Call<'_, '_>, group: &str, client_id: &str) -> Result<Member, Refusal> {
    let refusal = |remark| Refusal::new(ResponseCode::SYSTEM_ERROR, remark);
    let found = call.services().members.with_consumer_group(group, |online| {
        online?.members.values().find(|member| member.info.client_id == client_id).cloned()
    });
    let found =
        found.ok_or_else(|| refusal(format!("The Consumer <{group}> <{client_id}> not online")))?;
    if found.info.version < RELAY_VERSION_MIN {
        let version = found.info.version;
        return Err(refusal(format!("The Consumer <{client_id}> is too old, version {version}")));
    }
    Ok(found)
}

fn relay(call: &Call<'_, '_>, member: &Member, request: Command) -> Result<(), Refusal> {
    let Some(target) = connection_of(&*member.info.client) else {
        let remark =
            format!("The Consumer <{}> is not connected by remoting", member.info.client_id);
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    let (target, asker, reply) = (Arc::clone(target), Arc::clone(call.connection), call.reply());
    call.shared.runtime.spawn(async move {
        let mut answers = Answers::new();
        match target.call(&request, RELAY_TIMEOUT).await {
            Ok(answer) => answers.relay(reply, &answer),
            Err(error) => write_refusal(&mut answers, reply, &not_answered(&error)),
        }
        send(&asker, answers);
    });
    Ok(())
}

fn not_answered(error: &CallError) -> Refusal {
    let code = match error {
        CallError::Timeout { .. } => ResponseCode::CONSUME_MSG_TIMEOUT,
        CallError::Send(_) | CallError::Closed { .. } => ResponseCode::SYSTEM_ERROR,
    };
    Refusal::of(code, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_their_hashes_are_those_of_java_clients() {
        assert_eq!(tags(" TagA || TagB "), ["TagA", "TagB"]);
        assert_eq!((java_hash("TagA"), java_hash("TagB")), (2_598_919, 2_598_920));
        assert!(tags("*").is_empty());
    }
}
