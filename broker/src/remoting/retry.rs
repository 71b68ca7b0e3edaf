//! Send-back over remoting: request code 36.
//! Invariant: success is answered when the message is stored again and confirmed.
//! Leaves where the message goes to the services. Source: RocketMQ remoting, request code 36.

use std::sync::Arc;

use gantry_remoting::command::send_back::SendBack;

use super::{Call, Refusal, send::VERSION_WITH_ATTEMPTS};
use crate::services::{outbox::Outbox, retry::SendBackRequest};

/// Answers 36.
pub(super) fn send_back(call: &mut Call<'_, '_>) {
    if let Err(refusal) = try_send_back(call) {
        call.refuse(&refusal);
    }
}

fn try_send_back(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    let services = &call.shared.services;
    services.lifecycle.check_accepting()?;
    let fields: SendBack<'_> = call.view.fields()?;
    let attempts_max = fields.max_reconsume_times;
    let request = SendBackRequest {
        group: fields.group,
        position: fields.offset,
        delay_level: fields.delay_level,
        reconsume_times_max: attempts_max.filter(|_| call.view.version >= VERSION_WITH_ATTEMPTS),
    };
    let mut outbox = Outbox::default();
    match services.sends.send_back(request, &mut outbox, call.now)? {
        None => call.success(),
        Some(ticket) => {
            let services = Arc::clone(services);
            call.confirmed(ticket, move || services.sends.tell_of(&outbox));
        }
    }
    Ok(())
}
