//! Consumer offsets and queue bounds over remoting: request codes 14, 15, 29 to 32.
//! Invariant: a commit that expects an answer is answered when it is confirmed.
//! Leaves the rules to the services. Source: RocketMQ remoting, request codes 14, 15, 29, 30, 31, 32.

use std::sync::Arc;

use gantry_model::QueueOffset;
use gantry_remoting::{HeaderError, ResponseCode};
use gantry_store::{Boundary, ReadError};

use super::{Call, Refusal, fields::Fields};
use crate::services::{Services, offsets::CommitRequest};

/// Answers 14: where the group goes on.
pub(super) fn query(call: &mut Call<'_, '_>) {
    let position = decode_query(call).map_err(Refusal::from).and_then(|(group, topic, queue, zero)| {
        Ok(call.services().offsets.position(group, topic, queue, zero)?)
    });
    match position {
        Ok(Some(offset)) => answer_number(call, "offset", offset.0 as i64),
        Ok(None) => {
            let remark = "Not found, maybe this group consumer boot first";
            call.refuse(&Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
        }
        Err(refusal) => call.refuse(&refusal),
    }
}

fn decode_query<'v>(call: &Call<'v, '_>) -> Result<(&'v str, &'v str, i32, bool), HeaderError> {
    let fields = Fields(call.view);
    let zero = fields.optional("setZeroIfNotFound")?.unwrap_or(true);
    Ok((fields.text("consumerGroup")?, fields.text("topic")?, fields.number("queueId")?, zero))
}

/// Answers 15: a one-way commit is staged, a call is confirmed.
pub(super) fn update(call: &mut Call<'_, '_>) {
    if let Err(refusal) = try_update(call) {
        call.refuse(&refusal);
    }
}

fn try_update(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    let fields = Fields(call.view);
    let request = CommitRequest {
        group: fields.text("consumerGroup")?,
        topic: fields.text("topic")?,
        queue: fields.number("queueId")?,
        offset: fields.number("commitOffset")?,
    };
    let offsets = &call.shared.services.offsets;
    if call.view.is_one_way() {
        return Ok(offsets.stage(request, call.now)?);
    }
    let ticket = offsets.commit(request, call.now)?;
    let commits = Arc::clone(&call.shared.services.commits);
    if commits.is_confirmed(ticket) {
        call.success();
    } else {
        call.end_later(async move { Ok(commits.confirmed(ticket).await?) });
    }
    Ok(())
}

/// Answers 30: the next offset to be written.
pub(super) fn max(call: &mut Call<'_, '_>) {
    bound(call, |services, topic, queue| services.offsets.max(topic, queue));
}

/// Answers 31: the first offset still there.
pub(super) fn min(call: &mut Call<'_, '_>) {
    bound(call, |services, topic, queue| services.offsets.min(topic, queue));
}

fn bound(
    call: &mut Call<'_, '_>,
    look: impl FnOnce(&Services, &str, i32) -> Result<QueueOffset, ReadError>,
) {
    let offset = decode_queue(call)
        .map_err(Refusal::from)
        .and_then(|(topic, queue)| Ok(look(call.services(), topic, queue)?));
    match offset {
        Ok(offset) => answer_number(call, "offset", offset.0 as i64),
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Answers 32: when the first message still there was stored; -1 without one.
pub(super) fn earliest_time(call: &mut Call<'_, '_>) {
    let time = decode_queue(call)
        .map_err(Refusal::from)
        .and_then(|(topic, queue)| Ok(call.services().offsets.earliest_time(topic, queue)?));
    match time {
        Ok(time) => answer_number(call, "timestamp", time.map_or(-1, |time| time as i64)),
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Answers 29: the offset at a time.
pub(super) fn at_time(call: &mut Call<'_, '_>) {
    match try_at_time(call) {
        Ok(offset) => answer_number(call, "offset", offset.0 as i64),
        Err(refusal) => call.refuse(&refusal),
    }
}

fn try_at_time(call: &Call<'_, '_>) -> Result<QueueOffset, Refusal> {
    let (topic, queue) = decode_queue(call)?;
    let fields = Fields(call.view);
    let boundary = match fields.optional_text("boundaryType") {
        Some(text) if text.eq_ignore_ascii_case("UPPER") => Boundary::Upper,
        _ => Boundary::Lower,
    };
    let time_ms = fields.number("timestamp")?;
    Ok(call.services().offsets.at_time(topic, queue, time_ms, boundary)?)
}

fn decode_queue<'v>(call: &Call<'v, '_>) -> Result<(&'v str, i32), HeaderError> {
    let fields = Fields(call.view);
    Ok((fields.text("topic")?, fields.number("queueId")?))
}

fn answer_number(call: &mut Call<'_, '_>, field: &'static str, value: i64) {
    let reply = call.reply();
    call.answers.begin(reply, ResponseCode::SUCCESS).ext_number(field, value).finish();
}
