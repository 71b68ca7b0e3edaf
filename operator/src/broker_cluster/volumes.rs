//! Growth of volumes in place.
//! Invariant: a volume is asked to grow once for each size; a refusal is remembered until the size changes, so that a
//! class that does not allow it causes one request and not one each pass. No volume shrinks.
//! Leaves the growing itself to the storage class.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;

use super::observe::Claim;
use crate::{Context, quantity};

/// Field manager of the growth.
const MANAGER: &str = "gantry-operator/volumes";

/// What volume claims refused, by uid: the size and the reason.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<String, (String, String)>>);

/// Makes the claims of a cluster ask for `size`. Gives the claims that cannot, with the reason.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn grow(
    ctx: &Context,
    refusals: &Refusals,
    namespace: &str,
    claims: &[Claim],
    size: &str,
) -> Result<Vec<String>, kube::Error> {
    let mut refused = Vec::new();
    for claim in smaller(claims, size) {
        let known = refusals.0.lock().get(&claim.uid).cloned();
        let reason = match known {
            Some((refused_size, reason)) if refused_size == size => Some(reason),
            _ => ask(ctx, namespace, claim, size).await?,
        };
        if let Some(reason) = reason {
            refusals.0.lock().insert(claim.uid.clone(), (size.to_owned(), reason.clone()));
            refused.push(format!("{} stays at {}: {reason}", claim.name, claim.request.0));
        }
    }
    Ok(refused)
}

/// Claims that ask for less than `size`.
fn smaller<'a>(claims: &'a [Claim], size: &str) -> impl Iterator<Item = &'a Claim> {
    let wanted = quantity::thousandths(size);
    claims.iter().filter(move |claim| {
        let present = quantity::thousandths(&claim.request.0);
        present.zip(wanted).is_some_and(|(present, wanted)| present < wanted)
    })
}

/// The reason of a refusal, if it is one.
async fn ask(
    ctx: &Context,
    namespace: &str,
    claim: &Claim,
    size: &str,
) -> Result<Option<String>, kube::Error> {
    let patch = json!({
        "metadata": { "uid": claim.uid },
        "spec": { "resources": { "requests": { "storage": size } } },
    });
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let api = ctx.api::<PersistentVolumeClaim>(namespace);
    match api.patch(&claim.name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => {
            tracing::info!(claim = %claim.name, size, "asked for a larger volume");
            Ok(None)
        }
        Err(kube::Error::Api(refusal)) if matches!(refusal.code, 403 | 422) => {
            Ok(Some(refusal.message.clone()))
        }
        // The claim is gone or was made anew: the next pass sees which.
        Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    #[test]
    fn only_smaller_volumes_are_asked_to_grow() {
        let claim = |name: &str, request: &str| Claim {
            name: name.into(),
            uid: name.into(),
            request: Quantity(request.into()),
        };
        let claims =
            [claim("a", "10Gi"), claim("b", "10240Mi"), claim("c", "20Gi"), claim("d", "9Gi")];
        let names = |size| smaller(&claims, size).map(|c| c.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names("10Gi"), ["d"]);
        assert_eq!(names("11Gi"), ["a", "b", "d"]);
        assert!(names("not a size").is_empty());
    }
}
