//! Clusters: nothing is written twice, nothing of somebody else's is touched, edits are undone.
//! Invariant: no test waits for a pod.
//! Leaves pods that run to the end-to-end tests.

use std::sync::atomic::Ordering::SeqCst;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::world::World;

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn second_pass_over_the_same_spec_writes_nothing_and_neither_does_another_operator() {
    let world = World::new("quiet").await;
    let first = world.operator().await;
    let spec = json!({
        "groups": 2, "storage": { "size": "1Gi" },
        "resources": { "requests": { "cpu": "0.05", "memory": "128Mi" }, "limits": { "memory": "0.5Gi" } },
        "nodeSelector": { "gantry.dev/no-such-node": "yes" },
        "tolerations": [{ "key": "a", "operator": "Exists" }],
    });
    world.apply(spec.clone()).await;
    world.wait_for_stranded_pods(3).await;
    world.wait_for_reason("PodFailing").await;
    first.is_quiet(&world).await;
    let sets = |world: &World| {
        let api = world.api::<StatefulSet>();
        async move {
            let all = api.list(&ListParams::default()).await.expect("list").items;
            all.iter().map(|set| (set.name_any(), set.resource_version())).collect::<Vec<_>>()
        }
    };
    let before = sets(&world).await;
    assert_eq!(before.len(), 3);

    let written = first.writes.0.load(SeqCst);
    world.apply(spec).await;
    first.one_more_pass(&world).await;
    assert_eq!(first.writes.0.load(SeqCst), written, "the same YAML again");
    first.end().await;

    let second = world.operator().await;
    second.one_more_pass(&world).await;
    assert_eq!(second.writes.0.load(SeqCst), 0, "another operator");
    second.end().await;
    assert_eq!(sets(&world).await, before);
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn object_of_somebody_else_is_left_alone_and_the_condition_says_whose_it_is() {
    let world = World::new("taken").await;
    let theirs = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "shop-ns" },
        "spec": { "ports": [{ "port": 1 }], "selector": { "app": "theirs" } },
    });
    let theirs: Service = serde_json::from_value(theirs).expect("a Service");
    let made = world.api().create(&PostParams::default(), &theirs).await.expect("make it");
    let operator = world.operator().await;
    world.apply(json!({ "storage": { "size": "1Gi" } })).await;
    let cluster = world.wait_for_reason("NameTaken").await;
    let message = &cluster.status.expect("a status").conditions[0].message;
    assert!(message.contains("Service shop-ns"), "{message}");
    let still: Service = world.api().get("shop-ns").await.expect("it is there");
    assert_eq!(still.resource_version(), made.resource_version());

    world.api::<Service>().delete("shop-ns", &DeleteParams::default()).await.expect("delete it");
    let is_ours = |service: &Service| service.owner_references().iter().any(|o| o.name == "shop");
    world.wait("shop-ns", "Service of the cluster", is_ours).await;
    operator.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn what_somebody_changes_or_deletes_is_put_right() {
    let world = World::new("repair").await;
    let operator = world.operator().await;
    world.apply(json!({ "storage": { "size": "1Gi" } })).await;
    let settings: ConfigMap = world.wait("shop-broker-0", "settings", |_| true).await;
    let budget: PodDisruptionBudget = world.wait("shop-broker", "budget", |_| true).await;

    let edit = json!({ "data": { "broker.yaml": "flush: async\n" } });
    world
        .api::<ConfigMap>()
        .patch("shop-broker-0", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .expect("edit it");
    let is_as_before = |map: &ConfigMap| map.data == settings.data;
    world.wait("shop-broker-0", "settings as they were", is_as_before).await;

    let api = world.api::<PodDisruptionBudget>();
    api.delete("shop-broker", &DeleteParams::default()).await.expect("delete it");
    let is_new = |found: &PodDisruptionBudget| found.uid() != budget.uid();
    world.wait("shop-broker", "new budget", is_new).await;
    operator.end().await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn field_that_the_spec_names_no_more_is_taken_away() {
    let world = World::new("removed").await;
    let operator = world.operator().await;
    world.apply(json!({ "storage": { "size": "1Gi" }, "nodeSelector": { "disk": "ssd" } })).await;
    let selector = |set: &StatefulSet| {
        let pod = set.spec.clone().and_then(|spec| spec.template.spec);
        pod.and_then(|pod| pod.node_selector).is_some_and(|selector| !selector.is_empty())
    };
    world.wait("shop-broker-0", "node selector", selector).await;
    world.apply(json!({ "storage": { "size": "1Gi" } })).await;
    world.wait("shop-broker-0", "pod without one", |set| !selector(set)).await;
    operator.end().await;
}
