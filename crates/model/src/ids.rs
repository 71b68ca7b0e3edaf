//! Numbers that must not be mixed up, each with a type of its own.
//! Invariant: an offset is never negative; what a peer sends is checked where it is decoded.
//! Leaves widths on the wire to the codecs.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// Position of a byte in the commit log, in bytes from its very beginning.
    PhysicalOffset(u64)
);
number!(
    /// Place of a message in its queue, counted from 0.
    QueueOffset(u64)
);
number!(
    /// Number of a queue within its topic on one broker group, counted from 0.
    QueueId(u32)
);
number!(
    /// Number of a topic, never given twice: a topic made again under its old name has a new one.
    TopicId(u32)
);

impl PhysicalOffset {
    /// The position `bytes` further on.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl QueueOffset {
    /// The offset `count` messages further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}
