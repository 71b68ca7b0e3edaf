//! Events: what happened, said once, at the object that it happened to.
//! Invariant: the same sentence about the same object is not repeated while it is among the last ones said; an event
//! that cannot be written is logged and fails nothing.
//! Leaves counting of repetitions over a longer time to the API server's series.

use std::collections::VecDeque;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;

/// Sentences remembered: some hundred bytes each.
const REMEMBERED_MAX: usize = 1024;

/// Writes events.
pub struct Events {
    recorder: Recorder,
    said: Mutex<VecDeque<(String, String)>>,
}

impl Events {
    /// Writes through `client`.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: "gantry-operator".into(), instance: hostname() };
        Self { recorder: Recorder::new(client, reporter), said: Mutex::default() }
    }

    /// Says that something went as it should.
    pub async fn normal<K>(&self, about: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.say(&about.object_ref(&()), None, EventType::Normal, reason, action, note).await;
    }

    /// The same with a second object, each of which makes an event of its own.
    pub async fn normal_with<K>(
        &self,
        about: &K,
        other: ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.say(&about.object_ref(&()), Some(other), EventType::Normal, reason, action, note)
            .await;
    }

    /// Says that something is wrong.
    pub async fn warning<K>(&self, about: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.say(&about.object_ref(&()), None, EventType::Warning, reason, action, note).await;
    }

    async fn say(
        &self,
        about: &ObjectReference,
        secondary: Option<ObjectReference>,
        type_: EventType,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let other = secondary.as_ref().and_then(|other| other.uid.clone()).unwrap_or_default();
        let sentence = (about.uid.clone().unwrap_or_default(), format!("{reason}: {note} {other}"));
        if !self.is_new(sentence) {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(truncated(note)),
            action: action.to_owned(),
            secondary,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(object = ?about.name, reason, error, "an event could not be written");
        }
    }

    fn is_new(&self, sentence: (String, String)) -> bool {
        let mut said = self.said.lock();
        if said.contains(&sentence) {
            return false;
        }
        if said.len() == REMEMBERED_MAX {
            said.pop_front();
        }
        said.push_back(sentence);
        true
    }
}

/// The API server refuses notes of more than 1 KiB.
fn truncated(mut note: String) -> String {
    if note.len() > 1000 {
        let cut = (0..=1000).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(cut);
        note.push('…');
    }
    note
}

fn hostname() -> Option<String> {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_note_is_cut_between_characters() {
        let note = truncated("ä".repeat(600));
        assert!(note.len() <= 1024 && note.ends_with('…'));
        assert_eq!(truncated("short".into()), "short");
    }
}
