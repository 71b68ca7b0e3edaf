//! Reachability of Rust files: which ones the compiler reads, starting from the target roots.
//! A file that no `mod` declaration reaches is dead: it is neither compiled nor tested.
//! Reads `mod name;` and `#[path]` line by line; files pulled in by other macros are not followed.

use std::collections::{BTreeMap, BTreeSet};

/// Complains about each Rust file that no root reaches. `files` maps paths to their text.
pub fn check_dead_files(files: &BTreeMap<String, String>, roots: &[String]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    while let Some((path, is_root)) = waiting.pop() {
        let Some(text) = files.get(&path) else { continue };
        if reached.insert(path.clone()) {
            waiting.extend(children(&path, is_root, text, files).into_iter().map(|p| (p, false)));
        }
    }
    let dead = files.keys().filter(|path| !reached.contains(*path));
    dead.map(|path| {
        format!("{path}: no `mod` declaration reaches this file: declare it or delete it")
    })
    .collect()
}

/// The files that the `mod` declarations of one file name, as far as they exist.
fn children(
    path: &str,
    is_root: bool,
    text: &str,
    files: &BTreeMap<String, String>,
) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let owns_folder = is_root || stem == "mod";
    let module_folder = if owns_folder { folder.to_owned() } else { join(folder, stem) };
    let mut found = Vec::new();
    let mut path_attribute = None;
    for line in text.lines().map(str::trim) {
        if let Some(value) = line.strip_prefix("#[path = \"") {
            path_attribute = value.split('"').next().map(|value| join(folder, value));
        } else if let Some(module) = declared_module(line) {
            let by_name = || {
                [format!("{module}.rs"), format!("{module}/mod.rs")]
                    .map(|file| join(&module_folder, &file))
            };
            let candidates = path_attribute.take().map_or_else(|| by_name().to_vec(), |p| vec![p]);
            found.extend(candidates.into_iter().filter(|file| files.contains_key(file)));
        }
    }
    found
}

/// The module's name when `line` is `mod name;`, whatever its visibility.
fn declared_module(line: &str) -> Option<&str> {
    let rest = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    rest.strip_prefix("mod ")?.split_once(';').map(|(name, _)| name.trim())
}

fn join(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(files: &[(&str, &str)]) -> Vec<String> {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        check_dead_files(&files.collect(), &["a/src/lib.rs".to_owned()])
    }

    #[test]
    fn modules_are_followed_through_folders_visibility_and_path_attributes() {
        let complaints = dead(&[
            ("a/src/lib.rs", "mod one;\npub(crate) mod two;\n#[path = \"odd/name.rs\"]\nmod odd;"),
            ("a/src/one.rs", "pub mod inner;"),
            ("a/src/one/inner.rs", ""),
            ("a/src/two/mod.rs", "mod leaf;"),
            ("a/src/two/leaf.rs", ""),
            ("a/src/odd/name.rs", ""),
        ]);
        assert!(complaints.is_empty(), "{complaints:?}");
    }

    #[test]
    fn file_that_nobody_declares_is_named() {
        let complaints =
            dead(&[("a/src/lib.rs", "mod one;"), ("a/src/one.rs", ""), ("a/src/old.rs", "")]);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("a/src/old.rs"), "{complaints:?}");
    }

    #[test]
    fn declaration_in_a_comment_reaches_nothing() {
        assert_eq!(dead(&[("a/src/lib.rs", "// mod one;"), ("a/src/one.rs", "")]).len(), 1);
    }
}
