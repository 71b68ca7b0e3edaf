//! Splits a table of topics into registrations.
//! Invariant: what one registration encodes to stays within its bound, whatever names and attributes are made of; a
//! topic that is beyond it alone is in a registration of its own.
//! Leaves encoding to the command.

use gantry_model::TopicConfig;

/// Bytes that the topics of one registration encode to, at most: far below a frame's 16 MiB, and little enough to be
/// held for each name server at a time. About 15,000 topics of usual names.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of a topic without its name and attributes: the names of its fields, and numbers of ten digits.
const TOPIC_BYTES: usize = 224;
/// Bytes of an attribute's quotes, colon and comma.
const ATTRIBUTE_BYTES: usize = 6;
/// Most bytes that one byte of text takes in JSON: `\u001f`.
const ESCAPED_BYTES: usize = 6;

/// The topics in groups, in their order.
pub(super) fn split(topics: Vec<TopicConfig>) -> Vec<Vec<TopicConfig>> {
    split_at(topics, BODY_BYTES_MAX)
}

fn split_at(topics: Vec<TopicConfig>, bytes_max: usize) -> Vec<Vec<TopicConfig>> {
    let mut groups: Vec<Vec<TopicConfig>> = Vec::new();
    let mut bytes = 0;
    for topic in topics {
        let more = encoded_bytes_max(&topic);
        match groups.last_mut() {
            Some(group) if bytes + more <= bytes_max => {
                bytes += more;
                group.push(topic);
            }
            _ => {
                bytes = more;
                groups.push(vec![topic]);
            }
        }
    }
    groups
}

/// What a topic encodes to, at most. Its name is there twice, and has no character that is escaped.
fn encoded_bytes_max(topic: &TopicConfig) -> usize {
    let attribute = |(key, value): (&String, &String)| {
        ATTRIBUTE_BYTES + ESCAPED_BYTES * (key.len() + value.len())
    };
    let attributes: usize = topic.attributes.iter().map(attribute).sum();
    TOPIC_BYTES + 2 * topic.topic_name.len() + attributes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gantry_model::{FilterType, Permission, TopicName};
    use gantry_remoting::{command::topics::TopicTable, json::JsonBody};

    use super::*;

    fn topic(name: &str, attribute: &str) -> TopicConfig {
        TopicConfig {
            attributes: BTreeMap::from([(format!("+{attribute}"), attribute.to_owned())]),
            order: true,
            perm: Permission(u32::MAX),
            read_queues: u32::MAX,
            topic_filter_type: FilterType::SingleTag,
            topic_name: TopicName::new(name).unwrap(),
            topic_sys_flag: u32::MAX,
            write_queues: u32::MAX,
        }
    }

    fn encoded(topics: &[TopicConfig]) -> usize {
        let entry = |config: &TopicConfig| (config.topic_name.to_string(), config.clone());
        let topic_config_table = topics.iter().map(entry).collect();
        TopicTable { topic_config_table, ..TopicTable::default() }.to_json().len()
    }

    #[test]
    fn no_topic_encodes_to_more_than_it_is_taken_for() {
        let empty = encoded(&[]);
        for name in ["a", &"x".repeat(127)] {
            for attribute in ["", "plain", "\u{1}\u{1f}\"\\", "日本語"] {
                let topic = topic(name, attribute);
                let bytes = encoded(std::slice::from_ref(&topic)) - empty;
                assert!(bytes <= encoded_bytes_max(&topic), "{bytes} for {topic:?}");
            }
        }
    }

    #[test]
    fn topics_are_split_by_their_bytes_and_none_is_left_out() {
        let long = |n| topic(&format!("{n:0>127}"), "");
        let topics: Vec<_> = (0..100).map(long).collect();
        let groups = split_at(topics.clone(), 2000);
        assert_eq!(groups.concat(), topics);
        assert!(groups.iter().all(|group| (2..=5).contains(&group.len())), "{}", groups.len());
        let large = topic("large", &"x".repeat(3000));
        let groups = split_at(vec![long(1), large.clone(), long(2)], 2000);
        assert_eq!(groups, [vec![long(1)], vec![large], vec![long(2)]]);
        assert!(split_at(Vec::new(), 2000).is_empty());
    }
}
