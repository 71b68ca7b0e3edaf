//! `gantry offset`: get, reset, set.
//! Invariant: `reset --dry-run` sends nothing but questions, and prints what `reset` would do.
//! Leaves the moving of online members to the broker.

use std::{str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use gantry_client::{Admin, GroupProgress, MessageQueue};
use gantry_model::{GroupName, TopicName};
use serde::Serialize;

use crate::{
    context::{Context, client},
    exit::Failure,
    output::{Table, age_text, now_ms},
};

#[derive(Debug, Subcommand)]
pub(crate) enum OffsetCommand {
    /// Show the progress of a group.
    Get {
        /// The group.
        #[arg(long)]
        group: GroupName,
        /// One topic [default: all that the group reads].
        #[arg(long)]
        topic: Option<TopicName>,
    },
    /// Move a group in all queues of a topic, its online members included.
    Reset(ResetArgs),
    /// Commit an offset for a group in one queue.
    Set {
        /// The group.
        #[arg(long)]
        group: GroupName,
        /// The topic.
        #[arg(long)]
        topic: TopicName,
        /// Name of the broker group.
        #[arg(long)]
        broker: String,
        /// The queue.
        #[arg(long)]
        queue: u32,
        /// The offset.
        #[arg(long)]
        offset: u64,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    /// The group.
    #[arg(long)]
    group: GroupName,
    /// The topic.
    #[arg(long)]
    topic: TopicName,
    /// `earliest`, `latest`, a time (2026-01-31T12:00:00Z, or 2h for two hours ago), or an offset.
    #[arg(long, value_name = "WHERE")]
    to: Target,
    /// Show what would be done and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Where a group is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Earliest,
    Latest,
    /// Milliseconds since 1970.
    Time(u64),
    /// So long ago.
    Ago(Duration),
    Offset(u64),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse() {
            return Ok(Self::Offset(offset));
        }
        if let Ok(ago) = humantime::parse_duration(text) {
            return Ok(Self::Ago(ago));
        }
        let time = humantime::parse_rfc3339_weak(text).map_err(|_| {
            "expected earliest, latest, a time such as 2026-01-31T12:00:00Z or 2h, or an offset"
                .to_owned()
        })?;
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Self::Time(since.as_millis() as u64))
    }
}

pub(crate) async fn run(command: OffsetCommand, context: &Context) -> anyhow::Result<()> {
    match command {
        OffsetCommand::Get { group, topic } => get(context, &group, topic.as_ref()).await,
        OffsetCommand::Reset(args) => reset(context, args).await,
        OffsetCommand::Set { group, topic, broker, queue, offset } => {
            let queue =
                MessageQueue { topic: topic.to_string(), broker_name: broker, queue_id: queue };
            set(context, &group, &queue, offset).await
        }
    }
}

async fn set(
    context: &Context,
    group: &GroupName,
    queue: &MessageQueue,
    offset: u64,
) -> anyhow::Result<()> {
    let found = context
        .with_admin(async |admin| {
            admin.set_offset(group, queue, offset).await?;
            Ok(admin.offset(group, queue).await?)
        })
        .await?;
    // Brokers answer success for a commit that a reset stands against.
    if let Some(found) = found.filter(|found| *found != offset) {
        anyhow::bail!(
            "group {group} is at offset {found} of {queue}: it was reset, and no consumer has read the queue \
             since, or one has committed meanwhile; `gantry offset reset` moves it all the same"
        );
    }
    let text = format!("group {group} is at offset {offset} of {queue}");
    context.format.done(&serde_json::json!({ "queue": queue, "offset": offset }), &text)
}

#[derive(Serialize)]
struct ProgressRow {
    #[serde(flatten)]
    queue: MessageQueue,
    offset: u64,
    max_offset: u64,
    lag: u64,
    last_store_time_ms: u64,
}

async fn get(
    context: &Context,
    group: &GroupName,
    topic: Option<&TopicName>,
) -> anyhow::Result<()> {
    let topic = topic.map(TopicName::as_str);
    let progress =
        context.with_admin(async |admin| Ok(admin.group_progress(group, topic).await?)).await?;
    if progress.is_empty() {
        return Err(Failure::not_found(format!("group {group} has consumed nothing")));
    }
    let row = |progress: GroupProgress| ProgressRow {
        lag: progress.lag(),
        queue: progress.queue,
        offset: progress.offset,
        max_offset: progress.max_offset,
        last_store_time_ms: progress.last_store_time_ms,
    };
    let rows: Vec<_> = progress.into_iter().map(row).collect();
    context.format.print(&rows, |rows| {
        let mut table =
            Table::new(["TOPIC", "BROKER", "QUEUE", "OFFSET", "MAX", "LAG", "LAST CONSUMED"]);
        for row in rows {
            table.row([
                row.queue.topic.clone(),
                row.queue.broker_name.clone(),
                row.queue.queue_id.to_string(),
                row.offset.to_string(),
                row.max_offset.to_string(),
                row.lag.to_string(),
                age_text(row.last_store_time_ms, now_ms()),
            ]);
        }
        let lag: u64 = rows.iter().map(|row| row.lag).sum();
        table.note(format!("{lag} messages wait"));
        table
    })
}

#[derive(Serialize)]
struct Move {
    #[serde(flatten)]
    queue: MessageQueue,
    /// Where the group is; absent when it never was in the queue.
    from: Option<u64>,
    to: u64,
}

async fn reset(context: &Context, args: ResetArgs) -> anyhow::Result<()> {
    let client = client(context.nameserver())?;
    let admin = Admin::new(&client);
    let done = async {
        let moves = plan(&client, &admin, &args).await?;
        if !args.dry_run {
            for Move { queue, to, .. } in &moves {
                admin.reset_offset(&args.group, queue, *to).await?;
            }
        }
        anyhow::Ok(moves)
    };
    let moves = done.await;
    client.shutdown().await;
    let moves = moves?;
    context.format.print(&moves, |moves| {
        let mut table = Table::new(["TOPIC", "BROKER", "QUEUE", "FROM", "TO"]);
        for Move { queue, from, to } in moves {
            table.row([
                queue.topic.clone(),
                queue.broker_name.clone(),
                queue.queue_id.to_string(),
                from.map_or("-".into(), |from| from.to_string()),
                to.to_string(),
            ]);
        }
        table.note(if args.dry_run { "nothing was changed (--dry-run)" } else { "offsets reset" });
        table
    })
}

async fn plan(
    client: &gantry_client::Client,
    admin: &Admin,
    args: &ResetArgs,
) -> anyhow::Result<Vec<Move>> {
    if admin.group(&args.group).await?.is_empty() {
        return Err(Failure::not_found(format!("group {} does not exist", args.group)));
    }
    let route = client.route(&args.topic).await?;
    let mut moves = Vec::new();
    for queue in route.read_queues() {
        let (min, max) = (admin.min_offset(queue).await?, admin.max_offset(queue).await?);
        let to = match args.to {
            Target::Earliest => min,
            Target::Latest => max,
            Target::Time(time_ms) => admin.offset_at(queue, time_ms).await?,
            Target::Ago(ago) => {
                let time_ms = now_ms().saturating_sub(ago.as_millis() as u64);
                admin.offset_at(queue, time_ms).await?
            }
            Target::Offset(offset) => offset.clamp(min, max),
        };
        let from = admin.offset(&args.group, queue).await?;
        moves.push(Move { queue: queue.clone(), from, to });
    }
    Ok(moves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_words_times_or_offsets() {
        assert_eq!("earliest".parse(), Ok(Target::Earliest));
        assert_eq!("42".parse(), Ok(Target::Offset(42)));
        assert_eq!("2h".parse(), Ok(Target::Ago(Duration::from_hours(2))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Target::Time(1000)));
        assert!("yesterday".parse::<Target>().unwrap_err().contains("earliest"));
    }
}
