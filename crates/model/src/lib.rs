//! The words that all parts of Gantry share: names, ids, offsets, topics, groups, limits, settings.
//! Invariant: a value of these types is valid; what cannot be valid is refused when it is made.
//! Knows no tokio, no kube and no bytes on a wire.

mod group;
mod ids;
pub mod limits;
mod names;
pub mod properties;
pub mod settings;
mod topic;

pub use group::{GroupConfig, RetryPolicy};
pub use ids::{PhysicalOffset, QueueId, QueueOffset, TopicId};
pub use names::{
    DLQ_PREFIX, GroupName, NameError, RETRY_PREFIX, TopicName, is_system_group, is_system_topic,
    may_clients_send,
};
pub use topic::{FilterType, Permission, RETENTION_ATTRIBUTE, TopicConfig, TopicConfigError};
