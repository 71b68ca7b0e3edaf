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
        let mut all: Vec<_> = queues.map(|((topic, queue), offset)| (*topic, *queue, *offset)).collect();
        all.sort_unstable();
        all
    }

    /// Groups with an offset on the topic, sorted.
    pub(crate) fn groups_on(&self, topic: TopicId) -> Vec<GroupName> {
        let on = |queues: &Queues| queues.keys().any(|(of, _)| *of == topic);
        let mut names: Vec<_> =
            self.groups.iter().filter(|(_, queues)| on(queues)).map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// A commit that a record carries.
    pub(crate) fn set(&mut self, commit: &OffsetCommit) {
        let key = (commit.topic, commit.queue);
        if let Some(queues) = self.groups.get_mut(commit.group.as_str()) {
            queues.insert(key, commit.offset);
        } else {
            self.groups.insert(commit.group.clone(), Queues::from([(key, commit.offset)]));
        }
    }

    /// A commit that the next record of staged commits will carry.
    pub(crate) fn stage(&mut self, commit: OffsetCommit) {
        self.set(&commit);
        self.staged.insert((commit.group, commit.topic, commit.queue), commit.offset);
    }

    /// A newer commit of the same queue is in a record: the staged one must not follow it.
    pub(crate) fn unstage(&mut self, commit: &OffsetCommit) {
        if !self.staged.is_empty() {
            self.staged.remove(&(commit.group.clone(), commit.topic, commit.queue));
        }
    }

    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Up to `max` staged commits, to be written; they stay staged until `unstage_written`.
    pub(crate) fn staged_commits(&self, max: usize) -> Vec<OffsetCommit> {
        let commits = self.staged.iter().take(max);
        commits
            .map(|((group, topic, queue), offset)| OffsetCommit {
                group: group.clone(),
                topic: *topic,
                queue: *queue,
                offset: *offset,
            })
            .collect()
    }

    /// Forgets a staged commit if it is still the one written.
    pub(crate) fn unstage_written(&mut self, written: &OffsetCommit) {
        let key = (written.group.clone(), written.topic, written.queue);
        if self.staged.get(&key) == Some(&written.offset) {
            self.staged.remove(&key);
        }
    }

    pub(crate) fn remove_topic(&mut self, topic: TopicId) {
        self.groups.values_mut().for_each(|queues| queues.retain(|(of, _), _| *of != topic));
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
        table.set(&newer);
        table.unstage(&newer);
        assert_eq!(table.staged(), 0);
    }

    #[test]
    fn commit_staged_while_an_older_one_is_written_stays_staged() {
        let mut table = OffsetTable::default();
        table.stage(commit("g", 1, 5));
        let written = table.staged_commits(10);
        table.stage(commit("g", 1, 6));
        written.iter().for_each(|commit| table.unstage_written(commit));
        assert_eq!(table.staged_commits(10), [commit("g", 1, 6)]);
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
