//! Tells the registration that topics changed, and others that the name servers know.
//! Invariant: whoever waits for an announcement after a change returns only when that change was announced.
//! Leaves the announcing to the registration.

use std::{collections::BTreeSet, time::Duration};

use gantry_model::TopicName;
use parking_lot::Mutex;
use tokio::sync::watch;

/// Changes of the topic table and announcements of them.
#[derive(Debug)]
pub struct TopicChanges {
    /// Topics changed since they were last taken; at most as many as there are topics.
    topics: Mutex<BTreeSet<TopicName>>,
    made: watch::Sender<u64>,
    announced: watch::Sender<u64>,
}

impl Default for TopicChanges {
    fn default() -> Self {
        Self {
            topics: Mutex::default(),
            made: watch::Sender::new(0),
            announced: watch::Sender::new(0),
        }
    }
}

impl TopicChanges {
    /// Notes a change, which wakes the registration.
    pub fn note(&self, topic: TopicName) {
        self.topics.lock().insert(topic);
        self.made.send_modify(|count| *count += 1);
    }

    /// Changes so far, and a wait for more.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }

    /// Topics changed since the last call.
    pub fn take(&self) -> BTreeSet<TopicName> {
        std::mem::take(&mut self.topics.lock())
    }

    /// Notes that the first `count` changes were announced to every name server that answers.
    pub fn note_announced(&self, count: u64) {
        self.announced.send_modify(|announced| *announced = count.max(*announced));
    }

    /// Waits until every change made before this call is announced, at most `timeout`.
    /// Returns whether it is.
    pub async fn announced(&self, timeout: Duration) -> bool {
        let made = *self.made.borrow();
        let mut announced = self.announced.subscribe();
        let wait = announced.wait_for(|count| *count >= made);
        matches!(tokio::time::timeout(timeout, wait).await, Ok(Ok(_)))
    }
}
