//! Queue locks over remoting: request codes 41 and 42.
//! Invariant: the answer to 41 lists those of the asked queues that the client holds, and no other.
//! Leaves the table to the services. Source: RocketMQ remoting, request codes 41, 42.

use gantry_model::{GroupName, QueueId, TopicName};
use gantry_remoting::{
    ResponseCode,
    command::lock::{LockAnswer, LockRequest},
    json::{JsonBody, MessageQueue},
};

use super::{Call, Refusal};
use crate::services::locks::NamedQueue;

/// Most queues in one request: more than a client can hold of a topic.
const QUEUES_MAX: usize = 100_000;

struct Checked {
    client_id: String,
    group: GroupName,
    queues: Vec<MessageQueue>,
    names: Vec<NamedQueue>,
}

/// Answers 41.
pub(super) fn lock(call: &mut Call<'_, '_>) {
    match decode(call) {
        Err(refusal) => call.refuse(&refusal),
        Ok(Checked { client_id, group, queues, names }) => {
            let locks = &call.services().locks;
            let held = locks.lock(&group, &client_id, &names, call.now.monotonic_ms);
            let held = queues.into_iter().zip(held).filter(|(_, held)| *held);
            let locked = held.map(|(queue, _)| queue).collect();
            call.success_with_body(&LockAnswer { locked }.to_json());
        }
    }
}

/// Answers 42.
pub(super) fn unlock(call: &mut Call<'_, '_>) {
    let result = decode(call).map(|Checked { client_id, group, names, .. }| {
        call.services().locks.unlock(&group, &client_id, &names);
    });
    call.end(result);
}

fn decode(call: &Call<'_, '_>) -> Result<Checked, Refusal> {
    let request = LockRequest::from_json(call.body)?;
    let group = GroupName::new(&request.consumer_group)
        .map_err(|error| Refusal::of(ResponseCode::INVALID_PARAMETER, &error))?;
    let queues = request.mq_set;
    if queues.len() > QUEUES_MAX {
        let remark = format!("{} queues in one request, the limit is {QUEUES_MAX}", queues.len());
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark));
    }
    let names = queues.iter().map(named).collect::<Result<_, _>>()?;
    Ok(Checked { client_id: request.client_id, group, queues, names })
}

fn named(queue: &MessageQueue) -> Result<NamedQueue, Refusal> {
    let topic = TopicName::new(&queue.topic)
        .map_err(|error| Refusal::of(ResponseCode::INVALID_PARAMETER, &error))?;
    let id = u32::try_from(queue.queue_id).map_err(|_| {
        let remark = format!("queueId {} of topic {topic} is negative", queue.queue_id);
        Refusal::new(ResponseCode::INVALID_PARAMETER, remark)
    })?;
    Ok((topic, QueueId(id)))
}
