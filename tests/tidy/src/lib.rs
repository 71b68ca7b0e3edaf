//! Checks of the tree itself: what a reviewer would otherwise have to remember.
//! Every check is a function from text or metadata to a list of complaints; an empty list is a pass.
//! The promises that hold for this tree are the tests in `tests/`; nothing here knows the rules of a crate.

pub mod crate_table;
pub mod modules;
pub mod sources;
pub mod tree;

/// Panics with all `complaints`, one a line, or does nothing when there are none.
///
/// # Panics
/// When there is a complaint: the message is what the developer reads.
pub fn hold(promise: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{promise}\n  {}\n", complaints.join("\n  "));
}
