//! Readiness and liveness: named checks, one or more for each component of the process.
//! Invariant: the answer is yes when every check says so; a reason is given for each that does not.
//! Leaves to the components what ready and alive mean; by design that never is a peer's health at present.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Default)]
pub(crate) struct Checks(RwLock<Vec<(&'static str, Check)>>);

impl Checks {
    pub(crate) fn add(&self, name: &'static str, check: Check) {
        self.0.write().push((name, check));
    }

    pub(crate) fn report(&self) -> ReadyReport {
        let checks = self.0.read();
        ReadyReport { answers: checks.iter().map(|(name, check)| (*name, check())).collect() }
    }
}

/// The answers of all checks at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyReport {
    /// Name of each check, and the reason when it says no.
    pub answers: Vec<(&'static str, Result<(), String>)>,
}

impl ReadyReport {
    /// Whether every check says yes.
    pub fn is_ready(&self) -> bool {
        self.answers.iter().all(|(_, answer)| answer.is_ok())
    }
}

impl fmt::Display for ReadyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ready() { "ready\n" } else { "not ready\n" })?;
        for (name, answer) in &self.answers {
            match answer {
                Ok(()) => writeln!(f, "{name}: ok")?,
                Err(reason) => writeln!(f, "{name}: {reason}")?,
            }
        }
        Ok(())
    }
}

/// A check whose answer the component sets.
#[derive(Clone, Debug)]
pub struct ReadyState(Arc<RwLock<Result<(), String>>>);

impl ReadyState {
    /// Not ready, for `reason`.
    pub fn not_ready(reason: &str) -> Self {
        Self(Arc::new(RwLock::new(Err(reason.into()))))
    }

    /// Says that the component is ready.
    pub fn set_ready(&self) {
        *self.0.write() = Ok(());
    }

    /// Says that it is not, for `reason`.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        *self.0.write() = Err(reason.into());
    }

    /// What was said last.
    pub fn get(&self) -> Result<(), String> {
        self.0.read().clone()
    }
}
