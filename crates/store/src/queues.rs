//! Placeholder.
#[derive(Debug)]
pub(crate) struct Queue;
