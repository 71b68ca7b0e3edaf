//! Promises about readers far behind the end of the log: whose next pull goes to the threads that may wait for the
//! disk, and whose does not.

use gantry_model::{PhysicalOffset, TopicConfig, TopicName};
use tempfile::TempDir;

use super::*;
use crate::services::{
    Services,
    fixture::{services_with, store_message},
};

/// Distance behind the end of the log from which these readers are far behind. A record is some 120 bytes.
const FAR_BYTES: u64 = 4096;
/// Messages behind which all that comes before is far behind.
const MANY: usize = 64;

struct World {
    services: Services,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { services: services_with(dir.path(), |_| {}), _dir: dir }
    }

    /// Stores messages of a topic, and returns where they are.
    fn store(&self, topic: &str, count: usize) -> Vec<PhysicalOffset> {
        let config = TopicConfig::new(TopicName::new(topic).unwrap(), 1);
        let topic = self.services.store.put_topic(config, self.services.clock.now()).unwrap().0;
        (0..count).map(|_| store_message(&self.services, &topic, &[], None)).collect()
    }

    /// A pull of four messages of `orders`.
    fn pull(&self, from: u64) -> Pull {
        self.pull_of("*", from)
    }

    fn pull_of(&self, expression: &str, from: u64) -> Pull {
        let request = PullRequest {
            group: "readers",
            topic: "orders",
            queue: 0,
            offset: from as i64,
            messages_max: 4,
            bytes_max: None,
            subscription: Some((expression, None)),
            version: 0,
            lite: false,
        };
        let pull = self.services.pulls.admit(&request, self.services.clock.now()).unwrap();
        let limits = ReadLimits { waits_within: FAR_BYTES, scan_max: 4, ..pull.limits };
        Pull { limits, ..pull }
    }

    fn read_far_behind(&self, from: u64) -> QueueRead {
        let pull = self.pull(from);
        let onset = self.onset(from).unwrap_or(Onset::Missed);
        self.services.pulls.read_far_behind(&pull, onset, &mut BytesMut::new()).unwrap()
    }

    fn onset(&self, from: u64) -> Option<Onset> {
        self.services.pulls.goes_on_far_behind(&self.pull(from))
    }

    fn goes_on_far_behind(&self, from: u64) -> bool {
        self.onset(from).is_some()
    }

    /// Whether a pull is answered, and may be held, by the thread that reads it.
    fn may_be_held(&self, from: u64) -> bool {
        let pull = self.pull(from);
        let read = self.services.pulls.read_at_hand(&pull, &mut BytesMut::new()).unwrap();
        !self.goes_on_far_behind(from) && read.is_some_and(|read| pull.may_wait(read.status))
    }
}

#[test]
fn reader_goes_on_far_behind_until_it_is_near_the_end_of_the_log() {
    let world = World::new();
    let places = world.store("orders", MANY);
    assert!(!world.goes_on_far_behind(0), "nothing is known of it yet");
    let (mut from, mut far) = (0, 0);
    while from < MANY as u64 {
        let read = world.read_far_behind(from);
        assert_eq!((read.status, read.messages), (ReadStatus::Found, 4));
        from = read.next.0;
        let behind = world.services.store.written().0 - places[from as usize - 1].0;
        let is_far = behind > FAR_BYTES;
        assert_eq!(world.goes_on_far_behind(from), is_far, "{behind} bytes behind, at {from}");
        assert!(!world.goes_on_far_behind(from + 1), "it goes on elsewhere");
        far += u64::from(is_far);
    }
    assert!((1..MANY as u64 / 4 - 1).contains(&far), "{far} reads were far behind");
    assert!(world.may_be_held(from), "it has caught up");
}

#[test]
fn reader_at_the_end_of_a_queue_that_others_left_far_behind_has_caught_up() {
    let world = World::new();
    world.store("orders", 6);
    world.store("others", MANY);
    assert_eq!(world.read_far_behind(0).next, QueueOffset(4));
    assert!(world.goes_on_far_behind(4), "two more lie there");
    let read = world.read_far_behind(4);
    assert_eq!((read.messages, read.next, read.max), (2, QueueOffset(6), QueueOffset(6)));
    assert!(world.may_be_held(6));
    world.store("orders", 1);
    assert!(!world.goes_on_far_behind(6), "what comes next is at hand");
}

#[test]
fn reader_that_wants_none_of_the_messages_goes_on_far_behind_as_well() {
    let world = World::new();
    let places = world.store("orders", MANY);
    let (mut from, mut far, mut looks) = (0, 0, 0);
    while from < MANY as u64 {
        let pull = world.pull_of("none", from);
        // As the front door does it.
        let read = if let Some(onset) = world.onset(from) {
            far += 1;
            looks += u64::from(onset == Onset::Looks);
            world.services.pulls.read_far_behind(&pull, onset, &mut BytesMut::new()).unwrap()
        } else {
            world.services.pulls.read_at_hand(&pull, &mut BytesMut::new()).unwrap().unwrap()
        };
        assert_eq!((read.status, read.next), (ReadStatus::NoMatch, QueueOffset(from + 4)));
        from += 4;
        let behind = world.services.store.written().0 - places[from as usize - 1].0;
        assert_eq!(world.goes_on_far_behind(from), behind > FAR_BYTES, "{behind}, at {from}");
    }
    assert!((1..MANY as u64 / 4 - 1).contains(&far), "{far} reads were far behind");
    assert!(looks < far / 2, "{looks} of {far} looked for messages in the cache");
    assert!(world.may_be_held(from), "it has caught up");
}
