//! Promises of the source files: headers, reachability, words that must not stay.
//! Each test reads the whole tree as a clone has it; build results are left out.
//! How a single file is judged is in `gantry_tidy::sources` and `gantry_tidy::modules`.

use std::collections::BTreeMap;

use gantry_tidy::{hold, modules, sources, tree};

fn complaints(
    files: &BTreeMap<String, String>,
    check: impl Fn(&str, &str) -> Vec<String>,
) -> Vec<String> {
    files.iter().flat_map(|(path, text)| check(path, text)).collect()
}

#[test]
fn every_rust_file_opens_with_what_it_owns() {
    let complaints = complaints(&tree::rust_files(), sources::check_header);
    hold("Every Rust file must open with its facts:", &complaints);
}

#[test]
fn every_rust_file_is_compiled() {
    let complaints = modules::check_dead_files(&tree::rust_files(), &tree::target_roots());
    hold("Every Rust file must belong to a target:", &complaints);
}

#[test]
fn no_file_names_a_path_of_one_machine_or_leaves_a_stub() {
    let complaints = complaints(&tree::text_files(), sources::check_words);
    hold("These words must not stay in the tree:", &complaints);
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    let complaints = complaints(&tree::rust_files(), sources::check_ignores);
    hold("Ignored tests must say why:", &complaints);
}
