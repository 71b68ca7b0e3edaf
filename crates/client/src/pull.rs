//! Pull: one read of one queue at an explicit offset, waiting for messages if asked to.
//! Invariant: a batch holds only messages from the asked offset on, and says where to go on.
//! Leaves who reads which queue, and commits, to `consumer` and the caller.

use std::time::Duration;

use gantry_model::{GroupName, limits};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    command::pull::{PullAnswer, PullRequest, pull_flag},
};

use crate::{
    client::Client,
    connections::{refused, unreadable},
    error::{RequestError, RouteError},
    message::{MessageQueue, ReceivedMessage},
};

/// Time that an answer may take beyond the wait that was asked for, as in RocketMQ's clients.
const ANSWER_SLACK: Duration = Duration::from_secs(15);

/// Why a queue was not read.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The queue's broker is not known.
    #[error("find the broker of {queue}")]
    Route {
        /// The queue.
        queue: MessageQueue,
        /// The cause.
        source: RouteError,
    },
    /// The broker did not answer well.
    #[error("read {queue} from offset {offset}")]
    Request {
        /// The queue.
        queue: MessageQueue,
        /// Where the read began.
        offset: u64,
        /// The cause.
        source: RequestError,
    },
}

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullStatus {
    /// There are messages.
    Found,
    /// There is none yet.
    NoNewMessage,
    /// Messages were passed over that the expression does not want.
    NoneMatched,
    /// The offset does not exist, or was reset; go on at `next_offset`.
    OffsetMoved,
}

/// What one read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullBatch {
    /// How it ended.
    pub status: PullStatus,
    /// Where to go on.
    pub next_offset: u64,
    /// Smallest offset of the queue.
    pub min_offset: u64,
    /// Next offset to be written to the queue.
    pub max_offset: u64,
    /// The messages.
    pub messages: Vec<ReceivedMessage>,
    /// Broker id that should be asked next.
    pub suggested_broker_id: u64,
}

/// One read.
#[derive(Debug, Clone)]
pub(crate) struct Pull<'p> {
    pub(crate) group: &'p str,
    pub(crate) queue: &'p MessageQueue,
    pub(crate) offset: u64,
    pub(crate) messages_max: u32,
    /// Longest wait for a message; zero answers at once.
    pub(crate) wait: Duration,
    pub(crate) expression: &'p str,
    /// Offset to commit on the way.
    pub(crate) commit: Option<u64>,
    /// Version of the subscription that heartbeats announced; without one the expression is sent along.
    pub(crate) subscription_version: Option<i64>,
    pub(crate) broker_id: u64,
}

/// Reads queues at explicit offsets.
#[derive(Clone)]
pub struct PullReader {
    client: Client,
    group: GroupName,
    expression: String,
}

impl PullReader {
    /// A reader of messages that `expression` wants (`*`, or tags joined by `||`), in the name of `group`.
    pub fn new(client: &Client, group: GroupName, expression: &str) -> Self {
        Self { client: client.clone(), group, expression: expression.to_owned() }
    }

    /// Reads up to `messages_max` messages from `offset` on, waiting up to `wait` for the first.
    pub async fn pull(
        &self,
        queue: &MessageQueue,
        offset: u64,
        messages_max: u32,
        wait: Duration,
    ) -> Result<PullBatch, PullError> {
        let pull = Pull {
            group: &self.group,
            queue,
            offset,
            messages_max,
            wait,
            expression: &self.expression,
            commit: None,
            subscription_version: None,
            broker_id: 0,
        };
        self.client.pull(&pull).await
    }
}

impl Client {
    pub(crate) async fn pull(&self, pull: &Pull<'_>) -> Result<PullBatch, PullError> {
        let queue = pull.queue;
        let unknown = |source| PullError::Route { queue: queue.clone(), source };
        let route = self.inner.route(&queue.topic, false).await.map_err(unknown)?;
        let address = route.reader(&queue.broker_name, pull.broker_id).ok_or_else(|| {
            unknown(RouteError::BrokerNotFound { broker_name: queue.broker_name.clone() })
        })?;
        let failed =
            |source| PullError::Request { queue: queue.clone(), offset: pull.offset, source };
        let within = pull.wait + ANSWER_SLACK;
        let answer = self.inner.connections.ask(address, &command(pull), within).await;
        let result = answer.and_then(|answer| batch(address, &answer, &queue.broker_name));
        if result.as_ref().is_err_and(RequestError::is_transport) {
            // The primary may have moved; a failure to ask shows with the next pull.
            let _ = self.inner.renewed_route(&queue.topic, false).await;
        }
        result.map_err(failed)
    }
}

fn command(pull: &Pull<'_>) -> Command {
    let own_expression = pull.subscription_version.is_none();
    let bit = |on, bit| if on { bit } else { 0 };
    let fields = PullRequest {
        consumer_group: pull.group,
        topic: &pull.queue.topic,
        queue_id: pull.queue.queue_id as i32,
        queue_offset: pull.offset as i64,
        max_messages: pull.messages_max.clamp(1, limits::PULL_MESSAGES_MAX) as i32,
        sys_flag: bit(pull.commit.is_some(), pull_flag::COMMIT_OFFSET)
            | bit(!pull.wait.is_zero(), pull_flag::SUSPEND)
            | bit(own_expression, pull_flag::SUBSCRIPTION),
        commit_offset: pull.commit.unwrap_or(0) as i64,
        suspend_timeout_ms: pull.wait.as_millis() as i64,
        subscription: own_expression.then_some(pull.expression),
        sub_version: pull.subscription_version.unwrap_or(0),
        expression_type: Some("TAG"),
        max_bytes: None,
        request_source: None,
        proxy_forward_client_id: None,
        broker_name: Some(&pull.queue.broker_name),
    };
    Command::request(RequestCode::PULL_MESSAGE).with_header(&fields)
}

fn batch(address: &str, answer: &Command, broker_name: &str) -> Result<PullBatch, RequestError> {
    let status = match answer.response_code() {
        ResponseCode::SUCCESS => PullStatus::Found,
        ResponseCode::PULL_NOT_FOUND => PullStatus::NoNewMessage,
        ResponseCode::PULL_RETRY_IMMEDIATELY => PullStatus::NoneMatched,
        ResponseCode::PULL_OFFSET_MOVED => PullStatus::OffsetMoved,
        _ => return Err(refused(address, answer)),
    };
    let fields: PullAnswer =
        answer.fields().map_err(|error| unreadable(address, "a pull answer", error))?;
    let messages = if status == PullStatus::Found {
        read_records(address, &answer.body, broker_name)?
    } else {
        Vec::new()
    };
    Ok(PullBatch {
        status,
        next_offset: fields.next_begin_offset.max(0) as u64,
        min_offset: fields.min_offset.max(0) as u64,
        max_offset: fields.max_offset.max(0) as u64,
        messages,
        suggested_broker_id: fields.suggested_broker_id,
    })
}

/// The messages of an answer that is a concatenation of records.
pub(crate) fn read_records(
    address: &str,
    body: &[u8],
    broker_name: &str,
) -> Result<Vec<ReceivedMessage>, RequestError> {
    let records = gantry_record::records(body);
    records
        .map(|record| {
            let record = record.map_err(|error| unreadable(address, "a record", error))?;
            Ok(ReceivedMessage::of_record(&record, broker_name))
        })
        .collect()
}
