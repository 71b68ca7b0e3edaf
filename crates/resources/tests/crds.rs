//! The definitions in `crds/`, and the chart's copies of them, are those of the types. `GANTRY_UPDATE=1` writes them.

use std::{fs, path::Path};

use gantry_resources::{definitions, to_yaml};

/// Beyond this an annotation of client-side `kubectl apply` does not fit any more.
const YAML_BYTES_MAX: usize = 100_000;

#[test]
fn files_in_crds_are_generated_from_the_types() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    // A chart can read nothing outside its own folder.
    let dirs = [root.join("crds"), root.join("charts/gantry-operator/files/crds")];
    let update = std::env::var_os("GANTRY_UPDATE").is_some();
    for definition in definitions() {
        let name = definition.metadata.name.clone().expect("a definition has a name");
        let generated = to_yaml(&definition).expect("definitions are YAML");
        for dir in &dirs {
            let path = dir.join(format!("{name}.yaml"));
            if update {
                fs::write(&path, &generated).expect("write the definition");
            }
            let written = fs::read_to_string(&path).unwrap_or_default();
            let path = path.display();
            assert!(
                written == generated,
                "{path} is not that of the types: run with GANTRY_UPDATE=1"
            );
        }
        assert!(generated.len() < YAML_BYTES_MAX, "{name} is {} bytes", generated.len());
    }
}

#[test]
fn smallest_cluster_is_a_size_and_everything_else_has_a_default() {
    let spec: gantry_resources::BrokerClusterSpec =
        serde_yaml::from_str("{storage: {size: 10Gi}}").expect("a complete spec");
    assert_eq!(spec.groups, 1);
    assert_eq!(spec.retention.time.to_string(), "72h");
    assert!(spec.auto_create.groups && !spec.auto_create.topics);
}
