//! Names of topics and groups, checked once and then trusted.
//! Invariant: a `TopicName` or `GroupName` has only the characters `a-z A-Z 0-9 _ - % |` and a bounded length,
//! so that it is safe in a file name, a log line, a metric label and a key.
//! Leaves the question whether a client may use a name to `may_clients_send` and the services.

use std::{fmt, ops::Deref, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::limits::{GROUP_BYTES_MAX, INTERNAL_TOPIC_BYTES_MAX, TOPIC_BYTES_MAX};

/// What the name of a group's retry topic begins with.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// What the name of a group's dead-letter topic begins with.
pub const DLQ_PREFIX: &str = "%DLQ%";

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no character but white space.
    #[error("the {kind} name is blank")]
    Blank {
        /// `topic` or `group`.
        kind: &'static str,
    },
    /// The name is longer than allowed.
    #[error("the {kind} name is {bytes} bytes, the limit is {bytes_max}")]
    TooLong {
        /// `topic` or `group`.
        kind: &'static str,
        /// Length of the refused name.
        bytes: usize,
        /// Longest length accepted.
        bytes_max: usize,
    },
    /// The name has a character outside the allowed set.
    #[error(
        "the {kind} name has the illegal character {character:?}, allowed are letters, digits, '_', '-', '%' and '|'"
    )]
    Character {
        /// `topic` or `group`.
        kind: &'static str,
        /// First character refused.
        character: char,
    },
}

fn check(kind: &'static str, name: &str, bytes_max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank { kind });
    }
    if name.len() > bytes_max {
        return Err(NameError::TooLong { kind, bytes: name.len(), bytes_max });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '%' | '|');
    match name.chars().find(|c| !allowed(*c)) {
        Some(character) => Err(NameError::Character { kind, character }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `name` and takes it over.
            pub fn new(name: &str) -> Result<Self, NameError> {
                let checked: Result<(), NameError> = $check(name);
                checked.map(|()| Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().into()
            }
        }
    };
}

name!(
    /// Name of a topic: at most 127 bytes, a retry or dead-letter topic at most 255.
    TopicName,
    |name: &str| {
        let internal = name.starts_with(RETRY_PREFIX) || name.starts_with(DLQ_PREFIX);
        let bytes_max = if internal { INTERNAL_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX };
        check("topic", name, bytes_max)
    }
);
name!(
    /// Name of a producer or consumer group: at most 120 bytes.
    GroupName,
    |name: &str| check("group", name, GROUP_BYTES_MAX)
);

impl TopicName {
    /// The group whose retry topic this is.
    pub fn retry_group(&self) -> Option<&str> {
        self.0.strip_prefix(RETRY_PREFIX)
    }

    /// The group whose dead-letter topic this is.
    pub fn dead_letter_group(&self) -> Option<&str> {
        self.0.strip_prefix(DLQ_PREFIX)
    }
}

impl GroupName {
    /// Topic in which messages wait that the group failed to handle.
    pub fn retry_topic(&self) -> TopicName {
        TopicName(format!("{RETRY_PREFIX}{}", self.0).into())
    }

    /// Topic in which messages end that the group gave up.
    pub fn dead_letter_topic(&self) -> TopicName {
        TopicName(format!("{DLQ_PREFIX}{}", self.0).into())
    }
}

const SYSTEM_TOPICS: [&str; 9] = [
    "TBW102",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
    "SCHEDULE_TOPIC_XXXX",
    "RMQ_SYS_TRACE_TOPIC",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "BenchmarkTest",
];

/// Whether the name belongs to the broker itself: administrators may not make, change or delete it.
/// The cluster's and the broker's own topics are system topics too; their names are settings.
pub fn is_system_topic(name: &str) -> bool {
    name.starts_with("rmq_sys_") || SYSTEM_TOPICS.contains(&name)
}

/// Whether clients may send to the topic: parked, half and self-test messages have other ways in.
pub fn may_clients_send(name: &str) -> bool {
    const REFUSED: [&str; 6] = [
        "SCHEDULE_TOPIC_XXXX",
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
    ];
    !REFUSED.contains(&name) && !name.starts_with("rmq_sys_gantry_")
}

const SYSTEM_GROUPS: [&str; 7] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
];

/// Whether the group is one that brokers have from the start.
pub fn is_system_group(name: &str) -> bool {
    name.starts_with("CID_RMQ_SYS_") || SYSTEM_GROUPS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_path_parts_control_characters_or_too_many_bytes_are_refused() {
        for bad in ["", " ", "../etc", "a/b", "a\u{1}b", "a b", "topic.x", "tøpic", "a\0"] {
            assert!(TopicName::new(bad).is_err(), "{bad:?}");
            assert!(GroupName::new(bad).is_err(), "{bad:?}");
        }
        assert!(TopicName::new(&"t".repeat(127)).is_ok());
        assert!(TopicName::new(&"t".repeat(128)).is_err());
        assert!(TopicName::new(&format!("%RETRY%{}", "g".repeat(248))).is_ok());
        assert!(TopicName::new(&format!("%RETRY%{}", "g".repeat(249))).is_err());
        assert!(GroupName::new(&"g".repeat(120)).is_ok());
        assert!(GroupName::new(&"g".repeat(121)).is_err());
    }

    #[test]
    fn refusal_says_which_character_is_wrong() {
        let text = TopicName::new("a/b").unwrap_err().to_string();
        assert!(text.contains("'/'"), "{text}");
    }

    #[test]
    fn retry_and_dead_letter_topics_lead_back_to_their_group() {
        let group = GroupName::new("billing").unwrap();
        assert_eq!(group.retry_topic().retry_group(), Some("billing"));
        assert_eq!(group.dead_letter_topic().dead_letter_group(), Some("billing"));
    }
}
