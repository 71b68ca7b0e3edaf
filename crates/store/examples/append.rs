//! Appends 1 KiB messages in batches of 64 over 4 queues while a second thread applies the views,
//! and prints what a record costs. Run in release: `cargo run --release -p gantry-store --example append [records]`.
//! Reads clocks, which the store itself never does.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use gantry_model::{QueueId, TopicConfig, TopicName};
use gantry_record::{Draft, tag_hash};
use gantry_store::{AppendError, Batch, Index, KeySource, Now, Store, StoreOptions};

const BATCH: u64 = 64;
const BODY: [u8; 1024] = [b'x'; 1024];

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let records: u64 = std::env::args().nth(1).map_or(Ok(2_000_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let (store, _) = Store::open(StoreOptions::new(dir.path()), now())?;
    let topic = TopicName::new("bench")?;
    let (topic, _) = store.put_topic(TopicConfig::new(topic, 4), now())?;

    let done = AtomicBool::new(false);
    let (mut busy, mut appending) = (0_u64, Duration::ZERO);
    let started = Instant::now();
    let (elapsed, append_cpu, view_cpu) = std::thread::scope(|scope| {
        let views = scope.spawn(|| apply(&store, &done));
        let mut batch = Batch::new();
        let mut unique = String::new();
        for first in (0..records).step_by(BATCH as usize) {
            batch.clear();
            for number in first..first + BATCH {
                push(&mut batch, &topic, number, &mut unique)?;
            }
            let before = Instant::now();
            while let Err(error) = store.append(&mut batch, now()) {
                if !matches!(error, AppendError::Busy { .. }) {
                    return Err(error.into());
                }
                busy += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            appending += before.elapsed();
        }
        let (elapsed, append_cpu) = (started.elapsed(), thread_cpu());
        done.store(true, Ordering::Release);
        let view_cpu = views.join().map_err(|_| "the view thread panicked")??;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((elapsed, append_cpu, view_cpu))
    })?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / records as f64;
    println!("{:.0} records/s, {busy} times busy", records as f64 / elapsed.as_secs_f64());
    println!(
        "append thread {:.2} us CPU each, of it in append {:.2} us",
        each(append_cpu),
        each(appending)
    );
    println!("view thread {:.2} us CPU each", each(view_cpu));
    println!("all written and applied after {:.1} s", started.elapsed().as_secs_f64());
    store.close(now())?;
    Ok(())
}

fn push(
    batch: &mut Batch,
    topic: &std::sync::Arc<gantry_store::Topic>,
    number: u64,
    unique: &mut String,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use std::fmt::Write as _;
    unique.clear();
    write!(unique, "{number:032X}")?;
    let mut properties = Vec::with_capacity(64);
    gantry_record::properties::put(&mut properties, "UNIQ_KEY", unique)?;
    gantry_record::properties::put(&mut properties, "TAGS", "TagA")?;
    let host = SocketAddr::from(([127, 0, 0, 1], 10911));
    let draft = Draft {
        topic: "bench",
        queue: QueueId((number % 4) as u32),
        flag: 0,
        sys_flag: 0,
        born_time_ms: 0,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_offset: 0,
        body: &BODY,
        properties: &properties,
    };
    let keys = KeySource { unique: Some(unique), keys: None };
    let tag_hash = tag_hash("TagA").into();
    batch.push(topic, &draft, Index { tag_hash, keys, ..Index::default() })?;
    Ok(())
}

/// Syncs when due and applies what is there, until all is applied.
fn apply(
    store: &Store,
    done: &AtomicBool,
) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let last = done.load(Ordering::Acquire);
        if last || store.flush_due() {
            store.sync()?;
        }
        if store.apply_views(8192)? > 0 {
            continue;
        }
        if last {
            return Ok(thread_cpu());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn now() -> Now {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let wall_ms = wall.map_or(0, |wall| wall.as_millis() as u64);
    Now { wall_ms, monotonic_ms: wall_ms }
}

/// CPU time of this thread, in 10 ms steps.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // User and system time are the 14th and 15th field; the second one may have spaces, and ends with a bracket.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}
