//! What a store was asked for, when, and what it promised.
//! Invariant: whatever is found after a crash was asked for before it, and whatever was promised is found.
//! Moments are numbers of changes of the disk.

use std::{collections::BTreeMap, sync::Arc};

use gantry_model::{PhysicalOffset, TopicId};
use parking_lot::Mutex;

use super::seen::{Seen, SeenQueue};
use crate::{Store, log::memory_files::MemoryFiles};

/// Something that was asked for.
struct Asked<T> {
    begun: usize,
    /// When it was known to be on disk.
    promised: Option<usize>,
    what: T,
}

struct Message {
    body: String,
    position: PhysicalOffset,
}

/// Everything that was asked for.
#[derive(Default)]
pub(super) struct History {
    /// By topic and queue, in the order of their offsets.
    messages: BTreeMap<(TopicId, u32), Vec<Asked<Message>>>,
    /// Values of what can be looked up by a name, oldest first.
    values: BTreeMap<String, Vec<Asked<String>>>,
    /// When it was allowed to forget, and up to where.
    forgets: Vec<(usize, PhysicalOffset)>,
    /// Starts of the log that readers were told, and since when.
    starts: Arc<Mutex<Vec<(usize, PhysicalOffset)>>>,
}

impl History {
    pub(super) fn sent(
        &mut self,
        begun: usize,
        queue: (TopicId, u32),
        body: &str,
        position: PhysicalOffset,
    ) {
        let what = Message { body: body.to_owned(), position };
        self.messages.entry(queue).or_default().push(Asked { begun, promised: None, what });
    }

    pub(super) fn set(&mut self, begun: usize, name: &str, value: impl Into<String>) {
        let asked = Asked { begun, promised: None, what: value.into() };
        self.values.entry(name.to_owned()).or_default().push(asked);
    }

    pub(super) fn forgot(&mut self, begun: usize, before: PhysicalOffset) {
        self.forgets.push((begun, before));
    }

    /// Notes right before each change of the disk which start of the log readers are told by then.
    pub(super) fn watch_start(&self, disk: &MemoryFiles, store: &Arc<Store>) {
        let (starts, store) = (Arc::clone(&self.starts), Arc::downgrade(store));
        disk.watch(move |changes| {
            let Some(store) = store.upgrade() else { return };
            let (mut starts, start) = (starts.lock(), store.log_start());
            if starts.last().is_none_or(|(_, last)| *last != start) {
                starts.push((changes, start));
            }
        });
    }

    /// Number of starts that readers were told.
    pub(super) fn starts_told(&self) -> usize {
        self.starts.lock().len()
    }

    /// The start of the log that readers had been told when it crashed at `at`.
    fn told_start(&self, at: usize) -> PhysicalOffset {
        let starts = self.starts.lock();
        let told = starts.iter().take_while(|(since, _)| *since <= at).last();
        told.map_or(PhysicalOffset(0), |(_, start)| *start)
    }

    /// All that was asked for up to now is on disk.
    pub(super) fn promise(&mut self, now: usize) {
        let messages = self.messages.values_mut().flatten().map(|asked| &mut asked.promised);
        let values = self.values.values_mut().flatten().map(|asked| &mut asked.promised);
        for promised in messages.chain(values).filter(|promised| promised.is_none()) {
            *promised = Some(now);
        }
    }

    /// What of `seen`, found after a crash at `at`, is not as it was promised.
    pub(super) fn complaints(&self, at: usize, seen: &Seen) -> Vec<String> {
        let mut complaints = self.complaints_of_messages(at, seen);
        for (name, values) in &self.values {
            let found = seen.values.get(name).map_or("none", String::as_str);
            let newest = values.iter().rposition(|asked| asked.is_promised(at));
            let allowed: Vec<_> = values[newest.unwrap_or(0)..]
                .iter()
                .filter(|asked| asked.begun < at)
                .map(|asked| asked.what.as_str())
                .chain(newest.is_none().then_some("none"))
                .collect();
            if !allowed.contains(&found) {
                complaints.push(format!("{name} is {found}, and may be {allowed:?}"));
            }
        }
        complaints
    }

    fn complaints_of_messages(&self, at: usize, seen: &Seen) -> Vec<String> {
        let begun = self.forgets.iter().take_while(|(begun, _)| *begun < at);
        let forgettable = begun.map(|(_, before)| *before).max().unwrap_or_default();
        let mut complaints = Vec::new();
        if seen.start > forgettable {
            complaints.push(format!("log starts at {:?}, not {forgettable:?}", seen.start));
        }
        let told = self.told_start(at);
        if seen.start < told {
            complaints.push(format!("log starts at {:?}, readers were told {told:?}", seen.start));
        }
        for (queue, found) in &seen.queues {
            let sent = self.messages.get(queue).map_or(&[][..], Vec::as_slice);
            let mut complain = |what: String| complaints.push(format!("{queue:?}: {what}"));
            check_queue(at, forgettable, sent, found, &mut complain);
        }
        complaints
    }
}

impl<T> Asked<T> {
    fn is_promised(&self, at: usize) -> bool {
        self.promised.is_some_and(|promised| promised <= at)
    }
}

fn check_queue(
    at: usize,
    forgettable: PhysicalOffset,
    sent: &[Asked<Message>],
    found: &SeenQueue,
    complain: &mut dyn FnMut(String),
) {
    let (min, max) = (found.min as usize, found.max as usize);
    let promised = sent.iter().filter(|asked| asked.is_promised(at)).count();
    let begun = sent.iter().filter(|asked| asked.begun < at).count();
    if max < promised || max > begun {
        complain(format!("ends at {max}, with {promised} promised and {begun} sent"));
    }
    if found.bodies.len() != max - min {
        complain(format!("{} messages from {min} to {max}", found.bodies.len()));
    }
    for (body, asked) in found.bodies.iter().zip(sent.iter().skip(min)) {
        if *body != asked.what.body {
            complain(format!("{body:.20} where {:.20} was sent", asked.what.body));
        }
    }
    if let Some(lost) = sent[..promised.min(min)].iter().find(|a| a.what.position >= forgettable) {
        complain(format!("starts at {min}, without {:.20}", lost.what.body));
    }
}
