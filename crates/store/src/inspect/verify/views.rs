//! Checks of the views against the log: entries of queues record by record, all other state as a replay gives it.
//! Invariant: what lies in damaged places of the log is not held against the views, which may well know it.
//! Leaves the log itself to `log`.

use std::{ops::Range, path::PathBuf};

use gantry_model::{PhysicalOffset, QueueId, QueueOffset, TopicId};
use gantry_record::RecordView;

use super::report::{Part, Report};
use crate::{
    change::{self, Change, Message},
    image::ImageAt,
    inspect::{
        ApplyError, Holder, InspectError, StoreReader,
        model::{Model, newest_image},
        summary::with_source,
    },
    log::survey::Survey,
    log_start,
    queues::scan_stored,
    tables::Tables,
    views::{
        Direction, Step, View, ViewError, ViewRead,
        layout::{self, Entry, Run},
    },
};

/// How RocksDB tells that a file which its list names is not there.
const FILE_IS_GONE: &str = "No such file or directory";

/// Views that can be checked, and what the log has told of them so far.
pub(super) struct ViewCheck<'a> {
    dir: PathBuf,
    views: &'a dyn ViewRead,
    applied: PhysicalOffset,
    /// Tables as the views hold them: which topic a message belongs to.
    tables: Tables,
    /// State that a replay gives; from its position on records are applied to it.
    replayed: Model,
    replayed_from: PhysicalOffset,
    /// What the last start record said.
    start: Option<PhysicalOffset>,
    gaps: Vec<Range<PhysicalOffset>>,
    /// Messages whose entry is right, and those whose entry is there.
    matched: u64,
    present: u64,
    /// Why the views could not be read on.
    failure: Option<ViewError>,
}

impl<'a> ViewCheck<'a> {
    /// None if there are no views that a start would go on from.
    pub(super) fn new(
        store: &'a StoreReader,
        report: &mut Report<'_>,
    ) -> Result<Option<Self>, InspectError> {
        let dir = store.dir().join("views");
        let Some(views) = readable(store, report) else { return Ok(None) };
        let (log, wrong) = (store.log(), |report: &mut Report<'_>, what: String| {
            report.derived(Part::Views, &dir, None, what);
        });
        let applied = match views.applied_as() {
            Ok(applied) => applied,
            Err(error) => {
                wrong(report, with_source(&error));
                return Ok(None);
            }
        };
        let (position, version) = (applied.position, applied.version);
        if position == PhysicalOffset(0) {
            report.note("views: nothing was flushed to them, a start makes them from the log");
            return Ok(None);
        }
        if version != layout::VERSION {
            let known = layout::VERSION;
            report.note(format!(
                "views: of version {version}, a start makes them again in version {known}"
            ));
            return Ok(None);
        }
        if position > log.end() {
            let end = log.end();
            report.at(
                end,
                format!(
                    "the log ends here, and the views know it up to {position}: records are lost"
                ),
            );
            return Ok(None);
        }
        if position < log.start() {
            let start = log.start();
            if store.holder() != Holder::Nobody {
                report.note("views: retention went on meanwhile, they are not checked");
                return Ok(None);
            }
            wrong(report, format!("the views end at {position}, and the log starts at {start}"));
            return Ok(None);
        }
        let tables = match Tables::load(views) {
            Ok(tables) => tables,
            Err(error) => {
                wrong(report, with_source(&error));
                return Ok(None);
            }
        };
        let image = newest_image(log, position)?;
        if image.is_none() && log.start() > PhysicalOffset(0) {
            if store.holder() != Holder::Nobody {
                report.note("views: retention went on meanwhile, they are not checked");
                return Ok(None);
            }
            report.at(
                log.start(),
                "the log has no complete state image: lost views could not be made again",
            );
        }
        Self::with(store, views, position, tables, image.as_ref()).map(Some)
    }

    fn with(
        store: &'a StoreReader,
        views: &'a dyn ViewRead,
        applied: PhysicalOffset,
        tables: Tables,
        image: Option<&ImageAt>,
    ) -> Result<Self, InspectError> {
        let (replayed, replayed_from) = match image {
            Some(image) => (Model::of_image(store.log(), image)?, image.position),
            None => (Model::empty(), PhysicalOffset(0)),
        };
        Ok(Self {
            dir: store.dir().join("views"),
            views,
            applied,
            tables,
            replayed,
            replayed_from,
            start: None,
            gaps: Vec::new(),
            matched: 0,
            present: 0,
            failure: None,
        })
    }

    /// A place cannot be read.
    pub(super) fn gap(&mut self, place: Range<PhysicalOffset>) {
        self.gaps.push(place);
    }

    pub(super) fn record(
        &mut self,
        record: &RecordView<'_>,
        report: &mut Report<'_>,
    ) -> Result<(), InspectError> {
        let position = record.position();
        if position >= self.applied || self.failure.is_some() {
            return Ok(());
        }
        if position >= self.replayed_from {
            match self.replayed.apply(record) {
                // A state record that cannot be understood: the log's check says so.
                Ok(()) | Err(ApplyError::State(_)) => {}
                Err(ApplyError::Views(error)) => return Err(error.into()),
            }
        }
        let change = change::of_record(record, &self.tables.topics.read());
        match change {
            Ok(Some(Change::Message(message))) => {
                if let Some(offset) = message.offset {
                    self.message(record, &message, offset, report);
                }
            }
            Ok(Some(Change::LogStart(start))) => self.start = Some(start),
            _ => {}
        }
        Ok(())
    }

    fn message(
        &mut self,
        record: &RecordView<'_>,
        message: &Message,
        offset: QueueOffset,
        report: &mut Report<'_>,
    ) {
        let Message { topic, queue, entry, .. } = message;
        let found = self.entry(*topic, *queue, offset);
        self.present += u64::from(matches!(found, Ok(Some(_)) | Err(ViewError::Malformed { .. })));
        let place = || format!("{}/{queue}@{offset}", record.topic());
        let what = match found {
            Ok(Some(found)) if found == *entry => {
                self.matched += 1;
                return;
            }
            Ok(Some(found)) => {
                let at = found.position;
                format!("the entry of {} is another: of {} bytes at {at}", place(), found.size)
            }
            Ok(None) => format!("the entry of {} is missing", place()),
            Err(error @ ViewError::Malformed { .. }) => error.to_string(),
            Err(error) => {
                self.failure = Some(error);
                return;
            }
        };
        report.derived(Part::Views, &self.dir, Some(record.position()), what);
    }

    fn entry(
        &self,
        topic: TopicId,
        queue: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<Entry>, ViewError> {
        let mut found = None;
        scan_stored((topic, queue), offset.0, offset.0 + 1, self.views, &mut |_, entry| {
            found = Some(entry);
            Step::Stop
        })?;
        Ok(found)
    }

    /// Checks what no single record tells; returns how many entries of queues fit their records.
    pub(super) fn finish(mut self, log: &Survey, report: &mut Report<'_>) -> u64 {
        if self.failure.is_none() {
            let outcome = self
                .finish_queues(log, report)
                .and_then(|()| self.finish_start(log, report))
                .and_then(|()| self.finish_state(report));
            self.failure = outcome.err();
        }
        if let Some(error) = &self.failure {
            report.derived(Part::Views, &self.dir, None, with_source(error));
        }
        self.matched
    }

    /// Entries of which no record has told.
    fn finish_queues(&self, log: &Survey, report: &mut Report<'_>) -> Result<(), ViewError> {
        let mut others = 0;
        self.scan_kept(log, &mut |_, _, _| others += 1)?;
        if others <= self.present {
            return Ok(());
        }
        self.scan_kept(log, &mut |run, offset, entry| {
            let place = (run.topic, run.queue, offset);
            if let Err(what) = self.check_against_record(log, place, entry) {
                report.derived(Part::Views, &self.dir, Some(entry.position), what);
            }
        })
    }

    /// Visits the entries of queues whose records can be read.
    fn scan_kept(
        &self,
        log: &Survey,
        visit: &mut dyn FnMut(&Run<'_>, QueueOffset, &Entry),
    ) -> Result<(), ViewError> {
        let mut outcome = Ok(());
        self.views.scan(
            View::Queue,
            &[][..]..layout::END,
            Direction::Forward,
            &mut |key, value| match Run::decode(key, value) {
                Ok(run) => {
                    for (offset, entry) in run.from(0) {
                        let is_gone = entry.position < log.start()
                            || self.gaps.iter().any(|gap| gap.contains(&entry.position));
                        if !is_gone {
                            visit(&run, offset, &entry);
                        }
                    }
                    Step::Next
                }
                Err(error) => {
                    outcome = Err(error);
                    Step::Stop
                }
            },
        )?;
        outcome
    }

    /// What is wrong with an entry of which the record at its position says something else.
    fn check_against_record(
        &self,
        log: &Survey,
        (topic, queue, offset): (TopicId, QueueId, QueueOffset),
        entry: &Entry,
    ) -> Result<(), String> {
        let place = format!("topic {topic}, queue {queue}, offset {offset}");
        let of_record = log.read(entry.position, entry.size, |record| {
            let change = change::of_record(record, &self.tables.topics.read()).ok()??;
            let Change::Message(message) = change else { return None };
            Some((message.topic, message.queue, message.offset?))
        });
        match of_record {
            Err(error) => Err(format!("the entry of {place} cannot be followed: {error}")),
            Ok(Err(reason)) => Err(format!("the entry of {place} leads to no record: {reason}")),
            Ok(Ok(found)) if found == Some((topic, queue, offset)) => Ok(()),
            Ok(Ok(_)) => Err(format!("the entry of {place} leads to a record of another place")),
        }
    }

    /// The log's start: what the last start record says. One that is gone with its segment said no more than where the
    /// log starts.
    fn finish_start(&self, log: &Survey, report: &mut Report<'_>) -> Result<(), ViewError> {
        let found = log_start::of_views(self.views)?;
        let is_right = self.start.map_or(found <= log.start(), |start| found == start);
        if !is_right && self.gaps.is_empty() {
            let said = self.start.unwrap_or(log.start());
            let what = format!("the log's start is {found}, and its records say {said}");
            report.derived(Part::Views, &self.dir, None, what);
        }
        Ok(())
    }

    /// Topics, groups, offsets, timers, next offsets: what a replay gives.
    fn finish_state(&self, report: &mut Report<'_>) -> Result<(), ViewError> {
        let replayed = self.replayed_from..self.applied;
        if self.gaps.iter().any(|gap| gap.start < replayed.end && replayed.start < gap.end) {
            report.note("views: state is not compared, since records that made it cannot be read");
            return Ok(());
        }
        for view in [View::Meta, View::Offset, View::Timer] {
            let replayed = &self.replayed.views;
            for_each(view, self.views, &mut |key, value| {
                if replayed.get(view, key)?.as_deref() != Some(value) {
                    self.wrong_state(view, key, "is not what a replay of the log gives", report);
                }
                Ok(())
            })?;
            for_each(view, replayed, &mut |key, _| {
                if self.views.get(view, key)?.is_none() {
                    self.wrong_state(view, key, "is missing", report);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn wrong_state(&self, view: View, key: &[u8], what: &str, report: &mut Report<'_>) {
        let what = format!("the {} view's entry of {} {what}", view.name(), key_text(view, key));
        report.derived(Part::Views, &self.dir, None, what);
    }
}

/// Receives the entries of a scan and may fail at one.
type TryVisit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), ViewError> + 'a;

/// Visits every entry of a view but the applied position and the log's start, until one cannot be read.
fn for_each(view: View, views: &dyn ViewRead, visit: &mut TryVisit<'_>) -> Result<(), ViewError> {
    let mut outcome = Ok(());
    views.scan(view, &[][..]..layout::END, Direction::Forward, &mut |key, value| {
        if view != View::Meta || !matches!(key, layout::APPLIED | layout::LOG_START) {
            outcome = visit(key, value);
        }
        if outcome.is_ok() { Step::Next } else { Step::Stop }
    })?;
    outcome
}

/// What an entry with this key is about.
fn key_text(view: View, key: &[u8]) -> String {
    let number = |bytes: &[u8]| bytes.try_into().map(u32::from_be_bytes).ok();
    let known = match (view, key) {
        (View::Meta, layout::COUNTERS) => Some("counters".to_owned()),
        (View::Meta, [b'T', id @ ..]) => number(id).map(|id| format!("topic {id}")),
        (View::Meta, [b'H', id @ ..]) => number(id).map(|id| format!("topic {id}, hidden")),
        (View::Meta, [b'G', name @ ..]) => {
            std::str::from_utf8(name).ok().map(|name| format!("group {name}"))
        }
        (View::Meta, _) => layout::decode_next_key(key)
            .ok()
            .map(|(topic, queue)| format!("topic {topic}, queue {queue}, next offset")),
        (View::Offset, _) => layout::decode_offset_key(key)
            .ok()
            .map(|(topic, queue, group)| format!("group {group}, topic {topic}, queue {queue}")),
        (View::Timer, _) => layout::decode_timer_key(key)
            .ok()
            .map(|(due_ms, position)| format!("the message at {position}, due at {due_ms}")),
        (View::Queue, _) => None,
    };
    known.unwrap_or_else(|| format!("key {key:02x?}"))
}

/// The views, if there are any and they can be opened.
fn readable<'a>(store: &'a StoreReader, report: &mut Report<'_>) -> Option<&'a dyn ViewRead> {
    match &store.views {
        None => {
            report.note("views: none, a start makes them from the log");
            None
        }
        Some(Err(error)) => {
            let said = with_source(error);
            if store.holder() != Holder::Nobody && said.contains(FILE_IS_GONE) {
                report.note(format!(
                    "views: their broker removes files faster than they can be opened, they are not checked: {said}"
                ));
            } else {
                report.derived(Part::Views, &store.dir().join("views"), None, said);
            }
            None
        }
        Some(Ok(views)) => Some(&**views),
    }
}
