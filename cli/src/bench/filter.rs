//! Scenario W11: a subscription to one tag of a hundred, over a backlog and over what is just being sent.
//! Invariant: the rate of the backlog counts every message that the server looked at; a wake-up is an answer to the
//! waiting reader, and one without a message is a wake-up in vain.
//! Leaves sending and reading to `bench`.

use super::{
    ConsumeArgs, EndToEnd, LoadArgs, end_to_end, produce,
    report::Row,
    request,
    suite::{Suite, consume_counted, no_warm_up},
    target,
};

/// Tags in turn.
const TAGS: u32 = 100;
/// The one that is read.
const TAG: u32 = 7;
/// Messages of one request while the backlog is filled.
const BATCH: u32 = 32;
/// Messages a second of the live part.
const LIVE_PER_S: f64 = 10_000.0;

impl Suite<'_> {
    pub(super) fn tag_filter(&self) -> anyhow::Result<Vec<Row>> {
        let subject = self.subject("async")?;
        let backlog = self.args.backlog;
        let load = LoadArgs { tags: TAGS, ..self.load(subject.pid) };
        let fill = LoadArgs {
            count: Some(backlog),
            batch: BATCH,
            in_flight: 4,
            window: no_warm_up(),
            ..load.clone()
        };
        let target = target::prepare_at(&subject.nameserver, &fill)?;
        produce(&fill, &target)?;
        let read = ConsumeArgs {
            topic: load.topic,
            group: "gantry-bench".into(),
            connections: 4,
            tag: request::tag(TAG),
            commit: false,
            scanned: true,
            count: Some(backlog),
            server_pid: subject.pid,
            window: no_warm_up(),
        };
        let what = format!("1 of {TAGS} tags, backlog of {backlog}");
        let scanned = Row { scenario: "W11".into(), what, ..consume_counted(&read, &target)? };
        let live = LoadArgs {
            tags: TAGS,
            rate: Some(LIVE_PER_S),
            connections: 1,
            ..self.load(subject.pid)
        };
        let target = target::prepare_at(&subject.nameserver, &live)?;
        let how = EndToEnd { tag: Some(TAG), ..EndToEnd::default() };
        let mut rows = vec![scanned];
        rows.extend(end_to_end("W11", &live, &target, &how)?);
        Ok(rows)
    }
}
