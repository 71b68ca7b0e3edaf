//! Sends that have waited for long before the broker could read them: which of them are refused.
//! Invariant: what is refused was not decoded; a send that its producer has given up is never stored.
//! Leaves the measuring to the connection. Source: RocketMQ's fast failure of queued requests, limit of sends 200 ms.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Wait from which on producers are told to slow down.
const WAIT_LIMIT: Duration = Duration::from_millis(200);
/// Wait after which a producer has given up: the default timeout of its clients. To store the message then would store
/// it twice, since it was sent again.
const ABANDONED: Duration = Duration::from_secs(3);
/// Of so many sends that waited too long one is refused. To refuse costs a third of what it costs to store, and when
/// all were refused whose turn comes late, nothing else would be done. This way 95 % of the messages are still stored,
/// what is beyond waits with its senders, whom the system holds up, and each of them hears that it is too fast.
const REFUSED_OF: usize = 8;

/// What is done with the sends of one hand-over.
#[derive(Debug)]
pub(super) struct Lateness<'a> {
    /// One of so many is refused; 0: none.
    refused_of: usize,
    /// Late sends of all connections so far.
    seen: &'a AtomicUsize,
    remark: String,
}

impl<'a> Lateness<'a> {
    /// For sends that have waited for `waited`, `queued` of them; `seen` counts the late ones of all connections.
    #[inline]
    pub(super) fn new(waited: Duration, queued: usize, seen: &'a AtomicUsize) -> Self {
        if waited < WAIT_LIMIT {
            return Self { refused_of: 0, seen, remark: String::new() };
        }
        let refused_of = if waited < ABANDONED { REFUSED_OF } else { 1 };
        let remark = format!(
            "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: {}ms, size of queue: \
             {queued}",
            waited.as_millis()
        );
        Self { refused_of, seen, remark }
    }

    /// Counts one send. Returns what to tell its producer if it is refused.
    #[inline]
    pub(super) fn refuses(&self) -> Option<&str> {
        if self.refused_of == 0 {
            return None;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        number.is_multiple_of(self.refused_of).then_some(&*self.remark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(waited: Duration, sends: usize) -> usize {
        let seen = AtomicUsize::new(0);
        // Few at a time, as they come.
        let refuses = || Lateness::new(waited, sends, &seen).refuses().is_some();
        (0..sends).filter(|_| refuses()).count()
    }

    #[test]
    fn late_sends_are_refused_in_part_and_abandoned_ones_all() {
        assert_eq!(refused(Duration::from_millis(199), 800), 0);
        assert_eq!(refused(WAIT_LIMIT, 800), 100);
        assert_eq!(refused(Duration::from_millis(2999), 800), 100);
        assert_eq!(refused(ABANDONED, 800), 800);
    }

    #[test]
    fn refusal_says_what_the_reference_says() {
        let seen = AtomicUsize::new(0);
        let lateness = Lateness::new(Duration::from_millis(3500), 12, &seen);
        let words = "[TIMEOUT_CLEAN_QUEUE]broker busy, start flow control for a while, period in queue: 3500ms, size \
                     of queue: 12";
        assert_eq!(lateness.refuses(), Some(words));
    }
}
