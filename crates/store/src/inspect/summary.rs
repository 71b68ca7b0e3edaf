//! What a store's folder is and holds, in one page.
//! Invariant: times are milliseconds since 1970 and 0 where nothing is known; positions are those of the log.
//! Leaves whether all of it is whole to `verify`.

use std::path::Path;

use gantry_model::{PhysicalOffset, TopicId};
use serde::Serialize;

use super::{
    ApplyError, FoundKeys, Holder, InspectError, StoreReader, io_error,
    model::{Model, newest_image},
};
use crate::{
    log::{FORMAT_VERSION, survey::Item, survey::Surveyed},
    views::{Direction, Step, View, ViewError, ViewRead, layout},
};

/// What a store's folder is and holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The folder.
    pub dir: String,
    /// Format of the log.
    pub format_version: u32,
    /// Drawn once, when the folder was made; hexadecimal.
    pub store_id: String,
    /// Whether a broker has it open.
    pub is_live: bool,
    /// The broker's process id, in its own container.
    pub pid: Option<u32>,
    /// First position that is there.
    pub log_start: PhysicalOffset,
    /// Where the next record would be.
    pub log_end: PhysicalOffset,
    /// Everything before was synced, as the last header or mark says.
    pub marked_synced: PhysicalOffset,
    /// Store time of the last record.
    pub last_time_ms: u64,
    /// What lies behind the end, if it is not unwritten.
    pub torn_tail: Option<String>,
    /// The segments in order.
    pub segments: Vec<SegmentSummary>,
    /// Topics, groups, offsets, timers.
    pub state: ClientState,
    /// The views.
    pub views: ViewsSummary,
    /// The files of the key index, in order.
    pub key_files: Vec<KeyFileSummary>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SegmentSummary {
    /// Name of its file.
    pub file: String,
    /// Position of its first byte.
    pub base: PhysicalOffset,
    /// Bytes of records in it.
    pub bytes: u64,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Store time of its header.
    pub first_time_ms: u64,
    /// Store time of its last record.
    pub last_time_ms: u64,
    /// Epoch in which it was begun; none if its header is damaged.
    pub epoch: Option<u64>,
    /// Where the newest complete state image begins that was known when it was begun.
    pub newest_image: Option<PhysicalOffset>,
    /// Whether nothing more will be written to it.
    pub is_sealed: bool,
    /// Whether it begins with its header.
    pub has_header: bool,
}

/// What the state was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateFrom {
    /// The views, and the log from where they end.
    Views,
    /// The newest state image, and the log from its position.
    Image,
    /// The whole log.
    Log,
}

/// The state as of the log's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientState {
    /// What it was made of.
    pub from: StateFrom,
    /// The topics, by name.
    pub topics: Vec<TopicSummary>,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// Number of consumer offsets.
    pub offsets: u64,
    /// Number of timers that wait.
    pub timers: u64,
    /// Records of state that could not be understood.
    pub unknown_records: u64,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: TopicId,
    /// Its queues.
    pub queues: u32,
    /// Messages that it ever got, in all queues.
    pub messages: u64,
    /// Messages of an earlier topic of that name are before this position.
    pub since: PhysicalOffset,
    /// Messages stored before this time are hidden; 0: none.
    pub hidden_before_ms: u64,
}

/// The views.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewsSummary {
    /// Whether there are any.
    pub exist: bool,
    /// Why they cannot be read, if so.
    pub error: Option<String>,
    /// Version of their layout.
    pub version: u32,
    /// Version that this release reads and writes.
    pub version_known: u32,
    /// Position behind the last record that is in them, as they were flushed last.
    pub applied: PhysicalOffset,
    /// Whether a start goes on from them; else they are made again from the log.
    pub are_usable: bool,
    /// Bytes of their files.
    pub file_bytes: u64,
}

/// One file of the key index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyFileSummary {
    /// Its name.
    pub file: String,
    /// Whether it has its header and its length. One that has not is made again from the log.
    pub is_whole: bool,
    /// Begin of the range of the log that it covers.
    pub from: PhysicalOffset,
    /// End of that range.
    pub to: PhysicalOffset,
    /// Keys in it.
    pub entries: u64,
}

impl StoreReader {
    /// What the folder is and holds.
    pub fn summary(&self) -> Result<Summary, InspectError> {
        let log = self.log();
        let (is_live, pid) = match self.holder() {
            Holder::Nobody => (false, None),
            Holder::Process { pid } => (true, pid),
        };
        Ok(Summary {
            dir: self.dir().display().to_string(),
            format_version: FORMAT_VERSION,
            store_id: log.store_id().to_string(),
            is_live,
            pid,
            log_start: log.start(),
            log_end: log.end(),
            marked_synced: log.synced(),
            last_time_ms: log.last_time_ms(),
            torn_tail: log.torn().map(ToString::to_string),
            segments: log.segments().iter().map(segment_summary).collect(),
            state: self.client_state()?,
            views: self.views_summary()?,
            key_files: self.keys.iter().map(key_file_summary).collect(),
        })
    }

    fn client_state(&self) -> Result<ClientState, InspectError> {
        let (from, mut model, position) = self.newest_model()?;
        let mut unknown_records = 0;
        let mut items = self.log().items(position, self.log().end())?;
        while let Some(item) = items.next()? {
            if let Item::Record(record) = item {
                match model.apply(&record) {
                    Ok(()) => {}
                    Err(ApplyError::State(_)) => unknown_records += 1,
                    Err(ApplyError::Views(error)) => return Err(error.into()),
                }
            }
        }
        let groups = model.tables.groups.read().all();
        Ok(ClientState {
            from,
            topics: topics_of(&model)?,
            groups: groups.iter().map(|group| group.group_name.to_string()).collect(),
            offsets: count(&model.views, View::Offset)?,
            timers: count(&model.views, View::Timer)?,
            unknown_records,
        })
    }

    /// The newest state that is there as a whole, and its position.
    fn newest_model(&self) -> Result<(StateFrom, Model, PhysicalOffset), InspectError> {
        if let Some((views, applied)) = self.usable_views()
            && let Ok(model) = Model::of_views(views)
        {
            return Ok((StateFrom::Views, model, applied));
        }
        let log = self.log();
        Ok(match newest_image(log, log.end())? {
            Some(image) => (StateFrom::Image, Model::of_image(log, &image)?, image.position),
            None => (StateFrom::Log, Model::empty(), log.start()),
        })
    }

    fn views_summary(&self) -> Result<ViewsSummary, InspectError> {
        let mut summary = ViewsSummary {
            exist: self.views.is_some(),
            error: None,
            version: 0,
            version_known: layout::VERSION,
            applied: PhysicalOffset(0),
            are_usable: self.usable_views().is_some(),
            file_bytes: 0,
        };
        let applied = match &self.views {
            None => return Ok(summary),
            Some(Err(error)) => Err(with_source(error)),
            Some(Ok(views)) => views.applied_as().map_err(|error| with_source(&error)),
        };
        match applied {
            Ok(applied) => (summary.applied, summary.version) = (applied.position, applied.version),
            Err(error) => summary.error = Some(error),
        }
        summary.file_bytes = file_bytes(&self.dir().join("views"))?;
        Ok(summary)
    }
}

/// The error and its cause.
pub(super) fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn segment_summary(found: &Surveyed) -> SegmentSummary {
    let info = &found.info;
    SegmentSummary {
        file: found.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        base: info.base,
        bytes: info.bytes,
        file_bytes: found.file_bytes,
        first_time_ms: info.first_time_ms,
        last_time_ms: info.last_time_ms,
        epoch: found.header.map(|header| header.epoch),
        newest_image: info.newest_image,
        is_sealed: info.is_sealed,
        has_header: found.header.is_some(),
    }
}

fn key_file_summary(found: &FoundKeys) -> KeyFileSummary {
    let range = &found.range;
    KeyFileSummary {
        file: found.name.clone(),
        is_whole: found.file.is_some(),
        from: PhysicalOffset(range.start),
        to: PhysicalOffset(range.end),
        entries: found.file.as_ref().map_or(0, |file| file.entries() as u64),
    }
}

fn topics_of(model: &Model) -> Result<Vec<TopicSummary>, InspectError> {
    let topics = model.tables.topics.read().all();
    let mut summaries = Vec::with_capacity(topics.len());
    for topic in topics {
        summaries.push(TopicSummary {
            name: topic.name().to_string(),
            id: topic.id,
            queues: topic.config.queues(),
            messages: messages_of(&model.views, topic.id)?,
            since: topic.since,
            hidden_before_ms: topic.hidden_before_ms(),
        });
    }
    Ok(summaries)
}

/// Sum of the next offsets of a topic's queues.
fn messages_of(views: &dyn ViewRead, topic: TopicId) -> Result<u64, ViewError> {
    let keys = layout::prefix_range(&[&b"Q"[..], &topic.0.to_be_bytes()].concat());
    let (mut messages, mut outcome) = (0, Ok(()));
    views.scan(View::Meta, &keys.start..&keys.end, Direction::Forward, &mut |key, value| {
        match layout::decode_u64(View::Meta, key, value) {
            Ok(next) => messages += next,
            Err(error) => outcome = Err(error),
        }
        Step::Next
    })?;
    outcome.map(|()| messages)
}

fn count(views: &dyn ViewRead, view: View) -> Result<u64, ViewError> {
    let mut count = 0;
    views.scan(view, &[][..]..layout::END, Direction::Forward, &mut |_, _| {
        count += 1;
        Step::Next
    })?;
    Ok(count)
}

/// Bytes of the files in a folder. Those that go meanwhile do not count.
fn file_bytes(dir: &Path) -> Result<u64, InspectError> {
    let entries = std::fs::read_dir(dir).map_err(io_error("list folder", dir))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum())
}
