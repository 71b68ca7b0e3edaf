//! Administration over remoting.
//! Invariant: a code that nobody serves is answered as not supported, so that its sender does not wait.
//! Leaves the work to the services.

use gantry_remoting::ResponseCode;

use super::{Call, Refusal};

/// Answers a request of no other family.
pub(super) fn handle(call: &mut Call<'_, '_>) {
    let remark = format!(" request type {} not supported", call.view.code);
    call.refuse(&Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark));
}
