//! Runs the watches and the three controllers.
//! Invariant: controllers start when every cache is filled, so that what is not in a cache does not exist; they end
//! together, after the reconciles that run.
//! Leaves what a reconcile does to the folder of each kind.

use std::sync::Arc;

use futures::{Stream, StreamExt, future::join_all};
use kube::{
    Resource,
    runtime::{controller, reflector::ObjectRef},
};
use tokio_util::sync::CancellationToken;

use crate::{Context, broker_cluster, consumer_group, topic};

/// Reconciles of one kind that run at once.
pub const CONCURRENCY: u16 = 8;

/// Runs until `stop` is cancelled. `ready` is called once, when the caches are filled.
///
/// # Errors
/// When a controller or watch ends by itself, which only a mistake can cause.
pub async fn run(
    ctx: Arc<Context>,
    stop: CancellationToken,
    ready: impl FnOnce(),
) -> Result<(), EndedError> {
    let clusters = broker_cluster::run(ctx.clone(), stop.clone());
    let topics = topic::run(ctx.clone(), stop.clone());
    let groups = consumer_group::run(ctx.clone(), stop.clone());
    let watches = join_all(ctx.caches.watches());
    let work = async {
        tokio::select! {
            () = ctx.caches.filled() => {}
            () = stop.cancelled() => return,
        }
        ready();
        tokio::join!(clusters, topics, groups);
    };
    tokio::select! {
        () = work => {}
        _ = watches => {}
    }
    if stop.is_cancelled() { Ok(()) } else { Err(EndedError) }
}

/// A controller or watch ended by itself.
#[derive(Debug, thiserror::Error)]
#[error("a controller ended by itself")]
pub struct EndedError;

/// Settings of a controller.
pub fn config() -> controller::Config {
    controller::Config::default().concurrency(CONCURRENCY)
}

/// Drives a controller to its end, counts reconciles and logs what fails. Errors of reconciles are logged by their
/// error policies.
pub async fn drive<K, E, Q>(
    results: impl Stream<Item = Result<(ObjectRef<K>, controller::Action), controller::Error<E, Q>>>,
) where
    K: Resource<DynamicType = ()>,
    E: std::error::Error + 'static,
    Q: std::error::Error + 'static,
{
    results
        .for_each(|result| async {
            let outcome = match result {
                Ok(_) => "done",
                Err(controller::Error::ReconcilerFailed(..)) => "failed",
                // It was deleted before its turn.
                Err(controller::Error::ObjectNotFound(_)) => "gone",
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a controller goes on");
                    return;
                }
            };
            metrics::counter!(
                "gantry_operator_reconciles_total",
                "kind" => K::kind(&()).into_owned(), "outcome" => outcome
            )
            .increment(1);
        })
        .await;
}
