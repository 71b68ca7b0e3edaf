//! The sorts of steps that a life has taken, as its disk tells.
//! Invariant: a sort counts only when an operation or a record of it was seen.
//! Leaves to the tests which sorts a life must have.

use std::{collections::BTreeSet, path::Path};

use gantry_model::properties::ENDS;
use gantry_record::{RecordView, records};

use crate::{
    change::PARK_TOPIC,
    inspect::{ImagePart, ImagePiece, Kind},
    log::memory_files::{Asked, MemoryFiles, Operation},
};

/// One sort of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sort {
    Roll,
    Recycle,
    Unlink,
    Remove,
    Resize,
    Write,
    Sync,
    SyncFolder,
    Header,
    Mark,
    State,
    ImageBegin,
    ImagePart,
    ImageEnd,
    Carry,
    Fire,
    LogStart,
}

impl Sort {
    pub(super) const ALL: [Self; 17] = [
        Self::Roll,
        Self::Recycle,
        Self::Unlink,
        Self::Remove,
        Self::Resize,
        Self::Write,
        Self::Sync,
        Self::SyncFolder,
        Self::Header,
        Self::Mark,
        Self::State,
        Self::ImageBegin,
        Self::ImagePart,
        Self::ImageEnd,
        Self::Carry,
        Self::Fire,
        Self::LogStart,
    ];

    fn of_operation(asked: &Asked) -> Option<Self> {
        match asked.operation {
            Operation::Create if is_segment(&asked.path) => Some(Self::Roll),
            Operation::Rename if is_segment(&asked.path) => Some(Self::Unlink),
            Operation::Rename if is_free(&asked.path) => Some(Self::Recycle),
            Operation::Remove if is_free(&asked.path) => Some(Self::Remove),
            Operation::Resize => Some(Self::Resize),
            Operation::Write => Some(Self::Write),
            Operation::Sync => Some(Self::Sync),
            Operation::SyncDir => Some(Self::SyncFolder),
            _ => None,
        }
    }

    fn of_record(record: &RecordView<'_>) -> Option<Self> {
        match Kind::of(record) {
            Kind::Header(_) => Some(Self::Header),
            Kind::Mark { .. } => Some(Self::Mark),
            Kind::State(_) => Some(Self::State),
            Kind::Start { .. } => Some(Self::LogStart),
            Kind::Image(ImagePiece { part, .. }) => Some(match part {
                ImagePart::Begin => Self::ImageBegin,
                ImagePart::Entries { .. } => Self::ImagePart,
                ImagePart::End { .. } => Self::ImageEnd,
            }),
            Kind::Message => {
                let ends = record.property(ENDS).is_some();
                ends.then_some(if record.topic() == PARK_TOPIC { Self::Carry } else { Self::Fire })
            }
            Kind::Half | Kind::Rollback | Kind::Unknown { .. } => None,
        }
    }
}

/// Notes what the records that are on the disk now have been written for.
pub(super) fn note_records(disk: &MemoryFiles, sorts: &mut BTreeSet<Sort>) {
    for path in disk.paths().iter().filter(|path| is_segment(path)) {
        let bytes = disk.bytes(path).unwrap();
        // The first thing that is no record is the filler or the end.
        let whole = records(&bytes).map_while(Result::ok);
        sorts.extend(whole.filter_map(|record| Sort::of_record(&record)));
    }
}

/// Notes what the disk was asked for.
pub(super) fn note_operations(disk: &MemoryFiles, sorts: &mut BTreeSet<Sort>) {
    sorts.extend(disk.asked().iter().filter_map(Sort::of_operation));
}

fn is_segment(path: &Path) -> bool {
    name_of(path).is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        && path.parent().is_some_and(|dir| dir.ends_with("log"))
}

fn is_free(path: &Path) -> bool {
    name_of(path).is_some_and(|name| name.starts_with("free-"))
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
