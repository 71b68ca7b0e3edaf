//! The pages in `config/reference/` are those of the settings' types. `GANTRY_UPDATE=1` writes them.
//! Invariant: a page reads back as the defaults. Leaves ranges to `validate` of each type.

use std::{fs, path::Path};

use gantry_model::settings::{BrokerSettings, NameServerSettings, Setting, reference};
use serde::{Serialize, de::DeserializeOwned};

/// What a page says before its keys.
const HEADER: &str = "\
# Every setting of SERVER with its default, generated from its types: see CONTRIBUTING.md.
# A file for --config holds the keys that differ; each is also an argument (--register-interval 10s) and an
# environment variable (GANTRY_REGISTER_INTERVAL=10s). An unknown key ends the start, by name.

";

fn page<T: Setting + Serialize + Default>(server: &str) -> String {
    let keys = reference::<T>().expect("settings are YAML");
    format!("{}{keys}", HEADER.replace("SERVER", server))
}

fn check(file: &str, page: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/reference");
    let path = folder.join(file);
    if std::env::var_os("GANTRY_UPDATE").is_some() {
        fs::create_dir_all(&folder).expect("make the folder");
        fs::write(&path, page).expect("write the page");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let is_same = written == page;
    assert!(is_same, "{} is not that of the types: run with GANTRY_UPDATE=1", path.display());
}

fn read_back<T: DeserializeOwned>(page: &str) -> T {
    serde_yaml::from_str(page).expect("a page is a file of settings")
}

#[test]
fn page_of_the_broker_is_generated_and_reads_back_as_the_defaults() {
    let page = page::<BrokerSettings>("gantry-broker");
    check("broker.yaml", &page);
    assert_eq!(read_back::<BrokerSettings>(&page), BrokerSettings::default());
}

#[test]
fn page_of_the_name_server_is_generated_and_reads_back_as_the_defaults() {
    let page = page::<NameServerSettings>("gantry-nameserver");
    check("nameserver.yaml", &page);
    assert_eq!(read_back::<NameServerSettings>(&page), NameServerSettings::default());
}
