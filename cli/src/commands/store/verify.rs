//! `gantry store verify`: checks everything in the folder of a store.
//! Invariant: it ends with 0 only if all was checked and nothing is wrong.
//! Leaves the checks to the store's own library.

use gantry_store::inspect::{Finding, Part, StoreReader, Verdict};

use super::FolderArgs;
use crate::{
    context::Context,
    exit::Failure,
    output::{Table, bytes_text},
    progress::Progress,
};

pub(super) fn run(args: &FolderArgs, context: &Context) -> anyhow::Result<()> {
    let verdict = {
        let store = StoreReader::open(&args.dir)?;
        let (start, end) = (store.log().start(), store.log().end());
        let progress = Progress::of(end.0 - start.0);
        store.verify(&mut |done, _| progress.tell("bytes", done))?
    };
    context.format.print(&verdict, verdict_table)?;
    if verdict.is_clean() {
        return Ok(());
    }
    let is_log = verdict.findings.iter().any(|finding| finding.part == Part::Log);
    let what_to_do = if is_log {
        "readers skip what is damaged in the log"
    } else {
        "the log is whole: stop the broker and remove the damaged folder, a start makes it again"
    };
    let (dir, findings) = (&verdict.dir, findings_text(verdict.findings_total));
    Err(Failure::damaged(format!("{dir} is damaged, {findings}; {what_to_do}")))
}

fn findings_text(total: u64) -> String {
    match total {
        0 => "nothing is wrong".into(),
        1 => "1 finding".into(),
        total => format!("{total} findings"),
    }
}

fn verdict_table(verdict: &Verdict) -> Table {
    let mut table = Table::new(["PART", "POSITION", "FILE", "BYTE", "FINDING"]);
    for finding in &verdict.findings {
        table.row(row(finding, &verdict.dir));
    }
    let kept = verdict.findings.len() as u64;
    if verdict.findings_total > kept {
        table.note(format!("and {} more", verdict.findings_total - kept));
    }
    for note in &verdict.notes {
        table.note(format!("note: {note}"));
    }
    let live = if verdict.is_live { ", live" } else { "" };
    table.note(format!(
        "checked {}{live}: positions {} to {} ({}), {} records, {} of them messages, {} queue entries, {} keys",
        verdict.dir,
        verdict.from,
        verdict.to,
        bytes_text(verdict.to.0 - verdict.from.0),
        verdict.records,
        verdict.messages,
        verdict.queue_entries,
        verdict.keys,
    ));
    table.note(findings_text(verdict.findings_total));
    table
}

fn row(finding: &Finding, dir: &str) -> [String; 5] {
    let part = match finding.part {
        Part::Log => "log",
        Part::Views => "views",
        Part::Keys => "keys",
    };
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let file = finding.file.strip_prefix(dir).unwrap_or(&finding.file).trim_start_matches('/');
    [
        part.to_owned(),
        number(finding.position.map(|position| position.0)),
        if file.is_empty() { "-".to_owned() } else { file.to_owned() },
        number(finding.file_offset),
        finding.what.clone(),
    ]
}
