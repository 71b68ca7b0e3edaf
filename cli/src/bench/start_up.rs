//! Scenario W15: a start of an empty server, one after a kill under load, and one that makes all views again.
//! Invariant: the killed server is compared with what it had answered before anything else is done to its data; views
//! count as caught up only by what the server says of them.
//! Leaves the load, the kill and the comparison to `recovery`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    recovery::{Found, first_send, load_and_kill},
    report::Row,
    scrape::gauge,
    server::Server,
    suite::{Owned, RECORD_BYTES, Suite},
};

/// Bytes of log that the views of a server without load lack: marks that no view holds, and what was sent just now.
const BEHIND_MAX: f64 = 64.0 * 1024.0;
/// Time after which views that do not catch up are given up.
const CATCH_UP_MAX: Duration = Duration::from_mins(10);

/// A server that was started empty, killed under load, and started again.
struct Restarted {
    empty: Row,
    killed: Row,
    found: Found,
    owned: Owned,
}

impl Suite<'_> {
    /// A row for each kind of start.
    pub(super) fn start_up(&self) -> anyhow::Result<Vec<Row>> {
        let Restarted { empty, killed, found, owned } = self.kill_and_restart()?;
        let refused = killed.failed();
        anyhow::ensure!(refused == 0, "the server refused {refused}: {:?}", killed.refusals);
        anyhow::ensure!(found.is_clean(), "the killed server did not keep its word: {found:?}");
        Ok(vec![empty, killed, self.rebuild(owned)?])
    }

    /// The rows that any server has that starts like `gantry standalone`.
    pub(super) fn start_up_compared(&self) -> anyhow::Result<Vec<Row>> {
        let Restarted { empty, killed, found, owned } = self.kill_and_restart()?;
        anyhow::ensure!(found.is_complete(), "the killed server did not keep its word: {found:?}");
        owned.server.process.stop()?;
        Ok(vec![empty, killed])
    }

    fn kill_and_restart(&self) -> anyhow::Result<Restarted> {
        let Owned { server, data } = self.own("async")?;
        let empty = first_send(&server, "empty")?;
        let mib = self.args.log_mib;
        let messages = mib * 1024 * 1024 / RECORD_BYTES;
        let promised = load_and_kill(server, &self.load(None), messages)?;
        let owned = self.start(data, "async")?;
        let what = format!("after kill -9 under W1, {mib} MiB log");
        let mut killed = first_send(&owned.server, &what)?;
        let found = promised.compare(&owned.server)?;
        killed.figures.insert("answered".into(), promised.answered() as f64);
        killed.figures.insert("read_and_equal".into(), found.read as f64);
        killed.refusals = promised.refusals;
        Ok(Restarted { empty, killed, found, owned })
    }

    /// Takes the views of a server away and starts it again.
    fn rebuild(&self, owned: Owned) -> anyhow::Result<Row> {
        let Owned { server, data } = owned;
        server.process.stop()?;
        let views = data.path().join("broker/views");
        fs::remove_dir_all(&views).with_context(|| format!("remove {}", views.display()))?;
        let Owned { server, data: _data } = self.start(data, "async")?;
        let log_mib = gauge(&server, "rocketmq_storage_size")? / 1024.0 / 1024.0;
        let what = format!("rebuild of all views, {log_mib:.0} MiB log");
        let mut row = first_send(&server, &what)?;
        let views_ms = wait_for_views(&server)?.as_secs_f64() * 1e3;
        row.figures.insert("views_caught_up_ms".into(), views_ms);
        server.process.stop()?;
        Ok(row)
    }
}

/// Waits until the views hold what the log holds, and says how long after the start of the process that was.
fn wait_for_views(server: &Server) -> anyhow::Result<Duration> {
    const LOOK: Duration = Duration::from_millis(20);
    let start = Instant::now();
    loop {
        let behind = gauge(server, "rocketmq_storage_dispatch_behind_bytes")?;
        if behind <= BEHIND_MAX {
            return Ok(server.started_at.elapsed());
        }
        let waited = start.elapsed();
        anyhow::ensure!(waited < CATCH_UP_MAX, "the views stay {behind} bytes behind the log");
        thread::sleep(LOOK);
    }
}
