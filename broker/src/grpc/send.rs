//! `SendMessage`: from a gRPC request to messages in the log.
//! Invariant: a request is stored as a whole or not at all; top-level status and entries always agree.
//! Leaves checks of single messages to `message` and storing to the send service.

use std::sync::Arc;

use gantry_proto::v2::{
    Code, Message, SendMessageRequest, SendMessageResponse, SendResultEntry, Status,
};
use parking_lot::Mutex;

use super::{
    caller::Caller,
    message::Checked,
    route::{not_found, topic_name},
    status::{self, Refusal},
};
use crate::services::{
    Services,
    send::{Outgoing, SendRequest},
};

/// Buffers kept for reuse; more calls at once make their own.
const BUFFERS_MAX: usize = 64;

/// Sends of all connections.
pub(super) struct SendDoor {
    services: Arc<Services>,
    buffers: Mutex<Vec<Outgoing>>,
}

/// The answer to a request that is refused as a whole.
pub(super) fn refused(request: &SendMessageRequest, refusal: Refusal) -> SendMessageResponse {
    let status = Status::from(refusal);
    let entry = SendResultEntry { status: Some(status.clone()), ..SendResultEntry::default() };
    SendMessageResponse { status: Some(status), entries: vec![entry; request.messages.len()] }
}

impl SendDoor {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self { services, buffers: Mutex::default() }
    }

    pub(super) async fn send(
        &self,
        caller: &Caller,
        request: &SendMessageRequest,
    ) -> SendMessageResponse {
        let mut outgoing = self.buffers.lock().pop().unwrap_or_default();
        let sent = self.try_send(caller, request, &mut outgoing).await;
        outgoing.clear();
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX {
            buffers.push(outgoing);
        }
        drop(buffers);
        match sent {
            Ok(entries) => SendMessageResponse { status: Some(status::ok()), entries },
            Err(refusal) => refused(request, refusal),
        }
    }

    async fn try_send(
        &self,
        caller: &Caller,
        request: &SendMessageRequest,
        outgoing: &mut Outgoing,
    ) -> Result<Vec<SendResultEntry>, Refusal> {
        let messages = check_all(request)?;
        self.stage(caller, request, &messages, outgoing)?;
        let services = &self.services;
        let ticket = services
            .sends
            .append(outgoing, services.clock.now())
            .map_err(|error| Refusal::from(&error))?;
        // The request itself is here as long as its messages are.
        let bytes = 2 * outgoing.outbox().bytes();
        let waiting = services.backlog.enter(outgoing.accepted().len(), bytes);
        services.commits.confirmed(ticket).await?;
        drop(waiting);
        services.sends.tell(outgoing);
        let placed = outgoing.accepted().iter().zip(&messages);
        Ok(placed
            .map(|(accepted, message)| {
                let offset = outgoing.outbox().placed(accepted.messages.start).queue_offset;
                SendResultEntry {
                    status: Some(status::ok()),
                    message_id: message.id().into(),
                    transaction_id: message.id().into(),
                    offset: offset.0 as i64,
                    ..SendResultEntry::default()
                }
            })
            .collect())
    }

    fn stage(
        &self,
        caller: &Caller,
        request: &SendMessageRequest,
        messages: &[Checked<'_>],
        outgoing: &mut Outgoing,
    ) -> Result<(), Refusal> {
        let resource = request.messages.first().and_then(|message| message.topic.clone());
        let name = topic_name(&resource.unwrap_or_default())?;
        let topic = self.services.topics.get(&name).ok_or_else(|| not_found(&name))?;
        let now = self.services.clock.now();
        // One queue for all of a request, as for a batch of the other protocol.
        let mut queue = None;
        for (checked, message) in messages.iter().zip(&request.messages) {
            let picked = checked.queue_in(&topic.config)?;
            let request = SendRequest {
                topic: &name,
                template: "",
                template_queues: 0,
                queue: if picked < 0 { queue.unwrap_or(-1) } else { picked },
                sys_flag: checked.sys_flag,
                born_time_ms: checked.born_time_ms,
                born_host: caller.address,
                flag: 0,
                properties: &checked.properties,
                reconsume_times: 0,
                reconsume_times_max: None,
                body: &message.body,
                is_batch: false,
            };
            self.services
                .sends
                .stage(outgoing, &request, now)
                .map_err(|error| Refusal::from(&error))?;
            queue = outgoing.accepted().last().map(|accepted| accepted.queue.0 as i32);
        }
        Ok(())
    }
}

/// Checks what needs no topic: at least one message, all of one topic, each one legal.
fn check_all(request: &SendMessageRequest) -> Result<Vec<Checked<'_>>, Refusal> {
    let no = |message: &str| Err(Refusal::new(Code::MessageCorrupted, message));
    let Some(Message { topic, .. }) = request.messages.first() else {
        return no("the request has no message");
    };
    if request.messages.iter().any(|message| message.topic != *topic) {
        return no("the messages of a request must be of one topic");
    }
    request.messages.iter().map(Checked::new).collect()
}
