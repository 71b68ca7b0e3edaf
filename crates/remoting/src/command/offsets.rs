//! Offsets of groups and bounds of queues: request codes 14, 15, 29, 30, 31 and 32.
//!
//! Queue ids are not checked here: for an unknown queue the bounds answer 0 or -1, not an error.

use crate::ext::header;

header! {
    /// Fields of a query for a group's offset: request code 14.
    pub struct QueryOffset<'a> {
        /// The group.
        pub consumer_group: &'a str = "consumerGroup",
        /// The topic.
        pub topic: &'a str = "topic",
        /// The queue.
        pub queue_id: i32 = "queueId",
        /// `false`: a group without an offset is answered "not found", whatever the queue holds.
        pub set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
    }
}

header! {
    /// Fields of a commit of a group's offset: request code 15.
    pub struct UpdateOffset<'a> {
        /// The group.
        pub consumer_group: &'a str = "consumerGroup",
        /// The topic.
        pub topic: &'a str = "topic",
        /// The queue.
        pub queue_id: i32 = "queueId",
        /// Offset of the next message to consume.
        pub commit_offset: i64 = "commitOffset",
    }
}

header! {
    /// Fields of request codes 30, 31 and 32.
    pub struct QueueBound<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// The queue.
        pub queue_id: i32 = "queueId",
        /// Code 30: `false` asks for what is written, instead of what is confirmed.
        pub committed: Option<bool> = "committed",
    }
}

header! {
    /// Fields of a search by time: request code 29.
    pub struct SearchOffset<'a> {
        /// The topic.
        pub topic: &'a str = "topic",
        /// The queue.
        pub queue_id: i32 = "queueId",
        /// Store time, in milliseconds since the epoch.
        pub timestamp: i64 = "timestamp",
        /// `LOWER` (the default) or `UPPER`.
        pub boundary_type: Option<&'a str> = "boundaryType",
    }
}

header! {
    /// Fields of the answers that are one offset: request codes 14, 29, 30 and 31.
    pub struct OffsetAnswer {
        /// The offset.
        pub offset: i64 = "offset",
    }
}

header! {
    /// Fields of the answer to request code 32.
    pub struct StoreTimeAnswer {
        /// Store time of the first message, in milliseconds since the epoch; -1 when there is none.
        pub timestamp: i64 = "timestamp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::assert_round_trips;

    #[test]
    fn offset_commands_round_trip() {
        let query = QueryOffset {
            consumer_group: "g",
            topic: "t",
            queue_id: 3,
            set_zero_if_not_found: Some(false),
        };
        assert_round_trips!(query, QueryOffset<'_>);
        let update =
            UpdateOffset { consumer_group: "g", topic: "t", queue_id: 0, commit_offset: 1 << 40 };
        assert_round_trips!(update, UpdateOffset<'_>);
        assert_round_trips!(QueueBound { topic: "t", ..QueueBound::default() }, QueueBound<'_>);
        let search =
            SearchOffset { topic: "t", queue_id: 1, timestamp: -1, boundary_type: Some("UPPER") };
        assert_round_trips!(search, SearchOffset<'_>);
        assert_round_trips!(OffsetAnswer { offset: -1 }, OffsetAnswer);
        assert_round_trips!(StoreTimeAnswer { timestamp: -1 }, StoreTimeAnswer);
    }
}
