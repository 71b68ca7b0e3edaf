//! Repair: the way on for a store that does not start because views and state images are lost.
//! Invariant: a store that some process has open is not touched, and one that starts by itself loses nothing.
//! Leaves what can be saved to `salvage`.

use std::path::Path;

use gantry_model::TopicName;
use serde::Serialize;

use crate::{
    CloseError, Now, OpenError, Store, StoreOptions,
    inspect::{InspectError, StoreReader},
};

/// Why a store was not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It cannot be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// It cannot be opened, for another reason than lost state.
    #[error("open the store")]
    Open(#[from] OpenError),
    /// It could not be closed in order.
    #[error("close the store")]
    Close(#[from] CloseError),
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// The folder.
    pub dir: String,
    /// Whether state was lost at all. If not, nothing was given up: the store starts by itself.
    pub was_lost: bool,
    /// Whole records of broken state images that were used.
    pub image_parts: u64,
    /// Topics that there are now.
    pub topics: Vec<RepairedTopic>,
    /// Number of groups that there are now.
    pub groups: u64,
    /// Number of consumer offsets that there are now.
    pub offsets: u64,
    /// Damaged places that were met, as text with file and byte.
    pub damage: Vec<String>,
}

/// A topic of a repaired store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairedTopic {
    /// Its name.
    pub name: TopicName,
    /// Number of its queues.
    pub queues: u32,
    /// Whether its definition is lost: it has the defaults, and as many queues as its messages name.
    pub is_made_anew: bool,
}

/// Opens the store in `dir` as one of which the state may be lost, writes what is left of the state to its log, and
/// closes it: from then on it starts as any other.
pub fn accept_lost_state(dir: &Path, now: Now) -> Result<Repair, RepairError> {
    let (dir, options) = {
        let found = StoreReader::open(dir)?;
        let mut options = StoreOptions::new(found.dir());
        // The next segment is as long as the last one: the broker's setting is not known here.
        if let Some(last) = found.log().segments().last() {
            options.segment_bytes =
                last.header.map_or(last.file_bytes, |header| header.segment_bytes);
        }
        options.accepts_lost_state = true;
        (found.dir().display().to_string(), options)
    };
    let (store, report) = Store::open(options, now)?;
    let was_lost = report.salvaged.is_some();
    let salvaged = report.salvaged.unwrap_or_default();
    let topic = |topic: &crate::Topic| RepairedTopic {
        name: topic.name().clone(),
        queues: topic.config.queues(),
        is_made_anew: salvaged.topics_made.contains(topic.name()),
    };
    let topics = store.topics();
    let groups = store.groups();
    let offsets = groups.iter().map(|group| store.offsets_of_group(&group.group_name).len() as u64);
    let repair = Repair {
        dir,
        was_lost,
        image_parts: salvaged.image_parts,
        topics: topics.iter().map(|it| topic(it)).collect(),
        groups: groups.len() as u64,
        offsets: offsets.sum(),
        damage: report.damage.iter().map(ToString::to_string).collect(),
    };
    store.close(now)?;
    Ok(repair)
}
