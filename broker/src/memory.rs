//! How much memory the process may use, from its settings, its control groups or the machine.
//! Invariant: of several limits the least counts; one that is "no limit", or beyond the machine's memory, is none.
//! Leaves what is done with it to the settings. Works with version 1 and 2 of control groups, mounted where Linux
//! distributions and container runtimes mount them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gantry_model::settings::{BrokerSettings, Bytes, MemoryError, MemoryLimit, MemorySizes};

/// Memory of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    /// What it may use.
    pub(crate) limit: MemoryLimit,
    /// What its parts may use of that.
    pub(crate) sizes: MemorySizes,
}

impl Memory {
    /// Shares out what there is, and says so in the log.
    pub(crate) fn share_out(settings: &BrokerSettings) -> Result<Self, MemoryError> {
        let limit = limit(settings);
        let sizes = settings.memory_sizes(&limit)?;
        let parts: Vec<_> =
            sizes.parts().iter().map(|(name, bytes)| format!("{name}={bytes}")).collect();
        tracing::info!(%limit, bound = %sizes.total(), parts = parts.join(" "), "memory shared out");
        Ok(Self { limit, sizes })
    }
}

/// The limit of this process.
fn limit(settings: &BrokerSettings) -> MemoryLimit {
    settings.memory.map_or_else(|| limit_below(Path::new("/")), MemoryLimit::Setting)
}

/// The limit that the system whose files are below `root` sets.
fn limit_below(root: &Path) -> MemoryLimit {
    let machine = read(&root.join("proc/meminfo")).and_then(|text| machine_bytes(&text));
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| limit_files(root, line)).filter_map(|file| {
        let bytes = limit_bytes(&read(&file)?)?;
        machine.is_none_or(|machine| bytes < machine).then_some((bytes, file))
    });
    match (limits.min(), machine) {
        (Some((bytes, file)), _) => MemoryLimit::Container { bytes: Bytes::new(bytes), file },
        (None, Some(bytes)) => MemoryLimit::Machine(Bytes::new(bytes)),
        (None, None) => MemoryLimit::Unknown,
    }
}

/// The text of a file; what is there and cannot be read is told, for the broker then plans with what it does not have.
fn read(file: &Path) -> Option<String> {
    match fs::read_to_string(file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "a memory limit cannot be read");
            None
        }
    }
}

/// Files that may hold the limit of a group named by a line of `/proc/self/cgroup`, `number:controllers:path`, and of
/// the groups around it. In a container the path is often one of the machine, of which only the last part is mounted:
/// the root of the mount is the container's own group then.
fn limit_files(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
    else {
        return Vec::new();
    };
    let (mount, name) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let around = Path::new(path.trim_start_matches('/')).ancestors();
    around.map(|group| root.join(mount).join(group).join(name)).collect()
}

/// The number in a limit's file; `None` for "max".
fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `MemTotal` of `/proc/meminfo`.
fn machine_bytes(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       16777216 kB\nMemFree: 1 kB\n");

    /// The limit's bytes in MiB, and its file below the root.
    fn container(files: &[(&str, &str)]) -> (u64, String) {
        let root = system(files);
        match limit_below(root.path()) {
            MemoryLimit::Container { bytes, file } => {
                let file = file.strip_prefix(root.path()).unwrap();
                (bytes.get() >> 20, file.display().to_string())
            }
            other => panic!("no limit of a container: {other}"),
        }
    }

    #[test]
    fn limit_of_a_container_is_found_in_both_versions() {
        let file = "sys/fs/cgroup/memory.max";
        let own_view = [MACHINE, ("proc/self/cgroup", "0::/\n"), (file, "268435456\n")];
        assert_eq!(container(&own_view), (256, file.into()));
        // The machine's path, of which the container sees the end alone.
        let cgroup = ("proc/self/cgroup", "0::/kubepods.slice/pod1/abc\n");
        assert_eq!(container(&[MACHINE, cgroup, (file, "268435456\n")]), (256, file.into()));
        let file = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        let cgroup = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n");
        assert_eq!(container(&[MACHINE, cgroup, (file, "134217728\n")]), (128, file.into()));
    }

    #[test]
    fn least_limit_of_the_groups_around_counts() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/pods/pod1/abc\n"),
            ("sys/fs/cgroup/pods/memory.max", "8589934592\n"),
            ("sys/fs/cgroup/pods/pod1/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/pods/pod1/abc/memory.max", "max\n"),
        ];
        assert_eq!(container(&files), (1024, "sys/fs/cgroup/pods/pod1/memory.max".into()));
    }

    #[test]
    fn no_limit_and_one_beyond_the_machine_leave_the_machine() {
        let machine = MemoryLimit::Machine(Bytes::gib(16));
        let v1 = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        for (cgroup, file, text) in [
            ("0::/\n", "sys/fs/cgroup/memory.max", "max\n"),
            ("0::/\n", "sys/fs/cgroup/memory.max", "nonsense\n"),
            ("4:memory:/\n", v1, "9223372036854771712\n"),
            ("4:memory:/\n", v1, "17179869184\n"),
            ("nonsense\n", "other", ""),
        ] {
            let root = system(&[MACHINE, ("proc/self/cgroup", cgroup), (file, text)]);
            assert_eq!(limit_below(root.path()), machine, "{cgroup} {file} {text}");
        }
        assert_eq!(limit_below(system(&[]).path()), MemoryLimit::Unknown);
    }

    #[test]
    fn setting_overrides_what_the_system_says() {
        let memory = Some(Bytes::gib(3));
        let settings = BrokerSettings { memory, ..BrokerSettings::default() };
        assert_eq!(limit(&settings), MemoryLimit::Setting(Bytes::gib(3)));
    }
}
