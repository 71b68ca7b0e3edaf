//! Clients that come and go over remoting: request codes 34, 35, 38, 46, and the notice 40.
//! Invariant: a group that a heartbeat names has its retry topic, by which tools find its brokers.
//! Leaves membership to the services. Source: RocketMQ remoting, request codes 34, 35, 38, 40, 46.

use std::{any::Any, net::SocketAddr, sync::Arc};

use gantry_model::{GroupName, TopicName};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::heartbeat::{
        self, CheckClientConfig, ConsumerData, ConsumerGroup, ConsumerIds, HeartbeatAnswer,
        HeartbeatBody, ProducerData, SubscriptionData, UnregisterClient,
    },
    json::JsonBody,
    server::Connection,
};

use super::{Call, Refusal};
use crate::services::{
    filter::TagFilter,
    hold::Owner,
    members::{
        Client, ClientInfo, ConsumeType, ConsumerBeat, ENTRIES_MAX, ExpressionKind, MessageModel,
        Subscription,
    },
};

/// A client of a connection.
struct RemotingClient {
    connection: Arc<Connection>,
}

impl Client for RemotingClient {
    fn owner(&self) -> Owner {
        Owner(self.connection.id())
    }

    fn address(&self) -> SocketAddr {
        self.connection.peer()
    }

    fn members_changed(&self, group: &GroupName) {
        let notice = Command::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED)
            .with_header(&ConsumerGroup { consumer_group: group });
        if let Err(error) = self.connection.one_way(&notice) {
            tracing::debug!(%error, %group, "member was not told of a change");
        }
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

/// The connection of a client that came through this front door.
pub(super) fn connection_of(client: &dyn Client) -> Option<&Arc<Connection>> {
    client.as_any()?.downcast_ref::<RemotingClient>().map(|client| &client.connection)
}

/// Answers 34.
pub(super) fn heartbeat(call: &mut Call<'_, '_>) {
    match try_heartbeat(call) {
        Ok(changed) => {
            let answer =
                HeartbeatAnswer { supports_v2: Some(true), subscription_changed: Some(changed) };
            call.answers
                .begin(call.view.reply_to(), ResponseCode::SUCCESS)
                .header(&answer)
                .finish();
        }
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Returns whether the client has to send its subscriptions.
fn try_heartbeat(call: &Call<'_, '_>) -> Result<bool, Refusal> {
    let beat = HeartbeatBody::from_json(call.body)?;
    if beat.client_id.is_empty() {
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, "the heartbeat has no clientID"));
    }
    let info = ClientInfo {
        client: Arc::new(RemotingClient { connection: Arc::clone(call.connection) }),
        client_id: beat.client_id,
        language: call.view.language.name(),
        version: call.view.version,
    };
    for producer in beat.producer_data_set.iter().take(ENTRIES_MAX) {
        producer_beat(call, &info, producer);
    }
    let fingerprint = beat.heartbeat_fingerprint;
    let mut changed = fingerprint == 0;
    for consumer in beat.consumer_data_set.into_iter().take(ENTRIES_MAX) {
        let members = &call.services().members;
        let group = consumer.group_name.clone();
        if beat.without_sub {
            changed |= !members.consumer_alive(info.client.owner(), &group, call.now.monotonic_ms);
        } else {
            consumer_beat(call, &info, consumer)?;
        }
        if fingerprint != 0 {
            changed |= members.set_fingerprint(&group, fingerprint);
        }
    }
    Ok(changed)
}

fn producer_beat(call: &Call<'_, '_>, info: &ClientInfo, data: &ProducerData) {
    match GroupName::new(&data.group_name) {
        Ok(group) => {
            call.services().members.producer_beat(info, &group, call.now.monotonic_ms);
        }
        Err(error) => tracing::debug!(%error, "producer group of a heartbeat skipped"),
    }
}

/// A group that may not be made is skipped in silence, as the reference does.
fn consumer_beat(
    call: &Call<'_, '_>,
    info: &ClientInfo,
    data: ConsumerData,
) -> Result<(), Refusal> {
    let services = call.services();
    let config = match services.groups.for_use(&data.group_name, call.now) {
        Ok(config) => config,
        Err(error) => {
            tracing::debug!(%error, name = data.group_name, "consumer group of a heartbeat skipped");
            return Ok(());
        }
    };
    services.topics.retry_topic(&config, call.now)?;
    let subscriptions = data.subscription_data_set.into_iter().take(ENTRIES_MAX);
    let beat = ConsumerBeat {
        group: config.group_name.clone(),
        consume_type: consume_type(&data.consume_type),
        model: message_model(&data.message_model),
        consume_from: data.consume_from_where,
        subscriptions: subscriptions.filter_map(subscription).collect(),
        notify: config.notify_consumer_ids_changed_enable,
    };
    services.members.consumer_beat(info, beat, call.now.monotonic_ms);
    Ok(())
}

fn consume_type(name: &str) -> ConsumeType {
    match name {
        heartbeat::consume_type::ACTIVELY => ConsumeType::Pull,
        heartbeat::consume_type::POP => ConsumeType::Pop,
        _ => ConsumeType::Push,
    }
}

fn message_model(name: &str) -> MessageModel {
    match name {
        heartbeat::message_model::BROADCASTING => MessageModel::Broadcasting,
        _ => MessageModel::Clustering,
    }
}

/// What cannot be read is left out: pulls for it then say that there is no subscription.
fn subscription(data: SubscriptionData) -> Option<Subscription> {
    let topic = TopicName::new(&data.topic).ok()?;
    let kind = ExpressionKind::named(data.expression_type.as_deref());
    let filter = match kind {
        ExpressionKind::Tag => TagFilter::parse(&data.sub_string).ok()?,
        ExpressionKind::Other(_) => TagFilter::All,
    };
    let SubscriptionData { sub_string: expression, sub_version: version, .. } = data;
    Some(Subscription { topic, expression, kind, filter, version })
}

/// Answers 35.
pub(super) fn unregister(call: &mut Call<'_, '_>) {
    let fields: UnregisterClient<'_> = match call.view.fields() {
        Ok(fields) => fields,
        Err(error) => return call.refuse(&error.into()),
    };
    let named = |group: Option<&'_ str>| group.filter(|name| !name.is_empty()).map(str::to_owned);
    let (consumer, producer) = (named(fields.consumer_group), named(fields.producer_group));
    let owner = Owner(call.connection.id());
    call.services().members.leave(owner, consumer.as_deref(), producer.as_deref());
    call.success();
}

/// Answers 38: ids of a group's members.
pub(super) fn consumer_list(call: &mut Call<'_, '_>) {
    let group = match call.view.fields() {
        Ok(ConsumerGroup { consumer_group }) => consumer_group,
        Err(error) => return call.refuse(&error.into()),
    };
    let consumer_id_list = call.services().members.client_ids(group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {group}");
        return call.refuse(&Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    call.success_with_body(&ConsumerIds { consumer_id_list }.to_json());
}

/// Answers 46: whether the broker can filter as a client wants.
pub(super) fn check_config(call: &mut Call<'_, '_>) {
    let result = try_check_config(call);
    call.end(result);
}

fn try_check_config(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let data = CheckClientConfig::from_json(call.body)?.subscription_data;
    match ExpressionKind::named(data.expression_type.as_deref()) {
        ExpressionKind::Tag => match TagFilter::parse(&data.sub_string) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::of(ResponseCode::SUBSCRIPTION_PARSE_FAILED, &error)),
        },
        ExpressionKind::Other(kind) => {
            let remark =
                format!("The broker does not support consumer to filter message by {kind}");
            Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}
