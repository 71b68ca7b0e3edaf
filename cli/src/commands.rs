//! The administrative commands, one file for each noun.
//! Invariant: a command prints one document, or says in one sentence why not.
//! Leaves the requests to the client library, and stopped stores to the store's own look at them.

pub(crate) mod cluster;
pub(crate) mod group;
pub(crate) mod message;
pub(crate) mod offset;
pub(crate) mod store;
pub(crate) mod topic;
