//! What a record of the log is, told by its topic and body.
//! Invariant: every record is of some kind; one that cannot be understood is of a kind that says so.
//! Leaves what follows from a record to `change`.

use gantry_model::PhysicalOffset;
use gantry_record::{RecordView, sys_flag};

use crate::{
    image::{self, IMAGE_TOPIC},
    log::{Own, SegmentHeader, StoreId},
    log_start::{self, START_TOPIC},
    state::{self, STATE_TOPIC, StateEntry},
};

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A message in a queue.
    Message,
    /// A message of a transaction that is not decided: in no queue.
    Half,
    /// A transaction that was rolled back: in no queue.
    Rollback,
    /// First record of a segment.
    Header(SegmentHeader),
    /// Says up to where the log was synced.
    Mark {
        /// The store.
        store_id: StoreId,
        /// Everything before was synced.
        synced: PhysicalOffset,
    },
    /// Changes of state.
    State(Vec<StateEntry>),
    /// A piece of a state image.
    Image(ImagePiece),
    /// Says where the log starts.
    Start {
        /// Everything before may be gone.
        position: PhysicalOffset,
    },
    /// A record of the store's own that this release does not understand.
    Unknown {
        /// Why not.
        reason: String,
    },
}

/// A piece of a state image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePiece {
    /// The image holds all state of the records before this position.
    pub position: PhysicalOffset,
    /// What the piece is.
    pub part: ImagePart,
}

/// Which piece of a state image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePart {
    /// The first one.
    Begin,
    /// State.
    Entries {
        /// Its number, from 0.
        number: u32,
        /// What it holds.
        entries: Vec<StateEntry>,
    },
    /// The last one.
    End {
        /// Number of parts before.
        parts: u32,
    },
}

impl Kind {
    /// What `record` is.
    pub fn of(record: &RecordView<'_>) -> Self {
        match Own::of(record) {
            Some(Own::Header(header)) => return Self::Header(header),
            Some(Own::Mark { store_id, synced }) => return Self::Mark { store_id, synced },
            Some(Own::Newer { format }) => {
                return unknown(format!("a segment header of format {format}"));
            }
            None => {}
        }
        match record.topic() {
            STATE_TOPIC => match state::decode(record.body()) {
                Ok(entries) => Self::State(entries),
                Err(error) => unknown(error.to_string()),
            },
            IMAGE_TOPIC => image_piece(record),
            START_TOPIC => match log_start::decode(record) {
                Ok(position) => Self::Start { position },
                Err(error) => unknown(error.to_string()),
            },
            topic if crate::change::is_internal(topic) => {
                unknown("a topic of the store's own that is not known".to_owned())
            }
            _ => match record.transaction() {
                sys_flag::TRANSACTION_PREPARED => Self::Half,
                sys_flag::TRANSACTION_ROLLBACK => Self::Rollback,
                _ => Self::Message,
            },
        }
    }

    /// Its name, for people and programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Half => "half",
            Self::Rollback => "rollback",
            Self::Header(_) => "header",
            Self::Mark { .. } => "mark",
            Self::State(_) => "state",
            Self::Image(_) => "image",
            Self::Start { .. } => "start",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// Whether the record holds what a client sent, or a message made of it.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message | Self::Half | Self::Rollback)
    }
}

fn unknown(reason: String) -> Kind {
    Kind::Unknown { reason }
}

fn image_piece(record: &RecordView<'_>) -> Kind {
    let (position, piece) = match image::piece_of(record) {
        Ok(Some(piece)) => piece,
        Ok(None) => return unknown("a piece of a state image that is none".to_owned()),
        Err(error) => return unknown(error.to_string()),
    };
    let part = match piece {
        image::Piece::Begin => ImagePart::Begin,
        image::Piece::End { parts, .. } => ImagePart::End { parts },
        image::Piece::Part { number, state } => match state::decode(state) {
            Ok(entries) => ImagePart::Entries { number, entries },
            Err(error) => return unknown(error.to_string()),
        },
    };
    Kind::Image(ImagePiece { position, part })
}
