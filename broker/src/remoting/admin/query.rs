//! Looking messages up over remoting: request codes 12 (by key or unique id) and 33 (by place).
//! Invariant: a look-up reads the disk on a thread that may wait, a few at a time.
//! Leaves what is found to the services. Source: RocketMQ remoting, request codes 12 and 33.

use std::sync::Arc;

use gantry_remoting::{
    RequestCode, ResponseCode,
    command::query::{QueryMessage, QueryMessageAnswer, ViewMessage},
    server::Answers,
};

use super::{
    super::{Call, call},
    Refusal,
};
use crate::services::{
    Services,
    query::{Found, KeyQuery},
};

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(call: &mut Call<'_, '_>) -> bool {
    let started = match call.view.request_code() {
        RequestCode::QUERY_MESSAGE => by_key(call),
        RequestCode::VIEW_MESSAGE_BY_ID => by_place(call),
        _ => return false,
    };
    if let Err(refusal) = started {
        call.refuse(&refusal);
    }
    true
}

/// Answers 12.
fn by_key(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let fields: QueryMessage<'_> = call.view.fields()?;
    let query = KeyQuery {
        topic: fields.topic.into(),
        key: fields.key.into(),
        is_unique: fields.unique_key.unwrap_or(false),
        messages_max: fields.max_messages,
        begin_ms: fields.begin_timestamp,
        end_ms: fields.end_timestamp,
    };
    let reply = call.reply();
    look(call, move |services, answers| {
        let Found { records, looked_to, newest_ms } = services.queries.by_key(&query)?;
        let header = QueryMessageAnswer {
            index_last_update_timestamp: newest_ms as i64,
            index_last_update_offset: looked_to.0 as i64,
        };
        if records.is_empty() {
            let remark = "can not find message, maybe time range not correct";
            let answer = answers.begin_with_remark(reply, ResponseCode::QUERY_NOT_FOUND, remark);
            answer.header(&header).finish();
            return Ok(());
        }
        let answer = answers.begin(reply, ResponseCode::SUCCESS).header(&header);
        answer.body_from(|out| records.iter().for_each(|record| out.extend_from_slice(record)));
        Ok(())
    });
    Ok(())
}

/// Answers 33.
fn by_place(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let ViewMessage { offset, .. } = call.view.fields()?;
    let reply = call.reply();
    look(call, move |services, answers| {
        let Some(record) = services.queries.at(offset)? else {
            let remark = format!("can not find message by the offset, {offset}");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
        };
        answers.begin(reply, ResponseCode::SUCCESS).body(&record);
        Ok(())
    });
    Ok(())
}

/// Runs a look-up on a thread of its own and sends what it wrote, or its refusal.
fn look(
    call: &Call<'_, '_>,
    work: impl FnOnce(&Services, &mut Answers) -> Result<(), Refusal> + Send + 'static,
) {
    let (shared, connection, reply) =
        (Arc::clone(call.shared), Arc::clone(call.connection), call.reply());
    let place = call.services().counters.waiting_look_ups.enter(call.now.monotonic_ms);
    call.shared.look_ups.run(move || {
        drop(place);
        if connection.is_closed() {
            return;
        }
        let mut answers = Answers::new();
        if let Err(refusal) = work(&shared.services, &mut answers) {
            call::write_refusal(&mut answers, reply, &refusal);
        }
        call::send(&connection, answers);
    });
}
