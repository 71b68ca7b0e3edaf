//! Reconciles a `ConsumerGroup`: its settings and start offsets on every broker, its backlog, the scaling of its
//! consumers.
//! Invariant: nothing that arrives after the declaration is skipped, consumers or not: the group has an offset in every
//! queue before its first consumer comes. Deleting the resource leaves the group and its offsets on the brokers, for
//! consumers that still run, and its target with the replicas that it has.
//! Leaves brokers to their cluster, and consumers to their workload.

mod act;
mod plan;
mod scaling;
mod target;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_model::GroupName;
use gantry_resources::{ConsumerGroup, ConsumerGroupStatus, Scaling, ScalingStatus, TargetRef};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{ResourceExt, api::ApiResource, runtime::controller::Action};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use self::{
    act::{Declared, Known, Seen, converge},
    scaling::{Decision, Scaler},
    target::{Target, TargetError},
};
use crate::{
    Context,
    conditions::{Reason, Wanted, conditions},
    controllers,
    declared::{self, Declared as _, cluster_of},
    status, with_causes,
};

/// Field manager of the status.
const STATUS_MANAGER: &str = "gantry-operator/consumergroup-status";
/// How often the backlog of a group is asked for whose consumers are scaled, and how soon silent brokers are asked again.
const POLL_SCALED: Duration = Duration::from_secs(2);
/// How often that of the others is.
const POLL: Duration = Duration::from_secs(10);
/// How often brokers are asked whether the group still is as declared.
const REPAIR: Duration = Duration::from_secs(20);
/// Shortest time between two statuses that differ in the backlog alone.
const BACKLOG_EVERY: Duration = Duration::from_secs(10);

/// What passes of this kind share.
struct Shared {
    ctx: Arc<Context>,
    /// By uid.
    memories: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of a group between passes. Losing it costs questions to brokers and one window of scaling.
#[derive(Default)]
struct Memory {
    known: Known,
    /// When brokers were last asked everything, and for which generation.
    full: Option<(Instant, Option<i64>)>,
    /// The target that `scaler` speaks of, and its kind once that was asked for.
    target: Option<TargetRef>,
    kind: Option<ApiResource>,
    scaler: Scaler,
    status_written: Option<Instant>,
}

/// Runs the controller until `stop` is cancelled.
pub fn run(ctx: Arc<Context>, stop: CancellationToken) -> impl Future<Output = ()> {
    let controller = declared::controller(&ctx.caches.groups, &ctx.caches.clusters);
    let shared = Arc::new(Shared { ctx, memories: Mutex::default() });
    async move {
        let passes = controller.graceful_shutdown_on(stop.cancelled_owned()).run(
            reconcile,
            error_policy,
            shared,
        );
        controllers::drive(passes).await;
    }
}

async fn reconcile(
    group: Arc<ConsumerGroup>,
    shared: Arc<Shared>,
) -> Result<Action, status::StatusError> {
    let uid = group.uid().unwrap_or_default();
    if group.metadata.deletion_timestamp.is_some() {
        shared.memories.lock().remove(&uid);
        return Ok(Action::await_change());
    }
    // Passes of one object do not overlap, so nobody misses it meanwhile.
    let mut memory = shared.memories.lock().remove(&uid).unwrap_or_default();
    if group.spec.scaling.is_none() {
        memory.target = None;
    }
    let seen = observe(&group, &shared.ctx, &mut memory).await;
    let scaled = match &group.spec.scaling {
        Some(scaling) => Some(scale(&group, scaling, &shared.ctx, &seen, &mut memory).await),
        None => None,
    };
    let reported = report(&group, &shared.ctx, &seen, scaled.as_ref(), &mut memory).await;
    shared.keep(uid.clone(), memory);
    reported?;
    shared.ctx.retries.succeeded(&uid);
    Ok(match seen.condition.reason {
        // A change of the resource, of its cluster or of its elder wakes it.
        Reason::ClusterNotFound
        | Reason::Duplicate
        | Reason::ReservedName
        | Reason::InvalidSpec => Action::await_change(),
        Reason::Starting | Reason::BrokersUnreachable => Action::requeue(POLL_SCALED),
        // A target of an unknown kind needs no haste: each look asks the API server for its kinds.
        _ if scaled.is_some_and(|scaled| scaled.condition.reason != Reason::TargetRefused) => {
            Action::requeue(POLL_SCALED)
        }
        _ => Action::requeue(POLL),
    })
}

impl Shared {
    /// Keeps a memory, and forgets those of groups that are gone.
    fn keep(&self, uid: String, memory: Memory) {
        let mut memories = self.memories.lock();
        memories.insert(uid, memory);
        let store = self.ctx.caches.groups.store();
        if memories.len() > 2 * store.len() {
            let uids: Vec<_> = store.state().iter().filter_map(|group| group.uid()).collect();
            memories.retain(|uid, _| uids.contains(uid));
        }
    }
}

/// Makes the group as declared, as far as that is possible, and asks for its backlog.
async fn observe(group: &ConsumerGroup, ctx: &Context, memory: &mut Memory) -> Seen {
    let (cluster_name, name) = (&group.spec.cluster_ref.name, group.client_name());
    if plan::is_reserved(&name) {
        return Seen::nothing(Reason::ReservedName.because(name));
    }
    let name = match GroupName::new(&name) {
        Ok(name) => name,
        Err(error) => {
            let detail = format!("{name:?} is no group name: {}", with_causes(&error));
            return Seen::nothing(Reason::InvalidSpec.because(detail));
        }
    };
    let Some(cluster) = cluster_of(ctx, group) else {
        let detail = format!("create a BrokerCluster {cluster_name} in this namespace");
        return Seen::nothing(Reason::ClusterNotFound.because(detail));
    };
    if let Some(elder) = declared::elder(&ctx.caches.groups, group) {
        return Seen::nothing(Reason::Duplicate.because(format!("ConsumerGroup {elder}")));
    }
    let brokers = match ctx.brokers.brokers(ctx, &cluster) {
        Ok(brokers) => brokers,
        Err(error) => {
            return Seen::nothing(Reason::BrokersUnreachable.because(with_causes(&error)));
        }
    };
    let declared = Declared {
        cluster: cluster_name,
        groups: cluster.spec.groups,
        name: &name,
        spec: &group.spec,
        at_ms: declared_ms(group),
    };
    let generation = group.metadata.generation;
    let is_fresh = |(at, of): (Instant, Option<i64>)| at.elapsed() < REPAIR && of == generation;
    let is_full = !memory.full.is_some_and(is_fresh);
    let asked = Instant::now();
    let seen = converge(&brokers, &declared, &mut memory.known, is_full).await;
    if is_full && seen.is_complete {
        memory.full = Some((asked, generation));
    }
    seen
}

/// When the group was declared. The API server keeps whole seconds, rounded down.
fn declared_ms(group: &ConsumerGroup) -> u64 {
    let at = group.creation_timestamp().map_or(0, |time| time.0.as_millisecond());
    u64::try_from(at).unwrap_or(0)
}

/// Replicas of the target, if they are known, and what the status says of them.
struct Scaled {
    replicas: Option<i32>,
    condition: Wanted,
}

/// Sets the replicas that the backlog asks for.
async fn scale(
    group: &ConsumerGroup,
    scaling: &Scaling,
    ctx: &Context,
    seen: &Seen,
    memory: &mut Memory,
) -> Scaled {
    if memory.target.as_ref() != Some(&scaling.target_ref) {
        memory.target = Some(scaling.target_ref.clone());
        memory.kind = None;
        memory.scaler = Scaler::default();
    }
    match try_scale(group, scaling, ctx, seen, memory).await {
        Ok(scaled) => scaled,
        Err(error) => {
            memory.scaler.was_not_set();
            Scaled { replicas: None, condition: error.condition() }
        }
    }
}

async fn try_scale(
    group: &ConsumerGroup,
    scaling: &Scaling,
    ctx: &Context,
    seen: &Seen,
    memory: &mut Memory,
) -> Result<Scaled, TargetError> {
    let namespace = group.namespace().unwrap_or_default();
    let target = Target::find(ctx, &namespace, &scaling.target_ref, &mut memory.kind).await?;
    let current = target.replicas().await?;
    let work = seen.progress.as_ref().map(|progress| progress.work(seen.is_complete));
    let window = ctx.settings.scale_down_after;
    let decision = memory.scaler.decide(scaling, work, current, window, Instant::now());
    let (replicas, reason) = match decision {
        Decision::Set(replicas) => (replicas, Reason::FollowsBacklog),
        Decision::Keep => (current, Reason::FollowsBacklog),
        Decision::Hold => (current, Reason::Holding),
        Decision::StandBack => (current, Reason::Contended),
    };
    if replicas != current {
        target.set(replicas).await?;
        let backlog = work.map_or(0, |work| work.backlog);
        let (kind, name) = (&scaling.target_ref.kind, &scaling.target_ref.name);
        let note = format!("{kind} {name}: {current} to {replicas} replicas, backlog {backlog}");
        tracing::info!(group = %group.name_any(), %namespace, note, "scaled");
        let reason = if replicas > current { "ScaledUp" } else { "ScaledDown" };
        ctx.events.normal(group, reason, "Scale", note).await;
    }
    let detail = match reason {
        Reason::Holding => seen.condition.message(),
        _ => String::new(),
    };
    Ok(Scaled { replicas: Some(replicas), condition: reason.because(detail) })
}

async fn report(
    group: &ConsumerGroup,
    ctx: &Context,
    seen: &Seen,
    scaled: Option<&Scaled>,
    memory: &mut Memory,
) -> Result<(), status::StatusError> {
    let before = group.status.as_ref();
    let old = before.map_or(&[][..], |status| &status.conditions);
    let mut wanted = vec![seen.condition.clone()];
    wanted.extend(scaled.map(|scaled| scaled.condition.clone()));
    let mut status = ConsumerGroupStatus {
        observed_generation: group.metadata.generation,
        name: Some(group.client_name()),
        scaling: scaled
            .and_then(|scaled| scaled.replicas)
            .map(|replicas| ScalingStatus { replicas }),
        conditions: conditions(old, &wanted, group.metadata.generation, Timestamp::now()),
        // What is not known now is as it was known last.
        backlog: before.and_then(|before| before.backlog),
        oldest_message_time: before.and_then(|before| before.oldest_message_time.clone()),
    };
    let is_new = before != Some(&status);
    let is_due = memory.status_written.is_none_or(|at| at.elapsed() >= BACKLOG_EVERY);
    if let Some(progress) = &seen.progress
        && (is_new || is_due)
        && seen.is_complete
    {
        status.backlog = Some(i64::try_from(progress.backlog).unwrap_or(i64::MAX));
        status.oldest_message_time = progress.oldest_ms.and_then(time);
    }
    if status::write(&ctx.client, STATUS_MANAGER, group, before, &status).await? {
        memory.status_written = Some(Instant::now());
    }
    for condition in &wanted {
        let was = old.iter().find(|old| old.type_ == condition.reason.condition().as_str());
        if was.is_none_or(|was| was.reason != condition.reason.as_str()) {
            say(group, ctx, condition).await;
        }
    }
    Ok(())
}

/// A time of a status, in whole seconds.
fn time(ms: u64) -> Option<Time> {
    let seconds = i64::try_from(ms / 1000).ok()?;
    Timestamp::from_second(seconds).ok().map(Time)
}

async fn say(group: &ConsumerGroup, ctx: &Context, condition: &Wanted) {
    let (reason, message) = (condition.reason.as_str(), condition.message());
    match condition.reason {
        Reason::AsDeclared | Reason::FollowsBacklog => {
            ctx.events.normal(group, reason, "Reconcile", message).await;
        }
        // These pass by themselves while a cluster starts.
        Reason::Starting | Reason::BrokersUnreachable | Reason::Holding => {}
        _ => ctx.events.warning(group, reason, "Reconcile", message).await,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the controller calls")]
fn error_policy(
    group: Arc<ConsumerGroup>,
    error: &status::StatusError,
    shared: Arc<Shared>,
) -> Action {
    let wait = shared.ctx.retries.failed(&group.uid().unwrap_or_default());
    let (name, namespace) = (group.name_any(), group.namespace().unwrap_or_default());
    let error = with_causes(error);
    tracing::warn!(group = %name, %namespace, %error, ?wait, "is tried again");
    Action::requeue(wait)
}
