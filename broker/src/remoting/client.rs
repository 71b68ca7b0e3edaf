//! Clients that come and go over remoting: request codes 34, 35, 38, 46, and the notice 40.
//! Invariant: a group that a heartbeat names has its retry topic, by which tools find its brokers.
//! Leaves membership to the services. Source: RocketMQ remoting, request codes 34, 35, 38, 40, 46.

use std::{net::SocketAddr, sync::Arc};

use gantry_model::{GroupName, TopicName};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    json::{from_json, to_json},
    server::Connection,
};
use serde::{Deserialize, Serialize};

use super::{Call, Refusal, fields::Fields};
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
            .with_ext("consumerGroup", group.as_str());
        if let Err(error) = self.connection.one_way(&notice) {
            tracing::debug!(%error, %group, "member was not told of a change");
        }
    }
}

/// Body of a heartbeat. Clients differ in what they leave out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Heartbeat {
    #[serde(rename = "clientID")]
    client_id: Option<String>,
    consumer_data_set: Option<Vec<ConsumerData>>,
    producer_data_set: Option<Vec<ProducerData>>,
    heartbeat_fingerprint: Option<i32>,
    without_sub: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConsumerData {
    group_name: Option<String>,
    consume_type: Option<String>,
    message_model: Option<String>,
    consume_from_where: Option<String>,
    subscription_data_set: Option<Vec<SubscriptionData>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProducerData {
    group_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SubscriptionData {
    topic: Option<String>,
    sub_string: Option<String>,
    sub_version: Option<i64>,
    expression_type: Option<String>,
}

/// Answers 34.
pub(super) fn heartbeat(call: &mut Call<'_, '_>) {
    match try_heartbeat(call) {
        Ok(changed) => {
            let reply = call.reply();
            let answer = call.answers.begin(reply, ResponseCode::SUCCESS);
            let changed = if changed { "true" } else { "false" };
            answer.ext("IS_SUPPORT_HEART_BEAT_V2", "true").ext("IS_SUB_CHANGE", changed).finish();
        }
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Returns whether the client has to send its subscriptions.
fn try_heartbeat(call: &Call<'_, '_>) -> Result<bool, Refusal> {
    let beat: Heartbeat = from_json(call.body)
        .map_err(|error| Refusal::of(ResponseCode::SYSTEM_ERROR, &error))?;
    let client_id = beat.client_id.unwrap_or_default();
    if client_id.is_empty() {
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, "the heartbeat has no clientID"));
    }
    let info = ClientInfo {
        client: Arc::new(RemotingClient { connection: Arc::clone(call.connection) }),
        client_id,
        language: call.view.language.name(),
        version: call.view.version,
    };
    let services = call.services();
    let monotonic_ms = call.now.monotonic_ms;
    for producer in beat.producer_data_set.unwrap_or_default().iter().take(ENTRIES_MAX) {
        match GroupName::new(producer.group_name.as_deref().unwrap_or_default()) {
            Ok(group) => services.members.producer_beat(&info, &group, monotonic_ms),
            Err(error) => tracing::debug!(%error, "producer group of a heartbeat skipped"),
        }
    }
    let fingerprint = beat.heartbeat_fingerprint.unwrap_or(0);
    let without_subscriptions = beat.without_sub.unwrap_or(false);
    let mut changed = fingerprint == 0;
    for consumer in beat.consumer_data_set.unwrap_or_default().into_iter().take(ENTRIES_MAX) {
        let group = consumer.group_name.clone().unwrap_or_default();
        if without_subscriptions {
            changed |= !services.members.consumer_alive(info.client.owner(), &group, monotonic_ms);
        } else {
            consumer_beat(call, &info, consumer)?;
        }
        if fingerprint != 0 {
            changed |= services.members.set_fingerprint(&group, fingerprint);
        }
    }
    Ok(changed)
}

/// A group that may not be made is skipped in silence, as the reference does.
fn consumer_beat(call: &Call<'_, '_>, info: &ClientInfo, data: ConsumerData) -> Result<(), Refusal> {
    let services = call.services();
    let name = data.group_name.unwrap_or_default();
    let config = match services.groups.for_use(&name, call.now) {
        Ok(config) => config,
        Err(error) => {
            tracing::debug!(%error, name, "consumer group of a heartbeat skipped");
            return Ok(());
        }
    };
    services.topics.retry_topic(&config, call.now)?;
    let subscriptions = data.subscription_data_set.unwrap_or_default();
    let beat = ConsumerBeat {
        group: config.group_name.clone(),
        consume_type: consume_type(data.consume_type.as_deref()),
        model: message_model(data.message_model.as_deref()),
        consume_from: data.consume_from_where.unwrap_or_default(),
        subscriptions: subscriptions.into_iter().take(ENTRIES_MAX).filter_map(subscription).collect(),
        notify: config.notify_consumer_ids_changed_enable,
    };
    services.members.consumer_beat(info, beat, call.now.monotonic_ms);
    Ok(())
}

fn consume_type(name: Option<&str>) -> ConsumeType {
    match name {
        Some("CONSUME_ACTIVELY") => ConsumeType::Pull,
        Some("CONSUME_POP") => ConsumeType::Pop,
        _ => ConsumeType::Push,
    }
}

fn message_model(name: Option<&str>) -> MessageModel {
    match name {
        Some("BROADCASTING") => MessageModel::Broadcasting,
        _ => MessageModel::Clustering,
    }
}

/// What cannot be read is left out: pulls for it then say that there is no subscription.
fn subscription(data: SubscriptionData) -> Option<Subscription> {
    let topic = TopicName::new(data.topic.as_deref()?).ok()?;
    let expression = data.sub_string.unwrap_or_default();
    let kind = ExpressionKind::named(data.expression_type.as_deref());
    let filter = match kind {
        ExpressionKind::Tag => TagFilter::parse(&expression).ok()?,
        ExpressionKind::Other(_) => TagFilter::All,
    };
    Some(Subscription { topic, expression, kind, filter, version: data.sub_version.unwrap_or(0) })
}

/// Answers 35.
pub(super) fn unregister(call: &mut Call<'_, '_>) {
    let fields = Fields(call.view);
    let named = |field: &str| fields.optional_text(field).filter(|name| !name.is_empty());
    let (consumer, producer) = (named("consumerGroup"), named("producerGroup"));
    call.services().members.leave(Owner(call.connection.id()), consumer, producer);
    call.success();
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumerList {
    consumer_id_list: Vec<String>,
}

/// Answers 38: ids of a group's members.
pub(super) fn consumer_list(call: &mut Call<'_, '_>) {
    let group = match Fields(call.view).text("consumerGroup") {
        Ok(group) => group,
        Err(error) => return call.refuse(&error.into()),
    };
    let consumer_id_list = call.services().members.client_ids(group);
    if consumer_id_list.is_empty() {
        let remark = format!("no consumer for this group, {group}");
        return call.refuse(&Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    call.success_with_body(&to_json(&ConsumerList { consumer_id_list }));
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientConfigCheck {
    subscription_data: Option<SubscriptionData>,
}

/// Answers 46: whether the broker can filter as a client wants.
pub(super) fn check_config(call: &mut Call<'_, '_>) {
    let result = try_check_config(call);
    call.end(result);
}

fn try_check_config(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let check: ClientConfigCheck = from_json(call.body)
        .map_err(|error| Refusal::of(ResponseCode::SYSTEM_ERROR, &error))?;
    let data = check.subscription_data.unwrap_or_default();
    let expression = data.sub_string.unwrap_or_default();
    match ExpressionKind::named(data.expression_type.as_deref()) {
        ExpressionKind::Tag => match TagFilter::parse(&expression) {
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
