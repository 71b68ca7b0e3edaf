//! Key-value configuration: text by namespace and key, such as the queue lists of ordered topics.
//! Invariant: what was answered is in the file, if there is one; the file is always whole, and one process writes it.
//! Leaves the meaning of namespaces to its readers; RocketMQ's name server keeps the same `kvConfig.json`.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Name of the file in the data folder.
const FILE: &str = "kvConfig.json";
/// Name of the file that the one process locks that uses the folder.
const LOCK: &str = "LOCK";
/// Namespace that holds the queue lists of ordered topics: `broker-a:4;broker-b:4` by topic.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Keys and values of one namespace.
pub type Table = BTreeMap<String, String>;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Content {
    #[serde(rename = "configTable", default)]
    table: BTreeMap<String, Table>,
}

/// Why the configuration was not opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The file cannot be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there, but is not ours.
    #[error("{path} holds no key-value configuration")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Another process would write over what this one writes.
    #[error("the data folder {path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It would become too large.
    #[error("key-value configuration would be {bytes} bytes, the limit is {bytes_max}")]
    Full {
        /// Size with the change.
        bytes: u64,
        /// Largest size.
        bytes_max: u64,
    },
}

/// The configuration, in memory and, with a folder, in a file.
#[derive(Debug)]
pub struct KvConfig {
    content: Content,
    folder: Option<PathBuf>,
    bytes: u64,
    bytes_max: u64,
    /// Held as long as the folder is used.
    _lock: Option<File>,
}

impl KvConfig {
    /// Reads the file in `folder`, if there is one; without a folder all ends with the process.
    pub fn open(folder: Option<&Path>, bytes_max: u64) -> Result<Self, KvError> {
        let lock = folder.map(lock).transpose()?;
        let content = folder.map_or_else(|| Ok(Content::default()), read)?;
        let entries = content.table.iter().flat_map(|(namespace, table)| {
            table.iter().map(move |(key, value)| entry_bytes(namespace, key, value))
        });
        let bytes = entries.sum();
        Ok(Self { content, folder: folder.map(Path::to_owned), bytes, bytes_max, _lock: lock })
    }

    /// The value of a key.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.content.table.get(namespace)?.get(key).map(String::as_str)
    }

    /// All keys of a namespace; none when it has no key.
    pub fn namespace(&self, namespace: &str) -> Option<&Table> {
        self.content.table.get(namespace).filter(|table| !table.is_empty())
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.content.table.values().map(BTreeMap::len).sum()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets a key. On error nothing has changed.
    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        let old = self.get(namespace, key).map_or(0, |old| entry_bytes(namespace, key, old));
        let bytes = self.bytes - old + entry_bytes(namespace, key, value);
        if bytes > self.bytes_max {
            return Err(KvError::Full { bytes, bytes_max: self.bytes_max });
        }
        let before = self.swap(namespace, key, Some(value.to_owned()));
        self.persist_or_undo(namespace, key, before)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Removes a key; one that is absent is removed already. On error nothing has changed.
    pub fn delete(&mut self, namespace: &str, key: &str) -> Result<(), KvError> {
        let Some(old) = self.swap(namespace, key, None) else { return Ok(()) };
        let bytes = entry_bytes(namespace, key, &old);
        self.persist_or_undo(namespace, key, Some(old))?;
        self.bytes -= bytes;
        Ok(())
    }

    fn swap(&mut self, namespace: &str, key: &str, value: Option<String>) -> Option<String> {
        let table = self.content.table.entry(namespace.to_owned()).or_default();
        let before = match value {
            Some(value) => table.insert(key.to_owned(), value),
            None => table.remove(key),
        };
        if table.is_empty() {
            self.content.table.remove(namespace);
        }
        before
    }

    fn persist_or_undo(
        &mut self,
        namespace: &str,
        key: &str,
        before: Option<String>,
    ) -> Result<(), KvError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let written = write(folder, &self.content);
        if written.is_err() {
            self.swap(namespace, key, before);
        }
        written
    }
}

/// What an entry counts: all its text, so that the file is bounded too.
fn entry_bytes(namespace: &str, key: &str, value: &str) -> u64 {
    (namespace.len() + key.len() + value.len()) as u64
}

/// Makes the folder and takes it for this process.
fn lock(folder: &Path) -> Result<File, KvError> {
    let path = folder.join(LOCK);
    let failed = |source| KvError::Io { action: "lock", path: path.clone(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(KvError::InUse { path: folder.into() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn read(folder: &Path) -> Result<Content, KvError> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| KvError::Damaged { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Content::default()),
        Err(source) => Err(KvError::Io { action: "read", path, source }),
    }
}

/// Writes beside the file and renames: a crash leaves the old one or the new one, whole.
fn write(folder: &Path, content: &Content) -> Result<(), KvError> {
    let path = folder.join(FILE);
    let beside = folder.join(format!("{FILE}.new"));
    let written = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(folder)?.sync_all()
    };
    written().map_err(|source| KvError::Io { action: "write", path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 64;

    #[test]
    fn keys_survive_a_restart_when_there_is_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut kv = KvConfig::open(Some(&path), BYTES_MAX).unwrap();
        kv.put("N", "k", "v").unwrap();
        kv.put("N", "gone", "x").unwrap();
        kv.delete("N", "gone").unwrap();
        kv.delete("N", "never").unwrap();
        drop(kv);
        let kv = KvConfig::open(Some(&path), BYTES_MAX).unwrap();
        assert_eq!(kv.get("N", "k"), Some("v"));
        assert_eq!((kv.len(), kv.bytes), (1, 3));
        let text = fs::read_to_string(path.join(FILE)).unwrap();
        assert_eq!(text, r#"{"configTable":{"N":{"k":"v"}}}"#);
    }

    #[test]
    fn namespace_ends_with_its_last_key() {
        let mut kv = KvConfig::open(None, BYTES_MAX).unwrap();
        kv.put("N", "k", "v").unwrap();
        assert!(kv.namespace("N").is_some());
        kv.delete("N", "k").unwrap();
        assert!(kv.namespace("N").is_none() && kv.is_empty());
    }

    #[test]
    fn change_beyond_the_limit_is_refused_and_leaves_the_old_value() {
        let mut kv = KvConfig::open(None, BYTES_MAX).unwrap();
        kv.put("N", "k", "old").unwrap();
        let error = kv.put("N", "k", &"v".repeat(63)).unwrap_err();
        assert!(matches!(error, KvError::Full { bytes: 65, bytes_max: 64 }), "{error}");
        assert_eq!(kv.get("N", "k"), Some("old"));
        kv.put("N", "k", &"v".repeat(62)).unwrap();
        kv.put("N", "k", "").unwrap();
        assert_eq!(kv.bytes, 2);
    }

    #[test]
    fn folder_that_another_one_uses_is_refused_by_name_until_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut kv = KvConfig::open(Some(folder.path()), BYTES_MAX).unwrap();
        let error = KvConfig::open(Some(folder.path()), BYTES_MAX).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains(folder.path().to_str().unwrap()));
        kv.put("N", "k", "v").unwrap();
        drop(kv);
        assert_eq!(
            KvConfig::open(Some(folder.path()), BYTES_MAX).unwrap().get("N", "k"),
            Some("v")
        );
    }

    #[test]
    fn damaged_file_stops_the_start_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        let error = KvConfig::open(Some(folder.path()), BYTES_MAX).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }

    #[test]
    fn failed_write_leaves_the_old_value() {
        let folder = tempfile::tempdir().unwrap();
        let mut kv = KvConfig::open(Some(folder.path()), BYTES_MAX).unwrap();
        kv.put("N", "k", "old").unwrap();
        fs::create_dir(folder.path().join(format!("{FILE}.new"))).unwrap();
        assert!(matches!(kv.put("N", "k", "new"), Err(KvError::Io { .. })));
        assert!(kv.delete("N", "k").is_err());
        assert_eq!(kv.get("N", "k"), Some("old"));
    }
}
