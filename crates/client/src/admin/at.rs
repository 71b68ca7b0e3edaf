//! Calls to one broker alone, for those that compare brokers with each other.
//! Invariant: what a broker does not have is `None`, and no error.
//! Leaves which brokers there are to `Admin::primaries`.

use gantry_model::{GroupConfig, TopicConfig, TopicName};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::{
        groups::GroupRequest,
        offsets::{OffsetAnswer, QueryOffset, SearchOffset, UpdateOffset},
        progress::{ConsumeStats, ConsumeStatsRequest},
        topics::{TopicRequest, TopicStats},
    },
    json::JsonBody,
};

use super::{Admin, AdminError, QueueBounds, topics::declaration};
use crate::connections::unreadable;

/// One broker.
#[derive(Clone)]
pub struct BrokerAdmin<'a> {
    admin: &'a Admin,
    address: &'a str,
}

/// Progress of a group on one broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokerProgress {
    /// Queues of the topics that the broker has.
    pub queues: Vec<QueueLag>,
    /// Failed messages that wait for their next attempt, and so are in no queue. 0 from other brokers than Gantry's.
    pub waiting_retries: u64,
}

/// Progress of a group in one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLag {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue: u32,
    /// Messages that wait, those in flight included.
    pub lag: u64,
    /// Store time of the first of them, in milliseconds since 1970; 0 without, or from other brokers than Gantry's.
    pub next_store_time_ms: u64,
}

impl Admin {
    /// Calls to the broker at that address.
    pub fn at<'a>(&'a self, address: &'a str) -> BrokerAdmin<'a> {
        BrokerAdmin { admin: self, address }
    }
}

impl BrokerAdmin<'_> {
    /// The topic's definition.
    pub async fn topic(&self, topic: &str) -> Result<Option<TopicConfig>, AdminError> {
        let command =
            Command::request(RequestCode::GET_TOPIC_CONFIG).with_header(&TopicRequest { topic });
        let found = self.admin.get("read the topic", self.address, &command).await;
        present(found, ResponseCode::TOPIC_NOT_EXIST)
    }

    /// Makes a topic, or changes it.
    pub async fn declare_topic(&self, config: &TopicConfig) -> Result<(), AdminError> {
        let command = declaration(config);
        self.admin.call("create the topic", self.address, &command).await.map(drop)
    }

    /// Deletes a topic with its messages. A topic that is not there is as good as deleted.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), AdminError> {
        let command = Command::request(RequestCode::DELETE_TOPIC_IN_BROKER)
            .with_header(&TopicRequest { topic });
        self.admin.call("delete the topic", self.address, &command).await.map(drop)
    }

    /// Bounds of the topic's queues, sorted.
    pub async fn topic_stats(&self, topic: &str) -> Result<Option<Vec<QueueBounds>>, AdminError> {
        let command = Command::request(RequestCode::GET_TOPIC_STATS_INFO)
            .with_header(&TopicRequest { topic });
        let found = self.admin.get("measure the topic", self.address, &command).await;
        let stats: Option<TopicStats> = present(found, ResponseCode::TOPIC_NOT_EXIST)?;
        Ok(stats.map(|stats| {
            let mut bounds: Vec<_> =
                stats.offset_table.0.into_iter().map(QueueBounds::from).collect();
            bounds.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
            bounds
        }))
    }

    /// The group's definition.
    pub async fn group(&self, group: &str) -> Result<Option<GroupConfig>, AdminError> {
        let command = Command::request(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG)
            .with_header(&GroupRequest { group });
        let found = self.admin.get("read the group", self.address, &command).await;
        present(found, ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST)
    }

    /// Makes a group, or changes it.
    pub async fn declare_group(&self, config: &GroupConfig) -> Result<(), AdminError> {
        let command = Command::request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP)
            .with_body(config.to_json());
        self.admin.call("create the group", self.address, &command).await.map(drop)
    }

    /// The committed offset of a group in a queue.
    pub async fn offset(
        &self,
        group: &str,
        topic: &str,
        queue: u32,
    ) -> Result<Option<u64>, AdminError> {
        let operation = "ask for an offset";
        let fields = QueryOffset {
            consumer_group: group,
            topic,
            queue_id: queue as i32,
            set_zero_if_not_found: Some(false),
        };
        let command = Command::request(RequestCode::QUERY_CONSUMER_OFFSET).with_header(&fields);
        let found = self.admin.call(operation, self.address, &command).await;
        let Some(answer) = present(found, ResponseCode::QUERY_NOT_FOUND)? else { return Ok(None) };
        self.offset_in(operation, &answer).map(Some)
    }

    fn offset_in(&self, operation: &'static str, answer: &Command) -> Result<u64, AdminError> {
        let fields: OffsetAnswer = answer.fields().map_err(|error| AdminError::Request {
            operation,
            source: unreadable(self.address, "an offset", error),
        })?;
        Ok(fields.offset.max(0) as u64)
    }

    /// Offset of the first message of a queue stored at a time or later, in milliseconds since 1970; the queue's end
    /// without one.
    pub async fn offset_at(
        &self,
        topic: &str,
        queue: u32,
        time_ms: u64,
    ) -> Result<u64, AdminError> {
        let operation = "ask for an offset";
        let fields = SearchOffset {
            topic,
            queue_id: queue as i32,
            timestamp: time_ms as i64,
            boundary_type: None,
        };
        let command =
            Command::request(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP).with_header(&fields);
        let answer = self.admin.call(operation, self.address, &command).await?;
        self.offset_in(operation, &answer)
    }

    /// Commits an offset for a group in a queue.
    pub async fn set_offset(
        &self,
        group: &str,
        topic: &str,
        queue: u32,
        offset: u64,
    ) -> Result<(), AdminError> {
        let fields = UpdateOffset {
            consumer_group: group,
            topic,
            queue_id: queue as i32,
            commit_offset: offset as i64,
        };
        let command = Command::request(RequestCode::UPDATE_CONSUMER_OFFSET).with_header(&fields);
        self.admin.call("set the offset", self.address, &command).await.map(drop)
    }

    /// Progress of a group in all queues of these topics; those that the broker does not have are left out.
    pub async fn progress(
        &self,
        group: &str,
        topics: &[String],
    ) -> Result<BrokerProgress, AdminError> {
        let list = topics.join(";");
        let fields = ConsumeStatsRequest {
            consumer_group: group,
            topic_list: Some(&list),
            ..ConsumeStatsRequest::default()
        };
        let command = Command::request(RequestCode::GET_CONSUME_STATS).with_header(&fields);
        let stats: ConsumeStats =
            self.admin.get("read the progress", self.address, &command).await?;
        let mut progress = BrokerProgress {
            waiting_retries: stats.waiting_retries.max(0) as u64,
            queues: Vec::new(),
        };
        for (queue, at) in stats.offset_table.0 {
            progress.queues.push(QueueLag {
                topic: queue.topic,
                queue: queue.queue_id.max(0) as u32,
                lag: at.broker_offset.saturating_sub(at.consumer_offset).max(0) as u64,
                next_store_time_ms: at.next_timestamp.max(0) as u64,
            });
        }
        Ok(progress)
    }
}

/// `None` for an answer that says with `absent` that there is nothing.
fn present<T>(
    answer: Result<T, AdminError>,
    absent: ResponseCode,
) -> Result<Option<T>, AdminError> {
    match answer {
        Err(AdminError::Request { source, .. }) if source.refusal() == Some(absent) => Ok(None),
        answer => answer.map(Some),
    }
}
