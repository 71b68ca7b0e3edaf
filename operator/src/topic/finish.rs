//! The end of a `Topic`: what becomes of the topic when its resource is deleted.
//! Invariant: `Retain` needs no finalizer and asks no broker; a topic that another resource declares is never deleted;
//! after [`GIVE_UP_AFTER`] the resource goes, whether its brokers answered or not.
//! Leaves the rest of a topic's life to the controller.

use std::time::Duration;

use futures::future::try_join_all;
use gantry_client::{AdminError, Primary};
use gantry_model::{Permission, TopicConfig, TopicName};
use gantry_resources::{DeletionPolicy, Topic};
use k8s_openapi::jiff::Timestamp;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;

use super::plan;
use crate::{
    Context,
    brokers::{Brokers, PoolError},
    declared::{self, Declared, cluster_of},
    with_causes,
};

/// Holds the resource until its policy is carried out.
const FINALIZER: &str = "gantry.dev/topic";
/// For so long brokers that do not answer are asked again; then the topic stays with them.
const GIVE_UP_AFTER: Duration = Duration::from_mins(1);
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// Why a deletion did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinishError {
    #[error("change the finalizers")]
    Finalizer(#[source] Box<kube::Error>),
}

/// Why a topic could not be deleted from its brokers.
#[derive(Debug, thiserror::Error)]
enum DeleteError {
    #[error("find the brokers")]
    Pool(#[from] PoolError),
    #[error("delete the topic from the brokers")]
    Brokers(#[from] AdminError),
}

/// What became of the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    Yes,
    /// It has messages.
    NotEmpty,
}

/// Gives the resource a finalizer if its policy needs one, and takes it away if not.
pub(super) async fn keep_finalizer(topic: &Topic, ctx: &Context) -> Result<(), FinishError> {
    let wanted = topic.spec.deletion_policy != DeletionPolicy::Retain;
    let present = topic.finalizers().iter().any(|name| name == FINALIZER);
    if wanted == present { Ok(()) } else { set_finalizer(topic, ctx, wanted).await }
}

async fn set_finalizer(topic: &Topic, ctx: &Context, wanted: bool) -> Result<(), FinishError> {
    let others = topic.finalizers().iter().filter(|name| *name != FINALIZER);
    let mut finalizers: Vec<_> = others.map(String::as_str).collect();
    if wanted {
        finalizers.push(FINALIZER);
    }
    // With the version, so that a finalizer that somebody has just added is not lost.
    let patch = json!({
        "metadata": { "finalizers": finalizers, "resourceVersion": topic.resource_version() },
    });
    let api = ctx.api::<Topic>(&topic.namespace().unwrap_or_default());
    let changed =
        api.patch(&topic.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    match changed {
        Ok(_) => Ok(()),
        // It is gone.
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
        Err(source) => Err(FinishError::Finalizer(Box::new(source))),
    }
}

/// Carries out the policy of a resource that is being deleted.
pub(super) async fn finish(topic: &Topic, ctx: &Context) -> Result<Action, FinishError> {
    if !topic.finalizers().iter().any(|name| name == FINALIZER) {
        return Ok(Action::await_change());
    }
    match delete(topic, ctx).await {
        Ok(Some(Deleted::NotEmpty)) => {
            let note = "the topic has messages and stays: deletionPolicy is DeleteIfEmpty".into();
            ctx.events.warning(topic, "NotEmpty", "Delete", note).await;
        }
        Ok(Some(Deleted::Yes)) => {
            let note = format!("topic {} is deleted from every broker", topic.client_name());
            ctx.events.normal(topic, "Deleted", "Delete", note).await;
        }
        Ok(None) => {}
        Err(error) if waited(topic) < GIVE_UP_AFTER => {
            tracing::warn!(topic = %topic.name_any(), error = with_causes(&error), "deletion is tried again");
            return Ok(Action::requeue(ASK_AGAIN));
        }
        Err(error) => {
            let note = format!("the topic may still be on brokers: {}", with_causes(&error));
            ctx.events.warning(topic, "BrokersUnreachable", "Delete", note).await;
        }
    }
    set_finalizer(topic, ctx, false).await?;
    ctx.retries.succeeded(&topic.uid().unwrap_or_default());
    Ok(Action::await_change())
}

/// How long the deletion has been waiting.
fn waited(topic: &Topic) -> Duration {
    let since = topic.metadata.deletion_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Duration::from_secs((Timestamp::now().as_second() - since).max(0) as u64)
}

/// Deletes the topic if its policy says so. `None`: there is nothing to delete it from, or it is not this resource's.
async fn delete(topic: &Topic, ctx: &Context) -> Result<Option<Deleted>, DeleteError> {
    let cluster_name = &topic.spec.cluster_ref.name;
    let Ok(name) = plan::checked_name(cluster_name, &topic.client_name()) else { return Ok(None) };
    let is_declared_elsewhere = declared::others(&ctx.caches.topics, topic)
        .any(|other| other.metadata.deletion_timestamp.is_none());
    if is_declared_elsewhere {
        return Ok(None);
    }
    let Some(cluster) = cluster_of(ctx, topic) else { return Ok(None) };
    let brokers = ctx.brokers.brokers(ctx, &cluster)?;
    let deleted = match topic.spec.deletion_policy {
        DeletionPolicy::Retain => return Ok(None),
        DeletionPolicy::Delete => delete_everywhere(&brokers, &name).await?,
        DeletionPolicy::DeleteIfEmpty => delete_if_empty(&brokers, &name).await?,
    };
    Ok(Some(deleted))
}

async fn delete_everywhere(
    brokers: &impl Brokers,
    name: &TopicName,
) -> Result<Deleted, AdminError> {
    let primaries = brokers.all().await?;
    try_join_all(primaries.iter().map(|primary| brokers.delete_topic(&primary.address, name)))
        .await?;
    Ok(Deleted::Yes)
}

/// Deletes the topic unless it has messages. A topic that looks empty is closed to producers and looked at again, so that
/// no message comes between; it is open again if it stays.
async fn delete_if_empty(brokers: &impl Brokers, name: &TopicName) -> Result<Deleted, AdminError> {
    let primaries = brokers.all().await?;
    let found = try_join_all(primaries.iter().map(|at| brokers.topic(&at.address, name))).await?;
    let present: Vec<(&Primary, TopicConfig)> = primaries
        .iter()
        .zip(found)
        .filter_map(|(primary, config)| Some((primary, config?)))
        .collect();
    let look = async || {
        let at = present.iter().map(|(at, _)| brokers.bounds(&at.address, name));
        let bounds = try_join_all(at).await?;
        let mut queues = bounds.into_iter().flatten().flatten();
        Ok::<_, AdminError>(!queues.any(|queue| queue.max_offset > queue.min_offset))
    };
    let mut is_empty = look().await?;
    if is_empty {
        let closed = permit(brokers, &present, Permission(Permission::READ)).await;
        let looked = match closed {
            Ok(()) => look().await,
            Err(error) => Err(error),
        };
        is_empty = match looked {
            Ok(is_empty) => is_empty,
            Err(error) => {
                reopen(brokers, &present, name).await;
                return Err(error);
            }
        };
    }
    if is_empty {
        return delete_everywhere(brokers, name).await;
    }
    // An earlier pass may have closed it.
    permit(brokers, &present, Permission::READ_WRITE).await?;
    Ok(Deleted::NotEmpty)
}

/// Opens a topic again, as far as brokers answer. The next pass does so for the others, or finds the topic empty.
async fn reopen(brokers: &impl Brokers, present: &[(&Primary, TopicConfig)], name: &TopicName) {
    for broker in present {
        let opened = permit(brokers, std::slice::from_ref(broker), Permission::READ_WRITE).await;
        if let Err(error) = opened {
            let (broker, error) = (&broker.0.broker_name, with_causes(&error));
            tracing::warn!(topic = %name, %broker, %error, "the topic is closed to producers");
        }
    }
}

/// Declares the topics as they are, but for what clients may do.
async fn permit(
    brokers: &impl Brokers,
    present: &[(&Primary, TopicConfig)],
    perm: Permission,
) -> Result<(), AdminError> {
    try_join_all(present.iter().map(|(at, config)| {
        let config = TopicConfig {
            perm,
            // The broker keeps those that are not named.
            attributes: std::collections::BTreeMap::new(),
            ..config.clone()
        };
        async move { brokers.declare_topic(&at.address, &config).await }
    }))
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brokers::fake::{FakeBroker, FakeBrokers};

    const TOPIC: &str = "OrderTopic";

    fn name() -> TopicName {
        TopicName::new(TOPIC).unwrap()
    }

    fn two_brokers() -> FakeBrokers {
        let brokers = FakeBrokers::new(&["shop-0", "shop-1"]);
        for broker in ["shop-0", "shop-1"] {
            let config = TopicConfig::new(name(), 2);
            brokers.with(broker, |broker| broker.topics.insert(TOPIC.into(), config));
        }
        brokers
    }

    fn put_message(broker: &mut FakeBroker) {
        broker.messages.insert((TOPIC.into(), 1), (0, vec![1]));
    }

    fn perm(brokers: &FakeBrokers, broker: &str) -> Option<Permission> {
        brokers.with(broker, |broker| broker.topics.get(TOPIC).map(|config| config.perm))
    }

    #[tokio::test]
    async fn empty_topic_is_deleted_from_every_broker() {
        let brokers = two_brokers();
        assert_eq!(delete_if_empty(&brokers, &name()).await.unwrap(), Deleted::Yes);
        assert_eq!((perm(&brokers, "shop-0"), perm(&brokers, "shop-1")), (None, None));
    }

    #[tokio::test]
    async fn topic_with_a_message_on_one_broker_stays_on_all_and_open() {
        let brokers = two_brokers();
        brokers.with("shop-1", put_message);
        assert_eq!(delete_if_empty(&brokers, &name()).await.unwrap(), Deleted::NotEmpty);
        for broker in ["shop-0", "shop-1"] {
            assert_eq!(perm(&brokers, broker), Some(Permission::READ_WRITE), "{broker}");
        }
    }

    #[tokio::test]
    async fn message_that_comes_while_the_topic_is_closed_keeps_it() {
        let brokers = two_brokers();
        brokers.with("shop-0", |broker| broker.after_change = Some(put_message));
        assert_eq!(delete_if_empty(&brokers, &name()).await.unwrap(), Deleted::NotEmpty);
        assert_eq!(perm(&brokers, "shop-0"), Some(Permission::READ_WRITE));
    }

    #[tokio::test]
    async fn topic_that_an_earlier_pass_left_closed_is_opened_when_it_stays() {
        let brokers = two_brokers();
        brokers.with("shop-0", |broker| {
            put_message(broker);
            broker.topics.get_mut(TOPIC).unwrap().perm = Permission(Permission::READ);
        });
        assert_eq!(delete_if_empty(&brokers, &name()).await.unwrap(), Deleted::NotEmpty);
        assert_eq!(perm(&brokers, "shop-0"), Some(Permission::READ_WRITE));
    }

    #[tokio::test]
    async fn silent_broker_leaves_the_topic_as_it_is() {
        let brokers = two_brokers();
        brokers.with("shop-1", |broker| broker.is_silent = true);
        delete_if_empty(&brokers, &name()).await.unwrap_err();
        assert_eq!(brokers.with("shop-0", |broker| broker.changes.clone()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn broker_that_falls_silent_after_the_topic_was_closed_leaves_the_others_open() {
        let brokers = two_brokers();
        brokers.with("shop-1", |broker| {
            broker.after_change = Some(|broker| broker.is_silent = true);
        });
        delete_if_empty(&brokers, &name()).await.unwrap_err();
        assert_eq!(perm(&brokers, "shop-0"), Some(Permission::READ_WRITE));
    }
}
