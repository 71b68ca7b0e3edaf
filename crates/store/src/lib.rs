//! Storage engine: the commit log and the views derived from it.
//! Invariant: what was confirmed survives; every view can be rebuilt from the log.
//! A synchronous library: it opens no socket and reads no clock.

mod batch;
pub mod change;
mod errors;
#[doc(hidden)]
#[allow(missing_docs)]
pub mod log {
    use gantry_model::QueueOffset;
    #[derive(Debug, thiserror::Error)]
    #[error("open")]
    pub struct OpenError;
    #[derive(Debug, thiserror::Error)]
    #[error("append")]
    pub struct AppendError;
    #[derive(Debug, thiserror::Error)]
    #[error("sync")]
    pub struct SyncError;
    #[derive(Debug, thiserror::Error)]
    #[error("read")]
    pub struct ReadError;
    #[derive(Debug, Default)]
    pub struct RecordBatch {
        pub buf: Vec<u8>,
        pub slots: Vec<(gantry_record::Slot, QueueOffset)>,
    }
}
mod offsets;
mod options;
mod groups;
mod queues;
pub mod state;
mod store;
mod topics;
pub mod views;

pub use batch::{Batch, Ends, Index, KeySource, Placed};
pub use errors::{
    AppendError, CloseError, EncodeError, MaintainError, OpenError, ReadError, ReplayError,
    SyncError,
};
pub use offsets::OffsetCommit;
pub use options::{Flush, Now, Retention, StoreOptions};
pub use store::{
    Boundary, Bounds, Damage, Maintenance, OpenReport, QueueRead, ReadLimits, ReadStatus, Store,
    StoreStatus, Ticket, Timer,
};
pub use topics::{DataVersion, Topic};
pub use views::{ViewError, layout::Entry};
