//! Pulls over remoting: request codes 11 and 361.
//! Invariant: every answer with code 0, 19, 20 or 21 carries all four mandatory fields; a held pull is run
//! again once and then answered whatever the result.
//! Leaves reading to the services. Source: RocketMQ remoting, request codes 11, 361.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use gantry_remoting::{
    HeaderError, HeaderView, ReplyTo, RequestCode, ResponseCode,
    command::pull::{self as command, pull_flag},
    server::{Answers, Connection},
};
use gantry_store::{QueueRead, ReadError, ReadStatus};
use tokio::sync::oneshot;

use super::{Call, Refusal, Shared, call};
use crate::services::{
    behind::Onset,
    hold::{Held, Owner, TooMany, Wake},
    offsets::CommitRequest,
    pull::{Pull, PullRequest, Pulls},
};

/// Broker id of the primary: no replica serves reads, so every reader is sent there.
const PRIMARY: u64 = 0;
/// Time after which a message that the system's cache did not have is asked for again: disks that are fast bring it in
/// less, and for a slow one it is little more to wait.
const READ_AHEAD: Duration = Duration::from_millis(1);
/// Longest time that a pull is held, whatever it asks for.
const SUSPEND_MS_MAX: u64 = 600_000;

/// Fields of a pull besides what the service looks at.
struct Wishes {
    commit: Option<i64>,
    suspend_ms: Option<u64>,
}

/// Answers a pull, at once or later.
pub(super) fn pull(call: &mut Call<'_, '_>) {
    if let Err(refusal) = try_pull(call) {
        call.refuse(&refusal);
    }
}

fn try_pull(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    let (request, wishes) = decode(call.view)?;
    let services = &call.shared.services;
    let pull = services.pulls.admit(&request, call.now)?;
    if let Some(offset) = wishes.commit {
        commit(call, &request, offset);
    }
    if let Some(onset) = services.pulls.goes_on_far_behind(&pull) {
        read_cold(call, pull, onset);
        return Ok(());
    }
    let read = call.shared.with_buffer(|buffer| {
        let Some(read) = services.pulls.read_at_hand(&pull, buffer)? else { return Ok(None) };
        if !(wishes.suspend_ms.is_some() && pull.may_wait(read.status)) {
            write_answer(call.answers, call.view.reply_to(), &pull, &read, buffer);
        }
        Ok::<_, ReadError>(Some(read))
    })?;
    let Some(read) = read else {
        let onset = services.pulls.missed(&pull);
        read_cold(call, pull, onset);
        return Ok(());
    };
    match wishes.suspend_ms {
        Some(suspend_ms) if pull.may_wait(read.status) => hold(call, &pull, suspend_ms),
        _ => Ok(()),
    }
}

/// A commit that fails does not fail the pull: the client commits again soon.
fn commit(call: &Call<'_, '_>, request: &PullRequest<'_>, offset: i64) {
    let PullRequest { group, topic, queue, .. } = *request;
    let request = CommitRequest { group, topic, queue, offset };
    if let Err(error) = call.services().offsets.stage(request, call.now) {
        tracing::debug!(%error, group, topic, queue, offset, "commit on the way was refused");
    }
}

fn read_cold(call: &Call<'_, '_>, pull: Pull, onset: Onset) {
    let (shared, connection, reply) =
        (Arc::clone(call.shared), Arc::clone(call.connection), call.reply());
    let place = call.services().counters.waiting_pulls.enter(call.now.monotonic_ms);
    call.shared.runtime.spawn(async move {
        // Its turn lasts until the answer is sent: a peer that does not read gets no further ones.
        let Some(_turn) = connection.late_turn().await else { return };
        if onset == Onset::MissedOnce {
            tokio::time::sleep(READ_AHEAD).await;
            if read_and_send(&shared, &connection, reply, &pull, Pulls::read_at_hand) {
                return;
            }
        }
        let (done, answer_sent) = oneshot::channel::<()>();
        let (front, answered) = (Arc::clone(&shared), Arc::clone(&connection));
        shared.cold.of(onset).run(move || {
            drop(place);
            read_and_send(&front, &answered, reply, &pull, |pulls, pull, out| {
                pulls.read_far_behind(pull, onset, out).map(Some)
            });
            drop(done);
        });
        // Ends when the sender is dropped, by a panic as well.
        let _dropped = answer_sent.await;
    });
}

/// Holds the pull until a message arrives, its time is up or the broker stops.
fn hold(call: &mut Call<'_, '_>, pull: &Pull, suspend_ms: u64) -> Result<(), Refusal> {
    let services = &call.shared.services;
    let queue = pull.queue_key();
    let held = Held {
        owner: Owner(call.connection.id()),
        queue,
        from: pull.from(),
        filter: pull.filter.clone(),
        deadline_ms: call.now.monotonic_ms + suspend_ms.min(SUSPEND_MS_MAX),
        wake: waker(call, pull.clone()),
    };
    let id = match services.holds.park(held) {
        Ok(id) => id,
        Err(TooMany(_)) => return answer_unheld(call, pull),
    };
    services.counters.held_pulls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if services.pulls.has_news(pull)?
        && let Some(held) = services.holds.take(queue, id)
    {
        (held.wake)(Wake::Arrived);
    }
    Ok(())
}

fn waker(call: &Call<'_, '_>, pull: Pull) -> Box<dyn FnOnce(Wake) + Send> {
    let (shared, connection, reply) =
        (Arc::clone(call.shared), Arc::clone(call.connection), call.reply());
    Box::new(move |_| {
        let runtime = shared.runtime.clone();
        // On a task of its own: whoever wakes has an answer of its own to write first.
        runtime.spawn(async move {
            let Some(_turn) = connection.late_turn().await else { return };
            read_and_send(&shared, &connection, reply, &pull, |pulls, pull, out| {
                pulls.read(pull, out).map(Some)
            });
        });
    })
}

/// No more pulls can be held: "busy" makes the client pause, "nothing new" would make it ask at once.
fn answer_unheld(call: &mut Call<'_, '_>, pull: &Pull) -> Result<(), Refusal> {
    let services = &call.shared.services;
    if services.lifecycle.is_stopping() {
        let read = call.shared.with_buffer(|buffer| services.pulls.read(pull, buffer))?;
        write_answer(call.answers, call.view.reply_to(), pull, &read, &[]);
        return Ok(());
    }
    let remark = "[OVERLOAD]system busy, start flow control for a while: too many pulls are held";
    Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark))
}

/// Returns whether there is an answer: `read` may find that it would have to wait.
fn read_and_send(
    shared: &Shared,
    connection: &Connection,
    reply: ReplyTo,
    pull: &Pull,
    read: impl FnOnce(&Pulls, &Pull, &mut BytesMut) -> Result<Option<QueueRead>, ReadError>,
) -> bool {
    if connection.is_closed() {
        return true;
    }
    let mut answers = Answers::new();
    let read = shared.with_buffer(|buffer| {
        let Some(read) = read(&shared.services.pulls, pull, buffer)? else { return Ok(false) };
        write_answer(&mut answers, reply, pull, &read, buffer);
        Ok::<_, ReadError>(true)
    });
    match read {
        Ok(true) => {}
        Ok(false) => return false,
        Err(error) => call::write_refusal(&mut answers, reply, &Refusal::from(error)),
    }
    call::send(connection, answers);
    true
}

fn write_answer(
    answers: &mut Answers,
    reply: ReplyTo,
    pull: &Pull,
    read: &QueueRead,
    messages: &[u8],
) {
    let (code, remark) = outcome(read.status, pull.offset);
    let next = match read.status {
        ReadStatus::Empty => 0,
        _ => read.next.0,
    };
    let present = |flag: i32| Some(flag).filter(|flag| *flag != 0);
    let answer = command::PullAnswer {
        suggested_broker_id: PRIMARY,
        next_begin_offset: next as i64,
        min_offset: read.min.0 as i64,
        max_offset: read.max.0 as i64,
        topic_sys_flag: present(pull.topic.config.topic_sys_flag as i32),
        group_sys_flag: present(pull.group.group_sys_flag),
        offset_delta: None,
        forbidden_type: None,
    };
    let writer = answers.begin_with_remark(reply, code, remark).header(&answer);
    writer.body(if code == ResponseCode::SUCCESS { messages } else { &[] });
}

/// Code and remark of a read that began at `offset`.
fn outcome(status: ReadStatus, offset: i64) -> (ResponseCode, &'static str) {
    use ResponseCode as Code;
    match status {
        ReadStatus::Found => (Code::SUCCESS, "FOUND"),
        ReadStatus::NoMatch => (Code::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        ReadStatus::Empty if offset == 0 => (Code::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE"),
        ReadStatus::Empty => (Code::PULL_OFFSET_MOVED, "NO_MESSAGE_IN_QUEUE"),
        ReadStatus::TooSmall => (Code::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
        ReadStatus::AtEnd => (Code::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        ReadStatus::BeyondEnd => (Code::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
    }
}

fn decode<'r>(view: &'r HeaderView<'_>) -> Result<(PullRequest<'r>, Wishes), HeaderError> {
    let fields: command::PullRequest<'r> = view.fields()?;
    let flag = |bit| fields.sys_flag & bit != 0;
    let expression = (fields.subscription.unwrap_or_default(), fields.expression_type);
    let request = PullRequest {
        group: fields.consumer_group,
        topic: fields.topic,
        queue: fields.queue_id,
        offset: fields.queue_offset,
        messages_max: fields.max_messages,
        bytes_max: fields.max_bytes,
        subscription: flag(pull_flag::SUBSCRIPTION).then_some(expression),
        version: fields.sub_version,
        lite: view.request_code() == RequestCode::LITE_PULL_MESSAGE,
    };
    let wishes = Wishes {
        commit: flag(pull_flag::COMMIT_OFFSET).then_some(fields.commit_offset),
        suspend_ms: flag(pull_flag::SUSPEND).then_some(fields.suspend_timeout_ms.max(0) as u64),
    };
    Ok((request, wishes))
}
