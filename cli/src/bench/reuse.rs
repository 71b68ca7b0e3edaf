//! W5 on segments that are written again, as in a log that has been full once, beside the first fill.
//! Invariant: the load is measured once the newest file of the log is one that had another name before.
//! Leaves sending to `bench`. Knows of the store's folder only that a log file's name is its base as digits.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;

use super::{
    LoadArgs, device, produce,
    report::Row,
    suite::{Suite, no_warm_up},
    target,
};

/// Few files, and smaller than usual: the first are written again soon, and yet less than one is begun a second.
const LIMITS: [&str; 4] = ["--segment-size", "256Mi", "--retention-size", "512Mi"];
/// Messages between two looks: a third of a file.
const FILL_MESSAGES: u64 = 64_000;
/// Longest time until a file is written again.
const FILL_TIME_MAX: Duration = Duration::from_mins(2);

impl Suite<'_> {
    pub(super) fn sync_flush(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = self.sync_flush_with(1, 1)?;
        if self.args.server_binary.is_some() {
            let (parent, core) = (self.args.data.as_deref(), self.args.server_core);
            rows.push(device::measure(parent, core, &self.args.window)?);
        }
        let mut full = self.sync_flush_with(4, 64)?;
        if self.args.server_binary.is_some() {
            let what = ", async, beside the rows above";
            let [mut fastest] = <[Row; 1]>::try_from(self.produce("W5", |_| {})?)
                .map_err(|rows| anyhow::anyhow!("one load has one row and not {}", rows.len()))?;
            fastest.what.push_str(what);
            if let Some(fastest) = fastest.rate_per_s() {
                for row in &mut full {
                    let share = row.rate_per_s().unwrap_or_default() / fastest;
                    row.figures.insert("of_async".into(), share);
                }
            }
            full.push(fastest);
        }
        rows.extend(full);
        Ok(rows)
    }

    /// The first fill, and segments that are written again where the server is our own.
    fn sync_flush_with(&self, connections: u32, in_flight: u32) -> anyhow::Result<Vec<Row>> {
        let first = {
            let subject = self.subject("sync")?;
            let load = LoadArgs { connections, in_flight, ..self.load(subject.pid) };
            measured(&subject.nameserver, &load, ", sync, first fill")?
        };
        let mut rows = vec![first];
        if self.args.server_binary.is_some() {
            rows.push(self.reused(connections, in_flight)?);
        }
        Ok(rows)
    }

    fn reused(&self, connections: u32, in_flight: u32) -> anyhow::Result<Row> {
        let owned = self.own_with("sync", &LIMITS)?;
        let pid = Some(owned.server.process.pid());
        let folder = log_folder(&owned.data.path())?;
        let fill = LoadArgs { count: Some(FILL_MESSAGES), window: no_warm_up(), ..self.load(pid) };
        let target = target::prepare_at(&owned.server.nameserver, &fill)?;
        let (start, mut files) = (Instant::now(), Files::default());
        while !files.look(&folder)? {
            let waited = start.elapsed();
            anyhow::ensure!(waited < FILL_TIME_MAX, "no file was written again in {waited:?}");
            produce(&fill, &target)?;
        }
        owned.server.settle_device()?;
        let load = LoadArgs { connections, in_flight, ..self.load(pid) };
        let row = measured(&owned.server.nameserver, &load, ", sync, reused segments")?;
        owned.server.process.stop()?;
        Ok(row)
    }
}

fn measured(nameserver: &str, load: &LoadArgs, how: &str) -> anyhow::Result<Row> {
    let target = target::prepare_at(nameserver, load)?;
    let mut row = produce(load, &target)?.row("W5", load);
    row.what.push_str(how);
    let server = row.measured.as_ref().and_then(|measured| measured.server);
    if let Some(server) = server {
        let ratio = server.device_bytes_per_message / load.frame_bytes(&target) as f64;
        row.figures.insert("device_bytes_per_byte_sent".into(), ratio);
    }
    Ok(row)
}

/// The folder below `data` in which log files are.
fn log_folder(data: &Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if base(&entry.file_name().to_string_lossy()).is_some() {
                return Ok(folder);
            }
        }
    }
    anyhow::bail!("no log file below {}", data.display())
}

/// The base that a log file's name is.
fn base(name: &str) -> Option<u64> {
    (name.len() == 20).then(|| name.parse().ok())?
}

/// What a file keeps when it is renamed: a new one may have an old inode, but not its time of birth too.
type Identity = (u64, SystemTime);

/// Files of a log.
#[derive(Debug, Default)]
struct Files {
    bases: HashMap<Identity, u64>,
    reused: HashSet<Identity>,
}

impl Files {
    /// Looks at the files; says whether the newest is one that had an older base before.
    fn look(&mut self, folder: &Path) -> anyhow::Result<bool> {
        let mut newest = None;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Some(base) = base(&entry.file_name().to_string_lossy()) else { continue };
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                found => found?,
            };
            let identity = (metadata.ino(), metadata.created()?);
            newest = newest.max(Some((base, identity)));
            if self.bases.insert(identity, base).is_some_and(|before| before != base) {
                self.reused.insert(identity);
            }
        }
        Ok(newest.is_some_and(|(_, identity)| self.reused.contains(&identity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_counts_as_reused_when_its_newest_file_had_another_name_before() {
        let folder = tempfile::tempdir().unwrap();
        let name = |base: u64| folder.path().join(format!("{base:020}"));
        let mut files = Files::default();
        for base in [0, 64, 128] {
            fs::write(name(base), b"x").unwrap();
            assert!(!files.look(folder.path()).unwrap(), "{base} is new");
        }
        fs::rename(name(0), folder.path().join("free-00000000000000000000")).unwrap();
        assert!(!files.look(folder.path()).unwrap(), "a free file is not the log's");
        fs::rename(folder.path().join("free-00000000000000000000"), name(192)).unwrap();
        assert!(files.look(folder.path()).unwrap());
        fs::write(name(256), b"x").unwrap();
        assert!(!files.look(folder.path()).unwrap(), "the newest is new again");
        assert_eq!(log_folder(folder.path()).unwrap(), folder.path());
    }
}
