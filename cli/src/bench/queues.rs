//! Scenario W7 with queues: a message in each of very many queues, none of which has a file of its own.
//! Invariant: each queue got at least one message, before the restart and after it, by the bounds that the server gives;
//! what was only made and not used counts as nothing.
//! Leaves sending to `bench`, making topics to `topics`, and starts and stops to `suite`.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use gantry_client::Admin;

use super::{
    LoadArgs, produce,
    report::Row,
    server::Server,
    suite::{Owned, Suite, no_warm_up},
    target::{self, with_client},
    topics::create_many,
};
use crate::progress::Progress;

/// Queues of each topic: 1,000,000 queues are 1,000 topics.
const QUEUES_EACH: u32 = 1_000;
/// Bytes of a body: the queues are measured, and not the log.
const BODY_BYTES: usize = 100;
/// Requests in flight of the one sender: it alone goes through all queues in turn.
const IN_FLIGHT: u32 = 256;

impl Suite<'_> {
    /// One row: the load that uses every queue once, and what the queues cost.
    pub(super) fn used_queues(&self) -> anyhow::Result<Vec<Row>> {
        let topics = self.args.used_queues.div_ceil(QUEUES_EACH);
        let queues = u64::from(topics) * u64::from(QUEUES_EACH);
        let owned = self.own("async")?;
        let idle = owned.server.settled_memory()?;
        let pid = owned.server.process.pid();
        let load = LoadArgs {
            topics,
            queues: QUEUES_EACH,
            body_bytes: BODY_BYTES,
            connections: 1,
            in_flight: IN_FLIGHT,
            count: Some(queues),
            window: no_warm_up(),
            ..self.load(Some(pid))
        };
        let names = target::topic_names(&load.topic, topics);
        let nameserver = &owned.server.nameserver;
        with_client(nameserver, async |client| create_many(client, &names, QUEUES_EACH).await)?;
        let target = target::found_at(nameserver, names.clone(), QUEUES_EACH)?;
        let mut row = produce(&load, &target)?.row("W7", &load);
        row.what = format!("{BODY_BYTES} B into each of {queues} queues");
        check_used(&owned.server, &names).context("after the load")?;
        let each = |bytes: u64| bytes.saturating_sub(idle) as f64 / queues as f64;
        let mut figures = vec![
            ("open_files", open_files(pid)? as f64),
            ("bytes_each_after_load", each(owned.server.settled_memory()?)),
        ];
        let Owned { server, data } = self.restart(owned, "async")?;
        check_used(&server, &names).context("after the restart")?;
        figures.extend([
            ("restart_ms", server.ready_after.as_secs_f64() * 1e3),
            ("bytes_each_restarted", each(server.settled_memory()?)),
            ("open_files_restarted", open_files(server.process.pid())? as f64),
            ("files", files(&data.path())? as f64),
        ]);
        server.process.stop()?;
        row.figures.extend(figures.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(vec![row])
    }
}

/// Whether each queue of each topic has a message.
fn check_used(server: &Server, topics: &[String]) -> anyhow::Result<()> {
    let progress = Progress::of(topics.len() as u64);
    with_client(&server.nameserver, async |client| {
        let admin = Admin::new(client);
        for (number, topic) in topics.iter().enumerate() {
            let bounds = admin.topic_stats(topic).await?;
            let used = bounds.iter().filter(|bounds| bounds.max_offset > bounds.min_offset);
            let used = used.count();
            anyhow::ensure!(
                used == QUEUES_EACH as usize,
                "{used} of {QUEUES_EACH} queues of {topic} have a message"
            );
            progress.tell("looking at the queues", number as u64);
        }
        Ok(())
    })
}

/// Files and connections that a process has open.
fn open_files(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Number of files below a folder.
fn files(folder: &Path) -> io::Result<u64> {
    let mut found = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found += if entry.file_type()?.is_dir() { files(&entry.path())? } else { 1 };
    }
    Ok(found)
}
