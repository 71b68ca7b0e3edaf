//! `gantry group`: create, delete, get, list, members.
//! Invariant: a group without members is an empty list and no failure.
//! Leaves offsets to `offset`.

use std::collections::BTreeMap;

use clap::Subcommand;
use gantry_model::{GroupConfig, GroupName, is_system_group};
use serde::Serialize;

use crate::{context::Context, exit::Failure, output::Table};

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Create a consumer group, or change it.
    Create {
        /// Its name.
        name: GroupName,
        /// Failed attempts after which a message goes to the dead-letter topic.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(i32).range(0..))]
        max_attempts: i32,
        /// Whether POP and gRPC consumers get messages in order.
        #[arg(long)]
        orderly: bool,
    },
    /// Delete a consumer group.
    Delete {
        /// Its name.
        name: GroupName,
        /// Keep its offsets for a group made later under the same name.
        #[arg(long)]
        keep_offsets: bool,
    },
    /// Show a group's definition on each broker.
    Get {
        /// Its name.
        name: GroupName,
    },
    /// List consumer groups.
    List {
        /// Also groups of the system.
        #[arg(long)]
        all: bool,
    },
    /// Show who is online and what it reads.
    Members {
        /// The group.
        name: GroupName,
    },
}

pub(crate) async fn run(command: GroupCommand, context: &Context) -> anyhow::Result<()> {
    match command {
        GroupCommand::Create { name, max_attempts, orderly } => {
            let config = GroupConfig {
                retry_max_times: max_attempts,
                consume_message_orderly: orderly,
                ..GroupConfig::new(name)
            };
            context.with_admin(async |admin| Ok(admin.create_group(&config).await?)).await?;
            context.format.done(&config, &format!("group {} created", config.group_name))
        }
        GroupCommand::Delete { name, keep_offsets } => delete(context, &name, !keep_offsets).await,
        GroupCommand::Get { name } => get(context, &name).await,
        GroupCommand::List { all } => list(context, all).await,
        GroupCommand::Members { name } => members(context, &name).await,
    }
}

async fn delete(context: &Context, name: &GroupName, clean_offsets: bool) -> anyhow::Result<()> {
    context
        .with_admin(async |admin| {
            if admin.group(name).await?.is_empty() {
                return Err(absent(name));
            }
            Ok(admin.delete_group(name, clean_offsets).await?)
        })
        .await?;
    context.format.done(&serde_json::json!({ "deleted": name }), &format!("group {name} deleted"))
}

fn absent(name: &GroupName) -> anyhow::Error {
    Failure::not_found(format!("group {name} does not exist"))
}

#[derive(Serialize)]
struct GroupOnBroker {
    broker: String,
    #[serde(flatten)]
    config: GroupConfig,
}

async fn get(context: &Context, name: &GroupName) -> anyhow::Result<()> {
    let found = context.with_admin(async |admin| Ok(admin.group(name).await?)).await?;
    if found.is_empty() {
        return Err(absent(name));
    }
    let rows: Vec<_> =
        found.into_iter().map(|(broker, config)| GroupOnBroker { broker, config }).collect();
    context.format.print(&rows, |rows| {
        let mut table =
            Table::new(["GROUP", "BROKER", "CONSUMES", "MAX ATTEMPTS", "ORDERLY", "BROADCAST"]);
        for GroupOnBroker { broker, config } in rows {
            table.row([
                config.group_name.to_string(),
                broker.clone(),
                config.consume_enable.to_string(),
                config.retry_max_times.to_string(),
                config.consume_message_orderly.to_string(),
                config.consume_broadcast_enable.to_string(),
            ]);
        }
        table
    })
}

async fn list(context: &Context, all: bool) -> anyhow::Result<()> {
    let mut groups: BTreeMap<String, GroupConfig> =
        context.with_admin(async |admin| Ok(admin.groups().await?)).await?;
    groups.retain(|name, _| all || !is_system_group(name));
    let configs: Vec<_> = groups.into_values().collect();
    context.format.print(&configs, |configs| {
        let mut table = Table::new(["GROUP", "CONSUMES", "MAX ATTEMPTS", "ORDERLY"]);
        for config in configs {
            table.row([
                config.group_name.to_string(),
                config.consume_enable.to_string(),
                config.retry_max_times.to_string(),
                config.consume_message_orderly.to_string(),
            ]);
        }
        table
    })
}

#[derive(Serialize)]
struct MemberRow {
    client_id: String,
    address: String,
    language: String,
    version: i32,
}

#[derive(Serialize)]
struct MembersShown {
    members: Vec<MemberRow>,
    /// Expression by topic.
    subscriptions: BTreeMap<String, String>,
}

async fn members(context: &Context, name: &GroupName) -> anyhow::Result<()> {
    let (members, subscriptions) =
        context.with_admin(async |admin| Ok(admin.group_members(name).await?)).await?;
    let shown = MembersShown {
        members: members
            .into_iter()
            .map(|member| MemberRow {
                client_id: member.client_id,
                address: member.client_addr,
                language: member.language,
                version: member.version,
            })
            .collect(),
        subscriptions: subscriptions
            .into_iter()
            .map(|(topic, subscription)| (topic, subscription.sub_string))
            .collect(),
    };
    context.format.print(&shown, |shown| {
        let mut table = Table::new(["CLIENT", "ADDRESS", "LANGUAGE", "VERSION"]);
        for member in &shown.members {
            table.row([
                member.client_id.clone(),
                member.address.clone(),
                member.language.clone(),
                member.version.to_string(),
            ]);
        }
        if shown.members.is_empty() {
            table.note(format!("nobody is online in group {name}"));
        }
        for (topic, expression) in &shown.subscriptions {
            table.note(format!("reads {topic}: {expression}"));
        }
        table
    })
}
