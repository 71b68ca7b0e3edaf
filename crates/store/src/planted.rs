//! Bugs that features plant, to show that the tests find them: `scripts/test-planted` switches them on one by one.
//! Invariant: without those features every function here does what its name says, and with them nothing can be built
//! for release.
//! Leaves to the tests to find them.

use std::io;

use gantry_model::PhysicalOffset;
use gantry_record::{RecordError, RecordView};

use crate::log::files::LogFile;

#[cfg(all(
    not(debug_assertions),
    any(
        feature = "planted-crc-unchecked",
        feature = "planted-no-fsync",
        feature = "planted-view-applied-twice"
    )
))]
compile_error!("the planted-… features of gantry-store are bugs: they are for tests alone");

/// Whether a batch of views is written without its position, which follows on its own, and counts on from what the
/// views hold: a crash in between applies it twice.
pub(crate) const VIEW_APPLIED_TWICE: bool = cfg!(feature = "planted-view-applied-twice");

/// Makes what was written to a file of the log survive a crash.
pub(crate) fn sync_data(file: &dyn LogFile) -> io::Result<()> {
    if cfg!(feature = "planted-no-fsync") {
        return Ok(());
    }
    file.sync_data()
}

/// Reads the one record that `bytes` is, and checks that it is whole and belongs at `position`.
pub(crate) fn verify(
    bytes: &[u8],
    position: PhysicalOffset,
) -> Result<RecordView<'_>, RecordError> {
    if cfg!(feature = "planted-crc-unchecked") {
        return RecordView::parse(bytes);
    }
    RecordView::verify(bytes, position)
}
