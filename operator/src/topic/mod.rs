//! Reconciles a `Topic`: on every broker group of its cluster as declared, repaired when it was changed behind its back.
//! Invariant: a message is deleted only with a deletion policy that says so, and only while no other resource declares
//! the topic; a deletion ends, whatever becomes of the cluster.
//! Leaves what to change on a broker to `plan`, and the brokers themselves to their cluster.

mod act;
mod finish;
mod plan;

use std::{sync::Arc, time::Duration};

use gantry_resources::{Topic, TopicStatus};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, runtime::controller::Action};
use tokio_util::sync::CancellationToken;

use self::{
    act::{Outcome, converge},
    finish::FinishError,
};
use crate::{
    Context,
    conditions::{Reason, Wanted, conditions},
    controllers,
    declared::{self, Declared, cluster_of},
    status, with_causes,
};

/// Field manager of the status.
const STATUS_MANAGER: &str = "gantry-operator/topic-status";
/// How often brokers are asked whether the topic still is as declared.
const REPAIR: Duration = Duration::from_secs(20);
/// How soon brokers that did not answer are asked again.
const RETRY: Duration = Duration::from_secs(3);

/// Runs the controller until `stop` is cancelled.
pub fn run(ctx: Arc<Context>, stop: CancellationToken) -> impl Future<Output = ()> {
    let controller = declared::controller(&ctx.caches.topics, &ctx.caches.clusters);
    async move {
        let passes = controller.graceful_shutdown_on(stop.cancelled_owned()).run(
            reconcile,
            error_policy,
            ctx,
        );
        controllers::drive(passes).await;
    }
}

async fn reconcile(topic: Arc<Topic>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    if topic.metadata.deletion_timestamp.is_some() {
        let action = finish::finish(&topic, &ctx).await?;
        return Ok(action);
    }
    finish::keep_finalizer(&topic, &ctx).await?;
    let outcome = observe(&topic, &ctx).await;
    report(&topic, &ctx, &outcome).await?;
    ctx.retries.succeeded(&topic.uid().unwrap_or_default());
    Ok(match outcome.condition.reason {
        Reason::AsDeclared => Action::requeue(REPAIR),
        Reason::BrokersUnreachable | Reason::Starting | Reason::BrokerRefused => {
            Action::requeue(RETRY)
        }
        // A change of the resource, of its cluster or of its elder wakes it.
        _ => Action::await_change(),
    })
}

/// Brings the topic to its brokers, as far as that is possible.
async fn observe(topic: &Topic, ctx: &Context) -> Outcome {
    let cluster_name = &topic.spec.cluster_ref.name;
    let name = match plan::checked_name(cluster_name, &topic.client_name()) {
        Ok(name) => name,
        Err(refused @ plan::RefusedName::Reserved { .. }) => {
            return Outcome::of(Reason::ReservedName.because(refused.to_string()));
        }
        Err(refused) => return Outcome::of(Reason::InvalidSpec.because(with_causes(&refused))),
    };
    let Some(cluster) = cluster_of(ctx, topic) else {
        let detail = format!("create a BrokerCluster {cluster_name} in this namespace");
        return Outcome::of(Reason::ClusterNotFound.because(detail));
    };
    if let Some(elder) = declared::elder(&ctx.caches.topics, topic) {
        return Outcome::of(Reason::Duplicate.because(format!("Topic {elder}")));
    }
    match ctx.brokers.brokers(ctx, &cluster) {
        Ok(brokers) => {
            converge(&brokers, cluster_name, cluster.spec.groups, &name, &topic.spec).await
        }
        Err(error) => Outcome::of(Reason::BrokersUnreachable.because(with_causes(&error))),
    }
}

async fn report(topic: &Topic, ctx: &Context, outcome: &Outcome) -> Result<(), ReconcileError> {
    let before = topic.status.as_ref();
    let wanted = std::slice::from_ref(&outcome.condition);
    let old = before.map_or(&[][..], |status| &status.conditions);
    // What is not known now is as it was known last.
    let brokers = match (&outcome.brokers, before) {
        (Some(brokers), _) => brokers.clone(),
        (None, Some(before)) => before.brokers.clone(),
        (None, None) => Vec::new(),
    };
    let status = TopicStatus {
        observed_generation: topic.metadata.generation,
        name: Some(topic.client_name()),
        queues: brokers.iter().map(|broker| broker.queues).min().unwrap_or(0),
        brokers,
        conditions: conditions(old, wanted, topic.metadata.generation, Timestamp::now()),
    };
    status::write(&ctx.client, STATUS_MANAGER, topic, before, &status).await?;
    let was = old.iter().find(|old| old.type_ == outcome.condition.reason.condition().as_str());
    if was.is_none_or(|was| was.reason != outcome.condition.reason.as_str()) {
        say(topic, ctx, &outcome.condition).await;
    }
    Ok(())
}

async fn say(topic: &Topic, ctx: &Context, condition: &Wanted) {
    let (reason, message) = (condition.reason.as_str(), condition.message());
    match condition.reason {
        Reason::AsDeclared => ctx.events.normal(topic, reason, "Reconcile", message).await,
        // Both pass by themselves while a cluster starts.
        Reason::Starting | Reason::BrokersUnreachable => {}
        _ => ctx.events.warning(topic, reason, "Reconcile", message).await,
    }
}

/// Why a pass failed. Brokers that fail are no failure of the pass, but a condition.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error("finish the topic's deletion")]
    Finish(#[from] FinishError),
    #[error("report its status")]
    Report(#[from] status::StatusError),
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the controller calls")]
fn error_policy(topic: Arc<Topic>, error: &ReconcileError, ctx: Arc<Context>) -> Action {
    let wait = ctx.retries.failed(&topic.uid().unwrap_or_default());
    let (name, namespace) = (topic.name_any(), topic.namespace().unwrap_or_default());
    let error = with_causes(error);
    tracing::warn!(topic = %name, %namespace, %error, ?wait, "is tried again");
    Action::requeue(wait)
}
