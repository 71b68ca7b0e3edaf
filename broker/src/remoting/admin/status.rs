//! Administration: status.
//! Invariant: answers no code that it does not know.
//! Leaves the work to the services.

use super::super::Call;

/// Answers a request of this group; `false`: the code is none of them.
pub(super) fn handle(_call: &mut Call<'_, '_>) -> bool {
    false
}
