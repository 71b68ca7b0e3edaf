//! Versions of the tables of topics and groups, as the protocol has them.
//! Invariant: two versions are equal there exactly when they are equal in the store.
//! Leaves counting to the store.

use gantry_remoting::command::data_version::DataVersion;

/// The version of a table of the store.
pub(crate) fn to_protocol(version: gantry_store::DataVersion) -> DataVersion {
    DataVersion {
        counter: version.counter as i64,
        state_version: version.state_version as i64,
        timestamp: version.timestamp_ms as i64,
    }
}
