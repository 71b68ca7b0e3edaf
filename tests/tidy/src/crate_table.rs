//! The crate table of `ARCHITECTURE.md`, and what cargo says it should hold.
//!
//! ```text
//! | crate | owns | never sees | depends on |
//! |---|---|---|---|
//! | `gantry-store`, `crates/store` | prose | sockets, `tokio` | `gantry-model`, `gantry-record` |
//! ```
//!
//! `crate` names the package and its folder. In `never sees` a name in backticks is a package that must
//! not be reached, however indirectly; other words are for the reader. `depends on` lists the workspace
//! packages among the normal dependencies, all of them, or `–` for none.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

use cargo_metadata::{DependencyKind, Metadata, PackageId};

use crate::tree;

const HEADER: [&str; 4] = ["crate", "owns", "never sees", "depends on"];

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the package.
    pub package: String,
    /// Folder of its manifest, relative to the root.
    pub folder: String,
    /// Packages it must not reach.
    pub never_sees: BTreeSet<String>,
    /// Workspace packages among its normal dependencies.
    pub depends_on: BTreeSet<String>,
}

/// Reads the first table whose header is `crate | owns | never sees | depends on`.
///
/// # Errors
/// Says which line is wrong and how it should look.
pub fn parse(markdown: &str) -> Result<Vec<Row>, String> {
    let mut lines = markdown.lines().zip(1..);
    if !lines.any(|(line, _)| cells(line) == HEADER) {
        return Err(format!("no table with the columns `{}`", HEADER.join(" | ")));
    }
    lines
        .skip(1)
        .take_while(|(line, _)| line.starts_with('|'))
        .map(|(line, number)| parse_row(line).map_err(|why| format!("line {number}: {why}")))
        .collect()
}

fn parse_row(line: &str) -> Result<Row, String> {
    let [package, _, never_sees, depends_on] = cells(line)[..] else {
        return Err(format!("expected {} cells: {line}", HEADER.len()));
    };
    let [package, folder] = &backticked(package)[..] else {
        return Err(format!("expected `package`, `folder` in the first cell: {line}"));
    };
    Ok(Row {
        package: package.clone(),
        folder: folder.clone(),
        never_sees: backticked(never_sees).into_iter().collect(),
        depends_on: backticked(depends_on).into_iter().collect(),
    })
}

/// Trimmed cells of a table line; other lines have none.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map(|inner| inner.split('|').map(str::trim).collect()).unwrap_or_default()
}

/// The names in backticks of one cell, in order.
fn backticked(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Complains where the table and the workspace differ: packages, folders, dependencies, either way.
pub fn check_against(rows: &[Row], workspace: &Metadata) -> Vec<String> {
    let listed: BTreeMap<_, _> = rows.iter().map(|row| (row.package.as_str(), row)).collect();
    let actual = actual_rows(workspace);
    let mut complaints = Vec::new();
    for row in &actual {
        match listed.get(row.package.as_str()) {
            None => complaints.push(format!("`{}` is missing: add a row for it", row.package)),
            Some(listed) => complaints.extend(compare(listed, row)),
        }
    }
    let gone = rows.iter().filter(|row| actual.iter().all(|a| a.package != row.package));
    complaints.extend(gone.map(|row| {
        format!("`{}` is listed and is no package of the workspace: remove its row", row.package)
    }));
    complaints
}

fn compare(listed: &Row, actual: &Row) -> Vec<String> {
    let package = &actual.package;
    let mut complaints = Vec::new();
    if listed.folder != actual.folder {
        complaints.push(format!(
            "`{package}` lies in `{}`, the table says `{}`",
            actual.folder, listed.folder
        ));
    }
    for extra in actual.depends_on.difference(&listed.depends_on) {
        complaints.push(format!(
            "`{package}` depends on `{extra}`, the table does not allow it: drop the dependency, or argue for it and add it to the row"
        ));
    }
    for unused in listed.depends_on.difference(&actual.depends_on) {
        complaints
            .push(format!("`{package}` no longer depends on `{unused}`: remove it from the row"));
    }
    complaints
}

/// What the table should say, as far as cargo knows it.
fn actual_rows(workspace: &Metadata) -> Vec<Row> {
    let packages = workspace.workspace_packages();
    let names: BTreeSet<_> = packages.iter().map(|package| package.name.to_string()).collect();
    let row = |package: &&cargo_metadata::Package| Row {
        package: package.name.to_string(),
        folder: tree::relative(
            package.manifest_path.parent().expect("a manifest has a folder").as_std_path(),
        ),
        never_sees: BTreeSet::new(),
        depends_on: package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
            .map(|dependency| dependency.name.clone())
            .filter(|name| names.contains(name))
            .collect(),
    };
    packages.iter().map(row).collect()
}

/// Complains about each package that a row says is never seen and that is reached all the same.
pub fn check_never_sees(rows: &[Row], workspace: &Metadata) -> Vec<String> {
    let complaint = |row: &Row, reached: &BTreeMap<String, Vec<String>>| -> Vec<String> {
        let met = row.never_sees.iter().filter_map(|name| reached.get(name));
        met.map(|chain| {
            format!(
                "`{}` must never see `{}`: cut {}",
                row.package,
                chain[chain.len() - 1],
                chain.join(" → ")
            )
        })
        .collect()
    };
    rows.iter().flat_map(|row| complaint(row, &reachable(&row.package, workspace))).collect()
}

/// Every package that `package` reaches by normal dependencies, with the chain that leads to it.
fn reachable(package: &str, workspace: &Metadata) -> BTreeMap<String, Vec<String>> {
    let resolve = workspace.resolve.as_ref().expect("metadata was read with dependencies");
    let nodes: BTreeMap<&PackageId, _> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = workspace.workspace_packages().into_iter().find(|p| p.name.as_str() == package);
    let mut chains = BTreeMap::new();
    let mut waiting: Vec<(&PackageId, Vec<String>)> =
        start.map(|package| (&package.id, vec![package.name.to_string()])).into_iter().collect();
    while let Some((id, chain)) = waiting.pop() {
        let normal = nodes[id].deps.iter().filter(|dependency| {
            dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
        });
        for dependency in normal {
            let name = workspace[&dependency.pkg].name.to_string();
            if let Entry::Vacant(unseen) = chains.entry(name) {
                let chain = [&chain[..], &[unseen.key().clone()]].concat();
                waiting.push((&dependency.pkg, chain.clone()));
                unseen.insert(chain);
            }
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Title

| crate | owns | never sees | depends on |
|---|---|---|---|
| `a`, `crates/a` | names | I/O, `tokio` | – |
| `b`, `crates/b` | more | nothing | `a`, `c` |

Text after it.
";

    fn row(package: &str, depends_on: &[&str]) -> Row {
        Row {
            package: package.to_owned(),
            folder: format!("crates/{package}"),
            never_sees: BTreeSet::new(),
            depends_on: depends_on.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn table_is_read_and_prose_in_cells_is_left_alone() {
        let rows = parse(TABLE).unwrap();
        let never_sees = BTreeSet::from(["tokio".to_owned()]);
        assert_eq!(rows, [Row { never_sees, ..row("a", &[]) }, row("b", &["a", "c"])]);
    }

    #[test]
    fn malformed_row_is_named_by_its_line() {
        let error = parse(&TABLE.replace("`b`, `crates/b`", "b")).unwrap_err();
        assert!(error.starts_with("line 6: "), "{error}");
    }

    #[test]
    fn missing_table_is_an_error() {
        assert!(parse("# Title\n").is_err());
    }

    #[test]
    fn dependency_that_differs_is_named_in_either_direction() {
        let complaints = compare(&row("a", &["listed"]), &row("a", &["actual"]));
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("`actual`") && complaints[1].contains("`listed`"));
    }
}
