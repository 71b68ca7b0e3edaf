//! Consumer offsets: the table in memory, which answers every query.
//! Invariant: holds for each group and queue the last commit appended or staged; those of a deleted topic are gone.
//! Leaves durability to the log: a staged commit promises nothing until it is written.

use hashbrown::HashMap;

use gantry_model::{GroupName, QueueId, QueueOffset, TopicId};

/// Where a group goes on reading a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// The group.
    pub group: GroupName,
    /// The topic.
    pub topic: TopicId,
    /// The queue.
    pub queue: QueueId,
    /// Next offset to consume.
    pub offset: QueueOffset,
}

type Queues = HashMap<(TopicId, QueueId), QueueOffset>;

/// All offsets.
#[derive(Debug, Default)]
pub(crate) struct OffsetTable {
    groups: HashMap<GroupName, Queues>,
    /// Commits that no record carries yet: the last one of each group and queue.
    staged: HashMap<(GroupName, TopicId, QueueId), QueueOffset>,
}

impl OffsetTable {
    pub(crate) fn get(&self, group: &str, topic: TopicId, queue: QueueId) -> Option<QueueOffset> {
        self.groups.get(group)?.get(&(topic, queue)).copied()
    }

    /// Sorted by topic and queue.
    pub(crate) fn of_group(&self, group: &str) -> Vec<(TopicId, QueueId, QueueOffset)> {
        let queues = self.groups.get(group).into_iter().flatten();
        let mut all: Vec<_> =
            queues.map(|((topic, queue), offset)| (*topic, *queue, *offset)).collect();
        all.sort_unstable();
        all
    }

    /// Groups with an offset on the topic, sorted.
    pub(crate) fn groups_on(&self, topic: TopicId) -> Vec<GroupName> {
        let on = |queues: &Queues| queues.keys().any(|(of, _)| *of == topic);
        let mut names: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, queues)| on(queues))
            .map(|(name, _)| name.clone())
            .collect();
        names.sort_unstable();
        names
    }

    /// A commit that a record carries. One that was staged while the record was written is newer, and stays.
    pub(crate) fn set(&mut self, commit: &OffsetCommit) {
        let superseded = !self.staged.is_empty()
            && self.staged.contains_key(&(commit.group.clone(), commit.topic, commit.queue));
        if !superseded {
            self.show(commit);
        }
    }

    /// A commit that the next record of staged commits will carry.
    pub(crate) fn stage(&mut self, commit: OffsetCommit) {
        self.show(&commit);
        self.staged.insert((commit.group, commit.topic, commit.queue), commit.offset);
    }

    fn show(&mut self, commit: &OffsetCommit) {
        let key = (commit.topic, commit.queue);
        if let Some(queues) = self.groups.get_mut(commit.group.as_str()) {
            queues.insert(key, commit.offset);
        } else {
            self.groups.insert(commit.group.clone(), Queues::from([(key, commit.offset)]));
        }
    }

    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Takes the staged commit of the same group and queue: a record will carry a newer one.
    pub(crate) fn unstage(&mut self, commit: &OffsetCommit) -> Option<OffsetCommit> {
        if self.staged.is_empty() {
            return None;
        }
        let key = (commit.group.clone(), commit.topic, commit.queue);
        let offset = self.staged.remove(&key)?;
        Some(OffsetCommit { offset, ..commit.clone() })
    }

    /// Takes up to `max` staged commits, which a record will carry.
    pub(crate) fn take_staged(&mut self, max: usize) -> Vec<OffsetCommit> {
        let keys: Vec<_> = self.staged.keys().take(max).cloned().collect();
        let taken = keys.into_iter().filter_map(|key| self.staged.remove_entry(&key));
        taken
            .map(|((group, topic, queue), offset)| OffsetCommit { group, topic, queue, offset })
            .collect()
    }

    /// Gives commits back that no record carries after all.
    pub(crate) fn restage(&mut self, commits: Vec<OffsetCommit>) {
        for commit in commits {
            let key = (commit.group, commit.topic, commit.queue);
            self.staged.entry(key).or_insert(commit.offset);
        }
    }

    pub(crate) fn remove_topic(&mut self, topic: TopicId) {
        for queues in self.groups.values_mut() {
            queues.retain(|(of, _), _| *of != topic);
        }
        self.groups.retain(|_, queues| !queues.is_empty());
        self.staged.retain(|(_, of, _), _| *of != topic);
    }

    pub(crate) fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
        self.staged.retain(|(of, _, _), _| of.as_str() != group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(group: &str, topic: u32, offset: u64) -> OffsetCommit {
        OffsetCommit {
            group: GroupName::new(group).unwrap(),
            topic: TopicId(topic),
            queue: QueueId(0),
            offset: QueueOffset(offset),
        }
    }

    #[test]
    fn staged_commit_is_visible_at_once_and_superseded_by_a_newer_record() {
        let mut table = OffsetTable::default();
        table.stage(commit("g", 1, 5));
        assert_eq!(table.get("g", TopicId(1), QueueId(0)), Some(QueueOffset(5)));
        let newer = commit("g", 1, 9);
        assert_eq!(table.unstage(&newer), Some(commit("g", 1, 5)));
        table.set(&newer);
        assert_eq!(table.get("g", TopicId(1), QueueId(0)), Some(QueueOffset(9)));
        assert_eq!(table.staged(), 0);
    }

    #[test]
    fn commit_staged_while_an_older_one_is_written_stays_visible_and_staged() {
        let mut table = OffsetTable::default();
        table.stage(commit("g", 1, 5));
        let written = table.take_staged(10);
        table.stage(commit("g", 1, 6));
        for commit in &written {
            table.set(commit);
        }
        assert_eq!(table.get("g", TopicId(1), QueueId(0)), Some(QueueOffset(6)));
        assert_eq!(table.take_staged(10), [commit("g", 1, 6)]);
    }

    #[test]
    fn commits_given_back_yield_to_newer_ones() {
        let mut table = OffsetTable::default();
        table.stage(commit("g", 1, 5));
        let taken = table.take_staged(10);
        table.stage(commit("g", 1, 6));
        table.restage(taken);
        assert_eq!(table.take_staged(10), [commit("g", 1, 6)]);
    }

    #[test]
    fn deleted_topic_takes_its_offsets_along() {
        let mut table = OffsetTable::default();
        table.stage(commit("g", 1, 5));
        table.stage(commit("g", 2, 6));
        table.remove_topic(TopicId(1));
        assert_eq!(table.of_group("g"), [(TopicId(2), QueueId(0), QueueOffset(6))]);
        assert_eq!(table.groups_on(TopicId(1)), []);
        assert_eq!(table.staged(), 1);
    }
}
