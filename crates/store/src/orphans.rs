//! Messages whose topic's definition is lost: a replay over damage comes upon names that nothing defines.
//! Invariant: such a message is never dropped in silence; each topic is one place of the damage, with its name, where its
//! first message lies and how many there are.
//! Leaves the messages where they are: `gantry store dump` shows them.

use std::{collections::BTreeMap, ops::Range};

use gantry_model::PhysicalOffset;
use gantry_record::RecordView;

use crate::store::Store;

/// Names that are told apart; messages of more count, and are told of together.
const NAMES_MAX: usize = 1_000;

/// What a replay has come upon.
#[derive(Debug, Default)]
pub(crate) struct Orphans(BTreeMap<String, Orphan>);

#[derive(Debug)]
struct Orphan {
    first: Range<PhysicalOffset>,
    messages: u64,
}

impl Orphans {
    /// Notes a message of a topic that nothing before it defines.
    ///
    /// Only for a replay: where each record in front of it was read, no message comes behind its topic's end.
    pub(crate) fn note(&mut self, record: &RecordView<'_>) {
        let is_known = self.0.contains_key(record.topic());
        let name = if is_known || self.0.len() < NAMES_MAX { record.topic() } else { "" };
        let position = record.position();
        let first = position..position.plus(record.size().into());
        let orphan = self.0.entry(name.to_owned()).or_insert(Orphan { first, messages: 0 });
        orphan.messages += 1;
    }
}

impl Store {
    /// Reports each of these topics.
    pub(crate) fn note_orphans(&self, orphans: Orphans) {
        for (name, Orphan { first, messages }) in orphans.0 {
            let topic =
                if name.is_empty() { "further topics".into() } else { format!("topic {name}") };
            self.note_damage(
                first,
                format!(
                    "the definition of {topic} is lost, so {messages} of its messages, of which the first is here, are \
                     given to nobody; `gantry store dump` shows them"
                ),
            );
        }
    }
}
