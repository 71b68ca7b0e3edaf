//! Consumer offsets and queue bounds over remoting: request codes 14, 15, 29 to 32.
//! Invariant: a commit that expects an answer is answered when it is confirmed.
//! Leaves the rules to the services. Source: RocketMQ remoting, request codes 14, 15, 29, 30, 31, 32.

use gantry_model::QueueOffset;
use gantry_remoting::{
    HeaderError, ResponseCode,
    command::offsets::{
        OffsetAnswer, QueryOffset, QueueBound, SearchOffset, StoreTimeAnswer, UpdateOffset,
    },
};
use gantry_store::{Boundary, ReadError};

use super::{Call, Refusal};
use crate::services::{Services, offsets::CommitRequest};

/// Answers 14: where the group goes on.
pub(super) fn query(call: &mut Call<'_, '_>) {
    match position(call) {
        Ok(Some(offset)) => answer_offset(call, offset),
        Ok(None) => {
            let remark = "Not found, maybe this group consumer boot first";
            call.refuse(&Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
        }
        Err(refusal) => call.refuse(&refusal),
    }
}

fn position(call: &Call<'_, '_>) -> Result<Option<QueueOffset>, Refusal> {
    let fields: QueryOffset<'_> = call.view.fields()?;
    let QueryOffset { consumer_group, topic, queue_id, set_zero_if_not_found } = fields;
    let zero = set_zero_if_not_found.unwrap_or(true);
    Ok(call.services().offsets.position(consumer_group, topic, queue_id, zero)?)
}

/// Answers 15: a one-way commit is staged, a call is confirmed.
pub(super) fn update(call: &mut Call<'_, '_>) {
    if let Err(refusal) = try_update(call) {
        call.refuse(&refusal);
    }
}

fn try_update(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    let fields: UpdateOffset<'_> = call.view.fields()?;
    let request = CommitRequest {
        group: fields.consumer_group,
        topic: fields.topic,
        queue: fields.queue_id,
        offset: fields.commit_offset,
    };
    let offsets = &call.shared.services.offsets;
    if call.view.is_one_way() {
        return Ok(offsets.stage(request, call.now)?);
    }
    match offsets.commit(request, call.now)? {
        Some(ticket) => call.confirmed(ticket, || ()),
        None => call.success_with_remark("Offset has been previously reset"),
    }
    Ok(())
}

/// Answers 30: the next offset to be written.
pub(super) fn max(call: &mut Call<'_, '_>) {
    let offset = bound(call, |services, topic, queue| services.offsets.max(topic, queue));
    end(call, offset);
}

/// Answers 31: the first offset still there.
pub(super) fn min(call: &mut Call<'_, '_>) {
    let offset = bound(call, |services, topic, queue| services.offsets.min(topic, queue));
    end(call, offset);
}

/// Answers 32: when the first message still there was stored; -1 without one.
pub(super) fn earliest_time(call: &mut Call<'_, '_>) {
    let time = bound(call, |services, topic, queue| services.offsets.earliest_time(topic, queue));
    match time {
        Ok(time) => {
            let answer = StoreTimeAnswer { timestamp: time.map_or(-1, |time| time as i64) };
            call.answers
                .begin(call.view.reply_to(), ResponseCode::SUCCESS)
                .header(&answer)
                .finish();
        }
        Err(refusal) => call.refuse(&refusal),
    }
}

/// Answers 29: the offset at a time.
pub(super) fn at_time(call: &mut Call<'_, '_>) {
    let offset = try_at_time(call);
    end(call, offset);
}

fn try_at_time(call: &Call<'_, '_>) -> Result<QueueOffset, Refusal> {
    let fields: SearchOffset<'_> = call.view.fields()?;
    let boundary = match fields.boundary_type {
        Some(text) if text.eq_ignore_ascii_case("UPPER") => Boundary::Upper,
        _ => Boundary::Lower,
    };
    let SearchOffset { topic, queue_id, timestamp, .. } = fields;
    Ok(call.services().offsets.at_time(topic, queue_id, timestamp, boundary)?)
}

fn bound<T>(
    call: &Call<'_, '_>,
    look: impl FnOnce(&Services, &str, i32) -> Result<T, ReadError>,
) -> Result<T, Refusal> {
    let fields: Result<QueueBound<'_>, HeaderError> = call.view.fields();
    let QueueBound { topic, queue_id, .. } = fields?;
    Ok(look(call.services(), topic, queue_id)?)
}

fn end(call: &mut Call<'_, '_>, offset: Result<QueueOffset, Refusal>) {
    match offset {
        Ok(offset) => answer_offset(call, offset),
        Err(refusal) => call.refuse(&refusal),
    }
}

fn answer_offset(call: &mut Call<'_, '_>, offset: QueueOffset) {
    let answer = OffsetAnswer { offset: offset.0 as i64 };
    call.answers.begin(call.view.reply_to(), ResponseCode::SUCCESS).header(&answer).finish();
}
