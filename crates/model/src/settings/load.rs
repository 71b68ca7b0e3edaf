//! Puts settings together from a YAML file, the environment and arguments.
//! Invariant: each value remembers where it came from, so that an error names key, source and reason.
//! Leaves ranges to `validate` of the type that is filled.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use serde_yaml::Value;

use super::node::{Leaf, LeafValue, Node, ValueError};

/// What our variables begin with.
const ENV_PREFIX: &str = "GANTRY_";
/// Variables of our tools that are no settings.
const ENV_OF_TOOLS: [&str; 3] = ["GANTRY_CACHE", "GANTRY_CONFIG", "GANTRY_E2E"];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The settings file.
    File,
    /// The environment variable of that name.
    Env(String),
    /// The argument of that name, with its dashes.
    Argument(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("settings file"),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Argument(name) => write!(f, "argument {name}"),
        }
    }
}

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("read settings file {path}")]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no YAML.
    #[error("settings file is no YAML")]
    Yaml(#[source] serde_yaml::Error),
    /// The file is YAML, but not keys and values.
    #[error("settings file holds no keys and values")]
    NotKeys,
    /// No type names this key.
    #[error("unknown key {key} in {origin}{}", hint(nearest.as_ref()))]
    UnknownKey {
        /// The key, sections separated by dots.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// The known key that looks most like it, if one does.
        nearest: Option<String>,
    },
    /// An argument is not of the form `--key value` or `--key=value`.
    #[error("argument {argument:?}: expected {expected}")]
    Argument {
        /// The argument.
        argument: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A value is not what its key needs.
    #[error("{key} in {origin}: {reason}")]
    Value {
        /// The key, sections separated by dots.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
    /// The values together do not make the settings.
    #[error("settings: {0}")]
    Incomplete(String),
    /// The defaults could not be listed, which only a mistake in the type can cause.
    #[error("list the known keys")]
    Defaults(#[source] serde_yaml::Error),
}

fn hint(nearest: Option<&String>) -> String {
    nearest.map(|key| format!(", did you mean {key}?")).unwrap_or_default()
}

/// What a program was asked to do.
#[derive(Debug)]
pub enum Start<T> {
    /// Run with these settings.
    Run(T),
    /// Say which settings there are.
    Help,
    /// Say which version this is.
    Version,
}

/// Settings of this process: `--config FILE` (or `GANTRY_CONFIG`), its environment and arguments.
pub fn from_process<T>() -> Result<Start<T>, SettingsError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut path = std::env::var_os("GANTRY_CONFIG").filter(|path| !path.is_empty());
    let mut rest = Vec::new();
    let mut args = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => return Ok(Start::Help),
            "--version" | "-V" => return Ok(Start::Version),
            "--config" => {
                let missing =
                    || SettingsError::Argument { argument: arg.clone(), expected: "a file" };
                path = Some(args.next().ok_or_else(missing)?.into());
            }
            _ => match arg.strip_prefix("--config=") {
                Some(file) => path = Some(file.into()),
                None => rest.push(arg),
            },
        }
    }
    let text = path.map(PathBuf::from).map(read).transpose()?;
    // A variable that is not text cannot be one of ours.
    let env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    load(text.as_deref(), env, rest.into_iter()).map(Start::Run)
}

fn read(path: PathBuf) -> Result<String, SettingsError> {
    std::fs::read_to_string(&path).map_err(|source| SettingsError::Read { path, source })
}

/// Fills `T` from the text of a YAML file, then from `env`, then from `args` (without the
/// program's name); the later source wins.
///
/// `T` and its sections carry `#[serde(default, deny_unknown_fields)]`, and serialise every field:
/// the serialised default is the list of known keys. A map that is empty by default takes any key.
///
/// Of the environment, variables that begin with `GANTRY_` are read, except those that Kubernetes
/// adds for a Service named `gantry` or `gantry-…` (`…_SERVICE_HOST`, `…_SERVICE_PORT…`,
/// `…_PORT_80_TCP…`, and `…_PORT` when its value is an address such as `tcp://10.0.0.1:80`), and
/// those of our tools: `GANTRY_CACHE`, `GANTRY_CONFIG`, `GANTRY_E2E`.
pub fn load<T>(
    file: Option<&str>,
    env: impl Iterator<Item = (String, String)>,
    args: impl Iterator<Item = String>,
) -> Result<T, SettingsError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let known = serde_yaml::to_value(T::default()).map_err(SettingsError::Defaults)?;
    let mut root = Node::Section(BTreeMap::new());
    if let Some(text) = file {
        root = file_section(text, &known)?;
    }
    for (name, value) in env {
        if let Some(key) = env_key(&name, &value) {
            set(&mut root, &known, &key, Leaf::text(value, Origin::Env(name)))?;
        }
    }
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let (name, value) = argument(&known, &arg, &mut args)?;
        let key = name.trim_start_matches('-').replace('-', "_");
        set(&mut root, &known, &key, Leaf::text(value, Origin::Argument(name)))?;
    }
    T::deserialize(root).map_err(ValueError::into_settings_error)
}

/// The key that a variable sets, if it is one of ours.
fn env_key(name: &str, value: &str) -> Option<String> {
    let key = name.strip_prefix(ENV_PREFIX)?;
    if ENV_OF_TOOLS.contains(&name) || is_service_variable(name, value) {
        return None;
    }
    Some(key.to_ascii_lowercase().replace("__", "."))
}

/// Whether Kubernetes made this variable for a Service.
fn is_service_variable(name: &str, value: &str) -> bool {
    let address = || ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let numbered_port = || {
        name.split("_PORT_").skip(1).any(|rest| {
            let mut parts = rest.split('_');
            let number = parts.next().is_some_and(|part| part.parse::<u16>().is_ok());
            number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
        })
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && address())
        || numbered_port()
}

/// Name, with dashes, and value of one argument; a switch alone means `true`.
fn argument(
    known: &Value,
    arg: &str,
    rest: &mut std::iter::Peekable<impl Iterator<Item = String>>,
) -> Result<(String, String), SettingsError> {
    let refuse = |expected| SettingsError::Argument { argument: arg.to_owned(), expected };
    let Some(body) = arg.strip_prefix("--").filter(|body| !body.is_empty()) else {
        return Err(refuse("--key value or --key=value"));
    };
    if let Some((name, value)) = body.split_once('=') {
        return Ok((format!("--{name}"), value.to_owned()));
    }
    let switch = matches!(find(known, &body.replace('-', "_")), Found::Known(Value::Bool(_)));
    let value_follows = rest.peek().is_some_and(|next| !next.starts_with("--"));
    match (switch, value_follows) {
        (_, true) => Ok((arg.to_owned(), rest.next().unwrap_or_default())),
        (true, false) => Ok((arg.to_owned(), "true".to_owned())),
        (false, false) => Err(refuse("a value after it")),
    }
}

/// Where a dotted key leads among the known ones.
enum Found<'a> {
    Known(&'a Value),
    /// Within a map that takes any key.
    Free,
    Unknown,
}

fn find<'a>(known: &'a Value, key: &str) -> Found<'a> {
    let mut at = known;
    for part in key.split('.') {
        match at {
            Value::Mapping(map) if map.is_empty() => return Found::Free,
            Value::Mapping(map) => match map.get(part) {
                Some(next) => at = next,
                None => return Found::Unknown,
            },
            // An absent section: only its own type knows its keys, and checks them.
            Value::Null => return Found::Free,
            _ => return Found::Unknown,
        }
    }
    Found::Known(at)
}

fn unknown_key(known: &Value, key: &str, origin: Origin) -> SettingsError {
    SettingsError::UnknownKey { nearest: nearest(known, key), key: key.to_owned(), origin }
}

/// The known key that differs from `key` by few letters: two, or a third of them if that is more.
fn nearest(known: &Value, key: &str) -> Option<String> {
    let mut keys = Vec::new();
    collect_keys(known, "", &mut keys);
    let limit = if key.len() < 4 { 1 } else { (key.len() / 3).max(2) };
    let near = keys.into_iter().map(|candidate| (distance(&candidate, key), candidate));
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, candidate)| candidate)
}

fn collect_keys(known: &Value, prefix: &str, keys: &mut Vec<String>) {
    let Value::Mapping(map) = known else { return };
    for (key, value) in map {
        let key = format!("{prefix}{}", key.as_str().unwrap_or_default());
        collect_keys(value, &format!("{key}."), keys);
        keys.push(key);
    }
}

/// Letters to insert, remove or replace to turn one word into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Puts `leaf` where `key` says, if that is a known one.
fn set(root: &mut Node, known: &Value, key: &str, leaf: Leaf) -> Result<(), SettingsError> {
    if matches!(find(known, key), Found::Unknown) {
        return Err(unknown_key(known, key, leaf.origin));
    }
    root.place(key, leaf);
    Ok(())
}

fn file_section(text: &str, known: &Value) -> Result<Node, SettingsError> {
    let value: Value = serde_yaml::from_str(text).map_err(SettingsError::Yaml)?;
    match value {
        Value::Null => Ok(Node::Section(BTreeMap::new())),
        Value::Mapping(_) => from_yaml(value, known, known, ""),
        _ => Err(SettingsError::NotKeys),
    }
}

/// Sections become sections, so that later sources can replace single keys within.
fn from_yaml(value: Value, at: &Value, known: &Value, path: &str) -> Result<Node, SettingsError> {
    let is_section = matches!(at, Value::Mapping(map) if !map.is_empty());
    match value {
        Value::Mapping(map) if is_section => {
            let mut section = BTreeMap::new();
            for (key, value) in map {
                let Some(name) = key.as_str() else { return Err(SettingsError::NotKeys) };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                let Some(next) = at.get(name) else {
                    return Err(unknown_key(known, &path, Origin::File));
                };
                section.insert(name.to_owned(), from_yaml(value, next, known, &path)?);
            }
            Ok(Node::Section(section))
        }
        Value::Null if is_section => Ok(Node::Section(BTreeMap::new())),
        value => Ok(Node::Leaf(Leaf { value: LeafValue::Yaml(value), origin: Origin::File })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Bytes, Duration, settings};
    use serde::Deserialize;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Sync,
        Async,
    }
    impl crate::settings::Setting for Mode {}

    settings! {
        /// A section.
        struct Inner {
            /// Time.
            interval_max: Duration = Duration::from_secs(1),
            /// Size.
            size: Bytes = Bytes::mib(1),
        }
    }

    settings! {
        /// All kinds.
        struct Sample {
            /// Number.
            http_port: u16 = 1,
            /// Text.
            name: String = "x".into(),
            /// Switch.
            enabled: bool = false,
            /// List.
            brokers: Vec<String> = Vec::new(),
            /// Numbers.
            ports: Vec<u16> = Vec::new(),
            /// Optional.
            folder: Option<PathBuf> = None,
            /// Choice.
            mode: Mode = Mode::Sync,
            /// Section.
            inner: Inner = Inner::default(),
            /// Any keys.
            labels: BTreeMap<String, String> = BTreeMap::new(),
        }
    }
    impl crate::settings::Setting for BTreeMap<String, String> {}

    fn sample(file: &str, env: &[(&str, &str)], args: &[&str]) -> Result<Sample, SettingsError> {
        load(
            Some(file),
            env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())),
            args.iter().map(|arg| (*arg).to_owned()),
        )
    }

    fn refused(file: &str, env: &[(&str, &str)], args: &[&str]) -> String {
        sample(file, env, args).unwrap_err().to_string()
    }

    #[test]
    fn nothing_given_makes_the_defaults() {
        assert_eq!(sample("", &[], &[]).unwrap(), Sample::default());
        let none: Sample = load(None, std::iter::empty(), std::iter::empty()).unwrap();
        assert_eq!(none, Sample::default());
    }

    #[test]
    fn later_source_wins_key_by_key() {
        let file = "http_port: 2\nname: file\ninner: { interval_max: 2s, size: 2Mi }";
        let env = [("GANTRY_NAME", "env"), ("GANTRY_INNER__INTERVAL_MAX", "3s")];
        let got = sample(file, &env, &["--inner.interval-max=4s"]).unwrap();
        assert_eq!(got.http_port, 2);
        assert_eq!(got.name, "env");
        assert_eq!(got.inner.interval_max, Duration::from_secs(4));
        assert_eq!(got.inner.size, Bytes::mib(2));
    }

    #[test]
    fn text_takes_the_type_of_its_field() {
        let args = [
            "--http-port",
            "7",
            "--name",
            "123",
            "--enabled",
            "--brokers",
            "a, b",
            "--ports=1,2",
            "--folder",
            "/data",
            "--mode",
            "async",
            "--inner.size",
            "1Gi",
            "--labels.zone",
            "z",
        ];
        let got = sample("", &[], &args).unwrap();
        assert_eq!((got.http_port, got.name.as_str(), got.enabled), (7, "123", true));
        assert_eq!(got.brokers, ["a", "b"]);
        assert_eq!(got.ports, [1, 2]);
        assert_eq!(got.folder, Some(PathBuf::from("/data")));
        assert_eq!(got.mode, Mode::Async);
        assert_eq!(got.inner.size, Bytes::gib(1));
        assert_eq!(got.labels["zone"], "z");
        assert!(!sample("", &[], &["--enabled", "false"]).unwrap().enabled);
    }

    #[test]
    fn unknown_key_fails_by_name_and_source_with_the_nearest_known_one() {
        assert_eq!(
            refused("htp_port: 1", &[], &[]),
            "unknown key htp_port in settings file, did you mean http_port?"
        );
        assert_eq!(
            refused("inner: { sise: 1 }", &[], &[]),
            "unknown key inner.sise in settings file, did you mean inner.size?"
        );
        assert_eq!(
            refused("", &[("GANTRY_HTTPPORT", "1")], &[]),
            "unknown key httpport in environment variable GANTRY_HTTPPORT, did you mean http_port?"
        );
        assert_eq!(
            refused("", &[], &["--nmae", "1"]),
            "unknown key nmae in argument --nmae, did you mean name?"
        );
        assert_eq!(refused("", &[], &["--zzz", "1"]), "unknown key zzz in argument --zzz");
    }

    #[test]
    fn wrong_value_fails_by_key_source_and_range() {
        assert_eq!(
            refused("", &[], &["--http-port", "70000"]),
            "http_port in argument --http-port: \"70000\" is no whole number from 0 to 65535"
        );
        let error = refused("http_port: 70000", &[], &[]);
        assert!(error.starts_with("http_port in settings file: "), "{error}");
        let error = refused("", &[("GANTRY_INNER__INTERVAL_MAX", "5")], &[]);
        assert!(error.starts_with("inner.interval_max in environment variable"), "{error}");
        assert!(error.contains("72h"), "{error}");
        let error = refused("", &[], &["--mode", "fast"]);
        assert!(error.contains("fast") && error.contains("async"), "{error}");
        let error = refused("inner: 5", &[], &[]);
        assert!(error.starts_with("inner in settings file"), "{error}");
    }

    #[test]
    fn argument_without_dashes_or_value_is_refused() {
        assert!(refused("", &[], &["http_port"]).contains("--key value"));
        assert!(refused("", &[], &["--http-port"]).contains("a value after it"));
        assert!(refused("", &[], &["--http-port", "--name", "x"]).contains("a value after it"));
    }

    #[test]
    fn variables_of_kubernetes_services_and_of_tools_are_no_settings() {
        let env = [
            ("GANTRY_SERVICE_HOST", "10.0.0.1"),
            ("GANTRY_NS_SERVICE_PORT", "9876"),
            ("GANTRY_NS_SERVICE_PORT_REMOTING", "9876"),
            ("GANTRY_PORT", "tcp://10.0.0.1:9876"),
            ("GANTRY_HTTP_PORT", "tcp://10.0.0.1:8080"),
            ("GANTRY_NS_PORT_9876_TCP", "tcp://10.0.0.1:9876"),
            ("GANTRY_NS_PORT_9876_TCP_ADDR", "10.0.0.1"),
            ("GANTRY_CACHE", "/tmp"),
            ("PATH", "/bin"),
        ];
        assert_eq!(sample("", &env, &[]).unwrap(), Sample::default());
        assert_eq!(sample("", &[("GANTRY_HTTP_PORT", "5")], &[]).unwrap().http_port, 5);
    }

    #[test]
    fn file_that_is_no_yaml_or_no_keys_is_refused() {
        assert!(matches!(sample("a: [", &[], &[]), Err(SettingsError::Yaml(_))));
        assert!(matches!(sample("- a", &[], &[]), Err(SettingsError::NotKeys)));
    }
}
