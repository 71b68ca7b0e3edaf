//! Administration over remoting.
//! Invariant: a code that nobody serves is answered as not supported, so that its sender does not wait.
//! Leaves the work to the services, and each group of codes to its own file.

mod clients;
mod groups;
mod inspect;
mod parts;
mod progress;
mod query;
mod status;
mod topics;

use gantry_remoting::{ResponseCode, json::JsonBody};

use super::{Call, Refusal};

/// Answers a request of no other family.
pub(super) fn handle(call: &mut Call<'_, '_>) {
    let families = [
        topics::handle,
        groups::handle,
        clients::handle,
        progress::handle,
        inspect::handle,
        query::handle,
        status::handle,
    ];
    if families.iter().any(|handle| handle(call)) {
        return;
    }
    let remark = format!(" request type {} not supported", call.view.code);
    call.refuse(&Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark));
}

/// Answers with a body, or the refusal.
fn end_with<T: JsonBody>(call: &mut Call<'_, '_>, result: Result<T, Refusal>) {
    match result {
        Ok(body) => call.success_with_body(&body.to_json()),
        Err(refusal) => call.refuse(&refusal),
    }
}
