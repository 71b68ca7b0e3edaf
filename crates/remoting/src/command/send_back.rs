//! Sending a message back for another attempt: request code 36.
//!
//! A delay level below 0 asks for the dead-letter topic, 0 lets the broker choose.

use crate::ext::header;

header! {
    /// Fields of a send-back.
    pub struct SendBack<'a> {
        /// Physical offset of the message's record on this broker.
        pub offset: i64 = "offset",
        /// The consumer's group.
        pub group: &'a str = "group",
        /// Delay level of the next attempt.
        pub delay_level: i32 = "delayLevel",
        /// Id of the message.
        pub origin_msg_id: Option<&'a str> = "originMsgId",
        /// Topic of the message.
        pub origin_topic: Option<&'a str> = "originTopic",
        /// Unit mode.
        pub unit_mode: Option<bool> = "unitMode",
        /// Attempts allowed.
        pub max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        /// Name of the broker group that the client believes it talks to.
        pub broker_name: Option<&'a str> = "bname",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::assert_round_trips;

    #[test]
    fn send_back_round_trips() {
        let request = SendBack {
            offset: 1 << 33,
            group: "g",
            delay_level: -1,
            max_reconsume_times: Some(16),
            ..SendBack::default()
        };
        assert_round_trips!(request, SendBack<'_>);
    }
}
