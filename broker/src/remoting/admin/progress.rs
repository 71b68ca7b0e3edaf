//! Progress of groups, and moving them: request codes 43, 45, 208, 222, 223, 303, 314, 317.
//! Invariant: a change is answered when it is confirmed; a group without an offset in a queue is shown at 0.
//! Leaves offsets and resets to the services. Source: RocketMQ remoting, request codes 43, 45, 208, 221 to 223, 303,
//! 314, 317.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::future::join_all;
use gantry_model::{GroupConfig, GroupName, QueueId, QueueOffset, RETRY_PREFIX, TopicName};
use gantry_remoting::{
    Command, HeaderError, RequestCode, ResponseCode,
    command::{
        data_version::DataVersion,
        progress::{
            BrokerConsumeStats, BrokerConsumeStatsRequest, CloneOffset, ConsumeStats,
            ConsumeStatsRequest, ConsumeTimeSpan, ConsumeTimeSpans, ConsumerOffsets,
            ConsumerStatus, ConsumerStatusRequest, DelayOffsets, QueueProgress, ResetOffset,
            ResetOffsetBody, TimeSpanRequest,
        },
    },
    json::{JsonBody, MessageQueue, QueueTable},
    server::Answers,
};
use gantry_store::{OffsetCommit, ReadError, Ticket, Topic};

use super::{
    super::{Call, call::send, client::connection_of},
    Refusal, end_with,
};
use crate::services::{
    Services,
    groups::GroupError,
    members::Member,
    resets::{ResetError, ResetTarget},
    stats::StatName,
};

/// Longest time that a client has to say where it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Last moment that has four digits for its year, in milliseconds since 1970.
const TEXT_MS_MAX: u64 = 253_402_300_799_999;

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    match call.view.request_code() {
        RequestCode::GET_CONSUME_STATS => {
            let stats = group_stats(call);
            end_with_legacy(call, stats);
        }
        RequestCode::GET_BROKER_CONSUME_STATS => {
            let stats = broker_stats(call);
            end_with_legacy(call, stats);
        }
        RequestCode::QUERY_CONSUME_TIME_SPAN => {
            let spans = time_spans(call);
            end_with(call, spans);
        }
        RequestCode::INVOKE_BROKER_TO_RESET_OFFSET => match reset(call) {
            Ok((body, ticket)) => call.confirmed_with_body(ticket, body),
            Err(refusal) => call.refuse(&refusal),
        },
        RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => {
            if let Err(refusal) = status(call) {
                call.refuse(&refusal);
            }
        }
        RequestCode::CLONE_GROUP_OFFSET => match clone(call) {
            Ok(Some(ticket)) => call.confirmed(ticket, || ()),
            Ok(None) => call.success(),
            Err(refusal) => call.refuse(&refusal),
        },
        RequestCode::GET_ALL_CONSUMER_OFFSET => {
            let offsets = all_offsets(call);
            end_with_legacy(call, Ok(offsets));
        }
        RequestCode::GET_ALL_DELAY_OFFSET => {
            // Delayed messages wait by their due time: no level has an offset.
            let none =
                DelayOffsets { data_version: version(call), offset_table: BTreeMap::default() };
            end_with_legacy(call, Ok(none));
        }
        _ => return false,
    }
    true
}

/// Answers in the form whose keys are objects or numbers, or with the refusal.
fn end_with_legacy<T: JsonBody>(call: &mut Call<'_, '_>, result: Result<T, Refusal>) {
    match result {
        Ok(body) => call.success_with_body(&body.to_legacy_json()),
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Answers 208; topics that are not there are left out.
fn group_stats(call: &Call<'_, '_>) -> Result<ConsumeStats, Refusal> {
    let fields: ConsumeStatsRequest<'_> = call.view.fields()?;
    let (services, group) = (call.services(), fields.consumer_group);
    let named = |list: &str| {
        let names = list.split(';').map(str::trim);
        names.filter_map(|topic| services.topics.get(topic)).collect::<Vec<_>>()
    };
    let topics = match (fields.topic_list, fields.topic) {
        (Some(list), _) if !list.is_empty() => named(list),
        (_, Some(topic)) if !topic.is_empty() => {
            let topics = services.topics.get(topic).into_iter().collect();
            subscribed(services, group, topics)
        }
        _ => topics_with_offsets(services, group),
    };
    let mut stats = ConsumeStats::default();
    for topic in topics {
        let of_topic = topic_stats(call, group, &topic)?;
        stats.consume_tps += of_topic.consume_tps;
        stats.offset_table.0.extend(of_topic.offset_table.0);
    }
    stats.waiting_retries = waiting_retries(services, group)?;
    Ok(stats)
}

/// Failed messages of the group that wait for their delay, and so are in no queue.
fn waiting_retries(services: &Services, group: &str) -> Result<i64, Refusal> {
    let retry = services.topics.get(&format!("{RETRY_PREFIX}{group}"));
    let waiting = retry.map(|topic| services.store.pending_timers_of(&topic)).transpose()?;
    Ok(waiting.unwrap_or(0) as i64)
}

/// Topics on which the group has offsets, those left out that it no longer subscribes to.
fn topics_with_offsets(services: &Services, group: &str) -> Vec<Arc<Topic>> {
    let mut topics: Vec<_> =
        services.store.offsets_of_group(group).into_iter().map(|(topic, ..)| topic).collect();
    topics.dedup_by_key(|topic| topic.id);
    subscribed(services, group, topics)
}

/// Of these topics, those of the group's subscription; all of them when it is offline.
fn subscribed(services: &Services, group: &str, topics: Vec<Arc<Topic>>) -> Vec<Arc<Topic>> {
    let subscription: BTreeSet<TopicName> = services.members.with_consumer_group(group, |online| {
        online.into_iter().flat_map(|online| online.subscriptions.keys()).cloned().collect()
    });
    if subscription.is_empty() {
        return topics;
    }
    topics.into_iter().filter(|topic| subscription.contains(topic.name())).collect()
}

fn topic_stats(call: &Call<'_, '_>, group: &str, topic: &Topic) -> Result<ConsumeStats, Refusal> {
    let services = call.services();
    let key = format!("{}@{group}", topic.name());
    let rate = services.stats.windows(StatName::GROUP_GET, &key, call.now);
    let each = queues(topic)
        .map(|queue| Ok((queue_of(services, topic, queue), at(services, group, topic, queue)?)));
    Ok(ConsumeStats {
        consume_tps: rate.map_or(0.0, |windows| windows.minute.per_second),
        offset_table: each.collect::<Result<_, ReadError>>()?,
        waiting_retries: 0,
    })
}

fn queues(topic: &Topic) -> impl Iterator<Item = QueueId> + use<> {
    (0..topic.config.read_queues).map(QueueId)
}

fn queue_of(services: &Services, topic: &Topic, queue: QueueId) -> MessageQueue {
    MessageQueue {
        broker_name: services.settings.broker_name.clone(),
        queue_id: queue.0 as i32,
        topic: topic.name().to_string(),
    }
}

/// Where the group is in a queue.
fn at(
    services: &Services,
    group: &str,
    topic: &Topic,
    queue: QueueId,
) -> Result<QueueProgress, ReadError> {
    let bounds = services.store.queue_bounds(topic, queue)?;
    let offset = services.store.offset(group, topic, queue).unwrap_or_default();
    let last = time_before(services, topic, queue, offset)?;
    let next = time_at(services, topic, queue, offset.max(bounds.min))?;
    Ok(QueueProgress {
        broker_offset: bounds.max.0 as i64,
        consumer_offset: offset.0 as i64,
        last_timestamp: last.unwrap_or(0) as i64,
        pull_offset: offset.0 as i64,
        next_timestamp: next.unwrap_or(0) as i64,
    })
}

/// Store time of the message before an offset, if it is still there.
fn time_before(
    services: &Services,
    topic: &Topic,
    queue: QueueId,
    offset: QueueOffset,
) -> Result<Option<u64>, ReadError> {
    match offset.0.checked_sub(1) {
        Some(before) => time_at(services, topic, queue, QueueOffset(before)),
        None => Ok(None),
    }
}

fn time_at(
    services: &Services,
    topic: &Topic,
    queue: QueueId,
    offset: QueueOffset,
) -> Result<Option<u64>, ReadError> {
    Ok(services.store.entry(topic, queue, offset)?.map(|entry| entry.store_time_ms))
}

/// Answers 317: one entry for each group, one table for each of its topics.
fn broker_stats(call: &Call<'_, '_>) -> Result<BrokerConsumeStats, Refusal> {
    let BrokerConsumeStatsRequest { is_order } = call.view.fields()?;
    let ordered_only = is_order.unwrap_or(false);
    let services = call.services();
    let mut all = BrokerConsumeStats {
        broker_addr: services.store_host.get().to_string(),
        ..BrokerConsumeStats::default()
    };
    for group in services.groups.all() {
        let group = &group.group_name;
        let topics = topics_with_offsets(services, group).into_iter();
        let wanted = topics.filter(|topic| topic.config.order || !ordered_only);
        let tables: Result<Vec<_>, Refusal> =
            wanted.map(|topic| topic_stats(call, group, &topic)).collect();
        let tables = tables?;
        for (_, queue) in tables.iter().flat_map(|stats| &stats.offset_table.0) {
            all.total_diff += queue.broker_offset - queue.consumer_offset;
            all.total_inflight_diff += queue.pull_offset - queue.consumer_offset;
        }
        if !tables.is_empty() {
            all.consume_stats_list.push(BTreeMap::from([(group.to_string(), tables)]));
        }
    }
    Ok(all)
}

/// Answers 303.
fn time_spans(call: &Call<'_, '_>) -> Result<ConsumeTimeSpans, Refusal> {
    let TimeSpanRequest { topic, group } = call.view.fields()?;
    let services = call.services();
    let topic = services.topics.find(topic)?;
    let now_ms = call.now.wall_ms;
    let each = queues(&topic).map(|queue| time_span(services, group, &topic, queue, now_ms));
    Ok(ConsumeTimeSpans { consume_time_span_set: each.collect::<Result<_, ReadError>>()? })
}

fn time_span(
    services: &Services,
    group: &str,
    topic: &Topic,
    queue: QueueId,
    now_ms: u64,
) -> Result<ConsumeTimeSpan, ReadError> {
    let bounds = services.store.queue_bounds(topic, queue)?;
    let offset = services.store.offset(group, topic, queue).unwrap_or_default();
    let oldest = time_at(services, topic, queue, bounds.min)?.unwrap_or(0);
    let newest = time_before(services, topic, queue, bounds.max)?.unwrap_or(0);
    let consumed = time_before(services, topic, queue, offset)?.unwrap_or(oldest);
    // What waits may begin at messages that are no longer there.
    let next = time_at(services, topic, queue, offset.max(bounds.min))?;
    Ok(ConsumeTimeSpan {
        consume_time_stamp: consumed as i64,
        consume_time_stamp_str: time_text(consumed),
        delay_time: next.map_or(0, |next| now_ms.saturating_sub(next)) as i64,
        max_time_stamp: newest as i64,
        max_time_stamp_str: time_text(newest),
        message_queue: queue_of(services, topic, queue),
        min_time_stamp: oldest as i64,
        min_time_stamp_str: time_text(oldest),
    })
}

/// As `1970-01-01#00:00:00:000`, in UTC.
fn time_text(time_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(time_ms.min(TEXT_MS_MAX));
    let text = humantime::format_rfc3339_millis(time).to_string();
    text.trim_end_matches('Z').replace('T', "#").replace('.', ":")
}

/// Carries out 222: the group is moved on this broker, whether it is online or not.
fn reset(call: &Call<'_, '_>) -> Result<(Bytes, Ticket), Refusal> {
    let fields: Result<ResetOffset<'_>, HeaderError> = call.view.fields();
    let fields = fields?;
    let services = call.services();
    let topic = services.topics.find(fields.topic)?;
    let group = group(services, fields.group)?;
    let queue = fields.queue_id.unwrap_or(-1);
    let target = match fields.offset {
        Some(offset) if offset != -1 && queue >= 0 => ResetTarget::Offset(offset),
        _ => u64::try_from(fields.timestamp).map_or(ResetTarget::End, ResetTarget::Time),
    };
    let reset = services.resets.reset(&group, &topic, queue, target, call.now)?;
    let offsets = reset.offsets.into_iter();
    let body = ResetOffsetBody {
        offset_table: offsets
            .map(|(queue, offset)| (queue_of(services, &topic, queue), offset.0 as i64))
            .collect(),
    };
    Ok((body.to_legacy_json(), reset.ticket))
}

/// Carries out 223: asks each member, or one, for the offsets that it has, by request code 221.
fn status(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let ConsumerStatusRequest { topic, group, client_addr } = call.view.fields()?;
    let wanted = client_addr.filter(|client| !client.is_empty());
    let members = call.services().members.with_consumer_group(group, |online| {
        let members = online.into_iter().flat_map(|online| online.members.values());
        let wanted = members.filter(|member| wanted.is_none_or(|id| member.info.client_id == id));
        wanted.cloned().collect::<Vec<_>>()
    });
    if members.is_empty() {
        let remark = format!("No Any Consumer online in the consumer group: [{group}]");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let header = ConsumerStatusRequest { topic, group, client_addr: None };
    let request =
        Command::request(RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT).with_header(&header);
    let (asker, reply) = (Arc::clone(call.connection), call.reply());
    call.shared.runtime.spawn(async move {
        let each = members.iter().map(|member| ask_status(member, &request));
        let table = join_all(each).await.into_iter().flatten().collect();
        let body = ConsumerStatus { consumer_table: table, ..ConsumerStatus::default() };
        let mut answers = Answers::new();
        answers.begin(reply, ResponseCode::SUCCESS).body(&body.to_legacy_json());
        send(&asker, answers);
    });
    Ok(())
}

/// A client that cannot be asked, or does not answer, is left out.
async fn ask_status(member: &Member, request: &Command) -> Option<(String, QueueTable<i64>)> {
    let id = member.info.client_id.clone();
    let answer = connection_of(&*member.info.client)?.call(request, STATUS_TIMEOUT).await;
    let status = answer.map_err(|error| error.to_string()).and_then(|answer| {
        ConsumerStatus::from_json(&answer.body).map_err(|error| error.to_string())
    });
    match status {
        Ok(status) => Some((id, status.message_queue_table)),
        Err(error) => {
            tracing::warn!(client = id, error, "a consumer did not say where it is");
            None
        }
    }
}

fn group(services: &Services, name: &str) -> Result<Arc<GroupConfig>, Refusal> {
    let found = services.groups.get(name);
    Ok(found.ok_or_else(|| GroupError::Unknown { group: name.into() })?)
}

/// Carries out 314: offsets of one group, on one topic or on all, become those of another.
fn clone(call: &Call<'_, '_>) -> Result<Option<Ticket>, Refusal> {
    let fields: Result<CloneOffset<'_>, HeaderError> = call.view.fields();
    let fields = fields?;
    let services = call.services();
    let source = group(services, fields.source_group)?;
    let destination = group(services, fields.destination_group)?;
    let mut topics = topics_with_offsets(services, &source.group_name);
    if let Some(wanted) = fields.topic.filter(|topic| !topic.is_empty()) {
        let wanted = services.topics.find(wanted)?;
        topics.retain(|topic| topic.id == wanted.id);
    }
    let wanted: BTreeSet<_> = topics.iter().map(|topic| topic.id).collect();
    let offsets = services.store.offsets_of_group(&source.group_name).into_iter();
    let commits: Vec<_> = offsets
        .filter(|(topic, ..)| wanted.contains(&topic.id))
        .map(|(topic, queue, offset)| OffsetCommit {
            group: destination.group_name.clone(),
            topic: topic.id,
            queue,
            offset,
        })
        .collect();
    if commits.is_empty() {
        return Ok(None);
    }
    let stored = services.store.commit_offsets(&commits, call.now);
    stored.map(Some).map_err(|error| Refusal::from(&error))
}

/// Answers 43.
fn all_offsets(call: &Call<'_, '_>) -> ConsumerOffsets {
    let services = call.services();
    let mut table: BTreeMap<String, BTreeMap<u32, i64>> = BTreeMap::new();
    let mut add = |group: &GroupName| {
        for (topic, queue, offset) in services.store.offsets_of_group(group) {
            let key = format!("{}@{group}", topic.name());
            table.entry(key).or_default().insert(queue.0, offset.0 as i64);
        }
    };
    services.groups.all().iter().for_each(|group| add(&group.group_name));
    ConsumerOffsets { data_version: version(call), offset_table: table }
}

/// Version of the offsets: every written change moves the end of the log.
fn version(call: &Call<'_, '_>) -> DataVersion {
    DataVersion {
        counter: call.services().store.written().0 as i64,
        state_version: 0,
        timestamp: call.now.wall_ms as i64,
    }
}

impl From<ResetError> for Refusal {
    fn from(error: ResetError) -> Self {
        match &error {
            ResetError::Queue { .. } => Self::of(ResponseCode::INVALID_PARAMETER, &error),
            ResetError::Offset { .. } | ResetError::Read(_) => {
                Self::of(ResponseCode::SYSTEM_ERROR, &error)
            }
            ResetError::Append(source) => source.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_tools_write_them() {
        assert_eq!(time_text(0), "1970-01-01#00:00:00:000");
        assert_eq!(time_text(1_700_000_000_123), "2023-11-14#22:13:20:123");
        assert!(time_text(u64::MAX).starts_with("9999-12-31#"));
    }
}
