//! Queues in bodies, and maps keyed by them.
//! Invariant: a map is written in the order in which it was made.
//! Leaves the quotes of keys that are objects to the form that is written.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Serialize,
    de::{Deserializer, MapAccess, Visitor},
    ser::{SerializeMap, Serializer},
};

/// A queue as the protocol names it: the "MQ object".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// Name of the broker group.
    #[serde(default)]
    pub broker_name: String,
    /// Number of the queue; -1 stands for all queues of the broker.
    #[serde(default)]
    pub queue_id: i32,
    /// Name of the topic.
    #[serde(default)]
    pub topic: String,
}

/// A map keyed by queues, in the order in which it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTable<V>(pub Vec<(MessageQueue, V)>);

impl<V> Default for QueueTable<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> FromIterator<(MessageQueue, V)> for QueueTable<V> {
    fn from_iter<I: IntoIterator<Item = (MessageQueue, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<V: Serialize> Serialize for QueueTable<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (queue, value) in &self.0 {
            let key = serde_json::to_string(queue).map_err(serde::ser::Error::custom)?;
            map.serialize_entry(&key, value)?;
        }
        map.end()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for QueueTable<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = QueueTable<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map keyed by queues")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                Ok(QueueTable::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    let queue = serde_json::from_str(&key).map_err(serde::de::Error::custom)?;
                    entries.push((queue, value));
                }
                Ok(QueueTable(entries))
            }
        }
        deserializer.deserialize_any(Entries(PhantomData))
    }
}
