//! The machine that a page is about: processor, memory, disk, load.
//! Invariant: what cannot be found is named unknown; nothing here ends a benchmark.
//! Reads `/proc` and asks the file system for its size.

use std::{fs, path::Path};

/// Load average of the last minute.
pub(crate) fn load_now() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    words.next().unwrap_or("unknown").to_owned()
}

/// Processor, cores, memory and kernel.
pub(crate) fn processor_and_memory() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let mut models = cpus.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim())
    });
    let model = models.next().unwrap_or("unknown processor");
    let cores = 1 + models.count();
    let memory = read("/proc/meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = kib.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let gib = kib.unwrap_or_default().div_ceil(1024 * 1024);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, {gib} GiB, Linux {}", kernel.trim())
}

/// File system, device and size of what `folder` is on.
pub(crate) fn disk_of(folder: &Path) -> String {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = mount_of(&mounts, &folder).unwrap_or_else(|| "unknown".into());
    let Ok(disk) = rustix::fs::statvfs(&folder) else { return mount };
    let gib = |blocks: u64| (blocks as f64 * disk.f_frsize as f64) / f64::from(1 << 30);
    format!("{mount}, {:.0} GiB, {:.0} GiB free", gib(disk.f_blocks), gib(disk.f_bavail))
}

/// The innermost mount that holds `folder`, the last one where several lie on each other.
fn mount_of(mounts: &str, folder: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(place).then(|| (place.len(), format!("{kind} on {device}")))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_is_the_innermost_mount_that_holds_the_folder() {
        let mounts =
            "overlay / overlay rw 0 0\n/dev/sdb /data xfs rw 0 0\ntmpfs /data/x tmpfs rw 0 0\n";
        let found = |folder: &str| mount_of(mounts, Path::new(folder));
        assert_eq!(found("/data/y").as_deref(), Some("xfs on /dev/sdb"));
        assert_eq!(found("/data/x/z").as_deref(), Some("tmpfs on tmpfs"));
        assert_eq!(found("/database").as_deref(), Some("overlay on overlay"));
        assert_eq!(mount_of("", Path::new("/")), None);
    }
}
