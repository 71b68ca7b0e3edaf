//! Long tables of a broker, asked for one part after another.
//! Invariant: what is returned is one table of one version, and no answer holds more of it than the server puts into a
//! part; a server that knows no parts gives all at once.
//! Leaves which table to its callers.

use std::collections::BTreeMap;

use gantry_model::{GroupConfig, TopicConfig};
use gantry_remoting::{
    Command, RequestCode,
    command::{
        data_version::DataVersion,
        groups::{AllGroupsAnswer, AllGroupsRequest, GroupTable},
        topics::{AllTopicsAnswer, AllTopicsRequest, TopicTable},
    },
    json::JsonBody,
};

use super::{Admin, AdminError, read};
use crate::connections::unreadable;

/// Entries that one part is asked for, as the reference client does.
const PART: i32 = 2_000;
/// Times that a table may change while it is read: each change begins it anew.
const CHANGES_MAX: usize = 20;

/// What a broker answers part by part.
trait Parted: Sized {
    /// One definition.
    type Entry;

    /// The request for the part that begins with entry `first` of the table of `version`; an empty text is no version.
    fn ask(first: i32, version: &str) -> Command;

    /// Version, entries and, where the broker says it, the number of all entries.
    fn take(answer: &Command, table: Self) -> Part<Self::Entry>;
}

struct Part<E> {
    version: DataVersion,
    entries: BTreeMap<String, E>,
    total: Option<u32>,
}

impl Parted for TopicTable {
    type Entry = TopicConfig;

    fn ask(first: i32, version: &str) -> Command {
        Command::request(RequestCode::GET_ALL_TOPIC_CONFIG).with_header(&AllTopicsRequest {
            topic_seq: Some(first),
            data_version: Some(version),
            max_topics: Some(PART),
        })
    }

    fn take(answer: &Command, table: Self) -> Part<TopicConfig> {
        let header = answer.fields::<AllTopicsAnswer>().unwrap_or_default();
        let Self { data_version: version, topic_config_table: entries, .. } = table;
        Part { version, entries, total: header.total_topics }
    }
}

impl Parted for GroupTable {
    type Entry = GroupConfig;

    fn ask(first: i32, version: &str) -> Command {
        let code = RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
        Command::request(code).with_header(&AllGroupsRequest {
            group_seq: Some(first),
            data_version: Some(version),
            max_groups: Some(PART),
        })
    }

    fn take(answer: &Command, table: Self) -> Part<GroupConfig> {
        let header = answer.fields::<AllGroupsAnswer>().unwrap_or_default();
        let Self { data_version: version, subscription_group_table: entries, .. } = table;
        Part { version, entries, total: header.total_groups }
    }
}

impl Admin {
    /// Definitions of all topics of one broker by name, its own among them.
    pub async fn topics_of_broker(
        &self,
        address: &str,
    ) -> Result<BTreeMap<String, TopicConfig>, AdminError> {
        self.in_parts::<TopicTable>("list the topics of a broker", address).await
    }

    /// Definitions of all groups of one broker by name, its own among them.
    pub async fn groups_of_broker(
        &self,
        address: &str,
    ) -> Result<BTreeMap<String, GroupConfig>, AdminError> {
        self.in_parts::<GroupTable>("list the groups of a broker", address).await
    }

    async fn in_parts<T: Parted + JsonBody>(
        &self,
        operation: &'static str,
        address: &str,
    ) -> Result<BTreeMap<String, T::Entry>, AdminError> {
        let failed = |source| AdminError::Request { operation, source };
        let mut whole = Whole::new();
        loop {
            let answer = self.call(operation, address, &whole.next::<T>()).await?;
            let table: T = read(address, &answer.body).map_err(failed)?;
            if whole.add(T::take(&answer, table)) {
                return Ok(whole.entries);
            }
            if whole.changes > CHANGES_MAX {
                let detail = format!("it changed {CHANGES_MAX} times while it was read");
                return Err(failed(unreadable(address, "a table", detail)));
            }
        }
    }
}

/// The parts so far.
struct Whole<E> {
    entries: BTreeMap<String, E>,
    version: Option<DataVersion>,
    changes: usize,
}

impl<E> Whole<E> {
    fn new() -> Self {
        Self { entries: BTreeMap::new(), version: None, changes: 0 }
    }

    fn next<T: Parted<Entry = E>>(&self) -> Command {
        let version = self.version.map(|version| version.to_json());
        let version = version.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        T::ask(self.entries.len() as i32, &version)
    }

    /// Adds a part and says whether it was the last one.
    fn add(&mut self, part: Part<E>) -> bool {
        if self.version.is_some_and(|version| version != part.version) {
            // The server has begun at the front.
            self.entries.clear();
            self.changes += 1;
        }
        self.version = Some(part.version);
        let is_empty = part.entries.is_empty();
        self.entries.extend(part.entries);
        is_empty || part.total.is_none_or(|total| self.entries.len() >= total as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(counter: i64, names: &[&str], total: Option<u32>) -> Part<()> {
        let entries = names.iter().map(|name| ((*name).to_owned(), ())).collect();
        Part { version: DataVersion { counter, ..DataVersion::default() }, entries, total }
    }

    #[test]
    fn parts_are_joined_until_all_are_there() {
        let mut whole = Whole::new();
        assert!(!whole.add(part(1, &["a", "b"], Some(3))));
        assert!(whole.add(part(1, &["c"], Some(3))));
        assert_eq!(whole.entries.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn table_that_changed_is_begun_anew_and_never_mixed() {
        let mut whole = Whole::new();
        assert!(!whole.add(part(1, &["a", "b"], Some(3))));
        assert!(!whole.add(part(2, &["c", "d"], Some(3))));
        assert!(whole.add(part(2, &["e"], Some(3))));
        assert_eq!(whole.entries.keys().collect::<Vec<_>>(), ["c", "d", "e"]);
        assert_eq!(whole.changes, 1);
    }

    #[test]
    fn server_without_parts_or_with_fewer_entries_than_it_says_ends_the_table() {
        assert!(Whole::new().add(part(0, &["a", "b"], None)));
        let mut whole = Whole::new();
        assert!(!whole.add(part(1, &["a"], Some(9))));
        assert!(whole.add(part(1, &[], Some(9))));
    }
}
