//! `gantry store`: looks into the folder of a broker's store, stopped or in use, and repairs one that does not start.
//! Invariant: nothing in the folder is changed but by a repair.
//! Leaves what is looked at to the store's own library.

mod dump;
mod line;
mod repair;
mod verify;

use std::{fmt::Write, path::PathBuf};

use clap::{Args, Subcommand};
use gantry_store::inspect::{StateFrom, StoreReader, Summary, ViewsSummary};

use crate::{
    context::Context,
    output::{Table, bytes_text, time_text},
};

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Show what the folder is and holds: format, segments, topics, views, key index.
    Inspect(FolderArgs),
    /// Check everything: records, segments, images, views, key index.
    Verify(FolderArgs),
    /// Print the records of the log, one a line.
    Dump(dump::DumpArgs),
    /// Make a store start again whose topics, groups and offsets are lost.
    Repair(repair::RepairArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FolderArgs {
    /// The broker's data folder, or that of `gantry standalone`.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(command: StoreCommand, context: &Context) -> anyhow::Result<()> {
    match command {
        StoreCommand::Inspect(args) => {
            context.format.print(&StoreReader::open(&args.dir)?.summary()?, summary_table)
        }
        StoreCommand::Verify(args) => verify::run(&args, context),
        StoreCommand::Dump(args) => dump::run(&args, context),
        StoreCommand::Repair(args) => repair::run(&args, context),
    }
}

fn summary_table(summary: &Summary) -> Table {
    let mut table = Table::new(["SEGMENT", "BYTES", "FILE", "FIRST", "LAST", "EPOCH", "IMAGE", ""]);
    for segment in &summary.segments {
        let state = match (segment.has_header, segment.is_sealed) {
            (false, _) => "header damaged",
            (true, true) => "sealed",
            (true, false) => "written",
        };
        table.row([
            segment.file.clone(),
            bytes_text(segment.bytes),
            bytes_text(segment.file_bytes),
            time_text(segment.first_time_ms),
            time_text(segment.last_time_ms),
            segment.epoch.map_or_else(|| "-".into(), |epoch| epoch.to_string()),
            segment.newest_image.map_or_else(|| "-".into(), |at| at.to_string()),
            state.into(),
        ]);
    }
    table.note("");
    about_store(summary, &mut table);
    about_state(summary, &mut table);
    table.note(views_text(&summary.views));
    about_keys(summary, &mut table);
    table
}

fn about_store(summary: &Summary, table: &mut Table) {
    let holder = match (summary.is_live, summary.pid) {
        (false, _) => "stopped".to_owned(),
        (true, None) => "live".to_owned(),
        (true, Some(pid)) => format!("live, in use by process {pid}"),
    };
    table.note(format!("store     {} in {}: {holder}", summary.store_id, summary.dir));
    table.note(format!(
        "log       format {}, positions {} to {} ({}), marked as synced to {}, last record {}",
        summary.format_version,
        summary.log_start,
        summary.log_end,
        bytes_text(summary.log_end.0 - summary.log_start.0),
        summary.marked_synced,
        time_text(summary.last_time_ms),
    ));
    if let Some(reason) = &summary.torn_tail {
        table.note(format!("          behind the end: {reason}"));
    }
}

fn about_state(summary: &Summary, table: &mut Table) {
    let state = &summary.state;
    let from = match state.from {
        StateFrom::Views => "the views and the log behind them",
        StateFrom::Image => "the newest state image and the log behind it",
        StateFrom::Log => "the log",
    };
    table.note(format!(
        "state     {} topics, {} groups, {} offsets, {} waiting timers, from {from}",
        state.topics.len(),
        state.groups.len(),
        state.offsets,
        state.timers,
    ));
    if state.unknown_records > 0 {
        table.note(format!("          {} state records not understood", state.unknown_records));
    }
    for topic in &state.topics {
        let (name, id, queues) = (&topic.name, topic.id, topic.queues);
        let mut text = format!(
            "topic     {name}: id {id}, {queues} queues, {} messages so far",
            topic.messages
        );
        if topic.hidden_before_ms > 0 {
            let before = time_text(topic.hidden_before_ms);
            write!(text, ", those before {before} hidden").expect("writing to text does not fail");
        }
        table.note(text);
    }
    for group in &state.groups {
        table.note(format!("group     {group}"));
    }
}

fn views_text(views: &ViewsSummary) -> String {
    if !views.exist {
        return "views     none: a start makes them from the log".into();
    }
    if let Some(error) = &views.error {
        return format!("views     cannot be read: {error}");
    }
    if views.applied.0 == 0 {
        let bytes = bytes_text(views.file_bytes);
        return format!("views     nothing flushed yet, {bytes}: a start makes them from the log");
    }
    let use_of_them = if views.are_usable {
        "a start goes on from there".to_owned()
    } else if views.version == views.version_known {
        "a start makes them again from the log".to_owned()
    } else {
        format!("a start makes them again in version {}", views.version_known)
    };
    format!(
        "views     version {}, applied to {}, {}: {use_of_them}",
        views.version,
        views.applied,
        bytes_text(views.file_bytes),
    )
}

fn about_keys(summary: &Summary, table: &mut Table) {
    for file in &summary.key_files {
        let state = if file.is_whole { "" } else { ", broken: it is made again" };
        table.note(format!("keys      {}: {} keys{state}", file.file, file.entries));
    }
}
