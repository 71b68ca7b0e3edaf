//! One queue of a consumer: reads, hands out, sends back what failed, commits.
//! Invariant: the committed offset is that of the first message not done with.
//! Leaves the decision which queues to read to `consumer`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use gantry_model::{RETRY_PREFIX, limits};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::{offsets::UpdateOffset, send_back::SendBack},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{Consumed, MessageModel, Shared, StartFrom};
use crate::{
    admin::{Admin, AdminError},
    error::{RequestError, RouteError},
    message::{MessageQueue, ReceivedMessage},
    pull::{Pull, PullBatch, PullError, PullStatus},
};

/// Pause after a read that failed, as in RocketMQ's clients.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a read that the broker refused because it is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Pauses between attempts to send a message back; the last is repeated.
const SEND_BACK_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Reads `queue` until `stopped` turns true.
pub(super) async fn read(
    shared: Arc<Shared>,
    queue: MessageQueue,
    mut stopped: watch::Receiver<bool>,
) {
    let start = tokio::select! {
        start = start_offset(&shared, &queue) => start,
        () = stop_of(&mut stopped) => return,
    };
    let mut reading = Reading {
        next: start,
        held: BTreeSet::new(),
        tasks: JoinSet::new(),
        committed: None,
        broker_id: 0,
        stopped: stopped.clone(),
        queue,
        shared,
    };
    let mut commits = interval(reading.shared.settings.commit_interval);
    commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    commits.tick().await;
    while !*stopped.borrow() {
        // A read that is under way is kept while messages end and commits are sent.
        let pull = reading.pull();
        tokio::pin!(pull);
        let batch = loop {
            let may_read = reading.held.len() < reading.shared.settings.held_messages_max;
            tokio::select! {
                batch = &mut pull, if may_read => break Some(batch),
                Some(ended) = reading.tasks.join_next() => reading.end(ended),
                _ = commits.tick() => reading.commit().await,
                () = stop_of(&mut stopped) => break None,
            }
        };
        if let Some(batch) = batch {
            reading.take(batch).await;
        }
    }
    reading.drain().await;
}

/// Returns when the queue is to be given up.
async fn stop_of(stopped: &mut watch::Receiver<bool>) {
    // An error means that the consumer is gone, which ends the queue as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Where to begin; asks until a broker answers.
async fn start_offset(shared: &Shared, queue: &MessageQueue) -> u64 {
    loop {
        match find_start(shared, queue).await {
            Ok(offset) => return offset,
            Err(error) => {
                tracing::warn!(%queue, %error, "start offset is not known yet");
                sleep(FAILED_PAUSE).await;
            }
        }
    }
}

async fn find_start(shared: &Shared, queue: &MessageQueue) -> Result<u64, AdminError> {
    let admin = Admin::new(&shared.client);
    let settings = &shared.settings;
    if settings.model == MessageModel::Clustering
        && let Some(offset) = admin.offset(&settings.group, queue).await?
    {
        return Ok(offset);
    }
    match settings.start_from {
        // What waits in a retry topic was consumed once: a new member never skips it.
        _ if queue.topic.starts_with(RETRY_PREFIX) => Ok(0),
        StartFrom::Earliest => admin.min_offset(queue).await,
        StartFrom::Latest => admin.max_offset(queue).await,
        StartFrom::Time(time_ms) => admin.offset_at(queue, time_ms).await,
    }
}

/// A message that was handed out: its offset, and whether it is done with.
type Ended = (u64, bool);

struct Reading {
    shared: Arc<Shared>,
    queue: MessageQueue,
    /// Where the next read begins.
    next: u64,
    /// Offsets handed out and not done with.
    held: BTreeSet<u64>,
    tasks: JoinSet<Ended>,
    committed: Option<u64>,
    broker_id: u64,
    stopped: watch::Receiver<bool>,
}

impl Reading {
    /// The next read; it owns what it needs.
    fn pull(&self) -> impl Future<Output = Result<PullBatch, PullError>> + use<> {
        let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
        let (offset, broker_id) = (self.next, self.broker_id);
        async move {
            let settings = &shared.settings;
            let wanted = settings.subscriptions.iter().find(|wanted| *wanted.topic == *queue.topic);
            let pull = Pull {
                group: &settings.group,
                queue: &queue,
                offset,
                messages_max: limits::PULL_MESSAGES_MAX,
                wait: settings.poll_wait,
                expression: wanted.map_or("*", |wanted| wanted.expression.as_str()),
                commit: None,
                subscription_version: Some(shared.version),
                broker_id,
            };
            shared.client.pull(&pull).await
        }
    }

    async fn take(&mut self, batch: Result<PullBatch, PullError>) {
        match batch {
            Ok(batch) => {
                if batch.status == PullStatus::OffsetMoved {
                    // Messages in hand belong to a past that the broker has given up.
                    self.held.clear();
                }
                self.next = batch.next_offset;
                self.broker_id = batch.suggested_broker_id;
                for message in batch.messages {
                    self.hand_out(message);
                }
            }
            Err(error) => {
                tracing::warn!(queue = %self.queue, %error, "read failed");
                let pause = self.pause_after(&error).await;
                let mut stopped = self.stopped.clone();
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop_of(&mut stopped) => {}
                }
            }
        }
    }

    /// A broker that started again does not know this consumer: tell it at once.
    async fn pause_after(&self, error: &PullError) -> Duration {
        const UNKNOWN: [ResponseCode; 2] =
            [ResponseCode::SUBSCRIPTION_NOT_EXIST, ResponseCode::SUBSCRIPTION_NOT_LATEST];
        let PullError::Request { source, .. } = error else { return FAILED_PAUSE };
        match source.refusal() {
            Some(code) if UNKNOWN.contains(&code) => {
                self.shared.client.inner.heartbeat().await;
                BUSY_PAUSE
            }
            Some(ResponseCode::FLOW_CONTROL) => BUSY_PAUSE,
            _ => FAILED_PAUSE,
        }
    }

    fn hand_out(&mut self, message: ReceivedMessage) {
        if !self.wants(&message) {
            return;
        }
        let offset = message.offset.0;
        self.held.insert(offset);
        let (shared, stopped) = (Arc::clone(&self.shared), self.stopped.clone());
        self.tasks.spawn(async move { (offset, handle(&shared, message, stopped).await) });
    }

    /// Brokers choose by the hash of the tag, which several tags may share.
    fn wants(&self, message: &ReceivedMessage) -> bool {
        let subscriptions = &self.shared.settings.subscriptions;
        let wanted = subscriptions.iter().find(|wanted| *wanted.topic == *self.queue.topic);
        let tags = wanted.map(super::Subscription::tags).unwrap_or_default();
        tags.is_empty() || message.tag().is_some_and(|tag| tags.contains(tag))
    }

    fn end(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok((offset, true)) => {
                self.held.remove(&offset);
            }
            // Stays held, so that it is delivered again.
            Ok((_, false)) => {}
            Err(error) => tracing::error!(%error, "a message's task panicked"),
        }
    }

    /// The offset to commit, if it is news.
    fn news(&mut self) -> Option<Command> {
        let offset = self.held.first().copied().unwrap_or(self.next);
        let news = self.shared.settings.model == MessageModel::Clustering
            && self.committed != Some(offset);
        news.then(|| {
            self.committed = Some(offset);
            let fields = UpdateOffset {
                consumer_group: &self.shared.settings.group,
                topic: &self.queue.topic,
                queue_id: self.queue.queue_id as i32,
                commit_offset: offset as i64,
            };
            Command::request(RequestCode::UPDATE_CONSUMER_OFFSET).with_header(&fields)
        })
    }

    async fn commit(&mut self) {
        let Some(command) = self.news() else { return };
        let inner = &self.shared.client.inner;
        let sent = match self.address().await {
            Ok(address) => inner.connections.one_way(&address, &command).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(queue = %self.queue, %error, "offset was not committed");
            self.committed = None;
        }
    }

    /// Waits for messages in hand, then commits and waits for the answer.
    async fn drain(&mut self) {
        let stop_timeout = self.shared.settings.stop_timeout;
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok((offset, true)) => {
                        self.held.remove(&offset);
                    }
                    Ok((_, false)) => {}
                    Err(error) => tracing::error!(%error, "a message's task panicked"),
                }
            }
        };
        if timeout(stop_timeout, all).await.is_err() {
            tracing::warn!(queue = %self.queue, held = self.held.len(), "handlers did not end in time");
            self.tasks.shutdown().await;
        }
        let Some(command) = self.news() else { return };
        let inner = &self.shared.client.inner;
        let committed = match self.address().await {
            Ok(address) => inner
                .connections
                .call(&address, &command, inner.timeout())
                .await
                .map(|_| ())
                .map_err(RouteError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            tracing::warn!(queue = %self.queue, %error, "last offset was not committed");
        }
    }

    async fn address(&self) -> Result<String, RouteError> {
        address(&self.shared, &self.queue).await
    }
}

async fn address(shared: &Shared, queue: &MessageQueue) -> Result<String, RouteError> {
    let route = shared.client.inner.route(&queue.topic, false).await?;
    let address = route.primary(&queue.broker_name).map(str::to_owned);
    address.ok_or_else(|| RouteError::BrokerNotFound { broker_name: queue.broker_name.clone() })
}

/// Lets the application handle a message. Returns whether the message is done with.
async fn handle(shared: &Shared, message: ReceivedMessage, stopped: watch::Receiver<bool>) -> bool {
    let permit = shared.handlers.acquire().await;
    // The semaphore is never closed; without a permit there is merely no limit.
    let _permit = permit.ok();
    if *stopped.borrow() {
        return false;
    }
    let back = Back::of(&message);
    // A task of its own, so that a panic of the application is a failed message and nothing else.
    match tokio::spawn((shared.handler)(message)).await {
        Ok(Consumed::Done) => return true,
        Ok(Consumed::Keep) => return false,
        Ok(Consumed::Later) => {}
        Err(error) => tracing::error!(%error, id = back.id, "the handler panicked"),
    }
    if shared.settings.model == MessageModel::Broadcasting {
        tracing::warn!(id = back.id, "dropped: broadcast messages are not delivered again");
        return true;
    }
    send_back_until_stopped(shared, &back, stopped).await
}

/// What a send-back needs to know of a message.
struct Back {
    queue: MessageQueue,
    position: u64,
    id: String,
    topic: String,
}

impl Back {
    fn of(message: &ReceivedMessage) -> Self {
        Self {
            queue: message.queue.clone(),
            position: message.position.0,
            id: message.id().to_owned(),
            topic: message.topic.clone(),
        }
    }
}

async fn send_back_until_stopped(
    shared: &Shared,
    back: &Back,
    mut stopped: watch::Receiver<bool>,
) -> bool {
    let last = SEND_BACK_PAUSES[SEND_BACK_PAUSES.len() - 1];
    let mut pauses = SEND_BACK_PAUSES.into_iter().chain(std::iter::repeat(last));
    loop {
        match send_back(shared, back).await {
            Ok(()) => return true,
            Err(error) => tracing::warn!(id = back.id, %error, "message was not sent back"),
        }
        let pause = pauses.next().unwrap_or(last);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop_of(&mut stopped) => return false,
        }
    }
}

async fn send_back(shared: &Shared, back: &Back) -> Result<(), SendBackError> {
    let address = address(shared, &back.queue).await?;
    let fields = SendBack {
        offset: back.position as i64,
        group: &shared.settings.group,
        delay_level: 0,
        origin_msg_id: Some(&back.id),
        origin_topic: Some(&back.topic),
        unit_mode: Some(false),
        max_reconsume_times: Some(shared.settings.attempts_max as i32),
        broker_name: Some(&back.queue.broker_name),
    };
    let command = Command::request(RequestCode::CONSUMER_SEND_MSG_BACK).with_header(&fields);
    let inner = &shared.client.inner;
    inner.connections.call(&address, &command, inner.timeout()).await?;
    Ok(())
}

/// Why a message was not sent back.
#[derive(Debug, thiserror::Error)]
enum SendBackError {
    #[error("find the broker: {0}")]
    Route(#[from] RouteError),
    #[error("{0}")]
    Request(#[from] RequestError),
}
