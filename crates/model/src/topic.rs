//! A topic's definition, in the JSON form that RocketMQ's tools read and write.
//! Invariant: `validate` accepts only counts and permissions that the broker can serve.
//! Leaves the decision who may create what to the broker's services.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{TopicName, limits::QUEUES_MAX};

/// What clients may do with a topic: bits of RocketMQ's `perm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Permission(pub u32);

impl Permission {
    /// New topics may be made in this topic's image.
    pub const INHERIT: u32 = 1;
    /// Producers may send.
    pub const WRITE: u32 = 2;
    /// Consumers may read.
    pub const READ: u32 = 4;
    /// Read and write, the usual value.
    pub const READ_WRITE: Self = Self(Self::READ | Self::WRITE);
    /// Read, write and inherit: a template for topics made by their first message.
    pub const TEMPLATE: Self = Self(Self::READ | Self::WRITE | Self::INHERIT);

    /// Whether consumers may read.
    pub fn readable(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// Whether producers may send.
    pub fn writable(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// Whether new topics may be made in this topic's image.
    pub fn inheritable(self) -> bool {
        self.0 & Self::INHERIT != 0
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit, letter| if self.0 & bit == 0 { '-' } else { letter };
        write!(
            f,
            "{}{}{}",
            letter(Self::READ, 'R'),
            letter(Self::WRITE, 'W'),
            letter(Self::INHERIT, 'X')
        )
    }
}

/// How many tags a message of the topic may have. Both are hashed alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FilterType {
    /// One tag a message.
    #[default]
    SingleTag,
    /// Several tags a message.
    MultiTag,
}

/// Attribute with the age from which a topic's messages are hidden, in milliseconds. A request that sets it to 0 removes
/// it: only the broker's own retention holds then.
pub const RETENTION_ATTRIBUTE: &str = "retention.ms";

/// A topic as administrators define it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfig {
    /// Key and value settings such as `message.type`, stored without the `+` of the request.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Whether the topic is meant for ordered messages; a hint for clients.
    #[serde(default)]
    pub order: bool,
    /// What clients may do with it.
    pub perm: Permission,
    /// Queues `0..read_queues` may be read. Default 8.
    #[serde(rename = "readQueueNums")]
    pub read_queues: u32,
    /// How tags are stored.
    #[serde(default)]
    pub topic_filter_type: FilterType,
    /// Its name.
    pub topic_name: TopicName,
    /// Unit bits, passed through.
    #[serde(default)]
    pub topic_sys_flag: u32,
    /// Queues `0..write_queues` are offered to producers. Default 8.
    #[serde(rename = "writeQueueNums")]
    pub write_queues: u32,
}

/// Why a topic's definition was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicConfigError {
    /// A queue count is out of range.
    #[error("{field} is {value}, expected 1..={QUEUES_MAX}")]
    Queues {
        /// `readQueueNums` or `writeQueueNums`.
        field: &'static str,
        /// The refused number.
        value: u32,
    },
    /// The permission has bits that do not exist.
    #[error("perm is {0}, expected 0..=7")]
    Permission(u32),
}

impl TopicConfig {
    /// A readable and writable topic of `queues` queues.
    pub fn new(topic_name: TopicName, queues: u32) -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: Permission::READ_WRITE,
            read_queues: queues,
            topic_filter_type: FilterType::SingleTag,
            topic_name,
            topic_sys_flag: 0,
            write_queues: queues,
        }
    }

    /// The same with other permissions.
    #[must_use]
    pub fn with_permission(mut self, perm: Permission) -> Self {
        self.perm = perm;
        self
    }

    /// Number of queues that exist: those that may be read or written.
    pub fn queues(&self) -> u32 {
        self.read_queues.max(self.write_queues)
    }

    /// Age from which its messages are hidden, in milliseconds, if it says so itself.
    pub fn retention_ms(&self) -> Option<u64> {
        self.attributes.get(RETENTION_ATTRIBUTE)?.parse().ok()
    }

    /// Checks counts and permission bits.
    pub fn validate(&self) -> Result<(), TopicConfigError> {
        for (field, value) in
            [("readQueueNums", self.read_queues), ("writeQueueNums", self.write_queues)]
        {
            if !(1..=QUEUES_MAX).contains(&value) {
                return Err(TopicConfigError::Queues { field, value });
            }
        }
        if self.perm.0 > Permission::TEMPLATE.0 {
            return Err(TopicConfigError::Permission(self.perm.0));
        }
        Ok(())
    }
}
