//! Checks a store: every record of the log, what records say of each other, and all that is derived from them.
//! Invariant: nothing is changed; what a running broker changes meanwhile, and what a crash may leave, is no finding.
//! Leaves the checks of each part to its file.

mod keys;
mod log;
mod report;
mod views;

use gantry_model::PhysicalOffset;

pub use report::{Finding, Part, Verdict};

use super::{Holder, InspectError, Kind, StoreReader, holder};
use crate::log::{Damage, survey::Item};
use keys::KeyCheck;
use log::LogCheck;
use report::Report;
use views::ViewCheck;

/// Records between two words about the progress.
const TELL_EVERY: u64 = 1_000;

/// Told how many bytes of the log are checked, and how many there are.
pub type Tell<'a> = dyn FnMut(u64, u64) + 'a;

impl StoreReader {
    /// Checks everything.
    ///
    /// # Errors
    /// Something that could not be read ends the check: nothing is said then.
    pub fn verify(&self, tell: &mut Tell<'_>) -> Result<Verdict, InspectError> {
        let mut report = Report::new(self.log());
        let mut check = Check::new(self, &mut report)?;
        check.walk(self, &mut report, tell)?;
        let (records, messages) = (check.records, check.messages);
        let (queue_entries, keys) = check.finish(self, &mut report)?;
        if let Some(reason) = self.log().torn() {
            let end = self.log().end();
            report.note(format!(
                "behind the end, at {end}, are bytes of the file's earlier use, or of a write that was cut short: {reason}"
            ));
        }
        Ok(Verdict {
            dir: self.dir().display().to_string(),
            is_live: self.holder() != Holder::Nobody || holder(self.dir())? != Holder::Nobody,
            from: self.log().start(),
            to: self.log().end(),
            records,
            messages,
            queue_entries,
            keys,
            findings: report.findings,
            findings_total: report.total,
            notes: report.notes,
        })
    }
}

/// The checks of all parts, side by side.
struct Check<'a> {
    log: LogCheck,
    views: Option<ViewCheck<'a>>,
    keys: KeyCheck<'a>,
    records: u64,
    messages: u64,
}

impl<'a> Check<'a> {
    fn new(store: &'a StoreReader, report: &mut Report<'_>) -> Result<Self, InspectError> {
        Ok(Self {
            log: LogCheck::new(store.log()),
            views: ViewCheck::new(store, report)?,
            keys: KeyCheck::new(store.dir().join("keys"), &store.keys, store.log(), report),
            records: 0,
            messages: 0,
        })
    }

    fn walk(
        &mut self,
        store: &StoreReader,
        report: &mut Report<'_>,
        tell: &mut Tell<'_>,
    ) -> Result<(), InspectError> {
        let (start, end) = (store.log().start(), store.log().end());
        let mut items = store.items(start, end)?;
        loop {
            if self.records.is_multiple_of(TELL_EVERY) {
                tell(items.position().0 - start.0, end.0 - start.0);
            }
            let Some(item) = items.next()? else { break };
            match item {
                Item::Record(record) => {
                    let kind = Kind::of(&record);
                    self.records += 1;
                    self.messages += u64::from(kind.is_message());
                    self.log.record(store.log(), &record, &kind, report);
                    self.keys.record(&record, report)?;
                    if let Some(views) = &mut self.views {
                        views.record(&record, report)?;
                    }
                }
                Item::Filler { .. } => {}
                Item::Damage(damage) => {
                    report.push(of_damage(&damage));
                    self.gap(damage.position, damage.end, report)?;
                }
                Item::Gone { position, end } => {
                    report
                        .note(format!("retention removed positions {position} to {end} meanwhile"));
                    self.gap(position, end, report)?;
                }
            }
        }
        tell(end.0 - start.0, end.0 - start.0);
        Ok(())
    }

    /// A place cannot be read.
    fn gap(
        &mut self,
        position: PhysicalOffset,
        end: PhysicalOffset,
        report: &mut Report<'_>,
    ) -> Result<(), InspectError> {
        self.log.gap(end);
        if let Some(views) = &mut self.views {
            views.gap(position..end);
        }
        self.keys.gap(position, end, report)
    }

    /// Checks what only the whole tells; returns how many entries of queues, and keys, fit their records.
    fn finish(
        self,
        store: &StoreReader,
        report: &mut Report<'_>,
    ) -> Result<(u64, u64), InspectError> {
        self.log.finish(store.log(), report);
        let entries = self.views.map_or(0, |views| views.finish(store.log(), report));
        Ok((entries, self.keys.finish(store.log(), report)?))
    }
}

fn of_damage(damage: &Damage) -> Finding {
    Finding {
        part: Part::Log,
        file: damage.path.display().to_string(),
        file_offset: Some(damage.file_offset),
        position: Some(damage.position),
        what: format!("damaged up to position {}: {}", damage.end, damage.reason),
    }
}
