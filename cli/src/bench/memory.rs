//! Scenario W14: memory of an idle server, of one with many topics and connections, and of one under load.
//! Invariant: what is idle is compared with the same server just started; growth is the last third of the time against
//! the first, so that filling caches once is not growth.
//! Leaves sending to `bench`, and starts and stops to `suite`.

use std::{
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use super::{
    load, process, produce,
    report::Row,
    suite::Suite,
    target::{self, with_client},
    topics::create_many,
};

const MANY_TOPICS: u32 = 10_000;
const IDLE_CONNECTIONS: u32 = 1_000;
/// Bytes of the log under load; more than one minute writes at 70,000 messages a second.
const LOG_BYTES_MAX: &str = "4Gi";
/// Time between two samples.
const LOOK: Duration = Duration::from_millis(250);

impl Suite<'_> {
    /// Memory of a server that was just started, so that nothing counts that its past has left behind: empty, with
    /// connections, and with topics.
    pub(super) fn memory(&self) -> anyhow::Result<Vec<Row>> {
        let owned = self.own("async")?;
        let empty = owned.server.settled_memory()?;
        let owned = self.restart(owned, "async")?;
        let server = &owned.server;
        let idle = server.settled_memory()?;
        let connections: Vec<_> = (0..IDLE_CONNECTIONS)
            .map(|_| load::connect(server.remoting))
            .collect::<Result<Vec<TcpStream>, _>>()?;
        let connected = server.settled_memory()?;
        drop(connections);
        let names = target::topic_names("gantry-bench", MANY_TOPICS);
        let start = Instant::now();
        with_client(&server.nameserver, async |client| create_many(client, &names, 1).await)?;
        let created_per_s = f64::from(MANY_TOPICS) / start.elapsed().as_secs_f64();
        let created = server.settled_memory()?;
        let with_topics = self.restart(owned, "async")?.server.settled_memory()?;
        let mib = |bytes: u64| ("anonymous_mib", bytes as f64 / 1024.0 / 1024.0);
        let each = |bytes: u64, count: u32| {
            ("bytes_each", bytes.saturating_sub(idle) as f64 / f64::from(count))
        };
        let row = |what: &str, figures| Row::of_figures("W14", what.into(), figures);
        let mut rows = vec![
            Row::of_figures("W14", "idle, first start".into(), [mib(empty)]),
            Row::of_figures("W14", "idle, started again".into(), [mib(idle)]),
            row("1,000 idle connections", [mib(connected), each(connected, IDLE_CONNECTIONS)]),
            row(
                "10,000 topics of 1 queue, just created",
                [mib(created), ("created_per_s", created_per_s)],
            ),
            row(
                "10,000 topics of 1 queue, started again",
                [mib(with_topics), each(with_topics, MANY_TOPICS)],
            ),
        ];
        rows.push(self.memory_under_load()?);
        Ok(rows)
    }

    /// W1 for a while, with a log that is bounded as a disk bounds it: what memory grows by once it is warm.
    fn memory_under_load(&self) -> anyhow::Result<Row> {
        let owned = self.own_with("async", &["--retention-size", LOG_BYTES_MAX])?;
        let pid = owned.server.process.pid();
        let mut load = self.load(Some(pid));
        load.window.duration = self.args.memory_load;
        let target = target::prepare_at(&owned.server.nameserver, &load)?;
        let is_over = AtomicBool::new(false);
        let (run, samples) = thread::scope(|scope| {
            let sampling = scope.spawn(|| {
                thread::sleep(load.window.warm_up);
                let mut samples = Vec::new();
                while !is_over.load(Relaxed) {
                    samples.push(process::Sample::take(pid)?.anonymous_bytes);
                    thread::sleep(LOOK);
                }
                std::io::Result::Ok(samples)
            });
            let run = produce(&load, &target);
            is_over.store(true, Relaxed);
            let samples = sampling.join().expect("the sampler does not panic");
            anyhow::Ok((run?, samples?))
        })?;
        let mut row = run.row("W14", &load);
        row.what =
            format!("{} for {}", row.what, humantime::format_duration(self.args.memory_load));
        row.figures.extend(growth(&samples));
        owned.server.process.stop()?;
        Ok(row)
    }
}

/// The most of all samples, the middle one of the first and of the last third, and their difference, in MiB.
fn growth(samples: &[u64]) -> Vec<(String, f64)> {
    let middle = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map_or(0.0, |bytes| *bytes as f64 / 1024.0 / 1024.0)
    };
    let third = samples.len() / 3;
    let (first, last) = (middle(&samples[..third]), middle(&samples[samples.len() - third..]));
    let most = samples.iter().max().map_or(0.0, |bytes| *bytes as f64 / 1024.0 / 1024.0);
    let figure = |name: &str, value| (name.to_owned(), value);
    vec![
        figure("most_mib", most),
        figure("first_third_mib", first),
        figure("last_third_mib", last),
        figure("growth_mib", last - first),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_the_last_third_against_the_first_and_not_one_sample_against_another() {
        let mib = |value: u64| value << 20;
        let samples = [10, 90, 10, 50, 50, 50, 12, 12, 1].map(mib);
        let growth: std::collections::BTreeMap<_, _> = growth(&samples).into_iter().collect();
        assert_eq!((growth["most_mib"], growth["first_third_mib"]), (90.0, 10.0));
        assert_eq!((growth["last_third_mib"], growth["growth_mib"]), (12.0, 2.0));
    }
}
