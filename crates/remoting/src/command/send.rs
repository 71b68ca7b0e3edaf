//! Sending: request codes 10, 310, 320, 324, 325, the answer, and the reply push 326.
//!
//! 310, 320 and 325 name their fields by one letter, 10 and 324 in full; both read into one type.
//! A negative queue id is valid: the broker picks. The body is left to the caller.

use crate::codes::RequestCode;
use crate::ext::{ExtSource, Header, HeaderError, header};

header! {
    /// Fields of a send, named by letters on the wire.
    pub struct SendRequest<'a> {
        /// Group of the producer.
        pub producer_group: &'a str = "a",
        /// Where to.
        pub topic: &'a str = "b",
        /// Template from which an unknown topic is created.
        pub default_topic: &'a str = "c",
        /// Queues wanted for a created topic.
        pub default_topic_queues: i32 = "d",
        /// Queue; negative: the broker picks.
        pub queue_id: i32 = "e",
        /// Bits: compression, transaction.
        pub sys_flag: i32 = "f",
        /// When the producer made the message, in milliseconds since the epoch.
        pub born_timestamp: i64 = "g",
        /// The application's own flag.
        pub flag: i32 = "h",
        /// Properties, encoded.
        pub properties: Option<&'a str> = "i",
        /// Attempts so far, of a consumer that sends a message back.
        pub reconsume_times: Option<i32> = "j",
        /// Unit mode.
        pub unit_mode: Option<bool> = "k",
        /// Attempts allowed, of a consumer that sends a message back.
        pub max_reconsume_times: Option<i32> = "l",
        /// Whether the body holds several messages.
        pub batch: Option<bool> = "m",
        /// Name of the broker group that the client believes it talks to.
        pub broker_name: Option<&'a str> = "n",
    }
}

header! {
    /// Fields of a send, named in full on the wire.
    pub struct SendRequestLong<'a> {
        /// Group of the producer.
        pub producer_group: &'a str = "producerGroup",
        /// Where to.
        pub topic: &'a str = "topic",
        /// Template from which an unknown topic is created.
        pub default_topic: &'a str = "defaultTopic",
        /// Queues wanted for a created topic.
        pub default_topic_queues: i32 = "defaultTopicQueueNums",
        /// Queue; negative: the broker picks.
        pub queue_id: i32 = "queueId",
        /// Bits: compression, transaction.
        pub sys_flag: i32 = "sysFlag",
        /// When the producer made the message, in milliseconds since the epoch.
        pub born_timestamp: i64 = "bornTimestamp",
        /// The application's own flag.
        pub flag: i32 = "flag",
        /// Properties, encoded.
        pub properties: Option<&'a str> = "properties",
        /// Attempts so far, of a consumer that sends a message back.
        pub reconsume_times: Option<i32> = "reconsumeTimes",
        /// Unit mode.
        pub unit_mode: Option<bool> = "unitMode",
        /// Attempts allowed, of a consumer that sends a message back.
        pub max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        /// Whether the body holds several messages.
        pub batch: Option<bool> = "batch",
        /// Name of the broker group that the client believes it talks to.
        pub broker_name: Option<&'a str> = "bname",
    }
}

macro_rules! same_fields {
    ($from:ident => $to:ident) => {
        impl<'a> From<$from<'a>> for $to<'a> {
            fn from(request: $from<'a>) -> Self {
                let $from {
                    producer_group,
                    topic,
                    default_topic,
                    default_topic_queues,
                    queue_id,
                    sys_flag,
                    born_timestamp,
                    flag,
                    properties,
                    reconsume_times,
                    unit_mode,
                    max_reconsume_times,
                    batch,
                    broker_name,
                } = request;
                Self {
                    producer_group,
                    topic,
                    default_topic,
                    default_topic_queues,
                    queue_id,
                    sys_flag,
                    born_timestamp,
                    flag,
                    properties,
                    reconsume_times,
                    unit_mode,
                    max_reconsume_times,
                    batch,
                    broker_name,
                }
            }
        }
    };
}
same_fields!(SendRequestLong => SendRequest);
same_fields!(SendRequest => SendRequestLong);

impl<'a> SendRequest<'a> {
    /// Reads the fields under the names that `code` uses.
    pub fn read<S: ExtSource>(code: RequestCode, ext: &'a S) -> Result<Self, HeaderError> {
        match code {
            RequestCode::SEND_MESSAGE | RequestCode::SEND_REPLY_MESSAGE => {
                SendRequestLong::from_ext(ext).map(Self::from)
            }
            _ => Self::from_ext(ext),
        }
    }

    /// Whether the body holds several messages.
    pub fn is_batch(&self, code: RequestCode) -> bool {
        code == RequestCode::SEND_BATCH_MESSAGE || self.batch == Some(true)
    }
}

header! {
    /// Fields of the answer to a send; a client needs the first three with codes 0, 10, 11, 12.
    pub struct SendAnswer<'a> {
        /// Offset message id; of a batch the ids joined by commas.
        pub msg_id: &'a str = "msgId",
        /// Queue the message went to.
        pub queue_id: u32 = "queueId",
        /// Queue offset of the message; of a batch that of the first.
        pub queue_offset: u64 = "queueOffset",
        /// The message's unique id.
        pub transaction_id: Option<&'a str> = "transactionId",
        /// Unique id of an inner batch.
        pub batch_unique_id: Option<&'a str> = "batchUniqId",
        /// Handle by which a timed message is recalled.
        pub recall_handle: Option<&'a str> = "recallHandle",
        /// Region of the broker.
        pub region: Option<&'a str> = "MSG_REGION",
        /// Whether clients send traces.
        pub trace_on: Option<bool> = "TRACE_ON",
    }
}

header! {
    /// Fields of a reply pushed to its requester: request code 326.
    pub struct ReplyPush<'a> {
        /// Group of the replier.
        pub producer_group: &'a str = "producerGroup",
        /// Reply topic.
        pub topic: &'a str = "topic",
        /// As in the send.
        pub default_topic: &'a str = "defaultTopic",
        /// As in the send.
        pub default_topic_queues: i32 = "defaultTopicQueueNums",
        /// As in the send.
        pub queue_id: i32 = "queueId",
        /// As in the send.
        pub sys_flag: i32 = "sysFlag",
        /// As in the send.
        pub born_timestamp: i64 = "bornTimestamp",
        /// As in the send.
        pub flag: i32 = "flag",
        /// As in the send.
        pub properties: Option<&'a str> = "properties",
        /// As in the send.
        pub reconsume_times: Option<i32> = "reconsumeTimes",
        /// As in the send.
        pub unit_mode: Option<bool> = "unitMode",
        /// Address of the replier, `ip:port`.
        pub born_host: &'a str = "bornHost",
        /// Address of the broker, `ip:port`.
        pub store_host: &'a str = "storeHost",
        /// When the broker took the reply, in milliseconds since the epoch.
        pub store_timestamp: i64 = "storeTimestamp",
    }
}

header! {
    /// Fields of a recall of a timed message: request code 370.
    pub struct RecallRequest<'a> {
        /// Group of the producer.
        pub producer_group: Option<&'a str> = "producerGroup",
        /// Topic of the message.
        pub topic: &'a str = "topic",
        /// Handle from the send's answer.
        pub recall_handle: &'a str = "recallHandle",
    }
}

header! {
    /// Fields of the answer to a recall.
    pub struct RecallAnswer<'a> {
        /// Unique id of the recalled message.
        pub msg_id: &'a str = "msgId",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::assert_round_trips;
    use crate::header::{Encoding, HeaderView};

    fn sample() -> SendRequest<'static> {
        SendRequest {
            producer_group: "pg",
            topic: "T",
            default_topic: "TBW102",
            default_topic_queues: 4,
            queue_id: -1,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            flag: -7,
            properties: Some("KEYS\u{1}k1\u{2}"),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(false),
            broker_name: Some("broker-a"),
        }
    }

    #[test]
    fn send_round_trips_under_both_kinds_of_names() {
        assert_round_trips!(sample(), SendRequest<'_>);
        assert_round_trips!(SendRequestLong::from(sample()), SendRequestLong<'_>);
        assert_eq!(SendRequest::from(SendRequestLong::from(sample())), sample());
    }

    #[test]
    fn answers_and_pushes_round_trip() {
        let answer = SendAnswer { msg_id: "7F00", queue_offset: 9, ..SendAnswer::default() };
        assert_round_trips!(answer, SendAnswer<'_>);
        let push = ReplyPush {
            producer_group: "g",
            topic: "t",
            default_topic: "d",
            born_host: "h",
            store_host: "s",
            ..ReplyPush::default()
        };
        assert_round_trips!(push, ReplyPush<'_>);
        let recall = RecallRequest { producer_group: None, topic: "t", recall_handle: "h" };
        assert_round_trips!(recall, RecallRequest<'_>);
        assert_round_trips!(RecallAnswer { msg_id: "m" }, RecallAnswer<'_>);
    }

    #[test]
    fn header_of_the_reference_is_read() {
        let text = r#"{"code":310,"extFields":{"a":"pg","b":"T","c":"TBW102","d":"4","e":"1","f":"0","g":"1700000000000","h":"0","i":"KEYS\u0001k1\u0002","j":"0","k":"false","m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":479}"#;
        let view = HeaderView::parse(Encoding::Json, text.as_bytes()).unwrap();
        let read = SendRequest::read(view.request_code(), &view.ext).unwrap();
        assert_eq!(read, SendRequest { queue_id: 1, flag: 0, ..sample() });
        assert!(!read.is_batch(RequestCode::SEND_MESSAGE_V2));
        assert!(read.is_batch(RequestCode::SEND_BATCH_MESSAGE));
    }
}
