//! How a command ends: exit codes, and one sentence for each failure that says what to do.
//! Invariant: every failure has exactly one exit code, and the table in the help is this one.
//! Leaves the causes to the libraries; they are found in the chain of the error.

use std::{
    fmt::{self, Write},
    process::ExitCode,
};

use gantry_client::Cause;
use gantry_store::inspect::InspectError;

/// Shown by `gantry --help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  failed, or refused by the server
  2  wrong usage
  3  the topic, group, broker or message does not exist
  4  no server answers
  5  fewer messages than asked for
  6  the store is damaged
  7  the store cannot be read";

/// Why a command did not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unreachable = 4,
    Incomplete = 5,
    Damaged = 6,
    Unreadable = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure that the command itself found.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    /// The caller gave something that cannot be.
    pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Usage, text: text.into() }.into()
    }

    /// Something named does not exist.
    pub(crate) fn not_found(text: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::NotFound, text: text.into() }.into()
    }

    /// A store is not what it should be.
    pub(crate) fn damaged(text: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Damaged, text: text.into() }.into()
    }

    /// Fewer messages came than were asked for.
    pub(crate) fn incomplete(text: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Incomplete, text: text.into() }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The exit code of `error`: that of the first cause in its chain that has one.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    let by_failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    if let Some(failure) = by_failure {
        return failure.exit;
    }
    if error.chain().any(<dyn std::error::Error>::is::<InspectError>) {
        return Exit::Unreadable;
    }
    match Cause::of(error.as_ref()) {
        Some(Cause::NotFound) => Exit::NotFound,
        Some(Cause::Unreachable) => Exit::Unreachable,
        Some(Cause::Refused) | None => Exit::Failed,
    }
}

/// What went wrong and what to do, in one sentence.
pub(crate) fn sentence(error: &anyhow::Error, nameserver: &str) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Some causes repeat their source in their own text.
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    if exit_of(error) == Exit::Unreachable {
        let hint = "check that the servers run and that --nameserver";
        write!(text, "; {hint} ({nameserver}) is right").expect("writing to text does not fail");
    }
    text
}

/// Whether output ended because its reader left, as `head` does: that is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn failures_keep_their_exit_code_under_context() {
        let error = Err::<(), _>(Failure::not_found("topic orders does not exist"))
            .context("read the topic")
            .unwrap_err();
        assert_eq!(exit_of(&error), Exit::NotFound);
        assert_eq!(sentence(&error, "x:1"), "read the topic: topic orders does not exist");
    }

    #[test]
    fn unknown_failures_exit_with_one() {
        assert_eq!(exit_of(&anyhow::anyhow!("disk on fire")), Exit::Failed);
    }
}
