//! `gantry message`: send, consume, query.
//! Invariant: `consume` commits exactly the messages that it printed.
//! Leaves retries, shares and offsets to the client library.

use std::{
    io::Read,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use gantry_client::{
    Admin, AdminError, Client, Consumed, Consumer, ConsumerSettings, Message, MessageModel,
    Producer, ProducerSettings, ReceivedMessage, RequestError, SendReceipt, SendStatus, StartFrom,
    Subscription,
};
use gantry_model::{GroupName, TopicName};
use gantry_record::OffsetMessageId;
use gantry_remoting::ResponseCode;
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    context::Context,
    exit::Failure,
    output::{Format, Table, bytes_text, line, time_text},
    progress::Progress,
};

/// Sends in flight at a time when several messages are sent: enough to keep a broker busy by hand.
const SENDS_MAX: usize = 64;
/// Characters of a body shown in a table.
const BODY_CHARACTERS_MAX: usize = 80;

#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Send one message, or the same several times.
    Send(SendArgs),
    /// Read messages as a member of a group and print them as they come.
    Consume(ConsumeArgs),
    /// Find messages by id or key.
    Query(QueryArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Where to.
    #[arg(long)]
    topic: TopicName,
    /// Tag, by which consumers may choose.
    #[arg(long)]
    tag: Option<String>,
    /// Key, by which the message can be found; may be repeated.
    #[arg(long)]
    key: Vec<String>,
    /// The body; `-` reads it from standard input.
    #[arg(long, required_unless_present = "file", allow_hyphen_values = true)]
    body: Option<String>,
    /// File that holds the body.
    #[arg(long, conflicts_with = "body")]
    file: Option<PathBuf>,
    /// How many times.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Messages a second [default: as fast as answers come].
    #[arg(long)]
    rate: Option<f64>,
    /// Producer group.
    #[arg(long, default_value = "gantry-cli")]
    group: GroupName,
}

#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The group to join.
    #[arg(long)]
    group: GroupName,
    /// The topic to read.
    #[arg(long)]
    topic: TopicName,
    /// Tags wanted, joined by `||`.
    #[arg(long, default_value = "*")]
    tag: String,
    /// End after so many messages.
    #[arg(long)]
    count: Option<u64>,
    /// End after so long, for example 10s.
    #[arg(long, value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
    /// Where the group starts if it has no offset.
    #[arg(long, value_enum, default_value = "earliest")]
    from: From,
    /// Read every message, whatever other members read; nothing is committed.
    #[arg(long)]
    broadcast: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum From {
    Earliest,
    Latest,
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = ArgGroup::new("wanted").required(true).args(["id", "key", "unique_key"]))]
pub(crate) struct QueryArgs {
    /// Id made from the message's place (`offset_message_id`).
    #[arg(long)]
    id: Option<OffsetMessageId>,
    /// Key.
    #[arg(long, requires = "topic")]
    key: Option<String>,
    /// Id that the producer gave (`message_id`).
    #[arg(long, requires = "topic")]
    unique_key: Option<String>,
    /// Topic of a key or unique key.
    #[arg(long)]
    topic: Option<TopicName>,
    /// Most messages shown.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=64))]
    limit: u32,
}

pub(crate) async fn run(command: MessageCommand, context: &Context) -> anyhow::Result<()> {
    let client = context.client()?;
    let result = match command {
        MessageCommand::Send(args) => send(context, &client, args).await,
        MessageCommand::Consume(args) => consume(context, &client, args).await,
        MessageCommand::Query(args) => query(context, args).await,
    };
    client.shutdown().await;
    result
}

#[derive(Serialize)]
struct Sent {
    message_id: String,
    offset_message_id: String,
    broker: String,
    queue: u32,
    queue_offset: u64,
    status: &'static str,
}

impl std::convert::From<SendReceipt> for Sent {
    fn from(receipt: SendReceipt) -> Self {
        Self {
            message_id: receipt.message_id,
            offset_message_id: receipt.offset_message_id,
            broker: receipt.queue.broker_name,
            queue: receipt.queue.queue_id,
            queue_offset: receipt.queue_offset,
            status: match receipt.status {
                SendStatus::Stored => "stored",
                SendStatus::FlushTimeout => "stored, disk late",
                SendStatus::ReplicaTimeout => "stored, replica late",
                SendStatus::NoReplica => "stored, no replica",
            },
        }
    }
}

async fn send(context: &Context, client: &Client, args: SendArgs) -> anyhow::Result<()> {
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err(Failure::usage("--rate has to be a number above 0"));
    }
    let mut message = Message::new(args.topic.clone(), read_body(&args)?)
        .with_keys(args.key.iter().map(String::as_str));
    if let Some(tag) = &args.tag {
        message = message.with_tag(tag);
    }
    let producer = Producer::new(client, ProducerSettings::new(args.group.clone()));
    if args.count == 1 {
        let sent = Sent::from(producer.send(&message).await?);
        return context.format.print(&sent, |sent| {
            let mut table = Table::new(["MESSAGE ID", "BROKER", "QUEUE", "OFFSET", "STATUS"]);
            table.row([
                sent.message_id.clone(),
                sent.broker.clone(),
                sent.queue.to_string(),
                sent.queue_offset.to_string(),
                sent.status.to_owned(),
            ]);
            table
        });
    }
    let start = Instant::now();
    send_many(Arc::new(producer), message, args.count, args.rate).await?;
    let seconds = start.elapsed().as_secs_f64();
    let rate = args.count as f64 / seconds;
    let done = serde_json::json!({ "sent": args.count, "seconds": seconds, "rate_per_s": rate });
    let text = format!("{} messages sent in {seconds:.2} s, {rate:.0} a second", args.count);
    context.format.done(&done, &text)
}

fn read_body(args: &SendArgs) -> anyhow::Result<Bytes> {
    let mut body = Vec::new();
    match (&args.body, &args.file) {
        (_, Some(file)) => {
            return Ok(std::fs::read(file)
                .with_context(|| format!("read {}", file.display()))?
                .into());
        }
        (Some(text), None) if text == "-" => {
            std::io::stdin().read_to_end(&mut body).context("read standard input")?;
        }
        (text, None) => body = text.clone().unwrap_or_default().into_bytes(),
    }
    Ok(body.into())
}

async fn send_many(
    producer: Arc<Producer>,
    message: Message,
    count: u64,
    rate: Option<f64>,
) -> anyhow::Result<()> {
    let progress = Progress::of(count);
    let (start, message) = (tokio::time::Instant::now(), Arc::new(message));
    let mut sends = JoinSet::new();
    for number in 0..count {
        if let Some(rate) = rate {
            tokio::time::sleep_until(start + Duration::from_secs_f64(number as f64 / rate)).await;
        }
        while sends.len() >= SENDS_MAX {
            if let Some(sent) = sends.join_next().await {
                sent??;
            }
        }
        let (producer, message) = (Arc::clone(&producer), Arc::clone(&message));
        sends.spawn(async move { producer.send(&message).await.map(drop) });
        progress.tell("sending", number);
    }
    while let Some(sent) = sends.join_next().await {
        sent??;
    }
    Ok(())
}

/// A message as it is shown.
#[derive(Serialize)]
struct Shown {
    message_id: String,
    offset_message_id: String,
    topic: String,
    broker: String,
    queue: u32,
    queue_offset: u64,
    tag: Option<String>,
    keys: Vec<String>,
    born_time_ms: i64,
    store_time_ms: u64,
    reconsume_times: u32,
    /// The body, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The body, if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    body_bytes: u64,
    properties: std::collections::BTreeMap<String, String>,
}

impl std::convert::From<ReceivedMessage> for Shown {
    fn from(message: ReceivedMessage) -> Self {
        let text = std::str::from_utf8(&message.body).ok().map(str::to_owned);
        Self {
            message_id: message.id().to_owned(),
            tag: message.tag().map(str::to_owned),
            keys: message.keys().map(str::to_owned).collect(),
            offset_message_id: message.offset_message_id,
            topic: message.topic,
            broker: message.queue.broker_name,
            queue: message.queue.queue_id,
            queue_offset: message.offset.0,
            born_time_ms: message.born_time_ms,
            store_time_ms: message.store_time_ms,
            reconsume_times: message.reconsume_times,
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(&message.body)),
            body: text,
            body_bytes: message.body.len() as u64,
            properties: message.properties,
        }
    }
}

impl Shown {
    /// The body on one line, cut.
    fn body_line(&self) -> String {
        let Some(body) = &self.body else { return format!("({})", bytes_text(self.body_bytes)) };
        let mut line: String = body.chars().take(BODY_CHARACTERS_MAX).collect();
        if line.len() < body.len() {
            line.push('…');
        }
        line.replace(['\n', '\r', '\t'], " ")
    }

    /// One line for people: where it is, when it was stored, its id, tag and keys, and the body.
    fn line(&self) -> String {
        let mut marks: Vec<String> = self.tag.iter().map(|tag| format!("tag={tag}")).collect();
        marks.extend(self.keys.iter().map(|key| format!("key={key}")));
        if self.reconsume_times > 0 {
            marks.push(format!("attempt={}", self.reconsume_times + 1));
        }
        let marks = if marks.is_empty() { String::new() } else { format!(" {}", marks.join(" ")) };
        format!(
            "{} {}/{}@{} {}{marks} {}",
            time_text(self.store_time_ms),
            self.broker,
            self.queue,
            self.queue_offset,
            self.message_id,
            self.body_line()
        )
    }
}

async fn consume(context: &Context, client: &Client, args: ConsumeArgs) -> anyhow::Result<()> {
    let subscription = Subscription { topic: args.topic.clone(), expression: args.tag.clone() };
    let settings = ConsumerSettings {
        model: if args.broadcast { MessageModel::Broadcasting } else { MessageModel::Clustering },
        start_from: match args.from {
            From::Earliest => StartFrom::Earliest,
            From::Latest => StartFrom::Latest,
        },
        // One at a time: what was not printed is not committed.
        handlers_max: 1,
        ..ConsumerSettings::new(args.group.clone(), vec![subscription])
    };
    let (arrived, mut arrivals) = mpsc::channel::<Arrival>(1);
    let handler = move |message| {
        let arrived = arrived.clone();
        async move {
            let (printed, answer) = tokio::sync::oneshot::channel();
            let given = arrived.send(Arrival { message, printed }).await;
            // Nobody takes it any more, or nobody printed it: the next member of the group gets it.
            if given.is_err() { Consumed::Keep } else { answer.await.unwrap_or(Consumed::Keep) }
        }
    };
    let consumer = Consumer::start(client, settings, handler).await?;
    let printed = print_arrivals(context.format, &mut arrivals, &args).await;
    drop(arrivals);
    consumer.stop().await;
    let printed = printed?;
    match args.count {
        Some(count) if printed < count => Err(Failure::incomplete(format!(
            "{printed} of {count} messages came; give more time with --timeout"
        ))),
        _ => Ok(()),
    }
}

struct Arrival {
    message: ReceivedMessage,
    printed: tokio::sync::oneshot::Sender<Consumed>,
}

/// Prints what arrives until there is enough, time is up, or Ctrl-C. Returns how many.
async fn print_arrivals(
    format: Format,
    arrivals: &mut mpsc::Receiver<Arrival>,
    args: &ConsumeArgs,
) -> anyhow::Result<u64> {
    let time_up = async {
        match args.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_up);
    let mut count = 0;
    while args.count.is_none_or(|wanted| count < wanted) {
        tokio::select! {
            // A message that is there is printed even if the time is up at the same moment.
            biased;
            Some(Arrival { message, printed }) = arrivals.recv() => {
                print_one(format, message)?;
                count += 1;
                // The consumer waits for this answer; when it is gone, the message is not committed.
                let _ = printed.send(Consumed::Done);
            }
            () = &mut time_up => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    Ok(count)
}

fn print_one(format: Format, message: ReceivedMessage) -> anyhow::Result<()> {
    let shown = Shown::from(message);
    let text = match format {
        Format::Table => shown.line(),
        Format::Json => serde_json::to_string(&shown)?,
        Format::Yaml => format!("---\n{}", serde_yaml::to_string(&shown)?.trim_end()),
    };
    Ok(line(&text)?)
}

/// The message, with the name of the broker that has it: an id holds only an address.
async fn by_id(admin: &Admin, id: OffsetMessageId) -> anyhow::Result<ReceivedMessage> {
    let mut message = admin.message_by_id(&id.to_string()).await.map_err(|error| {
        if is_absent(&error) {
            return Failure::not_found(format!(
                "broker {} has no message with the id {id}",
                id.host
            ));
        }
        error.into()
    })?;
    let address = id.host.to_string();
    let groups = admin.cluster_info().await?.broker_addr_table.into_values();
    let mut owners = groups.filter(|group| group.broker_addrs.values().any(|own| *own == address));
    message.queue.broker_name = owners.next().map_or(address.clone(), |group| group.broker_name);
    Ok(message)
}

/// Brokers answer an id that they do not have with the code of any failure, and always with these words.
fn is_absent(error: &AdminError) -> bool {
    let AdminError::Request { source: RequestError::Refused { code, remark, .. }, .. } = error
    else {
        return false;
    };
    *code == ResponseCode::SYSTEM_ERROR && remark.starts_with("can not find message")
}

async fn query(context: &Context, args: QueryArgs) -> anyhow::Result<()> {
    let topic = args.topic.as_ref().map_or("", TopicName::as_str);
    let found = context
        .with_admin(async |admin| {
            Ok(match (&args.id, &args.key, &args.unique_key) {
                (Some(id), ..) => vec![by_id(admin, *id).await?],
                (_, Some(key), _) => {
                    admin.messages_by_key(topic, key, args.limit, (0, i64::MAX as u64)).await?
                }
                (.., unique) => {
                    admin
                        .messages_by_unique_id(topic, unique.as_deref().unwrap_or_default())
                        .await?
                }
            })
        })
        .await?;
    if found.is_empty() {
        let key = args.key.or(args.unique_key).unwrap_or_default();
        return Err(Failure::not_found(format!("topic {topic} has no message with the key {key}")));
    }
    let shown: Vec<Shown> = found.into_iter().map(Shown::from).collect();
    context.format.print(&shown, |shown| {
        let mut table = Table::new([
            "MESSAGE ID",
            "TOPIC",
            "BROKER",
            "QUEUE",
            "OFFSET",
            "STORED",
            "TAG",
            "KEYS",
            "BODY",
        ]);
        for message in shown {
            table.row([
                message.message_id.clone(),
                message.topic.clone(),
                message.broker.clone(),
                message.queue.to_string(),
                message.queue_offset.to_string(),
                time_text(message.store_time_ms),
                message.tag.clone().unwrap_or_else(|| "-".into()),
                message.keys.join(" "),
                message.body_line(),
            ]);
        }
        table
    })
}
