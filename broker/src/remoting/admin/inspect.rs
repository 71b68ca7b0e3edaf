//! A look inside: rates and queue indexes, and the settings that nobody changes from afar: request codes 25, 315, 321.
//! Invariant: a look changes nothing, and is bounded whatever it asks for.
//! Leaves the numbers to the services. Source: RocketMQ remoting, request codes 25, 315, 321.

use std::{ops::Range, sync::Arc};

use gantry_model::{QueueId, QueueOffset};
use gantry_remoting::{
    RequestCode, ResponseCode,
    command::{
        broker::{BrokerStats, StatsRequest, StatsWindow},
        query::{ConsumeQueueBody, ConsumeQueueEntry, QueryConsumeQueue},
    },
};
use gantry_store::Topic;

use super::{super::Call, Refusal, clients, end_with};
use crate::services::{
    Services,
    members::Subscription,
    stats::{StatName, Window},
};

/// Most entries of a queue's index in one answer.
const ENTRIES_MAX: u64 = 1_000;

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    match call.view.request_code() {
        RequestCode::VIEW_BROKER_STATS_DATA => {
            let stats = stats(call);
            end_with(call, stats);
        }
        RequestCode::QUERY_CONSUME_QUEUE => {
            let entries = consume_queue(call);
            end_with(call, entries);
        }
        RequestCode::UPDATE_BROKER_CONFIG => {
            let remark = "settings of this broker are set where it is started, and not from afar";
            call.refuse(&Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        _ => return false,
    }
    true
}

/// Answers 315.
fn stats(call: &Call<'_, '_>) -> Result<BrokerStats, Refusal> {
    let StatsRequest { stats_name, stats_key } = call.view.fields()?;
    let name = StatName::named(stats_name);
    let found = name.and_then(|name| call.services().stats.windows(name, stats_key, call.now));
    let Some(found) = found else {
        let remark = format!("The stats <{stats_name}> <{stats_key}> not exist");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    };
    Ok(BrokerStats {
        stats_day: window(found.day),
        stats_hour: window(found.hour),
        stats_minute: window(found.minute),
    })
}

fn window(window: Window) -> StatsWindow {
    StatsWindow { avgpt: window.per_call, sum: window.sum as i64, tps: window.per_second }
}

/// Answers 321: entries as they are, with a word on whether the group's filter lets them pass.
fn consume_queue(call: &Call<'_, '_>) -> Result<ConsumeQueueBody, Refusal> {
    let fields: QueryConsumeQueue<'_> = call.view.fields()?;
    let services = call.services();
    let topic = services.topics.find(fields.topic)?;
    let queue = queue(&topic, fields.queue_id)?;
    let subscription = fields.consumer_group.and_then(|group| {
        services.members.with_consumer_group(group, |online| {
            online?.subscriptions.get(fields.topic).map(Arc::clone)
        })
    });
    let bounds = services.store.queue_bounds(&topic, queue)?;
    let first = u64::try_from(fields.index).unwrap_or(0).max(bounds.min.0);
    let count = u64::try_from(fields.count).unwrap_or(0).min(ENTRIES_MAX);
    let wanted = first..first.saturating_add(count).min(bounds.max.0);
    Ok(ConsumeQueueBody {
        max_queue_index: bounds.max.0 as i64,
        min_queue_index: bounds.min.0 as i64,
        queue_data: entries(services, &topic, queue, wanted, subscription.as_deref())?,
        subscription_data: subscription.as_deref().map(clients::data),
        ..ConsumeQueueBody::default()
    })
}

fn queue(topic: &Topic, queue: i32) -> Result<QueueId, Refusal> {
    let queues = topic.config.queues();
    match u32::try_from(queue) {
        Ok(queue) if queue < queues => Ok(QueueId(queue)),
        _ => {
            let name = topic.name();
            let remark = format!("queueId[{queue}] is illegal, topic[{name}] has {queues} queues");
            Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark))
        }
    }
}

fn entries(
    services: &Services,
    topic: &Topic,
    queue: QueueId,
    wanted: Range<u64>,
    subscription: Option<&Subscription>,
) -> Result<Vec<ConsumeQueueEntry>, Refusal> {
    let mut entries = Vec::new();
    for offset in wanted {
        // One that was removed meanwhile is not there any more.
        let Some(entry) = services.store.entry(topic, queue, QueueOffset(offset))? else {
            continue;
        };
        entries.push(ConsumeQueueEntry {
            eval: subscription.is_none_or(|wish| wish.filter.accepts(entry.tag_hash)),
            physic_offset: entry.position.0 as i64,
            physic_size: entry.size as i32,
            tags_code: entry.tag_hash,
            ..ConsumeQueueEntry::default()
        });
    }
    Ok(entries)
}
