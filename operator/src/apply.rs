//! Server-side apply of one rendered object, if it differs from what is there.
//! Invariant: an object that the owner's uid does not own is never changed; an object that already is as rendered, in
//! the fields that are rendered, takes no write.
//! Leaves rendering to the kinds.

use std::collections::HashMap;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use crate::{
    cache::{Cache, Kind},
    difference,
};

/// Annotation with a hash of the rendered object: tells a field that is rendered no more from one of somebody else.
pub const RENDERED: &str = "gantry.dev/rendered";

/// Why an object was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An object of that name belongs to somebody else.
    #[error("{kind} {name} belongs to {owner}")]
    Taken {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Whose it is.
        owner: String,
    },
    /// The object cannot be put as JSON, which only a mistake in its type can cause.
    #[error("write {name} as JSON")]
    Encode {
        /// Its name.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The API server refused or did not answer.
    #[error("{operation} {kind} {name}")]
    Api {
        /// What was to be done.
        operation: &'static str,
        /// Kind of the object.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Nothing: the object is as rendered.
    Unchanged,
    /// The object is new.
    Created,
    /// The object was changed.
    Changed,
}

/// Applies objects, and remembers what the caches have not heard of yet.
pub struct Applier {
    client: Client,
    /// Resource version of the last apply, by kind, namespace and name, until the cache has it.
    ahead: Mutex<HashMap<(String, String, String), u64>>,
}

impl Applier {
    /// Applies through `client`.
    pub fn new(client: Client) -> Self {
        Self { client, ahead: Mutex::default() }
    }

    /// Makes `rendered`, which carries its owner's reference, so. `manager` is the field manager, one for each call
    /// site.
    pub async fn apply<K>(
        &self,
        manager: &str,
        rendered: &K,
        cache: &Cache<K>,
    ) -> Result<Applied, ApplyError>
    where
        K: Kind + Resource<Scope = NamespaceResourceScope> + Serialize,
    {
        let kind = K::kind(&()).into_owned();
        let (name, namespace) = (rendered.name_any(), rendered.namespace().unwrap_or_default());
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let failed = |operation| {
            let (kind, name) = (kind.clone(), name.clone());
            move |source| ApplyError::Api { operation, kind, name, source: Box::new(source) }
        };
        let wanted =
            sealed(rendered).map_err(|source| ApplyError::Encode { name: name.clone(), source })?;
        let key = (kind.clone(), namespace, name.clone());
        let present = match self.seen(&key, cache) {
            Some(seen) => Some(K::clone(&seen)),
            // Not seen, or older than what was applied: the cache knows only objects with the operator's label.
            None => api.get_opt(&name).await.map_err(failed("read"))?,
        };
        let mut differs = String::new();
        if let Some(present) = &present {
            check_owner(rendered, present)?;
            let present = serde_json::to_value(present)
                .map_err(|source| ApplyError::Encode { name: name.clone(), source })?;
            match difference::within(&wanted, &present) {
                Some(path) => differs = path,
                None => return Ok(Applied::Unchanged),
            }
        }
        let params = PatchParams::apply(manager).force();
        let applied =
            api.patch(&name, &params, &Patch::Apply(&wanted)).await.map_err(failed("apply"))?;
        if let Some(version) = version(&applied) {
            self.ahead.lock().insert(key, version);
        }
        let outcome = if present.is_some() { Applied::Changed } else { Applied::Created };
        tracing::info!(%kind, %name, ?outcome, differs, "applied");
        Ok(outcome)
    }

    /// The cached object, unless an apply of this process is newer.
    fn seen<K: Kind>(
        &self,
        key: &(String, String, String),
        cache: &Cache<K>,
    ) -> Option<std::sync::Arc<K>> {
        let cached = cache.get(&key.1, &key.2)?;
        let mut ahead = self.ahead.lock();
        match (ahead.get(key), version(&*cached)) {
            (Some(applied), Some(seen)) if seen < *applied => None,
            _ => {
                ahead.remove(key);
                Some(cached)
            }
        }
    }
}

/// The object as JSON, with the hash of itself.
fn sealed<K: Serialize + Resource<DynamicType = ()>>(
    rendered: &K,
) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(rendered)?;
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    // Keys of a JSON object are sorted, so the text is the same for equal objects.
    let hash = fingerprint(value.to_string().as_bytes());
    value["metadata"]["annotations"][RENDERED] = format!("{hash:016x}").into();
    Ok(value)
}

/// FNV-1a: stable over builds, and no secret depends on it.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

fn check_owner<K: Kind>(rendered: &K, present: &K) -> Result<(), ApplyError> {
    let controller = |object: &K| -> Option<OwnerReference> {
        object.owner_references().iter().find(|owner| owner.controller == Some(true)).cloned()
    };
    let (ours, theirs) = (controller(rendered), controller(present));
    if ours.as_ref().map(|owner| &owner.uid) == theirs.as_ref().map(|owner| &owner.uid) {
        return Ok(());
    }
    let owner = match theirs {
        Some(owner)
            if ours.is_some_and(|ours| ours.name == owner.name && ours.kind == owner.kind) =>
        {
            format!("an earlier {} {}, which is being deleted", owner.kind, owner.name)
        }
        Some(owner) => format!("{} {}", owner.kind, owner.name),
        None => "nobody that it names".to_owned(),
    };
    let kind = K::kind(&()).into_owned();
    Err(ApplyError::Taken { kind, name: present.name_any(), owner })
}
