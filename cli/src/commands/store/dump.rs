//! `gantry store dump`: the records of a log, one a line.
//! Invariant: what is damaged is printed as damaged, and the records behind it follow.
//! Leaves what a line holds to `line`.

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};
use gantry_model::PhysicalOffset;
use gantry_record::RecordView;
use gantry_store::{inspect::StoreReader, log::survey::Item};

use super::line::Line;
use crate::{context::Context, exit::Failure, output::Format};

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// The broker's data folder, or that of `gantry standalone`.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Records of this topic alone.
    #[arg(long)]
    topic: Option<String>,
    /// Records of this queue alone.
    #[arg(long)]
    queue: Option<u32>,
    /// Begin with the first record at or behind this position [default: the begin of the log].
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// End with the last record before this position [default: the end of the log].
    #[arg(long, value_name = "POSITION")]
    to: Option<u64>,
    /// Print at most so many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// How bodies of messages are printed; what is not text is always hexadecimal.
    #[arg(long, value_enum, default_value = "text")]
    body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Body {
    Text,
    Hex,
    None,
}

pub(super) fn run(args: &DumpArgs, context: &Context) -> anyhow::Result<()> {
    let store = StoreReader::open(&args.dir)?;
    let (start, end) = (store.log().start(), store.log().end());
    let from = args.from.map_or(start, PhysicalOffset);
    if from < start || from > end {
        return Err(Failure::usage(format!(
            "the log has positions {start} to {end}, and --from is {from}"
        )));
    }
    let to = args.to.map_or(end, PhysicalOffset);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut items = store.items(from, to)?;
    while left > 0 {
        let Some(item) = items.next()? else { break };
        if let Some(line) = line_of(&item, args) {
            print(&mut out, context.format, &line)?;
            left -= 1;
        }
    }
    out.flush()?;
    Ok(())
}

/// What is printed of an item; none if it was not asked for.
fn line_of(item: &Item<'_>, args: &DumpArgs) -> Option<Line> {
    let is_all = args.topic.is_none() && args.queue.is_none();
    match item {
        Item::Record(record) => is_wanted(record, args).then(|| Line::of_record(record, args.body)),
        Item::Filler { position, end } => is_all.then(|| Line::new("filler", *position, *end)),
        Item::Damage(damage) => {
            let mut line = Line::new("damage", damage.position, damage.end);
            line.put("file", damage.path.display().to_string());
            line.put("file_offset", damage.file_offset);
            line.put("reason", damage.reason.to_string());
            Some(line)
        }
        Item::Gone { position, end } => {
            let mut line = Line::new("gone", *position, *end);
            line.put("reason", "retention has removed the segment meanwhile");
            Some(line)
        }
    }
}

fn is_wanted(record: &RecordView<'_>, args: &DumpArgs) -> bool {
    args.topic.as_ref().is_none_or(|topic| topic == record.topic())
        && args.queue.is_none_or(|queue| queue == record.queue().0)
}

fn print(out: &mut impl Write, format: Format, line: &Line) -> anyhow::Result<()> {
    match format {
        Format::Table => writeln!(out, "{line}")?,
        Format::Json => writeln!(out, "{}", serde_json::to_string(line)?)?,
        Format::Yaml => write!(out, "---\n{}", serde_yaml::to_string(line)?)?,
    }
    Ok(())
}
