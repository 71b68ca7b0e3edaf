//! State and configuration of the broker over remoting: request codes 26 and 28, and 306, 316, 329, which ask for
//! upkeep.
//! Invariant: every figure is counted or measured; what this broker does not have is 0 or "no limit".
//! Leaves counting to the services. Source: RocketMQ remoting, request codes 26, 28, 306, 316, 329.

use std::{collections::BTreeMap, error::Error, sync::atomic::Ordering};

use gantry_model::{QueueId, settings::FlushMode};
use gantry_remoting::{
    RequestCode, ResponseCode,
    command::{
        broker::{BrokerConfigAnswer, KeyValueTable, properties_text},
        data_version::DataVersion,
    },
    json::JsonBody,
    writer::VERSION,
};
use gantry_store::{Boundary, ReadError, StoreStatus};

use super::{super::Call, Refusal, end_with};
use crate::services::{
    Services,
    figures::{Figured, Totals},
    timers::DELAY_LEVELS_MS,
    topics::SCHEDULE_TOPIC,
    waiting::Waiting,
};

/// Release of RocketMQ whose protocol version [`VERSION`] is.
const VERSION_NAME: &str = "V5_3_3";
/// Delay levels as RocketMQ's configuration writes them.
const DELAY_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";
/// Most pending timers that are counted: with more, the figure stays there.
const TIMERS_COUNTED_MAX: usize = 10_000;
/// Damaged places that the answer names, the newest first.
const DAMAGE_SHOWN_MAX: usize = 10;
/// How a line or a pool without a limit of its own is shown.
const NO_LIMIT: i32 = i32::MAX;

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    match call.view.request_code() {
        RequestCode::GET_BROKER_RUNTIME_INFO => {
            let state = state(call);
            end_with(call, state);
        }
        RequestCode::GET_BROKER_CONFIG => config(call),
        // What is too old goes every 10 s, and a queue's index goes with the messages that it points to.
        RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE
        | RequestCode::CLEAN_UNUSED_TOPIC
        | RequestCode::DELETE_EXPIRED_COMMITLOG => call.success(),
        _ => return false,
    }
    true
}

/// Answers 26.
fn config(call: &mut Call<'_, '_>) {
    let services = call.services();
    // Settings are read at start and never change.
    let began_ms = services.figures.began.wall_ms;
    let version = DataVersion { timestamp: began_ms as i64, ..DataVersion::default() };
    let version = version.to_json();
    let version = std::str::from_utf8(&version).expect("JSON is UTF-8");
    let entries = config_entries(services);
    let body = properties_text(entries.iter().map(|(key, value)| (*key, value.as_str())));
    let header = BrokerConfigAnswer { version };
    let answer = call.answers.begin(call.view.reply_to(), ResponseCode::SUCCESS);
    answer.header(&header).body(body.as_bytes());
}

/// The settings under RocketMQ's names.
fn config_entries(services: &Services) -> Vec<(&'static str, String)> {
    let settings = &services.settings;
    let host = services.store_host.get();
    let is_writable = services.lifecycle.ready().is_ok();
    let flush = match settings.flush {
        FlushMode::Sync => "SYNC_FLUSH",
        FlushMode::Async => "ASYNC_FLUSH",
    };
    vec![
        ("aclEnable", false.to_string()),
        ("authenticationEnabled", false.to_string()),
        ("authorizationEnabled", false.to_string()),
        ("autoCreateSubscriptionGroup", settings.auto_create_groups.to_string()),
        ("autoCreateTopicEnable", settings.auto_create_topics.to_string()),
        ("brokerClusterName", settings.cluster_name.clone()),
        ("brokerIP1", host.ip().to_string()),
        ("brokerId", "0".into()),
        ("brokerName", settings.broker_name.clone()),
        ("brokerPermission", if is_writable { "6" } else { "4" }.into()),
        ("brokerRole", "ASYNC_MASTER".into()),
        ("defaultTopicQueueNums", settings.auto_create_queues_max.to_string()),
        ("fileReservedTime", (settings.retention.as_std().as_secs() / 3_600).to_string()),
        ("flushDiskType", flush.into()),
        ("flushIntervalCommitLog", settings.flush_interval.as_std().as_millis().to_string()),
        ("listenPort", host.port().to_string()),
        ("litePullMessageEnable", settings.lite_pull.to_string()),
        ("mappedFileSizeCommitLog", settings.segment_size.get().to_string()),
        ("maxMessageSize", settings.body_size_max.get().to_string()),
        ("messageDelayLevel", DELAY_LEVELS.into()),
        ("namesrvAddr", settings.name_servers.join(";")),
        ("storePathRootDir", settings.data_dir.display().to_string()),
        ("timerMaxDelaySec", settings.timer_delay_max.as_std().as_secs().to_string()),
        ("traceTopicEnable", settings.trace_topic.to_string()),
    ]
}

/// Names and values of the answer to 28.
#[derive(Default)]
struct Table(BTreeMap<String, String>);

impl Table {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "most values are numbers and texts made for it"
    )]
    fn put(&mut self, key: &str, value: impl ToString) {
        self.0.insert(key.into(), value.to_string());
    }

    /// As Java writes decimals: always with a point.
    fn decimal(&mut self, key: &str, value: f64) {
        self.put(key, format!("{value:?}"));
    }

    fn rates(&mut self, key: &str, figured: &Figured, total: impl Fn(&Totals) -> u64) {
        let [short, middle, long] = figured.rates(total);
        self.put(key, format!("{short:?} {middle:?} {long:?}"));
    }

    /// What waits before one kind of work.
    fn line(&mut self, kind: &str, (waiting, head_ms): (usize, u64), capacity: i32) {
        self.put(&format!("{kind}ThreadPoolQueueSize"), waiting);
        self.put(&format!("{kind}ThreadPoolQueueCapacity"), capacity);
        self.put(&format!("{kind}ThreadPoolQueueHeadWaitTimeMills"), head_ms);
    }
}

/// Answers 28.
fn state(call: &Call<'_, '_>) -> Result<KeyValueTable, Refusal> {
    let services = call.services();
    let mut table = Table::default();
    let figured = services.figures.at(call.now);
    let store = services.store.status();
    process(&mut table, call);
    puts_and_gets(&mut table, services, &figured);
    log(&mut table, services, &store, &figured);
    lines(&mut table, call);
    let failed = |error: &dyn Error| Refusal::of(ResponseCode::SYSTEM_ERROR, error);
    disk(&mut table, services).map_err(|error| failed(&error))?;
    timers(&mut table, call, &figured)?;
    Ok(KeyValueTable { table: table.0 })
}

fn process(table: &mut Table, call: &Call<'_, '_>) {
    let services = call.services();
    let began = services.figures.began;
    table.put("bootTimestamp", began.wall_ms);
    // It takes messages as soon as it serves at all.
    table.put("startAcceptSendRequestTimeStamp", began.wall_ms);
    let elapsed_ms = call.now.monotonic_ms.saturating_sub(began.monotonic_ms);
    table.put("runtime", runtime(elapsed_ms / 1_000));
    table.put("brokerActive", services.lifecycle.ready().is_ok());
    table.put("brokerVersion", VERSION);
    table.put("brokerVersionDesc", VERSION_NAME);
}

fn runtime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let (hours, minutes, seconds) = (hours % 24, minutes % 60, seconds % 60);
    format!("[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]")
}

fn puts_and_gets(table: &mut Table, services: &Services, figured: &Figured) {
    let Services { counters, clock, .. } = services;
    let puts = &counters.puts;
    table.put("putMessageEntireTimeMax", puts.times.max_us() / 1_000);
    table.decimal("putLatency99", puts.times.percentile_us(0.99) as f64 / 1_000.0);
    table.decimal("putLatency999", puts.times.percentile_us(0.999) as f64 / 1_000.0);
    table.put("putMessageDistributeTime", puts.ranges.text());
    table.put("pageCacheLockTimeMills", puts.under_way_us(clock.monotonic_us()) / 1_000);
    table.put("getMessageEntireTimeMax", counters.read_us_max.load(Ordering::Relaxed) / 1_000);
    // Tools divide by it.
    let put = figured.now.put.max(1);
    table.put("putMessageTimesTotal", put);
    table.put("putMessageSizeTotal", figured.now.put_bytes);
    table.decimal("putMessageAverageSize", figured.now.put_bytes as f64 / put as f64);
    table.put("putMessageFailedTimes", counters.refused_sends.load(Ordering::Relaxed));
    table.rates("putTps", figured, |totals| totals.put);
    table.rates("getFoundTps", figured, |totals| totals.found);
    table.rates("getMissTps", figured, |totals| totals.missed);
    table.rates("getTotalTps", figured, |totals| totals.found + totals.missed);
    // Releases spell it in either way.
    table.rates("getTransferredTps", figured, |totals| totals.got);
    table.rates("getTransferedTps", figured, |totals| totals.got);
    let mornings = [
        ("YesterdayMorning", figured.yesterday),
        ("TodayMorning", figured.today),
        ("TodayNow", figured.now),
    ];
    for (when, totals) in mornings {
        table.put(&format!("msgPutTotal{when}"), totals.put_own);
        table.put(&format!("msgGetTotal{when}"), totals.got_own);
    }
}

fn log(table: &mut Table, services: &Services, store: &StoreStatus, figured: &Figured) {
    table.put("commitLogMinOffset", store.log_start.0);
    table.put("commitLogMaxOffset", store.written.0);
    table.put("dispatchBehindBytes", store.written.0.saturating_sub(store.applied.0));
    table.put("dispatchMaxBuffer", figured.ring_bytes_max.max(store.ring_bytes));
    table.put("remainHowManyDataToFlush", size_text(store.dirty_bytes));
    // What is written is in the file at once, and no pool of buffers stands before it.
    table.put("remainHowManyDataToCommit", size_text(0));
    table.put("remainTransientStoreBufferNumbs", NO_LIMIT);
    damage(table, store);
    let oldest_ms = services.store.oldest_time_ms();
    let oldest_ms = if oldest_ms == 0 { -1 } else { oldest_ms as i64 };
    table.put("earliestMessageTimeStamp", oldest_ms);
}

/// Not RocketMQ's: damaged places found since the start, the newest of them, and how the scrub goes.
fn damage(table: &mut Table, store: &StoreStatus) {
    table.put("damagedRecords", store.damaged_records);
    table.put("damagedFiles", store.damaged_files);
    let newest = store.damage.iter().rev().take(DAMAGE_SHOWN_MAX);
    let newest: Vec<_> = newest.map(ToString::to_string).collect();
    table.put("damageNewest", newest.join("; "));
    let scrub = &store.scrub;
    table.put("scrubRunning", scrub.is_running);
    table.put("scrubPosition", scrub.position.0);
    table.put("scrubBytes", scrub.bytes);
    table.put("scrubLastPassTimestamp", scrub.last_pass_ms);
}

/// Requests are handled as they are read; only reads of old messages and look-ups wait for a turn.
fn lines(table: &mut Table, call: &Call<'_, '_>) {
    let counters = &call.services().counters;
    let now_ms = call.now.monotonic_ms;
    let state = |waiting: &Waiting| waiting.state(now_ms);
    table.line("send", (0, 0), NO_LIMIT);
    table.line("pull", state(&counters.waiting_pulls), NO_LIMIT);
    table.line("query", state(&counters.waiting_look_ups), NO_LIMIT);
    // Those of the lite kind wait in the same line.
    table.line("litePull", (0, 0), NO_LIMIT);
    table.line("ack", (0, 0), NO_LIMIT);
    table.put("EndTransactionQueueSize", 0);
    table.put("EndTransactionThreadPoolQueueCapacity", NO_LIMIT);
}

fn disk(table: &mut Table, services: &Services) -> std::io::Result<()> {
    let path = &services.settings.data_dir;
    let disk = fs4::statvfs(path)?;
    let (total, free) = (disk.total_space(), disk.available_space());
    let used = if total == 0 { 0.0 } else { 1.0 - free as f64 / total as f64 };
    table.decimal("commitLogDiskRatio", used);
    table.decimal(&format!("commitLogDiskRatio_{}", path.display()), used);
    table.decimal("consumeQueueDiskRatio", used);
    let (total, free) = (size_text(total), size_text(free));
    table.put("commitLogDirCapacity", format!("Total : {total}, Free : {free}."));
    let status = services.store.status();
    let limit = services.settings.log_size_max;
    table.put("storeFileBytes", status.file_bytes);
    table.put("storeLimitBytes", limit.map_or_else(|| "none".into(), |it| it.get().to_string()));
    let shortage = status.shortage;
    table.put("storeShortage", shortage.map_or_else(|| "none".into(), |it| it.to_string()));
    Ok(())
}

/// Sizes as RocketMQ's tools read them: a number, a space, a unit.
fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog2() / 10;
    let value = bytes as f64 / (1_u64 << (10 * power)) as f64;
    format!("{value:.1} {}", UNITS[power as usize - 1])
}

fn timers(table: &mut Table, call: &Call<'_, '_>, figured: &Figured) -> Result<(), ReadError> {
    let services = call.services();
    let pending = services.store.due_timers(u64::MAX - 1, TIMERS_COUNTED_MAX)?;
    let next_due_ms = pending.first().map(|timer| timer.due_ms);
    let behind_ms = next_due_ms.map_or(0, |due_ms| call.now.wall_ms.saturating_sub(due_ms));
    table.put("timerReadBehind", behind_ms / 1_000);
    // A message is a timer as soon as it is in the log.
    table.put("timerOffsetBehind", 0);
    table.put("timerCongestNum", pending.len());
    let [enqueued, ..] = figured.rates(|totals| totals.parked);
    let [dequeued, ..] = figured.rates(|totals| totals.fired);
    table.decimal("timerEnqueueTps", enqueued);
    table.decimal("timerDequeueTps", dequeued);
    delay_levels(table, services, next_due_ms)
}

/// How far each level is: those of a level become due in their order, and none that is due before the next pending
/// timer is left.
fn delay_levels(
    table: &mut Table,
    services: &Services,
    next_due_ms: Option<u64>,
) -> Result<(), ReadError> {
    let Some(topic) = services.topics.get(SCHEDULE_TOPIC) else { return Ok(()) };
    for (number, delay_ms) in (0..).zip(DELAY_LEVELS_MS) {
        let queue = QueueId(number);
        let max = services.store.queue_bounds(&topic, queue)?.max;
        if max.0 == 0 {
            continue;
        }
        let delivered = match next_due_ms {
            None => max,
            Some(due_ms) => {
                let stored_ms = due_ms.saturating_sub(delay_ms);
                services.store.search_time(&topic, queue, stored_ms, Boundary::Lower)?
            }
        };
        let level = number + 1;
        table.put(&format!("scheduleMessageOffset_{level}"), format!("{delivered},{max}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_tools_read_them() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn runtime_is_written_in_days_hours_minutes_and_seconds() {
        assert_eq!(runtime(59), "[ 0 days, 0 hours, 0 minutes, 59 seconds ]");
        assert_eq!(runtime(90_061), "[ 1 days, 1 hours, 1 minutes, 1 seconds ]");
    }

    #[test]
    fn delay_levels_are_those_of_the_service() {
        let texts = DELAY_LEVELS.split(' ').map(|text| humantime::parse_duration(text).unwrap());
        let levels_ms: Vec<u64> = texts.map(|delay| delay.as_millis() as u64).collect();
        assert_eq!(levels_ms, DELAY_LEVELS_MS);
    }
}
