//! Topics: made, changed, deleted, listed, measured.
//! Invariant: after `create_topic` the name servers know the topic, as far as they answered in time.
//! Leaves which brokers there are to `Admin`.

use std::time::{Duration, Instant};

use gantry_model::{FilterType, TopicConfig, TopicName};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::{
        nameserver::NameserverTopic,
        topics::{CreateTopic, TopicList, TopicOffset, TopicRequest, TopicStats},
    },
    json,
};

use super::{Admin, AdminError, read};
use crate::message::MessageQueue;

/// Time for name servers to hear of a new topic: brokers tell them at once.
const ROUTE_WAIT_MAX: Duration = Duration::from_secs(3);
const ROUTE_LOOK: Duration = Duration::from_millis(10);

/// Bounds of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueBounds {
    /// The queue.
    pub queue: MessageQueue,
    /// Smallest offset.
    pub min_offset: u64,
    /// Next offset to be written.
    pub max_offset: u64,
    /// Store time of the newest message, in milliseconds since 1970; 0 without one.
    pub last_store_time_ms: u64,
}

impl From<(json::MessageQueue, TopicOffset)> for QueueBounds {
    fn from((queue, offsets): (json::MessageQueue, TopicOffset)) -> Self {
        Self {
            queue: queue.into(),
            min_offset: offsets.min_offset.max(0) as u64,
            max_offset: offsets.max_offset.max(0) as u64,
            last_store_time_ms: offsets.last_update_timestamp.max(0) as u64,
        }
    }
}

impl Admin {
    /// Makes a topic on every broker group, or changes it there, and waits until it has a route.
    pub async fn create_topic(&self, config: &TopicConfig) -> Result<(), AdminError> {
        self.declare_topic(config).await?;
        self.wait_for_route(&config.topic_name).await;
        Ok(())
    }

    /// Makes a topic on every broker group, or changes it there. Name servers hear of it soon after.
    pub async fn declare_topic(&self, config: &TopicConfig) -> Result<(), AdminError> {
        let operation = "create the topic";
        let command = declaration(config);
        self.tell_all(operation, &command).await?;
        self.client.inner.forget_route(&config.topic_name);
        Ok(())
    }

    /// Waits until the name servers know the topic. They will even if this gives up.
    async fn wait_for_route(&self, topic: &str) {
        let end = Instant::now() + ROUTE_WAIT_MAX;
        while Instant::now() < end && self.client.inner.route(topic, false).await.is_err() {
            tokio::time::sleep(ROUTE_LOOK).await;
        }
    }

    /// Deletes a topic, with its messages, from all brokers and name servers.
    pub async fn delete_topic(&self, topic: &TopicName) -> Result<(), AdminError> {
        let operation = "delete the topic";
        // Brokers answer success for a topic that they do not have.
        self.brokers_of(operation, topic).await?;
        let command = Command::request(RequestCode::DELETE_TOPIC_IN_BROKER)
            .with_header(&TopicRequest { topic });
        self.tell_all(operation, &command).await?;
        let fields = NameserverTopic { topic, cluster_name: None };
        let command = Command::request(RequestCode::DELETE_TOPIC_IN_NAMESRV).with_header(&fields);
        let told = self.client.inner.tell_name_servers(&command).await;
        self.client.inner.forget_route(topic);
        told.map_err(|source| AdminError::Request { operation, source })
    }

    /// Definitions of a topic, by broker name.
    pub async fn topic(&self, topic: &str) -> Result<Vec<(String, TopicConfig)>, AdminError> {
        let operation = "read the topic";
        let command =
            Command::request(RequestCode::GET_TOPIC_CONFIG).with_header(&TopicRequest { topic });
        let mut configs = Vec::new();
        for (broker_name, address) in self.brokers_of(operation, topic).await? {
            configs.push((broker_name, self.get(operation, &address, &command).await?));
        }
        Ok(configs)
    }

    /// Names of all topics, sorted, those of the system among them.
    pub async fn topics(&self) -> Result<Vec<String>, AdminError> {
        let operation = "list the topics";
        let failed = |source| AdminError::Request { operation, source };
        let command = Command::request(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER);
        let (address, answer) =
            self.client.inner.ask_name_servers(&command).await.map_err(failed)?;
        let mut names = match answer.response_code() {
            ResponseCode::SUCCESS => {
                let list: TopicList = read(&address, &answer.body).map_err(failed)?;
                list.topic_list
            }
            // One answer cannot hold them all, or the name server gives no list.
            ResponseCode::SYSTEM_ERROR => self.topics_of_brokers().await?,
            _ => return Err(failed(crate::connections::refused(&address, &answer))),
        };
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Names of the topics of all brokers, which give them in parts.
    async fn topics_of_brokers(&self) -> Result<Vec<String>, AdminError> {
        let mut names = Vec::new();
        for primary in self.primaries(None).await? {
            names.extend(self.topics_of_broker(&primary.address).await?.into_keys());
        }
        Ok(names)
    }

    /// Bounds of all queues of a topic.
    pub async fn topic_stats(&self, topic: &str) -> Result<Vec<QueueBounds>, AdminError> {
        let operation = "measure the topic";
        let command = Command::request(RequestCode::GET_TOPIC_STATS_INFO)
            .with_header(&TopicRequest { topic });
        let mut bounds = Vec::new();
        for (_, address) in self.brokers_of(operation, topic).await? {
            let stats: TopicStats = self.get(operation, &address, &command).await?;
            bounds.extend(stats.offset_table.0.into_iter().map(QueueBounds::from));
        }
        bounds.sort_unstable_by(|a, b| a.queue.cmp(&b.queue));
        Ok(bounds)
    }
}

/// The request that makes a topic or changes it.
pub(super) fn declaration(config: &TopicConfig) -> Command {
    let attributes: Vec<String> =
        config.attributes.iter().map(|(key, value)| format!("+{key}={value}")).collect();
    let attributes = attributes.join(",");
    let fields = CreateTopic {
        topic: &config.topic_name,
        default_topic: Some("TBW102"),
        read_queues: config.read_queues,
        write_queues: config.write_queues,
        perm: config.perm.0,
        topic_filter_type: Some(match config.topic_filter_type {
            FilterType::SingleTag => "SINGLE_TAG",
            FilterType::MultiTag => "MULTI_TAG",
        }),
        topic_sys_flag: Some(config.topic_sys_flag),
        order: Some(config.order),
        attributes: (!attributes.is_empty()).then_some(&attributes),
        force: None,
    };
    Command::request(RequestCode::UPDATE_AND_CREATE_TOPIC).with_header(&fields)
}
