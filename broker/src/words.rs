//! Words for people in answers, the same at every port.
//! Invariant: what an error says is followed by each of its causes, once.
//! Leaves codes, and how long an answer may be, to the ports.

use std::error::Error;

/// What comes before the reason while the store takes no messages.
pub(crate) const NOT_NOW: &str = "service not available now";

/// The words of an error and of its causes, separated by colons.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // A transparent variant repeats its cause.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
