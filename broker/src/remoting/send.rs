//! Sends over remoting: request codes 10, 310, 320.
//! Invariant: every answer carries a field map, which Java clients read without looking; it leaves when the
//! message is as safe as the settings promise.
//! Leaves checks and storage to the services. Source: RocketMQ remoting, request codes 10, 310, 320.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use gantry_model::{
    PhysicalOffset,
    properties::{MSG_REGION, TRACE_ON},
};
use gantry_record::OffsetMessageId;
use gantry_remoting::{
    HeaderError, HeaderView, ReplyTo, RequestCode, ResponseCode,
    command::send as command,
    server::{Answers, Connection},
};
use gantry_store::{Now, Ticket};

use super::{Call, Refusal, Shared, call::send, late::Lateness};
use crate::services::{
    commit::CommitError,
    compose::REGION,
    hold::Owner,
    send::{Accepted, Outgoing, SendRequest},
};

/// Clients from this protocol version on (3.4.9) say how often a message may be tried.
pub(super) const VERSION_WITH_ATTEMPTS: i32 = 121;

/// Bytes of most answers to a send.
const ANSWER_BYTES_USUAL: usize = 320;

/// Whether the request is a send that joins a run.
pub(super) fn is_send(code: RequestCode) -> bool {
    matches!(
        code,
        RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE | RequestCode::SEND_MESSAGE
    )
}

/// Consecutive sends of one read.
pub(super) struct SendRun<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Arc<Connection>,
    now: Now,
    outgoing: Option<Outgoing>,
    /// Most sends that it will take.
    requests_max: usize,
    replies: Vec<ReplyTo>,
    late: Lateness<'a>,
}

impl<'a> SendRun<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        connection: &'a Arc<Connection>,
        now: Now,
        late: Lateness<'a>,
        requests_max: usize,
    ) -> Self {
        let (outgoing, replies) = (None, Vec::new());
        Self { shared, connection, now, outgoing, requests_max, replies, late }
    }

    /// Encoded bytes that wait to be appended.
    pub(super) fn bytes(&self) -> usize {
        self.outgoing.as_ref().map_or(0, |outgoing| outgoing.outbox().bytes())
    }

    /// Takes one more send, or answers why not.
    pub(super) fn take(&mut self, call: &mut Call<'_, '_>) {
        if let Some(remark) = self.late.refuses() {
            self.shared.services.counters.late_sends.fetch_add(1, Ordering::Relaxed);
            let refusal = Refusal::new(ResponseCode::SYSTEM_BUSY, remark);
            return write_refusal(call.answers, call.reply(), &refusal);
        }
        let outgoing = self.outgoing.get_or_insert_with(|| {
            self.replies.reserve(self.requests_max);
            self.shared.take_outgoing()
        });
        let sends = &self.shared.services.sends;
        let staged = decode(call.view, call.body, call.connection.peer())
            .map_err(Refusal::from)
            .and_then(|request| Ok(sends.stage(outgoing, &request, self.now)?));
        match staged {
            Ok(()) => self.replies.push(call.reply()),
            Err(refusal) => write_refusal(call.answers, call.reply(), &refusal),
        }
    }

    /// Appends what was taken, and answers now or when it is confirmed.
    pub(super) fn append(&mut self, answers: &mut Answers) {
        if self.replies.is_empty() {
            return;
        }
        let Some(outgoing) = &mut self.outgoing else { return };
        let services = &self.shared.services;
        match services.sends.append(outgoing, self.now) {
            Err(error) => {
                let refusal = Refusal::from(&error);
                self.replies.drain(..).for_each(|reply| write_refusal(answers, reply, &refusal));
            }
            Ok(ticket) if services.commits.is_confirmed(ticket) => {
                self.write_answers(answers, |_| true);
                if let Some(outgoing) = &self.outgoing {
                    services.sends.tell(outgoing);
                }
                self.replies.clear();
            }
            Ok(ticket) => self.answer_later(ticket, answers),
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.clear();
        }
    }

    /// Gives the buffers back.
    pub(super) fn end(self) {
        if let Some(outgoing) = self.outgoing {
            self.shared.give_outgoing(outgoing);
        }
    }

    fn write_answers(&self, answers: &mut Answers, which: impl Fn(&Accepted) -> bool) {
        let Some(outgoing) = &self.outgoing else { return };
        let mut ids = MessageIds::new(self.shared.services.store_host.get());
        let accepted = outgoing.accepted().iter().zip(&self.replies);
        for (accepted, reply) in accepted.filter(|(accepted, _)| which(accepted)) {
            write_success(answers, *reply, outgoing, accepted, &mut ids);
        }
    }

    /// The answers are made now, while the batch is at hand, and sent by whoever confirms.
    fn answer_later(&mut self, ticket: Ticket, answers: &mut Answers) {
        self.write_answers(answers, |accepted| !accepted.waits);
        let mut late = Answers::with_capacity(self.replies.len() * ANSWER_BYTES_USUAL);
        self.write_answers(&mut late, |accepted| accepted.waits);
        let Some(outgoing) = &self.outgoing else { return };
        let waiting = outgoing.accepted().iter().zip(self.replies.drain(..));
        let replies: Vec<_> =
            waiting.filter(|(accepted, _)| accepted.waits).map(|(_, reply)| reply).collect();
        let arrivals = outgoing.outbox().arrivals();
        let first_due_ms = outgoing.outbox().first_due_ms();
        let (shared, connection) = (Arc::clone(self.shared), Arc::clone(self.connection));
        let owner = Owner(self.connection.id());
        let backlog = &self.shared.services.backlog;
        let waiting = backlog.enter(outgoing.accepted().len(), outgoing.outbox().bytes());
        self.shared.services.commits.lead_or_wait(owner, ticket, move |confirmed| {
            match confirmed {
                Ok(()) => send(&connection, late),
                Err(error) => send(&connection, failed(&replies, error)),
            }
            drop(waiting);
            shared.services.sends.tell_later(&arrivals, first_due_ms);
        });
    }
}

fn failed(replies: &[ReplyTo], error: CommitError) -> Answers {
    let refusal = Refusal::from(error);
    let mut answers = Answers::new();
    for reply in replies {
        write_refusal(&mut answers, *reply, &refusal);
    }
    answers
}

fn write_success(
    answers: &mut Answers,
    reply: ReplyTo,
    outgoing: &Outgoing,
    accepted: &Accepted,
    ids: &mut MessageIds,
) {
    if reply.one_way {
        return;
    }
    let outbox = outgoing.outbox();
    let first = outbox.placed(accepted.messages.start);
    let ids = ids.of(accepted.messages.clone().map(|index| outbox.placed(index).position));
    let answer = command::SendAnswer {
        msg_id: ids,
        queue_id: accepted.queue.0,
        queue_offset: first.queue_offset.0,
        transaction_id: Some(outgoing.unique_id(accepted)),
        region: Some(REGION),
        trace_on: Some(true),
        ..command::SendAnswer::default()
    };
    answers.begin(reply, ResponseCode::SUCCESS).header(&answer).finish();
}

/// A refusal of a send; region and trace switch are there too, as in the reference.
fn write_refusal(answers: &mut Answers, reply: ReplyTo, refusal: &Refusal) {
    let writer = answers.begin_with_remark(reply, refusal.code, &refusal.remark);
    writer.ext(MSG_REGION, REGION).ext(TRACE_ON, "true").finish();
}

/// Makes offset message ids: the part that names the broker once for many.
struct MessageIds {
    text: String,
    host_bytes: usize,
}

impl MessageIds {
    fn new(host: SocketAddr) -> Self {
        let mut text = OffsetMessageId { host, position: PhysicalOffset(0) }.to_string();
        let host_bytes = text.len() - 16;
        text.truncate(host_bytes);
        Self { text, host_bytes }
    }

    /// The ids of these messages, at least one, separated by commas.
    fn of(&mut self, positions: impl Iterator<Item = PhysicalOffset>) -> &str {
        self.text.truncate(self.host_bytes);
        for (index, position) in positions.enumerate() {
            if index > 0 {
                self.text.push(',');
                self.text.extend_from_within(..self.host_bytes);
            }
            OffsetMessageId::put_position(position, &mut self.text);
        }
        &self.text
    }
}

fn decode<'r>(
    view: &'r HeaderView<'_>,
    body: &'r [u8],
    peer: SocketAddr,
) -> Result<SendRequest<'r>, HeaderError> {
    let code = view.request_code();
    let fields = command::SendRequest::read(code, &view.ext)?;
    let attempts_max = fields.max_reconsume_times;
    Ok(SendRequest {
        topic: fields.topic,
        template: fields.default_topic,
        template_queues: fields.default_topic_queues,
        queue: fields.queue_id,
        sys_flag: fields.sys_flag,
        born_time_ms: fields.born_timestamp,
        born_host: peer,
        flag: fields.flag,
        properties: fields.properties.unwrap_or_default(),
        reconsume_times: fields.reconsume_times.unwrap_or(0),
        reconsume_times_max: attempts_max.filter(|_| view.version >= VERSION_WITH_ATTEMPTS),
        body,
        is_batch: fields.is_batch(code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_equal_those_of_the_record_library() {
        for host in ["127.0.0.1:10911", "[2001:db8::1]:10911"] {
            let host: SocketAddr = host.parse().unwrap();
            let id = |position| OffsetMessageId { host, position }.to_string();
            let (a, b) = (PhysicalOffset(1024), PhysicalOffset(u64::MAX >> 1));
            let mut ids = MessageIds::new(host);
            assert_eq!(ids.of([a, b].into_iter()), format!("{},{}", id(a), id(b)));
            assert_eq!(ids.of([b].into_iter()), id(b));
        }
    }
}
