//! Checks of the log in itself: what records say of those before them, and of the log.
//! Invariant: what a damaged place may have caused is not held against the records behind it.
//! Leaves checksums and positions to the walk, which gives out no other records.

use std::collections::HashMap;

use gantry_model::{PhysicalOffset, TopicName};
use gantry_record::RecordView;

use super::report::Report;
use crate::{
    image::{Follower, ImageAt},
    inspect::{ImagePart, Kind},
    log::{SegmentHeader, survey::Survey},
    state::StateEntry,
};

/// Follows the log from its begin to its end.
pub(super) struct LogCheck {
    last_time_ms: Option<u64>,
    /// Where the last damaged place ends.
    whole_from: PhysicalOffset,
    follower: Follower,
    image_begin: Option<PhysicalOffset>,
    /// Images that are complete, by where they begin.
    images: HashMap<PhysicalOffset, ImageAt>,
    start: PhysicalOffset,
    queues: QueueCheck,
}

impl LogCheck {
    pub(super) fn new(log: &Survey) -> Self {
        Self {
            last_time_ms: None,
            whole_from: log.start(),
            follower: Follower::default(),
            image_begin: None,
            images: HashMap::new(),
            start: PhysicalOffset(0),
            queues: QueueCheck::default(),
        }
    }

    /// A place up to `end` cannot be read.
    pub(super) fn gap(&mut self, end: PhysicalOffset) {
        self.whole_from = end;
        self.last_time_ms = None;
        self.queues.gap();
    }

    pub(super) fn record(
        &mut self,
        log: &Survey,
        record: &RecordView<'_>,
        kind: &Kind,
        report: &mut Report<'_>,
    ) {
        let position = record.position();
        if let Err(error) = record.verify_body() {
            report.at(position, error.to_string());
        }
        match kind {
            Kind::Header(header) => self.header(log, position, header, report),
            Kind::Mark { store_id, synced } => {
                if *store_id != log.store_id() {
                    report.at(position, format!("the mark is of store {store_id}"));
                }
                if *synced > position {
                    report.at(position, format!("the mark says that {synced} was synced"));
                }
            }
            Kind::State(entries) => self.queues.state(entries),
            Kind::Image(piece) => self.image(record, &piece.part, report),
            Kind::Start { position: start } => {
                if *start > position {
                    report.at(position, format!("the log is said to start at {start}"));
                }
                self.start = self.start.max(*start);
            }
            Kind::Message => self.queues.message(record, report),
            Kind::Half | Kind::Rollback => {}
            Kind::Unknown { reason } => report.at(position, reason.as_str()),
        }
        self.time(record, report);
    }

    fn time(&mut self, record: &RecordView<'_>, report: &mut Report<'_>) {
        let time_ms = record.store_time_ms();
        if let Some(last_ms) = self.last_time_ms.filter(|last_ms| *last_ms > time_ms) {
            let what = format!("store time {time_ms} is before that of the last record, {last_ms}");
            report.at(record.position(), what);
        }
        self.last_time_ms = Some(time_ms);
    }

    fn header(
        &mut self,
        log: &Survey,
        position: PhysicalOffset,
        header: &SegmentHeader,
        report: &mut Report<'_>,
    ) {
        if log.place(position).is_none_or(|(_, at)| at != 0) {
            report.at(position, "a segment's header is not at the begin of a segment");
        }
        if header.store_id != log.store_id() {
            report.at(position, format!("the header is of store {}", header.store_id));
        }
        if header.synced > position {
            report.at(position, format!("the header says that {} was synced", header.synced));
        }
        if let Some(last_ms) = self.last_time_ms.filter(|last_ms| *last_ms != header.last_time_ms) {
            let said_ms = header.last_time_ms;
            let what =
                format!("the header says that the last record is of {said_ms}, it is of {last_ms}");
            report.at(position, what);
        }
        if let Some(begin) = header.newest_image
            && begin >= self.whole_from
            && !self.images.contains_key(&begin)
        {
            report.at(
                position,
                format!("no complete state image begins at {begin}, as the header says"),
            );
        }
    }

    fn image(&mut self, record: &RecordView<'_>, part: &ImagePart, report: &mut Report<'_>) {
        let position = record.position();
        if let ImagePart::Begin = part {
            self.image_begin = Some(position);
        }
        match self.follower.follow(record) {
            Ok(Some(image)) => {
                self.image_begin = None;
                self.images.insert(image.begin, image);
            }
            Ok(None) => {
                let begin = self.image_begin.filter(|begin| *begin >= self.whole_from);
                if let (ImagePart::End { .. }, Some(begin)) = (part, begin) {
                    report.at(position, format!("the state image from {begin} on is not complete"));
                    self.image_begin = None;
                }
            }
            Err(error) => report.at(position, error.to_string()),
        }
    }

    pub(super) fn finish(self, log: &Survey, report: &mut Report<'_>) {
        let (first, start) = (log.start(), self.start);
        if first < start {
            report.note(format!(
                "the log starts at {start}; what lies before it is removed at the next chance"
            ));
        }
        // What said so may lie in a damaged place.
        if first > start && self.whole_from == first {
            report
                .at(first, format!("the log starts at {start}, and its first segment at {first}"));
        }
    }
}

/// Follows the offsets of all queues.
#[derive(Default)]
struct QueueCheck {
    topics: HashMap<String, TopicQueues>,
    gaps: u64,
}

#[derive(Default)]
struct TopicQueues {
    /// Whether the topic was made in the part of the log that was walked: its queues begin with 0.
    is_new: bool,
    next: HashMap<u32, Next>,
}

struct Next {
    offset: u64,
    /// Damaged places met up to its last message: one more may have held the messages between, or made the topic anew.
    gaps: u64,
}

impl QueueCheck {
    fn gap(&mut self) {
        self.gaps += 1;
    }

    fn state(&mut self, entries: &[StateEntry]) {
        for entry in entries {
            if let StateEntry::Topic { since: None, config, .. } = entry {
                self.new_topic(&config.topic_name);
            }
        }
    }

    fn new_topic(&mut self, name: &TopicName) {
        let is_new = self.gaps == 0;
        self.topics.insert(name.to_string(), TopicQueues { is_new, next: HashMap::new() });
    }

    fn message(&mut self, record: &RecordView<'_>, report: &mut Report<'_>) {
        let (queue, offset) = (record.queue().0, record.queue_offset().0);
        if !self.topics.contains_key(record.topic()) {
            self.topics.insert(record.topic().to_owned(), TopicQueues::default());
        }
        let Some(topic) = self.topics.get_mut(record.topic()) else { return };
        let expected = match topic.next.get(&queue) {
            Some(next) => Some((next.offset, next.gaps < self.gaps)),
            None if topic.is_new => Some((0, self.gaps > 0)),
            None => None,
        };
        if let Some((next, is_behind_gap)) = expected
            && offset != next
            && !is_behind_gap
        {
            let (topic, position) = (record.topic(), record.position());
            report
                .at(position, format!("queue {topic}/{queue} goes on at {offset}, not at {next}"));
        }
        topic.next.insert(queue, Next { offset: offset + 1, gaps: self.gaps });
    }
}
