//! What the senders were told, and the comparison with what the log holds afterwards.
//! Invariant: an entry is an answer that a sender has received; a send without an answer is not in it.
//! Opens no socket: reads arrive as arguments.

use std::collections::{BTreeMap, BTreeSet};

/// Where a message lies: queue and queue offset.
pub(crate) type Place = (u32, u64);

/// Which message it is. Those of one sender are ordered as it sent them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MessageId {
    pub sender: u32,
    pub round: u32,
    pub number: u32,
}

impl MessageId {
    /// The id, then filler of a length that the id gives: a torn body does not pass for a whole one.
    pub(crate) fn to_body(&self) -> Vec<u8> {
        let Self { sender, round, number } = *self;
        let mut body = format!("{sender} {round} {number}\n").into_bytes();
        body.resize(body.len() + filler_bytes(number), b'.');
        body
    }

    /// Reads what [`Self::to_body`] wrote.
    ///
    /// # Panics
    /// When any byte differs.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let numbers: Vec<u32> = String::from_utf8_lossy(line)
            .split(' ')
            .map(|number| number.parse().expect("a body begins with three numbers"))
            .collect();
        let [sender, round, number] = numbers[..] else {
            panic!("a body begins with three numbers, this one with {numbers:?}");
        };
        let id = Self { sender, round, number };
        assert!(id.to_body() == body, "the body of {id:?} is damaged");
        id
    }
}

/// Between 0 and 2,000 bytes, so that records of many sizes meet segment ends and torn tails.
fn filler_bytes(number: u32) -> usize {
    (number as usize * 37) % 2_000
}

/// All answers, by place.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    answers: BTreeMap<Place, MessageId>,
}

impl Ledger {
    /// Notes that the message was said to lie at `place`.
    ///
    /// # Panics
    /// When the place was given to another message before: that is a loss already.
    pub(crate) fn note(&mut self, place: Place, id: MessageId) {
        let earlier = self.answers.insert(place, id);
        assert!(earlier.is_none(), "place {place:?} was given away twice, first to {earlier:?}");
    }

    /// Number of answers.
    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    /// Complains about all queues; `queues` holds queue offset and message in the order of reading.
    pub(crate) fn check(&self, queues: &BTreeMap<u32, Vec<(u64, MessageId)>>) -> Vec<String> {
        let answered = self.answers.keys().map(|(queue, _)| *queue);
        let all: BTreeSet<u32> = queues.keys().copied().chain(answered).collect();
        let none = Vec::new();
        all.into_iter()
            .flat_map(|queue| self.check_queue(queue, queues.get(&queue).unwrap_or(&none)))
            .collect()
    }

    fn check_queue(&self, queue: u32, read: &[(u64, MessageId)]) -> Vec<String> {
        let complaints = [gaps(read), disorder(read), self.losses(queue, read)].concat();
        complaints.into_iter().map(|complaint| format!("queue {queue}: {complaint}")).collect()
    }

    /// Answers whose place is empty or holds another message.
    fn losses(&self, queue: u32, read: &[(u64, MessageId)]) -> Vec<String> {
        let held: BTreeMap<_, _> = read.iter().map(|(offset, id)| (*offset, id)).collect();
        self.answers
            .range((queue, 0)..=(queue, u64::MAX))
            .filter_map(|(&(_, offset), answered)| match held.get(&offset) {
                None => Some(format!("{answered:?} is missing at {offset}")),
                Some(id) if *id != answered => {
                    Some(format!("{id:?} lies at {offset}, answered was {answered:?}"))
                }
                Some(_) => None,
            })
            .collect()
    }
}

/// The first place where queue offsets do not go on one by one from zero.
fn gaps(read: &[(u64, MessageId)]) -> Vec<String> {
    let wrong = (0..).zip(read).find(|(expected, (offset, _))| offset != expected);
    wrong
        .map(|(expected, (offset, _))| format!("offset {offset} where {expected} comes next"))
        .into_iter()
        .collect()
}

/// Messages that lie behind a later one of the same sender, or twice.
fn disorder(read: &[(u64, MessageId)]) -> Vec<String> {
    let mut last: BTreeMap<u32, &MessageId> = BTreeMap::new();
    let mut complaints = Vec::new();
    for (offset, id) in read {
        if let Some(before) = last.insert(id.sender, id)
            && before >= id
        {
            complaints.push(format!("{id:?} at {offset} comes after {before:?}"));
        }
    }
    complaints
}

#[test]
fn ledger_names_lost_replaced_repeated_and_disordered_messages() {
    let id = |number| MessageId { sender: 1, round: 1, number };
    let mut ledger = Ledger::default();
    for number in 0..3 {
        ledger.note((7, number.into()), id(number));
    }
    let complaints = |entries: &[(u64, u32)]| {
        let read = entries.iter().map(|(offset, number)| (*offset, id(*number))).collect();
        ledger.check(&BTreeMap::from([(7, read)])).len()
    };
    assert_eq!(complaints(&[(0, 0), (1, 1), (2, 2), (3, 3)]), 0, "the last one unanswered");
    assert_eq!(complaints(&[(0, 0), (1, 1)]), 1, "lost at the end");
    assert_eq!(complaints(&[(0, 0), (2, 2)]), 2, "lost in the middle: a gap and a loss");
    assert_eq!(complaints(&[(0, 0), (1, 9), (2, 2)]), 2, "replaced: a loss and a disorder");
    assert_eq!(complaints(&[(0, 0), (1, 1), (1, 1), (2, 2)]), 2, "repeated: offset and message");
    assert_eq!(ledger.check(&BTreeMap::new()).len(), 3, "the whole queue lost");
}

#[test]
#[should_panic(expected = "damaged")]
fn torn_body_is_not_taken_for_a_whole_one() {
    let body = MessageId { sender: 1, round: 2, number: 3 }.to_body();
    MessageId::from_body(&body[..body.len() - 1]);
}
