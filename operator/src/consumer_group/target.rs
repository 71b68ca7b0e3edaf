//! The workload that consumes, through its `scale` subresource.
//! Invariant: nothing of it but the number of replicas is read or written; a workload of a cluster is never touched.
//! Leaves the number to `scaling`. A target that may be scaled is a right of the operator's role.

use gantry_resources::TargetRef;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery,
};
use serde_json::json;

use crate::{
    Context,
    conditions::{Reason, Wanted},
    with_causes,
};

/// Field manager of replicas.
const MANAGER: &str = "gantry-operator/consumergroup-scale";

/// Why a target cannot be read or set.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    /// It belongs to a cluster.
    #[error("{kind} {name} belongs to a BrokerCluster")]
    OfCluster { kind: String, name: String },
    /// There is no such kind.
    #[error("there is no kind {kind} in {api_version}")]
    NoKind { api_version: String, kind: String },
    /// The API server refused.
    #[error("{operation} the replicas of {kind} {name}")]
    Api { operation: &'static str, kind: String, name: String, source: Box<kube::Error> },
}

impl TargetError {
    /// What the status says.
    pub(super) fn condition(&self) -> Wanted {
        let reason = match self {
            Self::OfCluster { .. } | Self::NoKind { .. } => Reason::TargetRefused,
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(refusal) if refusal.code == 404 => Reason::TargetNotFound,
                kube::Error::Api(refusal) if refusal.code == 403 => Reason::TargetForbidden,
                _ => Reason::Holding,
            },
        };
        reason.because(with_causes(self))
    }
}

/// A target that is there.
pub(super) struct Target<'a> {
    api: Api<DynamicObject>,
    target: &'a TargetRef,
}

impl<'a> Target<'a> {
    /// Finds the API of a target; `known` is its kind if it was asked for before.
    pub(super) async fn find(
        ctx: &Context,
        namespace: &str,
        target: &'a TargetRef,
        known: &mut Option<ApiResource>,
    ) -> Result<Self, TargetError> {
        let kind = match known {
            Some(kind) => kind.clone(),
            None => known.insert(resource(ctx, target).await?).clone(),
        };
        // The cache holds those that the operator made.
        let ours = kind.kind == "StatefulSet"
            && kind.group == "apps"
            && ctx.caches.stateful_sets.get(namespace, &target.name).is_some();
        if ours {
            return Err(TargetError::OfCluster { kind: kind.kind, name: target.name.clone() });
        }
        Ok(Self { api: Api::namespaced_with(ctx.client.clone(), namespace, &kind), target })
    }

    /// Replicas that it is to have.
    pub(super) async fn replicas(&self) -> Result<i32, TargetError> {
        let scale = self.api.get_scale(&self.target.name).await;
        let scale = scale.map_err(|source| self.failed("read", source))?;
        // The API leaves 0 out.
        Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
    }

    /// Sets them.
    pub(super) async fn set(&self, replicas: i32) -> Result<(), TargetError> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        let set = self.api.patch_scale(&self.target.name, &params, &patch).await;
        set.map(drop).map_err(|source| self.failed("set", source))
    }

    fn failed(&self, operation: &'static str, source: kube::Error) -> TargetError {
        let (kind, name) = (self.target.kind.clone(), self.target.name.clone());
        TargetError::Api { operation, kind, name, source: Box::new(source) }
    }
}

async fn resource(ctx: &Context, target: &TargetRef) -> Result<ApiResource, TargetError> {
    match (&*target.api_version, &*target.kind) {
        ("apps/v1", "Deployment") => return Ok(ApiResource::erase::<Deployment>(&())),
        ("apps/v1", "StatefulSet") => return Ok(ApiResource::erase::<StatefulSet>(&())),
        _ => {}
    }
    let (group, version) = target.api_version.split_once('/').unwrap_or(("", &*target.api_version));
    let wanted = GroupVersionKind::gvk(group, version, &target.kind);
    match discovery::pinned_kind(&ctx.client, &wanted).await {
        Ok((kind, _)) => Ok(kind),
        Err(kube::Error::Discovery(_)) => Err(no_kind(target)),
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Err(no_kind(target)),
        Err(source) => Err(TargetError::Api {
            operation: "find",
            kind: target.kind.clone(),
            name: target.name.clone(),
            source: Box::new(source),
        }),
    }
}

fn no_kind(target: &TargetRef) -> TargetError {
    TargetError::NoKind { api_version: target.api_version.clone(), kind: target.kind.clone() }
}
