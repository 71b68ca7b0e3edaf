//! Writes the status of a custom resource.
//! Invariant: an equal status is not written again.
//! Leaves what the status says to each kind.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It cannot be put as JSON, which only a mistake in its type can cause.
    #[error("write the status as JSON")]
    Encode(#[from] serde_json::Error),
    /// The API server refused.
    #[error("write the status of {name}")]
    Patch {
        /// The object.
        name: String,
        /// Why.
        source: kube::Error,
    },
}

/// Makes `wanted` the status of `object`, whose present status is `present`. Says whether that took a write.
///
/// `manager` is the field manager, one for each call site. An object that is gone counts as written.
pub async fn write<K, S>(
    client: &Client,
    manager: &str,
    object: &K,
    present: Option<&S>,
    wanted: &S,
) -> Result<bool, StatusError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
    S: Serialize + PartialEq,
{
    if present == Some(wanted) {
        return Ok(false);
    }
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let status = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // With the uid an object that was made anew under the name refuses it.
        "metadata": { "name": name, "uid": object.uid() },
        "status": serde_json::to_value(wanted)?,
    });
    let params = PatchParams::apply(manager).force();
    match api.patch_status(&name, &params, &Patch::Apply(&status)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(true),
        Err(source) => Err(StatusError::Patch { name, source }),
    }
}
