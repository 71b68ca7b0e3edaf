//! Send-back over remoting: request code 36.
//! Invariant: success is answered when the message is stored again and confirmed.
//! Leaves where the message goes to the services. Source: RocketMQ remoting, request code 36.

use std::sync::Arc;

use super::{Call, Refusal, fields::Fields, send::VERSION_WITH_ATTEMPTS};
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
    let fields = Fields(call.view);
    let attempts_max = fields.optional("maxReconsumeTimes")?;
    let request = SendBackRequest {
        group: fields.text("group")?,
        position: fields.number("offset")?,
        delay_level: fields.number("delayLevel")?,
        reconsume_times_max: attempts_max.filter(|_| call.view.version >= VERSION_WITH_ATTEMPTS),
    };
    let mut outbox = Outbox::default();
    let Some(ticket) = services.sends.send_back(request, &mut outbox, call.now)? else {
        call.success();
        return Ok(());
    };
    if services.commits.is_confirmed(ticket) {
        services.sends.tell_of(&outbox);
        call.success();
        return Ok(());
    }
    let services = Arc::clone(services);
    call.end_later(async move {
        services.commits.confirmed(ticket).await?;
        services.sends.tell_of(&outbox);
        Ok(())
    });
    Ok(())
}
