//! Reconciles a `BrokerCluster`: fetch, validate, render, apply, report.
//! Invariant: `validate`, `render`, `roll` and `report` are pure; a pass begins from nothing and ends at the same
//! objects, so it may stop anywhere; at rest it writes nothing.
//! Leaves volumes and their messages when the cluster is deleted: Kubernetes collects the rest by its owner.

#[cfg(test)]
mod fixture;
pub mod names;
mod observe;
mod pod_state;
pub mod registry;
mod render;
mod report;
mod roll;
mod validate;
mod volumes;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use gantry_resources::BrokerCluster;
use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod},
    jiff::Timestamp,
};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{Controller, controller::Action, reflector::ObjectRef},
};
use tokio_util::sync::CancellationToken;

use self::{
    observe::{Life, Observed, Registration, Server, cluster_of},
    registry::RemotingRegistry,
    render::{Objects, RenderError},
    report::Outcome,
    roll::Step,
    validate::{Defaults, InvalidSpec, Valid, validate},
    volumes::Refusals,
};
use crate::{
    Context,
    apply::{Applied, ApplyError},
    cache::{Cache, Kind},
    conditions::{Reason, Wanted},
    controllers,
    labels::Component,
    status, with_causes,
};

/// Field manager of rendered objects.
const MANAGER: &str = "gantry-operator/brokercluster";
/// Field manager of the status.
const STATUS_MANAGER: &str = "gantry-operator/brokercluster-status";
/// How soon to look again for what no watch tells: registrations at name servers.
const RECHECK: Duration = Duration::from_secs(1);
/// How often to look at the registrations of a cluster that serves.
const REST: Duration = Duration::from_secs(30);

/// What passes of this kind share.
struct Shared {
    ctx: Arc<Context>,
    registry: RemotingRegistry,
    refusals: Refusals,
    defaults: Defaults,
}

/// Runs the controller until `stop` is cancelled.
pub fn run(ctx: Arc<Context>, stop: CancellationToken) -> impl Future<Output = ()> {
    let caches = &ctx.caches;
    let controller =
        Controller::for_shared_stream(caches.clusters.changes(), caches.clusters.store())
            .with_config(controllers::config())
            .owns_shared_stream(caches.stateful_sets.changes())
            .owns_shared_stream(caches.services.changes())
            .owns_shared_stream(caches.config_maps.changes())
            .owns_shared_stream(caches.budgets.changes())
            .owns_shared_stream(caches.policies.changes())
            .watches_shared_stream(caches.pods.changes(), |pod| cluster_ref(&*pod))
            .watches_shared_stream(caches.claims.changes(), |claim| cluster_ref(&*claim));
    let clusters = caches.clusters.changes();
    let defaults = Defaults {
        broker_image: ctx.settings.broker_image.clone(),
        nameserver_image: ctx.settings.nameserver_image.clone(),
        operator_namespace: ctx.operator_namespace.clone(),
        monitoring: ctx.settings.monitoring_selector.clone(),
    };
    let shared = Shared {
        ctx,
        registry: RemotingRegistry::default(),
        refusals: Refusals::default(),
        defaults,
    };
    let shared = Arc::new(shared);
    async move {
        let forget = clusters.for_each(|cluster| forget_if_gone(cluster, shared.clone()));
        let passes = controller.graceful_shutdown_on(stop.cancelled_owned()).run(
            reconcile,
            error_policy,
            shared.clone(),
        );
        tokio::select! {
            () = controllers::drive(passes) => {}
            () = forget => {}
        }
    }
}

/// Drops what is remembered of a cluster that was deleted: no pass sees that any more.
async fn forget_if_gone(cluster: Arc<BrokerCluster>, shared: Arc<Shared>) {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    if shared.ctx.caches.clusters.get(&namespace, &name).is_none() {
        shared.registry.keep_only(&namespace, &name, &[]).await;
        shared.ctx.retries.succeeded(&cluster.uid().unwrap_or_default());
    }
}

/// The cluster of an object with the operator's labels.
fn cluster_ref<K: Resource>(object: &K) -> Option<ObjectRef<BrokerCluster>> {
    let (cluster, namespace) = cluster_of(object)?;
    Some(ObjectRef::new(&cluster).within(&namespace))
}

/// Brings a cluster to what its spec asks for and reports how far it got.
async fn reconcile(
    cluster: Arc<BrokerCluster>,
    shared: Arc<Shared>,
) -> Result<Action, ReconcileError> {
    let ctx = &shared.ctx;
    let uid = cluster.uid().unwrap_or_default();
    if cluster.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let converged = converge(&cluster, &shared).await;
    let outcome = match &converged {
        Ok(converged) => &converged.outcome,
        Err(error) => &Outcome::Stopped(error.condition()),
    };
    report(&cluster, ctx, outcome).await?;
    let converged = converged?;
    ctx.retries.succeeded(&uid);
    Ok(Action::requeue(if converged.at_rest { REST } else { RECHECK }))
}

/// A pass that came to its end.
struct Converged {
    outcome: Outcome,
    /// Whether only a change can make the next pass differ.
    at_rest: bool,
}

async fn converge(cluster: &BrokerCluster, shared: &Shared) -> Result<Converged, ReconcileError> {
    let ctx = &shared.ctx;
    let valid = validate(cluster, &shared.defaults, &observe::claim_sizes(ctx, cluster))?;
    let objects = render::render(&valid)?;
    let is_changed = apply(ctx, &objects).await?;
    let observed = observe::observe(ctx, &shared.registry, &valid).await;
    let size = &valid.spec.storage.size.0;
    let refused_volumes =
        volumes::grow(ctx, &shared.refusals, &valid.namespace, &observed.claims, size)
            .await
            .map_err(|source| ReconcileError::Volumes(Box::new(source)))?;
    let step = if is_changed || !observed.settled {
        Step::Wait("the newest spec is being taken over".into())
    } else {
        roll::next(&observed.servers)
    };
    if let Step::Replace { pod, uid } = &step {
        replace(cluster, ctx, &valid, pod, uid).await?;
    }
    let at_rest = is_at_rest(&observed, &step);
    Ok(Converged { outcome: Outcome::Converged { observed, step, refused_volumes }, at_rest })
}

/// Whether only what is watched can make the next pass differ: nothing is asked of name servers in vain.
fn is_at_rest(observed: &Observed, step: &Step) -> bool {
    let is_ready = |server: &Server| server.life == Life::Ready;
    let can_ask =
        observed.servers.iter().any(|s| s.component == Component::NameServer && is_ready(s));
    let waits_for_an_answer = |server: &Server| {
        let unanswered =
            matches!(server.registration, Registration::Missing | Registration::Unknown);
        can_ask && is_ready(server) && unanswered
    };
    matches!(step, Step::UpToDate | Step::Halt(_))
        && !observed.servers.iter().any(waits_for_an_answer)
}

/// Applies everything that differs. Says whether anything did.
async fn apply(ctx: &Context, objects: &Objects) -> Result<bool, ApplyError> {
    let caches = &ctx.caches;
    let mut is_changed = apply_all(ctx, &objects.config_maps, &caches.config_maps).await?;
    is_changed |= apply_all(ctx, &objects.services, &caches.services).await?;
    is_changed |= apply_all(ctx, &objects.policies, &caches.policies).await?;
    is_changed |= apply_all(ctx, &objects.budgets, &caches.budgets).await?;
    is_changed |= apply_all(ctx, &objects.stateful_sets, &caches.stateful_sets).await?;
    Ok(is_changed)
}

async fn apply_all<K>(ctx: &Context, objects: &[K], cache: &Cache<K>) -> Result<bool, ApplyError>
where
    K: Kind + Resource<Scope = k8s_openapi::NamespaceResourceScope> + serde::Serialize,
{
    let mut is_changed = false;
    for object in objects {
        is_changed |= ctx.applier.apply(MANAGER, object, cache).await? != Applied::Unchanged;
    }
    Ok(is_changed)
}

/// Deletes one pod, so that its `StatefulSet` makes it anew.
async fn replace(
    cluster: &BrokerCluster,
    ctx: &Context,
    valid: &Valid<'_>,
    pod: &str,
    uid: &str,
) -> Result<(), ReconcileError> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match ctx.api::<Pod>(&valid.namespace).delete(pod, &params).await {
        Ok(_) => {
            let note = format!("pod {pod} is replaced by one of the newest revision");
            let replaced = ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.to_owned()),
                namespace: Some(valid.namespace.clone()),
                uid: Some(uid.to_owned()),
                ..ObjectReference::default()
            };
            ctx.events.normal_with(cluster, replaced, "Replacing", "Roll", note).await;
            Ok(())
        }
        // It is gone already, or has a successor.
        Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(()),
        Err(source) => {
            Err(ReconcileError::Replace { pod: pod.to_owned(), source: Box::new(source) })
        }
    }
}

/// Writes the status, and says in an event what changed.
async fn report(
    cluster: &BrokerCluster,
    ctx: &Context,
    outcome: &Outcome,
) -> Result<(), ReconcileError> {
    let status = report::status(cluster, outcome, Timestamp::now());
    let before = cluster.status.as_ref();
    status::write(&ctx.client, STATUS_MANAGER, cluster, before, &status).await?;
    for condition in &status.conditions {
        let was = before
            .and_then(|before| before.conditions.iter().find(|old| old.type_ == condition.type_));
        if was.is_none_or(|was| was.reason != condition.reason) {
            say(cluster, ctx, &condition.reason, &condition.message).await;
        }
    }
    Ok(())
}

async fn say(cluster: &BrokerCluster, ctx: &Context, reason: &str, message: &str) {
    let is_worth_it = |known: Reason| known.as_str() == reason;
    let good = [Reason::AsDeclared].into_iter().any(is_worth_it);
    let expected =
        [Reason::Starting, Reason::UpToDate, Reason::Replacing].into_iter().any(is_worth_it);
    if good {
        ctx.events.normal(cluster, reason, "Reconcile", message.to_owned()).await;
    } else if !expected {
        ctx.events.warning(cluster, reason, "Reconcile", message.to_owned()).await;
    }
}

/// Why a pass did not come to its end. The status carries the same.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("validate the cluster")]
    Validate(#[from] InvalidSpec),
    #[error("render its objects")]
    Render(#[from] RenderError),
    #[error("apply its objects")]
    Apply(#[from] ApplyError),
    #[error("grow its volumes")]
    Volumes(#[source] Box<kube::Error>),
    #[error("replace pod {pod}")]
    Replace { pod: String, source: Box<kube::Error> },
    #[error("report its status")]
    Report(#[from] status::StatusError),
}

impl ReconcileError {
    /// What the status says.
    fn condition(&self) -> Wanted {
        match self {
            Self::Validate(invalid) => Reason::InvalidSpec.because(invalid.to_string()),
            Self::Apply(taken @ ApplyError::Taken { .. }) => {
                Reason::NameTaken.because(taken.to_string())
            }
            other => Reason::ApiFailed.because(with_causes(other)),
        }
    }
}

/// Waits for an edit where only that helps, and else tries again, less and less often.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the controller calls")]
fn error_policy(
    cluster: Arc<BrokerCluster>,
    error: &ReconcileError,
    shared: Arc<Shared>,
) -> Action {
    let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    if let ReconcileError::Validate(invalid) = error {
        tracing::info!(%name, %namespace, %invalid, "waits for another spec");
        return Action::await_change();
    }
    let wait = shared.ctx.retries.failed(&cluster.uid().unwrap_or_default());
    let error = with_causes(error);
    tracing::warn!(%name, %namespace, ?wait, %error, "reconcile is tried again");
    Action::requeue(wait)
}
