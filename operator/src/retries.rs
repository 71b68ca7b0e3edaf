//! How long to wait before an object that failed is tried again.
//! Invariant: the wait doubles with each failure in a row up to a bound, and starts anew after a success.
//! Leaves what a failure is to the controllers.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

/// Wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait.
const LONGEST: Duration = Duration::from_mins(1);

/// Failures in a row, by the uid of their object.
#[derive(Default)]
pub struct Retries(Mutex<HashMap<String, u32>>);

impl Retries {
    /// Counts a failure and says how long to wait.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.0.lock();
        let count = failures.entry(uid.to_owned()).or_default();
        // 2⁶ s is beyond the longest wait.
        let wait = FIRST * 2u32.pow((*count).min(6));
        *count = count.saturating_add(1);
        wait.min(LONGEST)
    }

    /// Forgets the failures of an object that succeeded or is gone.
    pub fn succeeded(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_doubles_to_its_bound_and_starts_anew_after_a_success() {
        let retries = Retries::default();
        let waits: Vec<u64> = (0..8).map(|_| retries.failed("a").as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retries.failed("b").as_secs(), 1);
        retries.succeeded("a");
        assert_eq!(retries.failed("a").as_secs(), 1);
    }
}
