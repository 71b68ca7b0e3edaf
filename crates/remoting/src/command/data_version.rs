//! Data version: which state of a table its owner speaks of.
//!
//! Two versions are the same when all three numbers are. Who counts is left to the owner.

use crate::json::body;

body! {
    /// Version of a broker's topics, groups or offsets.
    #[derive(Copy, Eq, Hash)]
    pub struct DataVersion: "data version" {
        /// Counts every change.
        pub counter: i64,
        /// Counts changes of the owner, such as a new primary.
        pub state_version: i64,
        /// Time of the last change, in milliseconds since the epoch.
        pub timestamp: i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::body_matches;

    #[test]
    fn data_version_matches_the_reference() {
        let vector = r#"{"counter":0,"stateVersion":0,"timestamp":1700000000000}"#;
        let version: DataVersion = body_matches(vector);
        assert_eq!(version.timestamp, 1_700_000_000_000);
    }
}
