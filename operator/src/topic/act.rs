//! Makes a topic as declared on every broker of its cluster.
//! Invariant: a broker that does not answer does not keep the others from being told.
//! Leaves what to change to `plan`.

use futures::future::join_all;
use gantry_client::{AdminError, Primary};
use gantry_model::TopicName;
use gantry_resources::{BrokerTopicStatus, TopicSpec};

use super::plan;
use crate::{
    broker_cluster::names,
    brokers::{Brokers, with_causes},
    conditions::{Reason, Wanted},
};

/// How far a pass came.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What the status says.
    pub(super) condition: Wanted,
    /// The topic on the brokers, if they were asked.
    pub(super) brokers: Option<Vec<BrokerTopicStatus>>,
}

impl Outcome {
    /// A pass that asked no broker.
    pub(super) fn of(condition: Wanted) -> Self {
        Self { condition, brokers: None }
    }
}

/// Makes the topic as declared on the brokers of `cluster`, which is to have `groups` groups.
pub(super) async fn converge(
    brokers: &impl Brokers,
    cluster: &str,
    groups: i32,
    name: &TopicName,
    spec: &TopicSpec,
) -> Outcome {
    let mut primaries = match brokers.all().await {
        Ok(primaries) => primaries,
        Err(error) => return Outcome::of(Reason::BrokersUnreachable.because(with_causes(&error))),
    };
    primaries.sort();
    let told = join_all(primaries.iter().map(|primary| tell(brokers, primary, name, spec))).await;
    let mut status = Vec::new();
    let mut failed = Vec::new();
    for (primary, told) in primaries.iter().zip(told) {
        match told {
            Ok(queues) => {
                status.push(BrokerTopicStatus { name: primary.broker_name.clone(), queues });
            }
            Err(error) => failed.push((primary, error)),
        }
    }
    let missing: Vec<_> = (0..groups)
        .map(|group| names::broker_name(cluster, group))
        .filter(|name| primaries.iter().all(|primary| primary.broker_name != *name))
        .collect();
    Outcome { condition: judge(spec, &failed, &missing), brokers: Some(status) }
}

fn judge(spec: &TopicSpec, failed: &[(&Primary, AdminError)], missing: &[String]) -> Wanted {
    let text = |(primary, error): &(&Primary, AdminError)| {
        format!("{}: {}", primary.broker_name, with_causes(error))
    };
    if let Some(refused) = failed.iter().find(|(_, error)| is_refusal(error)) {
        return Reason::BrokerRefused.because(text(refused));
    }
    if let Some(silent) = failed.first() {
        return Reason::BrokersUnreachable.because(text(silent));
    }
    if !missing.is_empty() {
        return Reason::Starting.because(format!("not registered: {}", missing.join(", ")));
    }
    match &spec.retention {
        None => Reason::AsDeclared.because(""),
        Some(_) => Reason::AsDeclared.because(
            "but for retention.time: brokers keep messages for as long as the cluster says",
        ),
    }
}

fn is_refusal(error: &AdminError) -> bool {
    matches!(error, AdminError::Request { source, .. } if source.refusal().is_some())
}

/// Brings one broker's topic to what is declared, and says how many queues it has then.
async fn tell(
    brokers: &impl Brokers,
    primary: &Primary,
    name: &TopicName,
    spec: &TopicSpec,
) -> Result<i32, AdminError> {
    let present = brokers.topic(&primary.address, name).await?;
    let Some(change) = plan::change(name, spec, present.as_ref()) else {
        return Ok(present.as_ref().map_or(0, plan::queues));
    };
    brokers.declare_topic(&primary.address, &change).await?;
    tracing::info!(topic = %name, broker = primary.broker_name, is_new = present.is_none(), "topic declared");
    let now = brokers.topic(&primary.address, name).await?;
    Ok(now.as_ref().map_or(0, plan::queues))
}
