//! What a consumer's heartbeat says of itself and its group.
//! Invariant: an expression is kept as the client wrote it, beside what it means.
//! Leaves reading heartbeats to the front doors, and what follows from them to `members`.

use gantry_model::{GroupName, TopicName};

use crate::services::filter::TagFilter;

/// What kind of consumer a group has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeType {
    /// The application asks for messages itself.
    Pull,
    /// The client asks and calls the application.
    Push,
    /// The broker hands out messages one by one.
    Pop,
}

/// Whether each message goes to one member or to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageModel {
    /// To all; members keep their offsets themselves.
    Broadcasting,
    /// To one.
    Clustering,
}

/// In which language an expression is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpressionKind {
    /// Tags separated by `||`.
    Tag,
    /// Any other, by its name.
    Other(String),
}

impl ExpressionKind {
    /// The kind of that name; none or an empty one is `TAG`.
    pub fn named(name: Option<&str>) -> Self {
        match name {
            None | Some("" | "TAG") => Self::Tag,
            Some(other) => Self::Other(other.into()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Tag => "TAG",
            Self::Other(name) => name,
        }
    }
}

/// What a group wants of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The topic.
    pub topic: TopicName,
    /// The expression as the client wrote it.
    pub expression: String,
    /// Its language.
    pub kind: ExpressionKind,
    /// The expression as a filter; of another language: everything.
    pub filter: TagFilter,
    /// When the client changed it last; the newest wins.
    pub version: i64,
}

/// What one consumer says of itself and its group.
#[derive(Debug, Clone)]
pub struct ConsumerBeat {
    /// The group.
    pub group: GroupName,
    /// Kind of consumer.
    pub consume_type: ConsumeType,
    /// Who gets a message.
    pub model: MessageModel,
    /// Where the group starts without an offset, as the client wrote it.
    pub consume_from: String,
    /// All its subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Whether the group's members are told of changes.
    pub notify: bool,
}
