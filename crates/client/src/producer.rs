//! Producer: sends messages to a queue that it chooses or the caller chose, and tries again elsewhere.
//! Invariant: a message is tried at most `attempts_max` times within `send_timeout`, always under the
//! same unique id, so that a message stored twice can be recognised.
//! Leaves routes, connections and heartbeats to `client`.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use gantry_model::{GroupName, limits};
use gantry_record::{BatchError, BatchItem, PropertyError, put_batch_item};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::send::{SendAnswer, SendRequest},
};

use crate::{
    client::{Client, Inner, TEMPLATE_QUEUES},
    connections::{refused, unreadable},
    error::{RequestError, RouteError},
    message::{Message, MessageQueue},
    route::Route,
};

/// Settings of a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerSettings {
    /// Its group.
    pub group: GroupName,
    /// Time for a send, all attempts together. Default 3 s.
    pub send_timeout: Duration,
    /// Most attempts. Default 3, as RocketMQ: one and two retries.
    pub attempts_max: u32,
    /// Largest body, or batch, in bytes. Default 4 MiB.
    pub body_bytes_max: usize,
}

impl ProducerSettings {
    /// RocketMQ's defaults.
    pub fn new(group: GroupName) -> Self {
        Self {
            group,
            send_timeout: Duration::from_secs(3),
            attempts_max: 3,
            body_bytes_max: limits::BODY_BYTES_MAX,
        }
    }
}

/// Why a message was not sent, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A property cannot be encoded.
    #[error("encode the properties")]
    Properties(#[from] PropertyError),
    /// The message is too large.
    #[error("the body is {bytes} bytes, the limit is {bytes_max}")]
    TooLarge {
        /// Size of the body or batch.
        bytes: usize,
        /// Largest size.
        bytes_max: usize,
    },
    /// A batch is empty, or its messages cannot be sent together.
    #[error("the batch {reason}")]
    Batch {
        /// What is wrong.
        reason: &'static str,
    },
    /// An item of a batch cannot be encoded.
    #[error("encode the batch")]
    BatchItem(#[from] BatchError),
    /// There is no queue to send to.
    #[error("find a queue")]
    Route(#[from] RouteError),
    /// No attempt succeeded.
    #[error("send after {attempts} attempts")]
    Attempts {
        /// How many were made.
        attempts: u32,
        /// Why the last failed.
        source: RequestError,
    },
}

/// How safe a stored message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendStatus {
    /// As safe as the broker's settings promise.
    Stored,
    /// Stored; the disk did not answer in time.
    FlushTimeout,
    /// Stored; the replicas did not answer in time.
    ReplicaTimeout,
    /// Stored; no replica is there.
    NoReplica,
}

/// What a broker says about a stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendReceipt {
    /// How safe it is.
    pub status: SendStatus,
    /// The id that this client gave.
    pub message_id: String,
    /// The id made from its place; of a batch the ids joined by commas.
    pub offset_message_id: String,
    /// Where it is.
    pub queue: MessageQueue,
    /// Place in the queue; of a batch that of the first.
    pub queue_offset: u64,
    /// Handle by which a timed message can be recalled.
    pub recall_handle: Option<String>,
}

/// Sends messages.
pub struct Producer {
    client: Client,
    settings: ProducerSettings,
    /// Number of the next queue, counted over all topics.
    next: AtomicUsize,
}

/// One request, whichever queue it goes to.
struct Outgoing<'m> {
    code: RequestCode,
    topic: &'m str,
    body: Bytes,
    properties: String,
    flag: i32,
    message_id: String,
    batch: bool,
}

impl Producer {
    /// A producer in the group of `settings`.
    pub fn new(client: &Client, settings: ProducerSettings) -> Self {
        client.inner.add_producer(&settings.group);
        Self {
            client: client.clone(),
            settings,
            next: AtomicUsize::new(rand::random_range(0..1 << 16)),
        }
    }

    /// Sends a message to a queue of its topic, each in turn.
    pub async fn send(&self, message: &Message) -> Result<SendReceipt, SendError> {
        let outgoing = self.outgoing(message)?;
        self.deliver(&outgoing, |route, failed| self.pick(route, failed)).await
    }

    /// Sends a message to the queue that `select` chooses by index among `count`: the same choice for
    /// the same key keeps messages in order.
    pub async fn send_selected(
        &self,
        message: &Message,
        select: impl Fn(usize) -> usize,
    ) -> Result<SendReceipt, SendError> {
        let outgoing = self.outgoing(message)?;
        let choose = |route: &Route, _: Option<&str>| {
            let queues = route.write_queues();
            (!queues.is_empty()).then(|| queues[select(queues.len()) % queues.len()].clone())
        };
        self.deliver(&outgoing, choose).await
    }

    /// Sends a message to `queue`.
    pub async fn send_to(
        &self,
        queue: &MessageQueue,
        message: &Message,
    ) -> Result<SendReceipt, SendError> {
        let outgoing = self.outgoing(message)?;
        self.deliver(&outgoing, |_, _| Some(queue.clone())).await
    }

    /// Sends messages of one topic together; they get consecutive places in one queue.
    pub async fn send_batch(&self, messages: &[Message]) -> Result<SendReceipt, SendError> {
        let outgoing = self.outgoing_batch(messages)?;
        self.deliver(&outgoing, |route, failed| self.pick(route, failed)).await
    }

    /// Sends a message without waiting for an answer: it may be lost.
    pub async fn send_one_way(&self, message: &Message) -> Result<(), SendError> {
        let outgoing = self.outgoing(message)?;
        let route = self.client.inner.route(outgoing.topic, true).await?;
        let queue = self.pick(&route, None).ok_or_else(|| no_queue(outgoing.topic))?;
        let address = primary(&route, &queue)?;
        let command = self.command(&outgoing, &queue);
        let sent = self.client.inner.connections.one_way(address, &command).await;
        sent.map_err(|source| SendError::Attempts { attempts: 1, source })
    }

    fn outgoing<'m>(&self, message: &'m Message) -> Result<Outgoing<'m>, SendError> {
        self.check_size(message.body.len())?;
        let (message_id, properties) = self.properties(message)?;
        Ok(Outgoing {
            code: RequestCode::SEND_MESSAGE_V2,
            topic: &message.topic,
            body: message.body.clone(),
            properties,
            flag: message.flag,
            message_id,
            batch: false,
        })
    }

    fn outgoing_batch<'m>(&self, messages: &'m [Message]) -> Result<Outgoing<'m>, SendError> {
        let first = messages.first().ok_or(SendError::Batch { reason: "is empty" })?;
        if messages.iter().any(|message| message.topic != first.topic) {
            return Err(SendError::Batch { reason: "has messages of several topics" });
        }
        let (mut body, mut ids) = (Vec::new(), Vec::new());
        for message in messages {
            let (id, properties) = self.properties(message)?;
            let item = BatchItem {
                flag: message.flag,
                body: &message.body,
                properties: properties.as_bytes(),
            };
            put_batch_item(&item, &mut body)?;
            ids.push(id);
        }
        self.check_size(body.len())?;
        Ok(Outgoing {
            code: RequestCode::SEND_BATCH_MESSAGE,
            topic: &first.topic,
            body: body.into(),
            properties: String::new(),
            flag: 0,
            message_id: ids.join(","),
            batch: true,
        })
    }

    fn check_size(&self, bytes: usize) -> Result<(), SendError> {
        let bytes_max = self.settings.body_bytes_max;
        if bytes > bytes_max { Err(SendError::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    fn properties(&self, message: &Message) -> Result<(String, String), SendError> {
        let given = message.properties.get(gantry_model::properties::UNIQ_KEY);
        let id =
            given.cloned().unwrap_or_else(|| self.client.inner.unique_ids.next(Inner::now_ms()));
        let properties = message.encode_properties(&id)?;
        let properties = String::from_utf8(properties).expect("keys and values are text");
        Ok((id, properties))
    }

    /// Tries until an attempt succeeds, fails for good, or attempts or time are used up.
    async fn deliver(
        &self,
        outgoing: &Outgoing<'_>,
        choose: impl Fn(&Route, Option<&str>) -> Option<MessageQueue>,
    ) -> Result<SendReceipt, SendError> {
        let end = Instant::now() + self.settings.send_timeout;
        let mut route = self.client.inner.route(outgoing.topic, true).await?;
        let mut failed: Option<String> = None;
        let mut attempts = 0;
        loop {
            let queue =
                choose(&route, failed.as_deref()).ok_or_else(|| no_queue(outgoing.topic))?;
            attempts += 1;
            let left = end.saturating_duration_since(Instant::now());
            let error = match self.attempt(outgoing, &route, &queue, left).await? {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            let again = attempts < self.settings.attempts_max && Instant::now() < end;
            if !again || !is_worth_retry(&error) {
                return Err(SendError::Attempts { attempts, source: error });
            }
            tracing::debug!(%error, attempts, "send is tried again");
            failed = Some(queue.broker_name);
            if let Ok(renewed) = self.client.inner.renewed_route(outgoing.topic, true).await {
                route = renewed;
            }
        }
    }

    async fn attempt(
        &self,
        outgoing: &Outgoing<'_>,
        route: &Route,
        queue: &MessageQueue,
        within: Duration,
    ) -> Result<Result<SendReceipt, RequestError>, SendError> {
        let address = primary(route, queue)?;
        let command = self.command(outgoing, queue);
        let answer = self.client.inner.connections.ask(address, &command, within).await;
        Ok(answer.and_then(|answer| receipt(address, &answer, outgoing, queue)))
    }

    fn command(&self, outgoing: &Outgoing<'_>, queue: &MessageQueue) -> Command {
        let fields = SendRequest {
            producer_group: &self.settings.group,
            topic: outgoing.topic,
            default_topic: "TBW102",
            default_topic_queues: TEMPLATE_QUEUES as i32,
            queue_id: queue.queue_id as i32,
            sys_flag: 0,
            born_timestamp: Inner::now_ms() as i64,
            flag: outgoing.flag,
            properties: Some(&outgoing.properties),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(outgoing.batch),
            broker_name: Some(&queue.broker_name),
        };
        Command::request(outgoing.code).with_header(&fields).with_body(outgoing.body.clone())
    }

    /// The next queue in turn, on another broker than the one that failed if there is one.
    fn pick(&self, route: &Route, failed: Option<&str>) -> Option<MessageQueue> {
        let queues = route.write_queues();
        let start = self.next.fetch_add(1, Relaxed);
        let turn =
            || (0..queues.len()).map(|step| &queues[start.wrapping_add(step) % queues.len()]);
        let other = turn().find(|queue| Some(queue.broker_name.as_str()) != failed);
        other.or_else(|| turn().next()).cloned()
    }
}

fn no_queue(topic: &str) -> RouteError {
    RouteError::NoQueue { topic: topic.to_owned(), offers: "accepts messages for" }
}

fn primary<'r>(route: &'r Route, queue: &MessageQueue) -> Result<&'r str, RouteError> {
    let broker_name = &queue.broker_name;
    route
        .primary(broker_name)
        .ok_or_else(|| RouteError::BrokerNotFound { broker_name: broker_name.clone() })
}

fn receipt(
    address: &str,
    answer: &Command,
    outgoing: &Outgoing<'_>,
    queue: &MessageQueue,
) -> Result<SendReceipt, RequestError> {
    let status = match answer.response_code() {
        ResponseCode::SUCCESS => SendStatus::Stored,
        ResponseCode::FLUSH_DISK_TIMEOUT => SendStatus::FlushTimeout,
        ResponseCode::FLUSH_SLAVE_TIMEOUT => SendStatus::ReplicaTimeout,
        ResponseCode::SLAVE_NOT_AVAILABLE => SendStatus::NoReplica,
        _ => return Err(refused(address, answer)),
    };
    let fields: SendAnswer<'_> =
        answer.fields().map_err(|error| unreadable(address, "a send answer", error))?;
    Ok(SendReceipt {
        status,
        message_id: outgoing.message_id.clone(),
        offset_message_id: fields.msg_id.to_owned(),
        queue: MessageQueue { queue_id: fields.queue_id, ..queue.clone() },
        queue_offset: fields.queue_offset,
        recall_handle: fields.recall_handle.map(str::to_owned),
    })
}

/// Whether another attempt may succeed: what RocketMQ's own client tries again.
fn is_worth_retry(error: &RequestError) -> bool {
    const AGAIN: [ResponseCode; 8] = [
        ResponseCode::TOPIC_NOT_EXIST,
        ResponseCode::SERVICE_NOT_AVAILABLE,
        ResponseCode::SYSTEM_ERROR,
        ResponseCode::SYSTEM_BUSY,
        ResponseCode::NO_PERMISSION,
        ResponseCode::NO_BUYER_ID,
        ResponseCode::NOT_IN_CURRENT_UNIT,
        ResponseCode::GO_AWAY,
    ];
    error.is_transport() || error.refusal().is_some_and(|code| AGAIN.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_brokers_are_tried_again_and_illegal_messages_are_not() {
        let refused =
            |code| RequestError::Refused { address: String::new(), code, remark: String::new() };
        assert!(is_worth_retry(&refused(ResponseCode::SYSTEM_BUSY)));
        assert!(is_worth_retry(&refused(ResponseCode::TOPIC_NOT_EXIST)));
        assert!(!is_worth_retry(&refused(ResponseCode::MESSAGE_ILLEGAL)));
    }
}
