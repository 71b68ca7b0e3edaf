//! `gantry store repair`: the way on for a store whose topics, groups and offsets are lost.
//! Invariant: without the word that accepts the loss, and while a server has the folder open, nothing happens.
//! Leaves saving what can be saved to the store's own library.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use gantry_store::{Now, Repair, accept_lost_state};

use crate::{context::Context, exit::Failure, output::Table};

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The broker's data folder, or that of `gantry standalone`; its server is stopped.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Topics, groups and offsets of which nothing is left may go: without it nothing is done.
    #[arg(long)]
    accept_lost_state: bool,
}

pub(super) fn run(args: &RepairArgs, context: &Context) -> anyhow::Result<()> {
    if !args.accept_lost_state {
        return Err(Failure::usage(
            "only a store that refuses to start because its state is lost needs this: `--accept-lost-state` gives up the \
             topics, groups and offsets of which nothing is left",
        ));
    }
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let repair = accept_lost_state(&args.dir, Now { wall_ms, monotonic_ms: 0 })?;
    context.format.print(&repair, repair_table)
}

fn repair_table(repair: &Repair) -> Table {
    let dir = &repair.dir;
    if !repair.was_lost {
        let mut table = Table::new([]);
        table.note(format!(
            "no state of {dir} was lost, and nothing was given up: it starts by itself"
        ));
        return table;
    }
    let mut table = Table::new(["TOPIC", "QUEUES", "DEFINITION"]);
    for topic in &repair.topics {
        let definition = if topic.is_made_anew { "lost, made anew" } else { "kept" };
        table.row([topic.name.to_string(), topic.queues.to_string(), definition.into()]);
    }
    table.note("");
    let (groups, offsets, parts) = (repair.groups, repair.offsets, repair.image_parts);
    table.note(format!(
        "{dir} has its state again: {} topics, {groups} groups, {offsets} offsets, from {parts} whole records of broken \
         state images and the log behind them",
        repair.topics.len(),
    ));
    for place in &repair.damage {
        table.note(format!("damaged   {place}"));
    }
    table.note(
        "Start the broker. Topics made anew have the defaults and as many queues as their messages name; groups without an \
         offset begin where a new group does; a queue without messages whose end is lost begins at 0",
    );
    table
}
