//! A message of the gRPC protocol as the services know it: checked, with its properties as one text.
//! Invariant: no property that the broker reserves comes from an application, and no separator breaks the text.
//! Leaves the topic's existence and the due time's range to the send service. Source: RocketMQ gRPC protocol,
//! `SendMessage`.

use gantry_model::{Permission, TopicConfig, properties};
use gantry_proto::v2::{Code, Encoding, Message, MessageType, SystemProperties};
use gantry_record::sys_flag;

use super::{fifo, route::accepted_types, status::Refusal};

/// Most properties that an application may set.
const USER_PROPERTIES_MAX: usize = 128;
/// Most bytes of application properties, tag and keys together.
const PROPERTY_BYTES_MAX: usize = 16 * 1024;
/// A message group is shorter than this, in bytes.
const GROUP_BYTES_END: usize = 64;

/// Names that applications may not use for their own properties.
const RESERVED: [&str; 52] = [
    "TRACE_ON",
    "MSG_REGION",
    "KEYS",
    "TAGS",
    "WAIT",
    "DELAY",
    "RETRY_TOPIC",
    "REAL_TOPIC",
    "REAL_QID",
    "TRAN_MSG",
    "PGROUP",
    "MIN_OFFSET",
    "MAX_OFFSET",
    "BUYER_ID",
    "ORIGIN_MESSAGE_ID",
    "TRANSFER_FLAG",
    "CORRECTION_FLAG",
    "MQ2_FLAG",
    "RECONSUME_TIME",
    "UNIQ_KEY",
    "MAX_RECONSUME_TIMES",
    "CONSUME_START_TIME",
    "POP_CK",
    "POP_CK_OFFSET",
    "1ST_POP_TIME",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INSTANCE_ID",
    "CORRELATION_ID",
    "REPLY_TO_CLIENT",
    "TTL",
    "ARRIVE_TIME",
    "PUSH_REPLY_TIME",
    "CLUSTER",
    "MSG_TYPE",
    "INNER_MULTI_QUEUE_OFFSET",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_DEQUEUE_MS",
    "TIMER_ROLL_TIMES",
    "TIMER_OUT_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DELAY_LEVEL",
    "__BORNHOST",
    "BORN_TIMESTAMP",
    "DLQ_ORIGIN_TOPIC",
    "DLQ_ORIGIN_MESSAGE_ID",
    "__CRC32#",
    "__GANTRY_ENDS",
];

/// A message that passed the checks that need no topic.
#[derive(Debug)]
pub(super) struct Checked<'m> {
    /// Encoded properties, as the record has them.
    pub(super) properties: String,
    /// Sys flag of the record.
    pub(super) sys_flag: i32,
    /// When the producer made it, in milliseconds since 1970; 0 if it does not say.
    pub(super) born_time_ms: i64,
    system: &'m SystemProperties,
    kind: MessageType,
}

impl<'m> Checked<'m> {
    pub(super) fn new(message: &'m Message) -> Result<Self, Refusal> {
        let no = Refusal::new;
        let system = message.system_properties.as_ref();
        let system = system.ok_or_else(|| no(Code::IllegalMessageId, "the message has no id"))?;
        if message.body.is_empty() {
            return Err(no(Code::MessageBodyEmpty, "the message has no body"));
        }
        check_system(system)?;
        check_user(message, system)?;
        let kind = kind_of(system);
        if kind == MessageType::Transaction {
            let text = "transactions are not available in this version";
            return Err(no(Code::NotImplemented, text));
        }
        let born = system.born_timestamp.as_ref().map_or(0, millis);
        Ok(Self {
            properties: properties_text(message, system),
            sys_flag: if system.body_encoding() == Encoding::Gzip {
                sys_flag::COMPRESSED
            } else {
                0
            },
            born_time_ms: born,
            system,
            kind,
        })
    }

    /// Checks that the topic takes such messages, and picks the queue; negative: any.
    pub(super) fn queue_in(&self, config: &TopicConfig) -> Result<i32, Refusal> {
        if !accepted_types(config).contains(&self.kind) {
            let message = format!(
                "topic {} does not take messages of type {}",
                config.topic_name,
                self.kind.as_str_name()
            );
            return Err(Refusal::new(Code::MessagePropertyConflictWithType, message));
        }
        if config.perm.0 & Permission::WRITE == 0 {
            let message = format!("topic {} has no writable queue", config.topic_name);
            return Err(Refusal::new(Code::Forbidden, message));
        }
        Ok(match &self.system.message_group {
            Some(group) if !group.is_empty() => fifo::queue_of(group, config.write_queues) as i32,
            _ => -1,
        })
    }

    /// The id that the producer gave.
    pub(super) fn id(&self) -> &str {
        &self.system.message_id
    }
}

/// What kind of message its fields make it; only a transaction is what it says it is.
fn kind_of(system: &SystemProperties) -> MessageType {
    if system.message_type() == MessageType::Transaction {
        MessageType::Transaction
    } else if system.delivery_timestamp.is_some() {
        MessageType::Delay
    } else if system.message_group.as_ref().is_some_and(|group| !group.is_empty()) {
        MessageType::Fifo
    } else {
        MessageType::Normal
    }
}

fn check_system(system: &SystemProperties) -> Result<(), Refusal> {
    let no = |code, message: &str| Err(Refusal::new(code, message));
    let blank = |text: &str| text.trim().is_empty();
    if blank(&system.message_id) || has_control(&system.message_id) {
        return no(Code::IllegalMessageId, "the message id is blank or has a control character");
    }
    if let Some(tag) = system.tag.as_deref().filter(|tag| !tag.is_empty())
        && (blank(tag) || tag.contains('|') || has_control(tag))
    {
        return no(
            Code::IllegalMessageTag,
            "the tag is blank, or has a '|' or a control character",
        );
    }
    if system.keys.iter().any(|key| !key.is_empty() && (blank(key) || has_control(key))) {
        return no(Code::IllegalMessageKey, "a key is blank or has a control character");
    }
    if let Some(group) = system.message_group.as_deref().filter(|group| !group.is_empty())
        && (blank(group) || has_control(group) || group.len() >= GROUP_BYTES_END)
    {
        let message = "the message group is blank, has a control character, or 64 bytes or more";
        return no(Code::IllegalMessageGroup, message);
    }
    if system.trace_context.as_deref().is_some_and(has_control) {
        let message = "the trace context has a control character";
        return no(Code::IllegalMessagePropertyKey, message);
    }
    if system.delivery_timestamp.as_ref().is_some_and(|at| at.seconds < 0) {
        return no(Code::IllegalDeliveryTime, "the delivery time lies before 1970");
    }
    Ok(())
}

fn check_user(message: &Message, system: &SystemProperties) -> Result<(), Refusal> {
    let user = &message.user_properties;
    if user.len() > USER_PROPERTIES_MAX {
        let text = format!("{} user properties, the limit is {USER_PROPERTIES_MAX}", user.len());
        return Err(Refusal::new(Code::MessagePropertiesTooLarge, text));
    }
    let bytes = user.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        + system.tag.as_ref().map_or(0, String::len)
        + system.keys.iter().map(String::len).sum::<usize>();
    if bytes > PROPERTY_BYTES_MAX {
        let text = format!("{bytes} bytes of properties, the limit is {PROPERTY_BYTES_MAX}");
        return Err(Refusal::new(Code::MessagePropertiesTooLarge, text));
    }
    let illegal = |(key, value): &(&String, &String)| {
        key.is_empty() || RESERVED.contains(&key.as_str()) || has_control(key) || has_control(value)
    };
    if let Some((key, _)) = user.iter().find(illegal) {
        let text = format!("the user property {key:?} is reserved or has a control character");
        return Err(Refusal::new(Code::IllegalMessagePropertyKey, text));
    }
    Ok(())
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn millis(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
}

fn properties_text(message: &Message, system: &SystemProperties) -> String {
    let mut text = String::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(key);
            text.push('\u{1}');
            text.push_str(value);
            text.push('\u{2}');
        }
    };
    put(properties::UNIQ_KEY, &system.message_id);
    put(properties::TAGS, system.tag.as_deref().unwrap_or_default());
    put(properties::KEYS, &system.keys.join(" "));
    put(properties::SHARDING_KEY, system.message_group.as_deref().unwrap_or_default());
    put("TRACE_CONTEXT", system.trace_context.as_deref().unwrap_or_default());
    if let Some(at) = &system.delivery_timestamp {
        put(properties::TIMER_DELIVER_MS, &millis(at).to_string());
    }
    // In a fixed order, so that the same message always is the same record.
    let mut user: Vec<_> = message.user_properties.iter().collect();
    user.sort();
    for (key, value) in user {
        put(key, value);
    }
    text
}

#[cfg(test)]
mod tests {
    use gantry_model::TopicName;

    use super::*;

    fn message(edit: impl FnOnce(&mut Message, &mut SystemProperties)) -> Message {
        let mut system =
            SystemProperties { message_id: "01ID".into(), ..SystemProperties::default() };
        let mut message = Message { body: "b".into(), ..Message::default() };
        edit(&mut message, &mut system);
        message.system_properties = Some(system);
        message
    }

    fn refusal(edit: impl FnOnce(&mut Message, &mut SystemProperties)) -> Code {
        Checked::new(&message(edit)).expect_err("refused").code
    }

    #[test]
    fn each_illegal_part_has_its_own_code() {
        assert_eq!(refusal(|m, _| m.body.clear()), Code::MessageBodyEmpty);
        assert_eq!(refusal(|_, s| s.message_id = " ".into()), Code::IllegalMessageId);
        assert_eq!(refusal(|_, s| s.tag = Some("a|b".into())), Code::IllegalMessageTag);
        assert_eq!(refusal(|_, s| s.keys = vec!["a\u{1}".into()]), Code::IllegalMessageKey);
        assert_eq!(
            refusal(|_, s| s.message_group = Some("g".repeat(64))),
            Code::IllegalMessageGroup
        );
        let reserved = |m: &mut Message, _: &mut _| {
            m.user_properties.insert("__CRC32#".into(), "1".into());
        };
        assert_eq!(refusal(reserved), Code::IllegalMessagePropertyKey);
        let many = |m: &mut Message, _: &mut _| {
            m.user_properties = (0..129).map(|n| (format!("k{n}"), "v".into())).collect();
        };
        assert_eq!(refusal(many), Code::MessagePropertiesTooLarge);
        let large = |m: &mut Message, _: &mut _| {
            m.user_properties.insert("k".into(), "v".repeat(16 * 1024));
        };
        assert_eq!(refusal(large), Code::MessagePropertiesTooLarge);
    }

    #[test]
    fn fields_become_properties_that_remoting_clients_read() {
        let message = message(|m, s| {
            s.tag = Some("t".into());
            s.keys = vec!["a".into(), "b".into()];
            m.user_properties.insert("user".into(), "v".into());
        });
        let checked = Checked::new(&message).unwrap();
        let expected = "UNIQ_KEY\u{1}01ID\u{2}TAGS\u{1}t\u{2}KEYS\u{1}a b\u{2}user\u{1}v\u{2}";
        assert_eq!(checked.properties, expected);
    }

    #[test]
    fn message_group_goes_only_to_a_topic_that_takes_it_and_always_to_the_same_queue() {
        let message = message(|_, s| s.message_group = Some("order-7".into()));
        let checked = Checked::new(&message).unwrap();
        let mut config = TopicConfig::new(TopicName::new("t").unwrap(), 8);
        let refused = checked.queue_in(&config).unwrap_err();
        assert_eq!(refused.code, Code::MessagePropertyConflictWithType);
        config.attributes.insert("message.type".into(), "FIFO".into());
        let queue = checked.queue_in(&config).unwrap();
        assert!((0..8).contains(&queue));
        assert_eq!(checked.queue_in(&config), Ok(queue));
    }
}
