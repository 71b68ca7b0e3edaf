//! Log and views on one file system that is really full: a small one in memory, gone with the test.
//! Invariant: sends alone are refused, and go on by themselves once there is space.
//! Where nothing can be mounted the tests say so and check nothing. Leaves single files and rules to the store's tests.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command as Process,
    time::Duration,
};

use futures::future::join_all;
use gantry_remoting::{Command, RequestCode, client::Channel};
use tempfile::TempDir;

use super::{
    program::Program,
    world::{bodies, call, code, field, heartbeat, pull, request, send, until},
};

const MIB: usize = 1 << 20;
const SUCCESS: i32 = 0;
/// Answer code of a broker that takes no messages.
const NOT_AVAILABLE: i32 = 14;
/// Answer code of a broker that asks to wait.
const BUSY: i32 = 2;
/// Longest time after which sends go on when there is space.
const RESUME: Duration = Duration::from_secs(10);
const BODY_BYTES: usize = 16 * 1024;
const SENT_AT_ONCE: usize = 32;

/// A folder for a broker whose data has a file system of its own.
struct SmallDisk {
    dir: TempDir,
    data: PathBuf,
}

impl SmallDisk {
    /// Mounts it, or says why it cannot be.
    fn mount(mib: usize) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let data = dir.path().join("data");
        fs::create_dir(&data).map_err(|error| error.to_string())?;
        let size = format!("size={mib}m");
        let mut mount = Process::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&data);
        let output = mount.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Self { dir, data })
    }

    /// Mounts it; says why there is none.
    fn mounted(mib: usize) -> Option<Self> {
        Self::mount(mib)
            .inspect_err(|reason| eprintln!("not checked, no file system can be mounted: {reason}"))
            .ok()
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file of another program, of so many bytes or as many as there are.
    fn ballast(&self, name: &str, mib: usize) -> PathBuf {
        let path = self.data.join(name);
        let mut file = File::create(&path).unwrap();
        let block = vec![1; MIB / 16];
        for _ in 0..mib * 16 {
            if file.write_all(&block).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that it goes even if a failed test has files open there.
        let status = Process::new("umount").arg("-l").arg(&self.data).status();
        assert!(status.is_ok_and(|status| status.success()), "{} stays", self.data.display());
    }
}

fn keyed(number: usize, body: &str) -> Command {
    send("orders", &[("KEYS", &format!("order-{number}"))], body)
}

/// Waits until the message is taken: nobody does anything for it.
async fn take_again(channel: &Channel, message: &Command) {
    let taken = until(async || (code(channel, message.clone()).await == SUCCESS).then_some(()));
    tokio::time::timeout(RESUME, taken).await.expect("sends go on by themselves");
}

/// Sends until one is refused for want of room; returns how many messages were taken, and the refusal.
async fn fill(channel: &Channel) -> (usize, Command) {
    let body = "m".repeat(BODY_BYTES);
    let mut taken = 0;
    loop {
        let sends = (0..SENT_AT_ONCE).map(|n| call(channel, keyed(taken + n, &body)));
        let (good, bad): (Vec<_>, Vec<_>) =
            join_all(sends).await.into_iter().partition(|answer| answer.code == SUCCESS);
        taken += good.len();
        // Where the machine is busy, what waited for the broker is asked to come again.
        if let Some(refused) = bad.into_iter().find(|answer| answer.code != BUSY) {
            assert_eq!(refused.code, NOT_AVAILABLE, "{refused:?}");
            return (taken, refused);
        }
    }
}

fn of_group(group: &str) -> [(&str, &str); 3] {
    [("consumerGroup", group), ("topic", "orders"), ("queueId", "0")]
}

async fn commit(channel: &Channel, group: &str, offset: usize) {
    let commit = request(RequestCode::UPDATE_CONSUMER_OFFSET, &of_group(group));
    assert_eq!(code(channel, commit.with_ext("commitOffset", offset.to_string())).await, SUCCESS);
}

async fn committed(channel: &Channel, group: &str) -> usize {
    let query = request(RequestCode::QUERY_CONSUMER_OFFSET, &of_group(group));
    field(&call(channel, query).await, "offset").parse().unwrap()
}

async fn max_offset(channel: &Channel) -> usize {
    let query = [("topic", "orders"), ("queueId", "0")];
    let answer = call(channel, request(RequestCode::GET_MAX_OFFSET, &query)).await;
    field(&answer, "offset").parse().unwrap()
}

#[tokio::test]
async fn log_and_views_on_one_full_disk_keep_acks_and_reads_and_sends_go_on_when_there_is_space() {
    let Some(disk) = SmallDisk::mounted(192) else { return };
    let ballast = disk.ballast("ballast", 64);
    let mut program = Program::serving(disk.dir(), "");
    let channel = program.connect().await;
    call(&channel, heartbeat("c", "g", &[])).await;
    let (taken, refused) = fill(&channel).await;
    let said = refused.remark.unwrap();
    assert!(said.contains("the log is full"), "{said}");
    assert!(taken * BODY_BYTES > 48 * MIB, "{taken}");

    // Views and key index find not a byte more; what is acknowledged goes into the log's reserve.
    let rest = disk.ballast("rest", 192);
    for offset in 1..=300 {
        commit(&channel, "g", offset).await;
    }
    assert_eq!(committed(&channel, "g").await, 300);
    assert_eq!(bodies(&call(&channel, pull("g", "orders", 0, "*")).await)[0].len(), BODY_BYTES);
    let refused = call(&channel, keyed(taken, "x")).await;
    assert_eq!(refused.code, NOT_AVAILABLE);
    let said = refused.remark.unwrap();
    assert!(said.contains("the disk has no room"), "{said}");
    let (_, metrics) = Program::get(program.address("http"), "/metrics");
    let full = metrics.lines().find(|line| line.starts_with("gantry_storage_full{")).unwrap();
    assert!(full.ends_with(" 1"), "{full}");
    assert_eq!(Program::get(program.address("http"), "/readyz").0, "200");

    fs::remove_file(rest).unwrap();
    fs::remove_file(ballast).unwrap();
    take_again(&channel, &keyed(taken, "again")).await;
    commit(&channel, "g", taken).await;
    assert_eq!(max_offset(&channel).await, taken + 1);

    program.terminate();
    let (status, log) = program.ended();
    assert!(status.success(), "{log}");
    program = Program::serving(disk.dir(), "");
    let channel = program.connect().await;
    assert_eq!(max_offset(&channel).await, taken + 1);
    assert_eq!(committed(&channel, "g").await, taken);
    let last = call(&channel, pull("g", "orders", taken as i64, "*")).await;
    assert_eq!(bodies(&last), ["again"]);
}

#[tokio::test]
async fn full_disk_lets_the_oldest_go_out_of_the_reserve_where_they_may() {
    let Some(disk) = SmallDisk::mounted(192) else { return };
    let _ballast = disk.ballast("ballast", 48);
    let program = Program::serving(disk.dir(), "on_full: delete_oldest");
    let channel = program.connect().await;
    for _ in 0..2 {
        fill(&channel).await;
        take_again(&channel, &keyed(0, "x")).await;
    }
    let query = [("topic", "orders"), ("queueId", "0")];
    let min = call(&channel, request(RequestCode::GET_MIN_OFFSET, &query)).await;
    assert!(field(&min, "offset").parse::<usize>().unwrap() > 0, "{min:?}");
}
