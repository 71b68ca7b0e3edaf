//! What a topic should be on a broker, and what to change there. Pure.
//! Invariant: no plan makes a message unreadable: queues are taken away from producers alone.
//! Leaves asking and telling brokers to the controller.

use gantry_model::{
    DLQ_PREFIX, NameError, Permission, RETENTION_ATTRIBUTE, RETRY_PREFIX, TopicConfig, TopicName,
    is_system_topic,
};
use gantry_resources::{TopicSpec, TopicType};

/// Attribute that says what messages a topic takes.
const MESSAGE_TYPE: &str = "message.type";
/// What a topic without that attribute takes.
const DEFAULT_TYPE: &str = "NORMAL";

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RefusedName {
    /// No broker would take it.
    #[error("{name:?} is no topic name")]
    Illegal {
        /// The name.
        name: String,
        /// Why.
        source: NameError,
    },
    /// Brokers use it themselves.
    #[error("{name}")]
    Reserved {
        /// The name.
        name: String,
    },
}

/// The name as a topic of a cluster.
pub(super) fn checked_name(cluster: &str, name: &str) -> Result<TopicName, RefusedName> {
    let own = |prefix: &str| {
        let rest = name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || is_group_suffix(rest))
    };
    let reserved = is_system_topic(name)
        || name.starts_with(RETRY_PREFIX)
        || name.starts_with(DLQ_PREFIX)
        || own(cluster)
        || name == format!("{cluster}_REPLY_TOPIC");
    if reserved {
        return Err(RefusedName::Reserved { name: name.to_owned() });
    }
    TopicName::new(name).map_err(|source| RefusedName::Illegal { name: name.to_owned(), source })
}

/// Whether `-N`: brokers have topics of the cluster's name and of their own, `shop` and `shop-0`.
fn is_group_suffix(rest: &str) -> bool {
    let number = rest.strip_prefix('-').unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What to declare on a broker that has `present`; `None`: nothing.
pub(super) fn change(
    name: &TopicName,
    spec: &TopicSpec,
    present: Option<&TopicConfig>,
) -> Option<TopicConfig> {
    let queues = spec.queues.max(1) as u32;
    let kind = type_name(spec.kind);
    let mut wanted = present.cloned().unwrap_or_else(|| TopicConfig::new(name.clone(), queues));
    wanted.perm = Permission::READ_WRITE;
    wanted.write_queues = queues;
    // Messages in queues beyond the wanted number stay readable.
    wanted.read_queues = wanted.read_queues.max(queues);
    let present_kind = present.map(type_of);
    // Attributes that others have set are theirs; the broker keeps what is not named.
    wanted.attributes.clear();
    if present_kind.unwrap_or(DEFAULT_TYPE) != kind {
        wanted.attributes.insert(MESSAGE_TYPE.into(), kind.into());
    }
    let retention_ms = spec.retention.as_ref().map_or(0, |retention| retention_ms(retention.time));
    if present.and_then(TopicConfig::retention_ms).unwrap_or(0) != retention_ms {
        // 0 takes away what the resource no longer says.
        wanted.attributes.insert(RETENTION_ATTRIBUTE.into(), retention_ms.to_string());
    }
    let is_as_wanted = present.is_some_and(|present| {
        let mut same = present.clone();
        same.attributes.clear();
        same == wanted
    });
    (!is_as_wanted).then_some(wanted)
}

/// Queues of a topic that producers use.
pub(super) fn queues(config: &TopicConfig) -> i32 {
    i32::try_from(config.write_queues.min(config.read_queues)).unwrap_or(i32::MAX)
}

fn retention_ms(time: gantry_resources::Duration) -> u64 {
    time.as_secs().saturating_mul(1000)
}

fn type_of(config: &TopicConfig) -> &str {
    let known = config.attributes.get(MESSAGE_TYPE).map(String::as_str);
    known.filter(|kind| *kind != "UNSPECIFIED").unwrap_or(DEFAULT_TYPE)
}

const fn type_name(kind: TopicType) -> &'static str {
    match kind {
        TopicType::Normal => DEFAULT_TYPE,
        TopicType::Fifo => "FIFO",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> TopicSpec {
        serde_yaml::from_str(&format!("{{clusterRef: {{name: shop}}, {yaml}}}")).unwrap()
    }

    fn orders() -> TopicName {
        TopicName::new("OrderTopic").unwrap()
    }

    #[test]
    fn topic_that_is_not_there_is_made_as_declared_and_then_left_alone() {
        let spec = spec("queues: 4, type: Fifo");
        let made = change(&orders(), &spec, None).unwrap();
        assert_eq!((made.write_queues, made.read_queues), (4, 4));
        assert_eq!(made.attributes[MESSAGE_TYPE], "FIFO");
        assert_eq!(change(&orders(), &spec, Some(&made)), None);
    }

    #[test]
    fn adopted_topic_keeps_what_the_resource_does_not_say() {
        let mut present = TopicConfig::new(orders(), 8);
        present.order = true;
        present.attributes.insert("cleanup.policy".into(), "DELETE".into());
        assert_eq!(change(&orders(), &spec("queues: 8"), Some(&present)), None);
        let grown = change(&orders(), &spec("queues: 16"), Some(&present)).unwrap();
        assert!(grown.order && grown.attributes.is_empty());
    }

    #[test]
    fn change_behind_its_back_is_repaired() {
        let spec = spec("queues: 8");
        let good = TopicConfig::new(orders(), 8);
        let cases = [
            TopicConfig { perm: Permission(Permission::READ), ..good.clone() },
            TopicConfig { write_queues: 2, ..good.clone() },
            TopicConfig { read_queues: 2, ..good.clone() },
            TopicConfig {
                attributes: [(MESSAGE_TYPE.to_owned(), "FIFO".to_owned())].into(),
                ..good.clone()
            },
        ];
        for changed in cases {
            let repaired = change(&orders(), &spec, Some(&changed)).expect("a repair");
            assert_eq!((repaired.write_queues, repaired.read_queues), (8, 8));
            assert_eq!(repaired.perm, Permission::READ_WRITE);
        }
    }

    #[test]
    fn retention_is_set_changed_and_taken_away_as_the_resource_says() {
        let hour = spec("queues: 8, retention: {time: 1h}");
        let mut present = change(&orders(), &hour, None).unwrap();
        assert_eq!(present.attributes[RETENTION_ATTRIBUTE], "3600000");
        assert_eq!(change(&orders(), &hour, Some(&present)), None);
        let asked = |spec: &TopicSpec, present: &TopicConfig| {
            change(&orders(), spec, Some(present)).unwrap().attributes[RETENTION_ATTRIBUTE].clone()
        };
        assert_eq!(asked(&spec("queues: 8, retention: {time: 2h}"), &present), "7200000");
        assert_eq!(asked(&spec("queues: 8"), &present), "0");
        present.attributes.insert(RETENTION_ATTRIBUTE.into(), "5000".into());
        assert_eq!(asked(&hour, &present), "3600000", "others changed it");
    }

    #[test]
    fn fewer_queues_leave_the_others_readable() {
        let present = TopicConfig::new(orders(), 8);
        let shrunk = change(&orders(), &spec("queues: 2"), Some(&present)).unwrap();
        assert_eq!((shrunk.write_queues, shrunk.read_queues), (2, 8));
        assert_eq!(change(&orders(), &spec("queues: 2"), Some(&shrunk)), None);
    }

    #[test]
    fn names_that_brokers_use_are_refused() {
        for name in ["%RETRY%g", "%DLQ%g", "TBW102", "shop", "shop-0", "shop-12", "rmq_sys_x"] {
            let refused = checked_name("shop", name).unwrap_err();
            assert!(matches!(refused, RefusedName::Reserved { .. }), "{name}");
        }
        for name in ["shops", "shop-orders", "shop-", "OrderTopic", "CID_billing"] {
            assert!(checked_name("shop", name).is_ok(), "{name}");
        }
        let illegal = checked_name("shop", "a/b").unwrap_err();
        assert!(matches!(illegal, RefusedName::Illegal { .. }));
    }
}
