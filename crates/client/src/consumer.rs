//! Consumer: shares the queues of its topics with the other members of its group, reads them with long
//! polls and hands each message to the application.
//! Invariant: a message counts as consumed only after the application said so, or after the broker
//! took it back for another attempt; the committed offset never passes one that does neither.
//! Leaves one queue to `queue`, shares to `rebalance`, heartbeats to `client`.

mod queue;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use gantry_model::{GroupName, RETRY_PREFIX, TopicName};
use gantry_remoting::{
    Command, RequestCode,
    command::heartbeat::{
        ConsumerData, ConsumerGroup, ConsumerIds, SubscriptionData, consume_from_where,
        consume_type, message_model,
    },
    json::JsonBody,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};

use crate::{
    client::{Client, Inner, Member},
    connections::unreadable,
    error::{RequestError, RouteError},
    message::{MessageQueue, ReceivedMessage},
    rebalance,
};

/// Time between two looks at members and queues, as in RocketMQ's clients; changes are told besides.
const REBALANCE_INTERVAL: Duration = Duration::from_secs(20);
/// The same after a look that failed.
const REBALANCE_RETRY: Duration = Duration::from_secs(1);

/// Who gets a message of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageModel {
    /// One member; offsets are kept by the broker.
    Clustering,
    /// Every member; offsets end with the consumer, which starts anew by `start_from`.
    Broadcasting,
}

/// Where a group starts that has no offset yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// With what comes next.
    Latest,
    /// With the oldest message.
    Earliest,
    /// With the first message stored at or after a time, in milliseconds since 1970.
    Time(u64),
}

/// What a consumer reads of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: TopicName,
    /// `*`, or tags joined by `||`.
    pub expression: String,
}

impl Subscription {
    /// All messages of a topic.
    pub fn all(topic: TopicName) -> Self {
        Self { topic, expression: "*".into() }
    }

    /// The tags wanted; empty for all messages.
    fn tags(&self) -> BTreeSet<String> {
        let tags = self.expression.split("||").map(str::trim);
        let tags: BTreeSet<_> = tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        if tags.contains("*") { BTreeSet::new() } else { tags }
    }

    fn data(&self, version: i64) -> SubscriptionData {
        let tags = self.tags();
        SubscriptionData {
            code_set: tags.iter().map(|tag| gantry_record::tag_hash(tag)).collect(),
            expression_type: Some("TAG".into()),
            sub_string: if tags.is_empty() { "*".into() } else { self.expression.clone() },
            sub_version: version,
            tags_set: tags.into_iter().collect(),
            topic: self.topic.to_string(),
            ..SubscriptionData::default()
        }
    }
}

/// Settings of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// Its group.
    pub group: GroupName,
    /// What it reads; all members of a group have to read the same.
    pub subscriptions: Vec<Subscription>,
    /// Who gets a message.
    pub model: MessageModel,
    /// Where a new group starts.
    pub start_from: StartFrom,
    /// Messages handled at a time. Default 20.
    pub handlers_max: usize,
    /// Messages of one queue that may be held; reading pauses beyond. Default 1,000: with 20 queues
    /// of 1 KiB messages, 20 MiB.
    pub held_messages_max: usize,
    /// Longest wait of one read for a message. Default 15 s; brokers allow less than 30 s.
    pub poll_wait: Duration,
    /// Time between two commits of offsets. Default 5 s.
    pub commit_interval: Duration,
    /// Failed attempts after which a message goes to the dead-letter topic. Default 16.
    pub attempts_max: u32,
    /// Time that handlers get to end when the consumer stops. Default 10 s.
    pub stop_timeout: Duration,
}

impl ConsumerSettings {
    /// RocketMQ's defaults.
    pub fn new(group: GroupName, subscriptions: Vec<Subscription>) -> Self {
        Self {
            group,
            subscriptions,
            model: MessageModel::Clustering,
            start_from: StartFrom::Latest,
            handlers_max: 20,
            held_messages_max: 1_000,
            poll_wait: Duration::from_secs(15),
            commit_interval: Duration::from_secs(5),
            attempts_max: 16,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// What the application says about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumed {
    /// It is done with.
    Done,
    /// It failed and is to be delivered again later.
    Later,
    /// It was not handled at all: it is not committed, and whoever reads the queue next gets it.
    Keep,
}

/// Why a consumer did not start.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// A topic has no route.
    #[error("subscribe to {topic}")]
    Route {
        /// The topic.
        topic: String,
        /// The cause.
        source: RouteError,
    },
    /// The client consumes in that group already.
    #[error("this client already consumes in group {group}")]
    GroupTaken {
        /// The group.
        group: String,
    },
}

type Handler =
    Box<dyn Fn(ReceivedMessage) -> Pin<Box<dyn Future<Output = Consumed> + Send>> + Send + Sync>;

/// A running consumer.
pub struct Consumer {
    shared: Arc<Shared>,
    balancing: JoinHandle<()>,
}

/// What a consumer and its queues share.
struct Shared {
    client: Client,
    settings: ConsumerSettings,
    handler: Handler,
    /// When the subscriptions were made, in milliseconds: the newest counts at the broker.
    version: i64,
    handlers: Arc<Semaphore>,
    queues: Mutex<BTreeMap<MessageQueue, QueueTask>>,
    members_changed: Arc<Notify>,
    stop: watch::Sender<bool>,
}

struct QueueTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Joins the group and reads; each message is handed to `handler`, several at a time.
    pub async fn start<F, R>(
        client: &Client,
        settings: ConsumerSettings,
        handler: F,
    ) -> Result<Self, ConsumerError>
    where
        F: Fn(ReceivedMessage) -> R + Send + Sync + 'static,
        R: Future<Output = Consumed> + Send + 'static,
    {
        for subscription in &settings.subscriptions {
            let topic = subscription.topic.to_string();
            let route = client.route(&topic).await;
            route.map_err(|source| ConsumerError::Route { topic, source })?;
        }
        let version = Inner::now_ms() as i64;
        let members_changed = Arc::new(Notify::new());
        let member = Member {
            data: consumer_data(&settings, version),
            members_changed: Arc::clone(&members_changed),
        };
        if !client.inner.add_consumer(member) {
            return Err(ConsumerError::GroupTaken { group: settings.group.to_string() });
        }
        client.inner.heartbeat().await;
        let shared = Arc::new(Shared {
            client: client.clone(),
            handlers: Arc::new(Semaphore::new(settings.handlers_max.max(1))),
            settings,
            handler: Box::new(move |message| Box::pin(handler(message))),
            version,
            queues: Mutex::default(),
            members_changed,
            stop: watch::Sender::new(false),
        });
        let balancing = tokio::spawn(balance(Arc::clone(&shared)));
        Ok(Self { shared, balancing })
    }

    /// Queues that this member reads at present.
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.shared.queues.lock().keys().cloned().collect()
    }

    /// Stops reading, waits for messages in hand, commits offsets and leaves the group.
    pub async fn stop(self) {
        self.shared.stop.send_replace(true);
        if let Err(error) = self.balancing.await {
            tracing::error!(%error, "the consumer's balancing task panicked");
        }
        self.shared.drop_queues(|_| true).await;
        self.shared.client.inner.remove_consumer(&self.shared.settings.group).await;
    }
}

fn consumer_data(settings: &ConsumerSettings, version: i64) -> ConsumerData {
    let mut subscriptions: Vec<_> =
        settings.subscriptions.iter().map(|subscription| subscription.data(version)).collect();
    let clustering = settings.model == MessageModel::Clustering;
    if clustering {
        subscriptions.push(Subscription::all(settings.group.retry_topic()).data(version));
    }
    ConsumerData {
        consume_from_where: match settings.start_from {
            StartFrom::Latest => consume_from_where::LAST_OFFSET,
            StartFrom::Earliest => consume_from_where::FIRST_OFFSET,
            StartFrom::Time(_) => consume_from_where::TIMESTAMP,
        }
        .into(),
        consume_type: consume_type::PASSIVELY.into(),
        group_name: settings.group.to_string(),
        message_model: match settings.model {
            MessageModel::Clustering => message_model::CLUSTERING,
            MessageModel::Broadcasting => message_model::BROADCASTING,
        }
        .into(),
        subscription_data_set: subscriptions,
        unit_mode: false,
    }
}

/// Keeps this member's queues right until the consumer stops.
async fn balance(shared: Arc<Shared>) {
    let mut stopped = shared.stop.subscribe();
    loop {
        let pause = tokio::select! {
            balanced = shared.balance_all() => {
                if balanced { REBALANCE_INTERVAL } else { REBALANCE_RETRY }
            }
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.members_changed.notified() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

impl Shared {
    /// Returns false when a topic could not be balanced; its queues stay as they are.
    async fn balance_all(self: &Arc<Self>) -> bool {
        let mut topics: Vec<TopicName> =
            self.settings.subscriptions.iter().map(|wanted| wanted.topic.clone()).collect();
        if self.settings.model == MessageModel::Clustering {
            topics.push(self.settings.group.retry_topic());
        }
        let mut all = true;
        for topic in topics {
            match self.share_of(&topic).await {
                Ok(share) => self.take(&topic, share).await,
                // The retry topic appears with the first heartbeat that a broker handles.
                Err(BalanceError::Route(RouteError::TopicNotFound { .. }))
                    if topic.starts_with(RETRY_PREFIX) =>
                {
                    all = false;
                }
                Err(error) => {
                    tracing::warn!(%topic, %error, "queues were not shared out");
                    all = false;
                }
            }
        }
        all
    }

    async fn share_of(&self, topic: &str) -> Result<BTreeSet<MessageQueue>, BalanceError> {
        let inner = &self.client.inner;
        let route = inner.route(topic, false).await?;
        if self.settings.model == MessageModel::Broadcasting {
            return Ok(route.read_queues().iter().cloned().collect());
        }
        let address = route.brokers().values().find_map(|group| group.any());
        let Some(address) = address else { return Ok(BTreeSet::new()) };
        let group = ConsumerGroup { consumer_group: &self.settings.group };
        let command = Command::request(RequestCode::GET_CONSUMER_LIST_BY_GROUP).with_header(&group);
        let answer = inner.connections.call(address, &command, inner.timeout()).await;
        if answer.is_err() {
            // The broker may have moved, or have forgotten this client when it started again.
            let _ = inner.renewed_route(topic, false).await;
            inner.heartbeat().await;
        }
        let members = ConsumerIds::from_json(&answer?.body)
            .map_err(|error| unreadable(address, "the list of members", error))?;
        let share = rebalance::share(route.read_queues(), &members.consumer_id_list, &inner.id);
        Ok(share.into_iter().cloned().collect())
    }

    /// Ends the reading of queues of `topic` outside `share` and begins what is missing of it.
    async fn take(self: &Arc<Self>, topic: &str, share: BTreeSet<MessageQueue>) {
        self.drop_queues(|queue| queue.topic == topic && !share.contains(queue)).await;
        let mut queues = self.queues.lock();
        for queue in share {
            queues.entry(queue.clone()).or_insert_with(|| {
                let (stop, stopped) = watch::channel(false);
                let reading = queue::read(Arc::clone(self), queue, stopped);
                QueueTask { stop, task: tokio::spawn(reading) }
            });
        }
    }

    async fn drop_queues(&self, which: impl Fn(&MessageQueue) -> bool) {
        let dropped: Vec<QueueTask> = {
            let mut queues = self.queues.lock();
            let names: Vec<_> = queues.keys().filter(|queue| which(queue)).cloned().collect();
            names.iter().filter_map(|queue| queues.remove(queue)).collect()
        };
        for queue in &dropped {
            queue.stop.send_replace(true);
        }
        for queue in dropped {
            if let Err(error) = queue.task.await {
                tracing::error!(%error, "a queue's task panicked");
            }
        }
    }
}

/// Why queues could not be shared out.
#[derive(Debug, thiserror::Error)]
enum BalanceError {
    #[error("find the queues: {0}")]
    Route(#[from] RouteError),
    #[error("find the members: {0}")]
    Members(#[from] RequestError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_tags_and_their_hashes() {
        let topic = TopicName::new("t").unwrap();
        let subscription = Subscription { topic: topic.clone(), expression: "TagA || TagB".into() };
        let data = subscription.data(7);
        assert_eq!(data.tags_set, ["TagA", "TagB"]);
        assert_eq!(data.code_set, [2_598_919, 2_598_920]);
        assert_eq!(data.sub_version, 7);
        for all in ["*", "", " * || a"] {
            let subscription = Subscription { topic: topic.clone(), expression: all.into() };
            assert_eq!(subscription.data(0).sub_string, "*", "{all:?}");
        }
    }

    #[test]
    fn sharing_consumers_also_read_their_retry_topic() {
        let group = GroupName::new("g").unwrap();
        let mut settings =
            ConsumerSettings::new(group, vec![Subscription::all(TopicName::new("t").unwrap())]);
        let topics = |settings: &ConsumerSettings| -> Vec<String> {
            let data = consumer_data(settings, 1);
            data.subscription_data_set.into_iter().map(|data| data.topic).collect()
        };
        assert_eq!(topics(&settings), ["t", "%RETRY%g"]);
        settings.model = MessageModel::Broadcasting;
        assert_eq!(topics(&settings), ["t"]);
    }
}
