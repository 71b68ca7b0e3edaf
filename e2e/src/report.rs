//! What a failed test shows of its namespace: resources with their conditions, pods, events, the ends of logs.
//! Invariant: a report never fails a test by itself; what cannot be read is named in it.

use std::fmt::Debug;

use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Stage, settings};

/// Lines of each log.
const LOG_LINES: usize = 60;

/// Prints what can be learnt of the stage, and of the operator.
pub(crate) async fn print(stage: &Stage) {
    eprintln!("==== namespace {}", stage.namespace);
    print_statuses::<BrokerCluster>(stage, "BrokerCluster").await;
    print_statuses::<Topic>(stage, "Topic").await;
    print_statuses::<ConsumerGroup>(stage, "ConsumerGroup").await;
    print_statuses::<PersistentVolumeClaim>(stage, "PersistentVolumeClaim").await;
    print_statuses::<Pod>(stage, "Pod").await;
    print_events(stage).await;
    print_logs(&stage.api(), "").await;
    let operators = Api::namespaced(stage.client.clone(), settings::OPERATOR_NAMESPACE);
    print_logs(&operators, &stage.namespace).await;
}

async fn list<K>(api: &Api<K>, what: &str) -> Vec<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    match api.list(&ListParams::default()).await {
        Ok(found) => found.items,
        Err(why) => {
            eprintln!("-- no list of {what}: {why}");
            Vec::new()
        }
    }
}

async fn print_statuses<K>(stage: &Stage, kind: &str)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
    K::DynamicType: Default,
{
    for object in list::<K>(&stage.api(), kind).await {
        let text = serde_json::to_value(&object).unwrap_or_default();
        eprintln!("-- {kind} {}: {}", object.name_any(), text["status"]);
    }
}

async fn print_events(stage: &Stage) {
    let mut events = list::<Event>(&stage.api(), "Event").await;
    events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
    for event in events {
        let about = event.involved_object;
        eprintln!(
            "-- event {} {}: {} {}",
            about.kind.unwrap_or_default(),
            about.name.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
    }
}

/// Prints the ends of the pods' logs, of lines that contain `wanted`.
async fn print_logs(pods: &Api<Pod>, wanted: &str) {
    for pod in list(pods, "Pod").await {
        let name = pod.name_any();
        let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let restarted = statuses.iter().any(|status| status.restart_count > 0);
        let lives: &[bool] = if restarted { &[true, false] } else { &[false] };
        for previous in lives {
            let which = LogParams { previous: *previous, ..LogParams::default() };
            match pods.logs(&name, &which).await {
                Ok(text) => {
                    let lines: Vec<_> = text.lines().filter(|line| line.contains(wanted)).collect();
                    let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
                    eprintln!("-- end of the log of {name}, previous={previous}");
                    eprintln!("{}", end.join("\n"));
                }
                Err(why) => eprintln!("-- no log of {name}: {why}"),
            }
        }
    }
}
