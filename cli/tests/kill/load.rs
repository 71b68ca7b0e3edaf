//! Senders that work until their server is killed, and the reader of what is left.
//! A send is one attempt on a plain channel: no client library retries behind the ledger's back.
//! Counts nothing and judges nothing: see `ledger`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use gantry_record::records;
use gantry_remoting::client::{Channel, ChannelSettings, RefuseRequests};
use gantry_remoting::{Command, RequestCode, ResponseCode};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ledger::{MessageId, Place};

const TOPIC: &str = "kill-test";
const QUEUES: u32 = 4;

/// Two for each queue, so that sends to one queue meet.
const SENDERS: u32 = 2 * QUEUES;

/// Longest wait for one answer, and for all answers before the kill.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const ENOUGH_WITHIN: Duration = Duration::from_mins(2);

/// What the senders of one round share with the one who kills the server.
struct Round {
    number: u32,
    answers_wanted: usize,
    answers: Mutex<Vec<(Place, MessageId)>>,
    enough: Notify,
    killed: AtomicBool,
}

/// Sends from all senders, calls `kill` once there are `answers_wanted` answers while they go on, and
/// returns every answer, those included that came while the server was dying.
///
/// # Panics
/// When a send fails before the kill.
pub(crate) async fn send_through_kill(
    broker: &str,
    number: u32,
    answers_wanted: usize,
    kill: impl FnOnce(),
) -> Vec<(Place, MessageId)> {
    let round = Arc::new(Round {
        number,
        answers_wanted,
        answers: Mutex::default(),
        enough: Notify::new(),
        killed: AtomicBool::new(false),
    });
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders.spawn(send(Arc::clone(&round), broker.to_owned(), sender));
    }
    tokio::select! {
        enough = timeout(ENOUGH_WITHIN, round.enough.notified()) => enough.expect("enough answers in time"),
        Some(ended) = senders.join_next() => panic!("a sender ended before the kill: {ended:?}"),
    }
    round.killed.store(true, Ordering::SeqCst);
    kill();
    while let Some(ended) = senders.join_next().await {
        ended.expect("a sender ends without a panic");
    }
    std::mem::take(&mut *round.answers.lock().expect("no sender panicked"))
}

/// Sends one message after the other until one gets no answer, which only the kill may cause.
async fn send(round: Arc<Round>, broker: String, sender: u32) {
    let channel = connect(&broker).await;
    for number in 0.. {
        let id = MessageId { sender, round: round.number, number };
        match channel.call(&send_command(&id), ANSWER_WITHIN).await {
            Ok(answer) => round.note(place(&answer), id),
            Err(_) if round.killed.load(Ordering::SeqCst) => return,
            Err(error) => panic!("send {id:?} while the server runs: {error}"),
        }
    }
}

impl Round {
    fn note(&self, place: Place, id: MessageId) {
        let mut answers = self.answers.lock().expect("no sender panicked");
        answers.push((place, id));
        if answers.len() == self.answers_wanted {
            self.enough.notify_one();
        }
    }
}

/// RocketMQ remoting, request code 10.
fn send_command(id: &MessageId) -> Command {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    [
        ("producerGroup", "kill-test-senders".to_owned()),
        ("topic", TOPIC.to_owned()),
        ("defaultTopic", "TBW102".to_owned()),
        ("defaultTopicQueueNums", QUEUES.to_string()),
        ("queueId", (id.sender % QUEUES).to_string()),
        ("sysFlag", "0".to_owned()),
        ("bornTimestamp", now.as_millis().to_string()),
        ("flag", "0".to_owned()),
    ]
    .into_iter()
    .fold(Command::request(RequestCode::SEND_MESSAGE), |command, (key, value)| {
        command.with_ext(key, value)
    })
    .with_body(id.to_body())
}

fn place(answer: &Command) -> Place {
    accept(answer, "send");
    (field(answer, "queueId"), field(answer, "queueOffset"))
}

/// All messages of all queues that hold any, by queue, in the order in which the server gives them.
pub(crate) async fn read_all(broker: &str) -> BTreeMap<u32, Vec<(u64, MessageId)>> {
    let channel = connect(broker).await;
    let mut queues = BTreeMap::new();
    for queue in 0..QUEUES {
        let read = read_queue(&channel, queue).await;
        if !read.is_empty() {
            queues.insert(queue, read);
        }
    }
    queues
}

async fn read_queue(channel: &Channel, queue: u32) -> Vec<(u64, MessageId)> {
    let ask = on_queue(RequestCode::GET_MAX_OFFSET, queue);
    let end: u64 = field(&call(channel, &ask).await, "offset");
    let mut read = Vec::new();
    let mut next = 0;
    while next < end {
        let answer = call(channel, &pull_command(queue, next)).await;
        for record in records(&answer.body) {
            let record = record.expect("a pull gives whole records");
            read.push((record.queue_offset().0, MessageId::from_body(record.body())));
        }
        let after: u64 = field(&answer, "nextBeginOffset");
        assert!(
            after > next,
            "a pull of queue {queue} at {next} goes on at {after}, the end is {end}"
        );
        next = after;
    }
    read
}

/// RocketMQ remoting, request code 11; never held, with the expression in the request.
fn pull_command(queue: u32, offset: u64) -> Command {
    const SYS_FLAG_SUBSCRIPTION: u32 = 4;
    on_queue(RequestCode::PULL_MESSAGE, queue)
        .with_ext("consumerGroup", "kill-test-reader")
        .with_ext("queueOffset", offset.to_string())
        .with_ext("maxMsgNums", "32")
        .with_ext("sysFlag", SYS_FLAG_SUBSCRIPTION.to_string())
        .with_ext("commitOffset", "0")
        .with_ext("suspendTimeoutMillis", "0")
        .with_ext("subscription", "*")
        .with_ext("subVersion", "0")
        .with_ext("expressionType", "TAG")
}

fn on_queue(code: RequestCode, queue: u32) -> Command {
    Command::request(code).with_ext("topic", TOPIC).with_ext("queueId", queue.to_string())
}

async fn connect(broker: &str) -> Channel {
    Channel::connect(broker, &ChannelSettings::default(), Arc::new(RefuseRequests))
        .await
        .expect("a server that is ready accepts connections")
}

async fn call(channel: &Channel, command: &Command) -> Command {
    let answer = channel.call(command, ANSWER_WITHIN).await.expect("a running server answers");
    accept(&answer, command.request_code());
    answer
}

fn accept(answer: &Command, what: impl Display) {
    let code = answer.response_code();
    assert_eq!(code, ResponseCode::SUCCESS, "{what}: {:?}", answer.remark);
}

fn field<T: std::str::FromStr>(answer: &Command, key: &str) -> T {
    let value = answer.ext.get(key);
    let number = value.and_then(|value| value.parse().ok());
    number.unwrap_or_else(|| panic!("{key} of the answer is {value:?}"))
}
