//! Checks of single source files: header, words that must not stay, ignored tests.
//! Each check takes a path and its text and returns complaints that say what to do.
//! The searched words are put together from halves, so that this file does not find itself.

use crate::tree;

/// Words that no file may hold, whatever its kind, with the reason.
const WORDS_ANYWHERE: [(&str, &str); 3] = [
    (concat!("/ro", "ot/"), "names a path of one machine: use a relative path or a variable"),
    (concat!("/wo", "rk/"), "names a path of one machine: use a relative path or a variable"),
    (concat!("FIX", "ME"), "leaves work in the tree: do it or open an issue"),
];

/// Words that no Rust file may hold, with the reason.
const WORDS_IN_RUST: [(&str, &str); 2] = [
    (concat!("to", "do!"), "is a stub: write the code or leave the function out"),
    (concat!("db", "g!"), "prints while debugging: remove it or use tracing"),
];

const IGNORE_WITHOUT_REASON: &str = concat!("#[ign", "ore]");

/// Complains when a Rust file does not begin with a `//!` line that says something.
pub fn check_header(path: &str, text: &str) -> Vec<String> {
    let first = text.lines().next().unwrap_or_default();
    let says_something =
        first.strip_prefix("//!").is_some_and(|fact| !fact.trim().trim_matches('.').is_empty());
    if says_something {
        return Vec::new();
    }
    vec![format!(
        "{path}:1: begin the file with `//!` lines: what it owns, what always holds, what it leaves to others"
    )]
}

/// Complains about each line with a word that must not stay in the tree.
pub fn check_words(path: &str, text: &str) -> Vec<String> {
    let in_rust = if tree::is_rust(path) { &WORDS_IN_RUST[..] } else { &[] };
    let words = || WORDS_ANYWHERE.iter().chain(in_rust);
    complaints_by_line(path, text, |line| {
        words()
            .filter(|(word, _)| line.contains(word))
            .map(|(word, why)| format!("`{word}` {why}"))
            .collect()
    })
}

/// Complains about each ignored test that does not say why.
pub fn check_ignores(path: &str, text: &str) -> Vec<String> {
    complaints_by_line(path, text, |line| {
        let found = line.trim_start().starts_with(IGNORE_WITHOUT_REASON);
        found
            .then(|| "say why the test is ignored: `#[ignore = \"reason\"]`".to_owned())
            .into_iter()
            .collect()
    })
}

fn complaints_by_line(path: &str, text: &str, check: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let numbered = text.lines().zip(1..);
    numbered
        .flat_map(|(line, number)| {
            check(line).into_iter().map(move |complaint| (number, complaint)).collect::<Vec<_>>()
        })
        .map(|(number, complaint)| format!("{path}:{number}: {complaint}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_a_header_or_with_an_empty_one_is_named() {
        for text in ["", "use std::fs;\n//! late", "//!\n//! second line", "// plain comment"] {
            assert_eq!(check_header("a.rs", text).len(), 1, "{text:?}");
        }
        assert!(check_header("a.rs", "//! Owns something.\n").is_empty());
    }

    #[test]
    fn forbidden_word_is_named_with_its_line() {
        let text = format!("fine\nlet path = \"{}x\";\n", WORDS_ANYWHERE[0].0);
        let complaints = check_words("a.md", &text);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("a.md:2: "), "{complaints:?}");
    }

    #[test]
    fn stub_is_a_complaint_in_rust_and_a_word_elsewhere() {
        let text = WORDS_IN_RUST[0].0;
        assert_eq!(check_words("a.rs", text).len(), 1);
        assert!(check_words("a.md", text).is_empty());
    }

    #[test]
    fn ignored_test_needs_a_reason() {
        assert_eq!(check_ignores("a.rs", &format!("    {IGNORE_WITHOUT_REASON}\n")).len(), 1);
        assert!(check_ignores("a.rs", "    #[ignore = \"needs a disk that fails\"]\n").is_empty());
    }
}
