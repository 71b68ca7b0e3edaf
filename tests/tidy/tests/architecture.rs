//! Promises of `ARCHITECTURE.md`: its crate table is the workspace, and dependencies point one way.
//! The order of layers stands here and not in the table, so that a careless edit of both cannot turn it.
//! How the table is read is in `gantry_tidy::crate_table`.

use std::collections::BTreeMap;

use gantry_tidy::{crate_table, hold, tree};

/// Layers from the ground up: a package depends only on packages of lower layers.
const LAYERS: [&[&str]; 5] = [
    &["gantry-model", "gantry-telemetry"],
    &["gantry-record", "gantry-remoting", "gantry-proto", "gantry-resources"],
    &["gantry-store", "gantry-client"],
    &["gantry-broker", "gantry-nameserver", "gantry-operator"],
    &["gantry"],
];

/// Checks of the tree, outside the product and its layers.
const OUTSIDE_THE_PRODUCT: [&str; 2] = ["gantry-e2e", "gantry-tidy"];

/// What no edit of the table may allow.
const NEVER_SEES: [(&str, &[&str]); 9] = [
    ("gantry-model", &["tokio", "bytes"]),
    ("gantry-record", &["tokio"]),
    ("gantry-remoting", &["gantry-store"]),
    ("gantry-proto", &["gantry-remoting", "gantry-store"]),
    ("gantry-resources", &["tokio", "kube-client", "gantry-store"]),
    ("gantry-store", &["tokio", "gantry-remoting", "gantry-proto"]),
    ("gantry-client", &["gantry-store"]),
    ("gantry-telemetry", &["gantry-store"]),
    ("gantry-operator", &["gantry-store"]),
];

fn rows() -> Vec<crate_table::Row> {
    let text = &tree::text_files()["ARCHITECTURE.md"];
    crate_table::parse(text).unwrap_or_else(|why| panic!("ARCHITECTURE.md: {why}"))
}

#[test]
fn crate_table_names_every_package_with_its_folder_and_dependencies_and_no_other() {
    let complaints = crate_table::check_against(&rows(), &tree::workspace());
    hold("The crate table of ARCHITECTURE.md must agree with the manifests:", &complaints);
}

#[test]
fn packages_never_reach_what_their_row_says_they_never_see() {
    let complaints = crate_table::check_never_sees(&rows(), &tree::workspace());
    hold("A crate must not reach what its row in ARCHITECTURE.md says it never sees:", &complaints);
}

#[test]
fn crate_table_keeps_the_boundaries_that_the_design_rests_on() {
    let rows: BTreeMap<_, _> = rows().into_iter().map(|row| (row.package.clone(), row)).collect();
    let missing = |(package, names): &(&str, &[&'static str])| -> Vec<String> {
        let listed = rows.get(*package).map(|row| row.never_sees.clone()).unwrap_or_default();
        let lost = names.iter().filter(|name| !listed.contains(**name));
        lost.map(|name| format!("put `{name}` back into `never sees` of `{package}`")).collect()
    };
    let complaints: Vec<_> = NEVER_SEES.iter().flat_map(missing).collect();
    hold("ARCHITECTURE.md must keep these boundaries:", &complaints);
}

#[test]
fn dependencies_point_from_higher_layers_to_lower_ones() {
    let layer_of = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let mut complaints = Vec::new();
    for row in rows() {
        if OUTSIDE_THE_PRODUCT.contains(&row.package.as_str()) {
            continue;
        }
        let Some(layer) = layer_of(&row.package) else {
            complaints.push(format!("`{}` has no layer: give it one in LAYERS", row.package));
            continue;
        };
        let upward = row.depends_on.iter().filter(|name| layer_of(name).is_none_or(|l| l >= layer));
        complaints.extend(upward.map(|name| {
            format!(
                "`{}` depends on `{name}`, which is not below it: move the shared part down",
                row.package
            )
        }));
    }
    hold("Dependencies must point down the layers:", &complaints);
}

#[test]
fn command_line_links_the_servers_for_standalone_alone() {
    let servers = ["gantry_broker", "gantry_nameserver"];
    let commands = tree::rust_files().into_iter().filter(|(path, _)| {
        path.starts_with("cli/src/") && !path.starts_with("cli/src/standalone")
    });
    let complaints: Vec<_> = commands
        .flat_map(|(path, text)| {
            let named = servers.into_iter().filter(move |server| text.contains(server));
            named
                .map(move |server| {
                    format!("{path} uses `{server}`: reach servers through `gantry_client`")
                })
                .collect::<Vec<_>>()
        })
        .collect();
    hold("Only cli/src/standalone may link a server:", &complaints);
}
