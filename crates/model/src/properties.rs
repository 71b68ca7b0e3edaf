//! Keys of message properties that brokers and clients reserve for themselves.
//! Source: RocketMQ's message constants. Applications may use any other key.

/// Application keys, separated by one space, by which a message can be found.
pub const KEYS: &str = "KEYS";
/// The message's tag.
pub const TAGS: &str = "TAGS";
/// `false`: the sender does not wait for disk or replicas.
pub const WAIT: &str = "WAIT";
/// Delay level, 1 to 18.
pub const DELAY: &str = "DELAY";
/// Topic from which a message in a retry topic came.
pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
/// Topic to which a parked message goes.
pub const REAL_TOPIC: &str = "REAL_TOPIC";
/// Queue to which a parked message goes.
pub const REAL_QUEUE_ID: &str = "REAL_QID";
/// `true` marks a half message of a transaction.
pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
/// Producer group of a transaction.
pub const PRODUCER_GROUP: &str = "PGROUP";
/// Offset message id of a retried message's first attempt.
pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
/// Attempts so far, when a client itself sends to a retry topic.
pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
/// Most attempts, when a client itself sends to a retry topic.
pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
/// Region of the broker.
pub const MSG_REGION: &str = "MSG_REGION";
/// Whether clients trace.
pub const TRACE_ON: &str = "TRACE_ON";
/// Unique id that the producing client gave.
pub const UNIQ_KEY: &str = "UNIQ_KEY";
/// Name of the cluster that stored the message.
pub const CLUSTER: &str = "CLUSTER";
/// Receipt of a popped message.
pub const POP_CK: &str = "POP_CK";
/// Ordering key of 5.x clients.
pub const SHARDING_KEY: &str = "__SHARDINGKEY";
/// Number of messages in an inner batch.
pub const INNER_NUM: &str = "INNER_NUM";
/// Deliver after this many seconds.
pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
/// Deliver after this many milliseconds.
pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
/// Deliver at this time, in milliseconds since 1970.
pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
/// Checksum of the record, always the last property.
pub const CRC32: &str = "__CRC32#";
/// What the record ends, written by the broker: a timer that fired, for example.
pub const ENDS: &str = "__GANTRY_ENDS";
