//! What the senders were told, and the comparison with what the log holds afterwards.
//! Invariant: an entry is an answer that a sender has received; a send without an answer is not in it.
//! Opens no socket: reads arrive as arguments.

use std::collections::BTreeMap;

/// Where a message lies: queue and queue offset.
pub type Place = (u32, u64);

/// All answers, by place.
#[derive(Debug, Default)]
pub struct Ledger {
    answers: BTreeMap<Place, String>,
}

impl Ledger {
    /// Notes that the message with this body was said to lie at `place`.
    ///
    /// # Panics
    /// When the place was given to another message before: that is a loss already.
    pub fn note(&mut self, place: Place, body: String) {
        if let Some(earlier) = self.answers.insert(place, body.clone()) {
            panic!("place {place:?} was given to {earlier} and then to {body}");
        }
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Number of different queues that the answers name.
    pub fn queues(&self) -> usize {
        self.answers.keys().map(|(queue, _)| queue).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Complains about gaps and repetitions in what was read, and about answers that it does not hold.
    /// `read` lists queue offset and body in the order in which the server gave them.
    pub fn check_queue(&self, queue: u32, read: &[(u64, String)]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (expected, (offset, _)) in (0..).zip(read) {
            if *offset != expected {
                complaints.push(format!("queue {queue}: offset {offset} where {expected} comes next"));
                break;
            }
        }
        let held: BTreeMap<_, _> = read.iter().map(|(offset, body)| (*offset, body)).collect();
        for (&(_, offset), answered) in self.answers.range((queue, 0)..=(queue, u64::MAX)) {
            match held.get(&offset) {
                None => complaints.push(format!("queue {queue}: {answered} is missing at {offset}")),
                Some(body) if *body != answered => {
                    complaints.push(format!("queue {queue}: {body} at {offset}, answered was {answered}"));
                }
                Some(_) => {}
            }
        }
        complaints
    }
}

#[test]
fn ledger_names_lost_replaced_and_repeated_messages() {
    let mut ledger = Ledger::default();
    for (offset, body) in (0..).zip(["a", "b", "c"]) {
        ledger.note((7, offset), body.to_owned());
    }
    let read = |entries: &[(u64, &str)]| -> Vec<_> {
        entries.iter().map(|(offset, body)| (*offset, (*body).to_owned())).collect()
    };
    let check = |entries: &[(u64, &str)]| ledger.check_queue(7, &read(entries)).len();
    assert_eq!(check(&[(0, "a"), (1, "b"), (2, "c"), (3, "unanswered")]), 0);
    assert_eq!(check(&[(0, "a"), (1, "b")]), 1, "lost at the end");
    assert_eq!(check(&[(0, "a"), (2, "c")]), 2, "lost in the middle");
    assert_eq!(check(&[(0, "a"), (1, "x"), (2, "c")]), 1, "replaced");
    assert_eq!(check(&[(0, "a"), (1, "b"), (1, "b"), (2, "c")]), 1, "repeated");
}
