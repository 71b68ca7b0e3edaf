//! Transactions: the producer's decision (request code 37) and the broker's question (39).

use crate::ext::header;

/// Values of [`EndTransaction::decision`].
pub mod decision {
    /// Not known yet.
    pub const UNKNOWN: i32 = 0;
    /// Deliver the message.
    pub const COMMIT: i32 = 8;
    /// Forget the message.
    pub const ROLLBACK: i32 = 12;
}

header! {
    /// Fields of a decision.
    pub struct EndTransaction<'a> {
        /// Topic of the message.
        pub topic: Option<&'a str> = "topic",
        /// Group of the producer.
        pub producer_group: &'a str = "producerGroup",
        /// Queue offset of the half message.
        pub half_queue_offset: i64 = "tranStateTableOffset",
        /// Physical offset of the half message.
        pub commit_log_offset: i64 = "commitLogOffset",
        /// See [`decision`].
        pub decision: i32 = "commitOrRollback",
        /// Whether this answers a question of the broker.
        pub from_check: Option<bool> = "fromTransactionCheck",
        /// Id of the message.
        pub msg_id: Option<&'a str> = "msgId",
        /// Unique id of the message.
        pub transaction_id: Option<&'a str> = "transactionId",
        /// Name of the broker group that the client believes it talks to.
        pub broker_name: Option<&'a str> = "bname",
    }
}

header! {
    /// Fields of a question; the body is the half message with its real topic and queue.
    pub struct CheckTransaction<'a> {
        /// The half topic.
        pub topic: Option<&'a str> = "topic",
        /// Queue offset of the half message.
        pub half_queue_offset: i64 = "tranStateTableOffset",
        /// Physical offset of the half message.
        pub commit_log_offset: i64 = "commitLogOffset",
        /// Unique id of the message.
        pub msg_id: Option<&'a str> = "msgId",
        /// Unique id of the message.
        pub transaction_id: Option<&'a str> = "transactionId",
        /// Offset id of the half message.
        pub offset_msg_id: Option<&'a str> = "offsetMsgId",
        /// Name of the broker group.
        pub broker_name: Option<&'a str> = "bname",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::assert_round_trips;

    #[test]
    fn transaction_commands_round_trip() {
        let end = EndTransaction {
            producer_group: "g",
            half_queue_offset: 3,
            commit_log_offset: 1 << 35,
            decision: decision::COMMIT,
            from_check: Some(true),
            ..EndTransaction::default()
        };
        assert_round_trips!(end, EndTransaction<'_>);
        let check = CheckTransaction { msg_id: Some("m"), ..CheckTransaction::default() };
        assert_round_trips!(check, CheckTransaction<'_>);
    }
}
