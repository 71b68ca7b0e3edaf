//! The tree: the files that a clone has, and what cargo says about the packages in it.
//! Paths are relative to the root, with `/`, and sorted, so that complaints come in a steady order.
//! Judges nothing: the checks do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

/// Folders that hold no source: results of a build, and git's own.
const FOLDERS_SKIPPED: [&str; 4] = ["target", ".git", "node_modules", "corpus"];

/// The root of the workspace.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("the package lies two folders below the root").to_path_buf()
}

/// All text files of the tree, by path. Files that are not UTF-8 are left out.
pub fn text_files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    collect(&root(), "", &mut files);
    files
}

/// The Rust files among [`text_files`].
pub fn rust_files() -> BTreeMap<String, String> {
    let mut files = text_files();
    files.retain(|path, _| is_rust(path));
    files
}

/// Whether `path` names a Rust file.
pub fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// What cargo knows of the workspace, dependencies resolved.
pub fn workspace() -> Metadata {
    metadata(&root().join("Cargo.toml"), &["--locked"])
}

/// Root files of all targets (libraries, binaries, tests, build scripts…), also of packages that
/// stand outside the workspace, such as a fuzz package.
pub fn target_roots() -> Vec<String> {
    let mut roots: Vec<String> = text_files()
        .keys()
        .filter(|path| path.ends_with("Cargo.toml"))
        .flat_map(|path| metadata(&root().join(path), &["--no-deps"]).packages)
        .flat_map(|package| package.targets)
        .map(|target| relative(target.src_path.as_std_path()))
        .collect();
    roots.sort();
    roots.dedup();
    roots
}

/// `path` as the checks name it: relative to the root.
///
/// # Panics
/// When the path lies outside the root.
pub fn relative(path: &Path) -> String {
    let relative = path.strip_prefix(root()).expect("the path lies inside the workspace");
    relative.to_str().expect("paths of the tree are UTF-8").to_owned()
}

fn metadata(manifest: &Path, options: &[&str]) -> Metadata {
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(options.iter().map(ToString::to_string).collect::<Vec<_>>())
        .exec()
        .unwrap_or_else(|error| panic!("cargo metadata for {}: {error}", manifest.display()))
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let name = entry.file_name().into_string().expect("names in the tree are UTF-8");
        let kind = entry.file_type().unwrap_or_else(|e| panic!("{name}: {e}"));
        let path = format!("{prefix}{name}");
        if kind.is_dir() && !FOLDERS_SKIPPED.contains(&name.as_str()) {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.insert(path, text);
        }
    }
}
