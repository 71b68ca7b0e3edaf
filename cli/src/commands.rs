//! The administrative commands, one file for each noun.
//! Invariant: a command prints one document, or says in one sentence why not.
//! Leaves the requests to the client library.

pub(crate) mod cluster;
pub(crate) mod group;
pub(crate) mod message;
pub(crate) mod offset;
pub(crate) mod topic;
