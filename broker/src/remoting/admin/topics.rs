//! Topics as administrators see them: request codes 17, 18, 21, 202, 215, 300, 305, 343, 351.
//! Invariant: a change is answered when it is confirmed, and once name servers that answer know of it.
//! Leaves the rules to the services. Source: RocketMQ remoting, request codes 17, 18, 21, 202, 215, 300, 305, 343, 351.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gantry_model::{
    FilterType, GroupName, Permission, QueueId, QueueOffset, TopicConfig, TopicName,
};
use gantry_remoting::{
    RequestCode, ResponseCode,
    command::topics::{
        AllTopicsAnswer, AllTopicsRequest, CreateTopic, GroupList, TopicConfigs, TopicList,
        TopicOffset, TopicRequest, TopicStats, TopicTable, TopicsOfGroup,
    },
    json::{JsonBody, MessageQueue, QueueTable},
};
use gantry_store::{Now, Ticket, Topic};

use super::{
    super::{Call, versions},
    Refusal, end_with, parts,
};
use crate::services::{
    Services,
    attributes::{self, Attributes},
    topics::TopicError,
};

/// Longest time that an answer waits for the name servers to be told.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    match call.view.request_code() {
        RequestCode::UPDATE_AND_CREATE_TOPIC => {
            let changed = create(call);
            announced(call, changed);
        }
        RequestCode::UPDATE_AND_CREATE_TOPIC_LIST => {
            let changed = create_list(call);
            announced(call, changed);
        }
        RequestCode::DELETE_TOPIC_IN_BROKER => {
            let changed = delete(call);
            announced(call, changed);
        }
        RequestCode::GET_ALL_TOPIC_CONFIG => {
            if let Err(refusal) = all(call) {
                call.refuse(&refusal);
            }
        }
        RequestCode::GET_TOPIC_CONFIG => {
            let config = find(call).map(|topic| topic.config.clone());
            end_with(call, config);
        }
        RequestCode::GET_TOPIC_STATS_INFO => match stats(call) {
            Ok(stats) => call.success_with_body(&stats.to_legacy_json()),
            Err(refusal) => call.refuse(&refusal),
        },
        RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => {
            let topics = system_topics(call.services());
            end_with(call, Ok(topics));
        }
        RequestCode::QUERY_TOPIC_CONSUME_BY_WHO => {
            let groups = readers(call);
            end_with(call, groups);
        }
        RequestCode::QUERY_TOPICS_BY_CONSUMER => {
            let topics = topics_of_group(call);
            end_with(call, topics);
        }
        _ => return false,
    }
    true
}

/// Answers once the change is on disk and announced; one that changed nothing at once.
fn announced(call: &mut Call<'_, '_>, changed: Result<Option<Ticket>, Refusal>) {
    let ticket = match changed {
        Ok(Some(ticket)) => ticket,
        Ok(None) => return call.success(),
        Err(refusal) => return call.refuse(&refusal),
    };
    let shared = Arc::clone(call.shared);
    call.end_later(async move {
        shared.services.commits.confirmed(ticket).await?;
        if !shared.services.changes.announced(ANNOUNCE_TIMEOUT).await {
            tracing::warn!("a change of topics was answered before all name servers knew of it");
        }
        Ok(())
    });
}

/// Carries out 17.
fn create(call: &Call<'_, '_>) -> Result<Option<Ticket>, Refusal> {
    let fields: CreateTopic<'_> = call.view.fields()?;
    let topic = name(fields.topic)?;
    let requested = attributes::parse_list(fields.attributes.unwrap_or(""));
    let config = TopicConfig {
        attributes: requested,
        order: fields.order.unwrap_or(false),
        perm: Permission(fields.perm),
        read_queues: fields.read_queues,
        topic_filter_type: filter_type(fields.topic_filter_type)?,
        topic_name: topic,
        topic_sys_flag: fields.topic_sys_flag.unwrap_or(0),
        write_queues: fields.write_queues,
    };
    let config = checked(call.services(), config)?;
    put(call.services(), config, call.now).map(Some)
}

/// Carries out 18: every definition is looked at before the first is stored.
fn create_list(call: &Call<'_, '_>) -> Result<Option<Ticket>, Refusal> {
    let services = call.services();
    let list = TopicConfigs::from_json(call.body);
    let list = list.map_err(|error| Refusal::of(ResponseCode::INVALID_PARAMETER, &error))?;
    let list = list.topic_config_list;
    let checked: Result<Vec<_>, Refusal> =
        list.into_iter().map(|config| checked(services, config)).collect();
    let mut ticket = None;
    for config in checked? {
        ticket = Some(put(services, config, call.now)?);
    }
    Ok(ticket)
}

fn checked(services: &Services, config: TopicConfig) -> Result<TopicConfig, Refusal> {
    if services.topics.is_system(&config.topic_name) {
        return Err(TopicError::System { topic: config.topic_name.to_string() }.into());
    }
    config.validate().map_err(TopicError::Config)?;
    complete(services, config)
}

/// The definition with the attributes that the topic has after the request.
fn complete(services: &Services, config: TopicConfig) -> Result<TopicConfig, Refusal> {
    let current = services.topics.get(&config.topic_name);
    let current: Option<&Attributes> = current.as_ref().map(|topic| &topic.config.attributes);
    let limit = services.settings.retention.as_millis();
    let attributes = attributes::changed(current, &config.attributes, limit);
    let attributes = attributes.map_err(|error| Refusal::of(ResponseCode::SYSTEM_ERROR, &error))?;
    Ok(TopicConfig { attributes, ..config })
}

fn put(services: &Services, config: TopicConfig, now: Now) -> Result<Ticket, Refusal> {
    Ok(services.topics.put(config, now)?.1)
}

fn filter_type(name: Option<&str>) -> Result<FilterType, Refusal> {
    match name {
        None | Some("" | "SINGLE_TAG") => Ok(FilterType::SingleTag),
        Some("MULTI_TAG") => Ok(FilterType::MultiTag),
        Some(other) => {
            let remark = format!("topicFilterType is {other:?}, expected SINGLE_TAG or MULTI_TAG");
            Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark))
        }
    }
}

fn name(topic: &str) -> Result<TopicName, Refusal> {
    TopicName::new(topic).map_err(|error| Refusal::of(ResponseCode::INVALID_PARAMETER, &error))
}

/// Carries out 215; a topic that is not there is as good as deleted.
fn delete(call: &Call<'_, '_>) -> Result<Option<Ticket>, Refusal> {
    let TopicRequest { topic } = call.view.fields()?;
    Ok(call.services().topics.delete(topic, call.now)?)
}

/// Answers 21 with the whole table, or with the part of it that is asked for.
fn all(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    let AllTopicsRequest { topic_seq, data_version, max_topics } = call.view.fields()?;
    let services = call.services();
    // Read first: a topic that is made in between is in this part, and the next one begins at the front.
    let version = versions::to_protocol(services.store.topics_version());
    let topics = services.topics.all();
    let wanted = parts::Wanted { first: topic_seq, version: data_version, entries_max: max_topics };
    let part = wanted.of(topics.len(), version);
    let table = TopicTable {
        data_version: version,
        topic_config_table: topics[part]
            .iter()
            .map(|topic| (topic.name().to_string(), topic.config.clone()))
            .collect(),
        ..TopicTable::default()
    };
    let header = AllTopicsAnswer { total_topics: u32::try_from(topics.len()).ok() };
    let body = table.to_json();
    call.answers.begin(call.view.reply_to(), ResponseCode::SUCCESS).header(&header).body(&body);
    Ok(())
}

fn find(call: &Call<'_, '_>) -> Result<Arc<Topic>, Refusal> {
    let TopicRequest { topic } = call.view.fields()?;
    Ok(call.services().topics.find(topic)?)
}

/// Answers 202: bounds of each queue, those without a message included.
fn stats(call: &Call<'_, '_>) -> Result<TopicStats, Refusal> {
    let topic = find(call)?;
    let services = call.services();
    let each = (0..topic.config.queues()).map(|number| {
        let queue = MessageQueue {
            broker_name: services.settings.broker_name.clone(),
            queue_id: number as i32,
            topic: topic.name().to_string(),
        };
        Ok((queue, bounds(services, &topic, QueueId(number))?))
    });
    let offset_table = each.collect::<Result<QueueTable<_>, Refusal>>()?;
    Ok(TopicStats { offset_table, ..TopicStats::default() })
}

fn bounds(services: &Services, topic: &Topic, queue: QueueId) -> Result<TopicOffset, Refusal> {
    let bounds = services.store.queue_bounds(topic, queue)?;
    let newest = match bounds.max.0.checked_sub(1) {
        Some(last) if bounds.max > bounds.min => {
            services.store.entry(topic, queue, QueueOffset(last))?
        }
        _ => None,
    };
    Ok(TopicOffset {
        last_update_timestamp: newest.map_or(0, |entry| entry.store_time_ms as i64),
        max_offset: bounds.max.0 as i64,
        min_offset: bounds.min.0 as i64,
    })
}

/// Answers 305.
fn system_topics(services: &Services) -> TopicList {
    let topics = services.topics.all();
    let names = topics.iter().map(|topic| topic.name());
    let system = names.filter(|name| services.topics.is_system(name));
    TopicList { broker_addr: None, topic_list: system.map(ToString::to_string).collect() }
}

/// Answers 300: groups online for the topic, and groups with offsets on it.
fn readers(call: &Call<'_, '_>) -> Result<GroupList, Refusal> {
    let TopicRequest { topic } = call.view.fields()?;
    let services = call.services();
    let mut groups: BTreeSet<GroupName> =
        services.members.groups_subscribing(topic).into_iter().collect();
    if let Some(topic) = services.topics.get(topic) {
        groups.extend(services.store.groups_with_offsets_on(&topic));
    }
    Ok(GroupList { group_list: groups.iter().map(ToString::to_string).collect() })
}

/// Answers 343: topics that the group is online for, and those that it has offsets on.
fn topics_of_group(call: &Call<'_, '_>) -> Result<TopicList, Refusal> {
    let TopicsOfGroup { group } = call.view.fields()?;
    let services = call.services();
    let offsets = services.store.offsets_of_group(group);
    let mut topics: BTreeSet<String> =
        offsets.iter().map(|(topic, ..)| topic.name().to_string()).collect();
    services.members.with_consumer_group(group, |online| {
        let subscribed = online.into_iter().flat_map(|group| group.subscriptions.keys());
        topics.extend(subscribed.map(ToString::to_string));
    });
    Ok(TopicList {
        broker_addr: Some(services.store_host.get().to_string()),
        topic_list: topics.into_iter().collect(),
    })
}
