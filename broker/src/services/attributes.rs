//! Topic attributes as administrators write them: `+key=value` sets, `-key` removes.
//! Invariant: what is stored has known keys and legal values, without the signs of the request.
//! Leaves what an attribute does to those who read it. Source: RocketMQ's topic attributes.

use std::collections::BTreeMap;

use gantry_model::RETENTION_ATTRIBUTE;

/// Attributes of a topic.
pub type Attributes = BTreeMap<String, String>;

/// Why attributes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The key begins with neither sign.
    #[error("attribute {key:?} begins with neither + nor -")]
    Sign {
        /// The key as written.
        key: String,
    },
    /// There is no such attribute.
    #[error("attribute {key:?} is not known, known are {KNOWN}")]
    Unknown {
        /// The key.
        key: String,
    },
    /// The value is not one of those allowed.
    #[error("attribute {key} has the value {value:?}, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// The attribute can be set only when its topic is made.
    #[error("attribute {key} cannot be changed from {from:?} to {to:?}")]
    Fixed {
        /// The key.
        key: String,
        /// Value that the topic has.
        from: String,
        /// Value asked for.
        to: String,
    },
    /// Messages would be wanted for longer than the broker keeps any.
    #[error("attribute {RETENTION_ATTRIBUTE} is {asked}, the broker keeps messages for {limit}")]
    RetentionTooLong {
        /// Milliseconds asked for.
        asked: u64,
        /// Milliseconds for which the broker keeps messages.
        limit: u64,
    },
    /// A new topic has nothing to remove.
    #[error("attribute {key} cannot be removed from a topic that does not exist yet")]
    RemoveFromNew {
        /// The key.
        key: String,
    },
}

const KNOWN: &str = "message.type, cleanup.policy, queue.type, retention.ms";

/// Least retention of a topic, in milliseconds: expired messages are looked for once a second.
const RETENTION_MS_MIN: u64 = 1000;

/// Value that stands for the broker's own retention; it is not stored.
const NO_RETENTION: &str = "0";

/// What values an attribute takes.
enum Values {
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A number of milliseconds up to the broker's own retention.
    Retention,
}

/// One attribute: its key, its values, the one that an absent key stands for, and whether it may be changed.
struct Attribute {
    key: &'static str,
    values: Values,
    expected: &'static str,
    default: &'static str,
    changeable: bool,
}

const ATTRIBUTES: [Attribute; 4] = [
    Attribute {
        key: "message.type",
        values: Values::OneOf(&["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "MIXED"]),
        expected: "UNSPECIFIED, NORMAL, FIFO, DELAY, TRANSACTION or MIXED",
        default: "NORMAL",
        changeable: true,
    },
    // Compaction and queues of batches are not kept: what is asked for would silently not be done.
    Attribute {
        key: "cleanup.policy",
        values: Values::OneOf(&["DELETE"]),
        expected: "DELETE",
        default: "DELETE",
        changeable: false,
    },
    Attribute {
        key: "queue.type",
        values: Values::OneOf(&["SimpleCQ"]),
        expected: "SimpleCQ",
        default: "SimpleCQ",
        changeable: false,
    },
    Attribute {
        key: RETENTION_ATTRIBUTE,
        values: Values::Retention,
        expected: "whole milliseconds, at least 1000, or 0 for none",
        default: "",
        changeable: true,
    },
];

/// Attributes after the changes of a request; `current` is `None` for a topic that is made. No topic keeps messages for
/// longer than `retention_ms_max`.
pub fn changed(
    current: Option<&Attributes>,
    requested: &Attributes,
    retention_ms_max: u64,
) -> Result<Attributes, AttributeError> {
    let mut result = current.cloned().unwrap_or_default();
    for (signed, value) in requested {
        if let Some(key) = signed.strip_prefix('+') {
            set(&mut result, current, (key, value), retention_ms_max)?;
        } else if let Some(key) = signed.strip_prefix('-') {
            find(key)?;
            if current.is_none() {
                return Err(AttributeError::RemoveFromNew { key: key.into() });
            }
            result.remove(key);
        } else {
            return Err(AttributeError::Sign { key: signed.clone() });
        }
    }
    Ok(result)
}

/// Reads a comma list of `+key=value` and `-key`.
pub fn parse_list(text: &str) -> Attributes {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            (key.trim().to_owned(), value.trim().to_owned())
        })
        .collect()
}

fn set(
    result: &mut Attributes,
    current: Option<&Attributes>,
    (key, value): (&str, &str),
    retention_ms_max: u64,
) -> Result<(), AttributeError> {
    let attribute = find(key)?;
    check(attribute, value, retention_ms_max)?;
    if let Some(current) = current.filter(|_| !attribute.changeable) {
        let from = current.get(key).map_or(attribute.default, String::as_str);
        if from != value {
            let (key, from, to) = (key.into(), from.into(), value.into());
            return Err(AttributeError::Fixed { key, from, to });
        }
    }
    if (key, value) == (RETENTION_ATTRIBUTE, NO_RETENTION) {
        result.remove(key);
    } else {
        result.insert(key.into(), value.into());
    }
    Ok(())
}

fn check(attribute: &Attribute, value: &str, retention_ms_max: u64) -> Result<(), AttributeError> {
    let illegal = || {
        let (key, value) = (attribute.key.into(), value.into());
        AttributeError::Value { key, value, expected: attribute.expected }
    };
    match attribute.values {
        Values::OneOf(values) if values.contains(&value) => Ok(()),
        Values::OneOf(_) => Err(illegal()),
        Values::Retention => {
            if value == NO_RETENTION {
                return Ok(());
            }
            let asked = value.parse().ok().filter(|asked| *asked >= RETENTION_MS_MIN);
            let (asked, limit) = (asked.ok_or_else(illegal)?, retention_ms_max);
            if asked > limit {
                return Err(AttributeError::RetentionTooLong { asked, limit });
            }
            Ok(())
        }
    }
}

fn find(key: &str) -> Result<&'static Attribute, AttributeError> {
    ATTRIBUTES
        .iter()
        .find(|attribute| attribute.key == key)
        .ok_or_else(|| AttributeError::Unknown { key: key.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn changed(
        current: Option<&Attributes>,
        requested: &Attributes,
    ) -> Result<Attributes, AttributeError> {
        super::changed(current, requested, DAY_MS)
    }

    #[test]
    fn signs_set_and_remove_and_are_not_stored() {
        let made = changed(None, &parse_list("+message.type=FIFO")).unwrap();
        assert_eq!(made, parse_list("message.type=FIFO"));
        let altered = changed(Some(&made), &parse_list("+message.type=DELAY")).unwrap();
        assert_eq!(altered["message.type"], "DELAY");
        assert_eq!(changed(Some(&altered), &parse_list("-message.type")), Ok(Attributes::new()));
    }

    #[test]
    fn unknown_key_illegal_value_and_missing_sign_are_refused() {
        let refused = |text| changed(None, &parse_list(text)).unwrap_err();
        assert!(matches!(refused("+colour=red"), AttributeError::Unknown { .. }));
        assert!(matches!(refused("+message.type=fifo"), AttributeError::Value { .. }));
        assert!(matches!(refused("message.type=FIFO"), AttributeError::Sign { .. }));
        assert!(matches!(refused("-message.type"), AttributeError::RemoveFromNew { .. }));
    }

    #[test]
    fn what_is_not_done_cannot_be_asked_for() {
        for text in ["+cleanup.policy=COMPACTION", "+queue.type=BatchCQ"] {
            let error = changed(Some(&Attributes::new()), &parse_list(text)).unwrap_err();
            assert!(matches!(error, AttributeError::Value { .. }), "{error}");
        }
        let same = changed(Some(&Attributes::new()), &parse_list("+queue.type=SimpleCQ"));
        assert!(same.is_ok());
    }

    #[test]
    fn retention_is_a_number_up_to_the_brokers_own() {
        let made = changed(None, &parse_list("+retention.ms=86400000")).unwrap();
        assert_eq!(made[RETENTION_ATTRIBUTE], "86400000");
        assert_eq!(changed(Some(&made), &parse_list("-retention.ms")), Ok(Attributes::new()));
        for topic in [None, Some(&made)] {
            assert_eq!(changed(topic, &parse_list("+retention.ms=0")), Ok(Attributes::new()));
        }
        let refused = |text| changed(Some(&made), &parse_list(text)).unwrap_err();
        let too_long = refused("+retention.ms=86400001");
        assert_eq!(too_long, AttributeError::RetentionTooLong { asked: DAY_MS + 1, limit: DAY_MS });
        for text in ["+retention.ms=999", "+retention.ms=1h", "+retention.ms=-1", "+retention.ms"] {
            assert!(matches!(refused(text), AttributeError::Value { .. }), "{text}");
        }
    }
}
