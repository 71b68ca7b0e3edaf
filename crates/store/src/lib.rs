//! Storage engine: the commit log and the views derived from it.
//! Invariant: what was confirmed survives; every view can be rebuilt from the log.
//! A synchronous library: it opens no socket and reads no clock.

mod append;
mod apply;
mod batch;
pub mod change;
mod damage;
mod errors;
mod expiry;
mod gaps;
mod groups;
mod idle;
pub mod image;
pub mod inspect;
pub mod keys;
mod lock;
pub mod log;
pub mod log_start;
mod offsets;
mod options;
mod orphans;
mod pending;
mod planted;
mod query;
mod queues;
mod read;
mod recover;
mod repair;
pub mod retention;
mod ring;
mod salvage;
mod scrub;
mod space;
pub mod state;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod timers;
mod times;
mod topics;
mod types;
pub mod views;

pub use batch::{Batch, Ends, Index, KeySource, Placed};
pub use damage::Damage;
pub use errors::{
    AppendError, CloseError, EncodeError, MaintainError, MarkError, OpenError, ReadError,
    ReplayError, SyncError,
};
pub use log::Shortage;
pub use offsets::OffsetCommit;
pub use options::{Flush, Now, OnFull, Retention, RoomOptions, StoreOptions};
pub use repair::{Repair, RepairError, RepairedTopic, accept_lost_state};
pub use salvage::Salvaged;
pub use scrub::{ScrubError, ScrubStatus};
pub use space::RoomError;
pub use store::Store;
pub use tables::image_entries;
pub use topics::{DataVersion, Topic};
pub use types::{
    Boundary, Bounds, Far, Maintenance, OpenReport, QueueRead, ReadLimits, ReadStatus, StoreStatus,
    Ticket, Timer,
};
pub use views::{ViewError, layout::Entry};
