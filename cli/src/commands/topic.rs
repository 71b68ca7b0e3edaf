//! `gantry topic`: create, delete, get, list, stats.
//! Invariant: `get` and `stats` of a topic that does not exist end with "not found".
//! Leaves the rules for names and counts to the model.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use gantry_model::{
    DLQ_PREFIX, Permission, RETENTION_ATTRIBUTE, RETRY_PREFIX, TopicConfig, TopicName,
    is_system_topic,
};
use serde::Serialize;

use crate::{
    context::Context,
    exit::Failure,
    output::{Table, age_text, now_ms, time_text},
};

/// Kinds of messages that a topic takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
pub(crate) enum TopicType {
    /// Messages without order.
    Normal,
    /// Messages in order within a message group.
    Fifo,
    /// Messages with a delivery time.
    Delay,
    /// Messages of transactions.
    Transaction,
    /// All of these.
    Mixed,
}

impl TopicType {
    /// Value of the attribute `message.type`.
    pub(crate) fn attribute(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Fifo => "FIFO",
            Self::Delay => "DELAY",
            Self::Transaction => "TRANSACTION",
            Self::Mixed => "MIXED",
        }
    }
}

/// Attribute that holds a topic's type.
pub(crate) const TYPE_ATTRIBUTE: &str = "message.type";

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic, or change it.
    Create {
        /// Its name.
        name: TopicName,
        /// Queues on each broker group.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
        queues: u32,
        /// Kind of its messages.
        #[arg(long = "type", value_enum, default_value = "normal")]
        kind: TopicType,
        /// Permission bits: 4 read, 2 write.
        #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(0..=7))]
        perm: u32,
        /// Age from which its messages are hidden, such as 24h: at least 1s and at most the brokers' own retention. 0s takes
        /// away what was set; without this option it is left as it is.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        retention: Option<Duration>,
    },
    /// Delete a topic with all its messages.
    Delete {
        /// Its name.
        name: TopicName,
    },
    /// Show a topic's definition on each broker.
    Get {
        /// Its name.
        name: TopicName,
    },
    /// List topics.
    List {
        /// Also retry, dead-letter and system topics.
        #[arg(long)]
        all: bool,
    },
    /// Show the bounds of each queue.
    Stats {
        /// The topic.
        name: TopicName,
    },
}

pub(crate) async fn run(command: TopicCommand, context: &Context) -> anyhow::Result<()> {
    match command {
        TopicCommand::Create { name, queues, kind, perm, retention } => {
            let mut config = TopicConfig::new(name, queues).with_permission(Permission(perm));
            config.attributes.insert(TYPE_ATTRIBUTE.into(), kind.attribute().into());
            if let Some(retention) = retention {
                let retention_ms = retention.as_millis().to_string();
                config.attributes.insert(RETENTION_ATTRIBUTE.into(), retention_ms);
            }
            create(context, config).await
        }
        TopicCommand::Delete { name } => delete(context, &name).await,
        TopicCommand::Get { name } => get(context, &name).await,
        TopicCommand::List { all } => list(context, all).await,
        TopicCommand::Stats { name } => stats(context, &name).await,
    }
}

async fn create(context: &Context, config: TopicConfig) -> anyhow::Result<()> {
    let queues = config.write_queues;
    context.with_admin(async |admin| Ok(admin.create_topic(&config).await?)).await?;
    let text = format!("topic {} created, {queues} queues on each broker", config.topic_name);
    context.format.done(&config, &text)
}

async fn delete(context: &Context, name: &TopicName) -> anyhow::Result<()> {
    context.with_admin(async |admin| Ok(admin.delete_topic(name).await?)).await?;
    context.format.done(&serde_json::json!({ "deleted": name }), &format!("topic {name} deleted"))
}

#[derive(Serialize)]
struct TopicOnBroker {
    broker: String,
    #[serde(flatten)]
    config: TopicConfig,
}

async fn get(context: &Context, name: &TopicName) -> anyhow::Result<()> {
    let found = context.with_admin(async |admin| Ok(admin.topic(name).await?)).await?;
    if found.is_empty() {
        return Err(Failure::not_found(format!("topic {name} does not exist")));
    }
    let rows: Vec<_> =
        found.into_iter().map(|(broker, config)| TopicOnBroker { broker, config }).collect();
    context.format.print(&rows, |rows| {
        let mut table = Table::new([
            "TOPIC",
            "BROKER",
            "READ QUEUES",
            "WRITE QUEUES",
            "PERM",
            "TYPE",
            "RETENTION",
        ]);
        for TopicOnBroker { broker, config } in rows {
            let kind = config.attributes.get(TYPE_ATTRIBUTE).map_or("-", String::as_str);
            table.row([
                config.topic_name.to_string(),
                broker.clone(),
                config.read_queues.to_string(),
                config.write_queues.to_string(),
                config.perm.to_string(),
                kind.to_owned(),
                retention_text(config),
            ]);
        }
        table
    })
}

fn retention_text(config: &TopicConfig) -> String {
    let time = config.retention_ms().map(Duration::from_millis);
    time.map_or_else(|| "-".into(), |time| humantime::format_duration(time).to_string())
}

/// What the name stands for.
fn kind_of_name(name: &str) -> &'static str {
    match name {
        name if name.starts_with(RETRY_PREFIX) => "retry",
        name if name.starts_with(DLQ_PREFIX) => "dead-letter",
        name if is_system_topic(name) => "system",
        _ => "user",
    }
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let (names, own) = context
        .with_admin(async |admin| {
            let info = admin.cluster_info().await?;
            let clusters = info.cluster_addr_table.into_keys();
            let own: Vec<String> = clusters
                .flat_map(|cluster| [format!("{cluster}_REPLY_TOPIC"), cluster])
                .chain(info.broker_addr_table.into_keys())
                .collect();
            Ok((admin.topics().await?, own))
        })
        .await?;
    // Each cluster and broker has topics of its name, which belong to the system.
    let kind = |name: &String| if own.contains(name) { "system" } else { kind_of_name(name) };
    let shown: Vec<_> = names.iter().filter(|name| all || kind(name) == "user").collect();
    context.format.print(&shown, |shown| {
        let mut table = Table::new(["TOPIC", "KIND"]);
        for name in shown {
            table.row([(*name).clone(), kind(name).to_owned()]);
        }
        table
    })
}

#[derive(Serialize)]
struct QueueRow {
    broker: String,
    queue: u32,
    min_offset: u64,
    max_offset: u64,
    messages: u64,
    last_store_time_ms: u64,
}

async fn stats(context: &Context, name: &TopicName) -> anyhow::Result<()> {
    let bounds = context.with_admin(async |admin| Ok(admin.topic_stats(name).await?)).await?;
    let rows: Vec<_> = bounds
        .into_iter()
        .map(|bounds| QueueRow {
            broker: bounds.queue.broker_name,
            queue: bounds.queue.queue_id,
            min_offset: bounds.min_offset,
            max_offset: bounds.max_offset,
            messages: bounds.max_offset.saturating_sub(bounds.min_offset),
            last_store_time_ms: bounds.last_store_time_ms,
        })
        .collect();
    context.format.print(&rows, |rows| {
        let mut table =
            Table::new(["BROKER", "QUEUE", "MIN", "MAX", "MESSAGES", "LAST STORED", "AGE"]);
        for row in rows {
            table.row([
                row.broker.clone(),
                row.queue.to_string(),
                row.min_offset.to_string(),
                row.max_offset.to_string(),
                row.messages.to_string(),
                time_text(row.last_store_time_ms),
                age_text(row.last_store_time_ms, now_ms()),
            ]);
        }
        let messages: u64 = rows.iter().map(|row| row.messages).sum();
        table.note(format!("{messages} messages in {} queues", rows.len()));
        table
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_system_are_told_from_those_of_users() {
        assert_eq!(kind_of_name("orders"), "user");
        assert_eq!(kind_of_name("%RETRY%g"), "retry");
        assert_eq!(kind_of_name("TBW102"), "system");
    }
}
