//! Why a send is refused.
//! Invariant: a message says what was wrong with which values, in the words that clients look for.
//! Leaves codes to the front doors.

use gantry_model::NameError;
use gantry_record::BatchError;
use gantry_store::{AppendError, EncodeError};

use crate::services::{backlog::Busy, groups::GroupError, timers::DueError, topics::TopicError};

/// Why a send was refused.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The broker is stopping, or its store has failed.
    #[error("service not available now: {reason}")]
    Unavailable {
        /// Which of them.
        reason: &'static str,
    },
    /// Too many sends wait for the disk.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Clients may not send to this topic.
    #[error("Sending message to topic[{topic}] is forbidden.")]
    Reserved {
        /// The topic.
        topic: String,
    },
    /// The topic is unknown or cannot be made.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic has no such queue.
    #[error("request queueId[{queue}] is illegal, topic[{topic}] has {queues} queues")]
    Queue {
        /// The topic.
        topic: String,
        /// Queue asked for.
        queue: i32,
        /// Queues it has.
        queues: u32,
    },
    /// The group of a retry topic is unknown or cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The group of a retry topic cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The body is too large.
    #[error("message body is {bytes} bytes, the limit is {bytes_max}")]
    BodyTooLarge {
        /// Its size.
        bytes: usize,
        /// Largest size.
        bytes_max: u64,
    },
    /// The properties are too large.
    #[error("message properties are {bytes} bytes, the limit is {bytes_max}")]
    PropertiesTooLarge {
        /// Their size, with what the broker adds.
        bytes: usize,
        /// Largest size.
        bytes_max: usize,
    },
    /// The batch cannot be read.
    #[error("batch message is illegal")]
    Batch(#[from] BatchError),
    /// Properties of a batch's message are no text.
    #[error("properties of message {index} of the batch are not UTF-8")]
    BatchText {
        /// Which message, from 0.
        index: usize,
    },
    /// The batch is of a kind that may not be one.
    #[error("batch message is illegal: {reason}")]
    BatchKind {
        /// Why.
        reason: &'static str,
    },
    /// The message says that it holds several others.
    #[error("message with INNER_NUM or an inner batch flag is not available")]
    InnerBatch,
    /// The due time cannot be met.
    #[error(transparent)]
    Due(#[from] DueError),
    /// The message is half of a transaction.
    #[error("the broker sending transaction message is forbidden: transactions are not available")]
    Transaction,
    /// The message cannot be a record.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The log did not take the message.
    #[error(transparent)]
    Append(#[from] AppendError),
}
