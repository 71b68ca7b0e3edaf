//! The definitions as the API server applies them: samples are accepted, mistakes are refused with a sentence.
//! Invariant: everything is a dry run, with strict validation as `kubectl` asks for it.
//! Leaves what a valid object does to the controllers.

use std::{fs, path::Path};

use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use kube::{
    Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams, ValidationDirective},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::world::World;

/// What the API server says to an object; `None` when it takes it.
async fn refusal<K>(world: &World, object: &Value) -> Option<String>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().expect("a name");
    let params = PatchParams {
        dry_run: true,
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("a-user")
    };
    match world.api::<K>().patch(name, &params, &Patch::Apply(object)).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(error) => panic!("{error}"),
    }
}

async fn refusal_of(world: &World, object: &Value) -> Option<String> {
    match object["kind"].as_str() {
        Some("BrokerCluster") => refusal::<BrokerCluster>(world, object).await,
        Some("Topic") => refusal::<Topic>(world, object).await,
        Some("ConsumerGroup") => refusal::<ConsumerGroup>(world, object).await,
        other => panic!("kind {other:?}"),
    }
}

fn object(kind: &str, name: &str, spec: &str) -> Value {
    let spec: Value = serde_yaml::from_str(spec).expect("YAML");
    json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": kind,
        "metadata": { "name": name }, "spec": spec,
    })
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn samples_are_accepted_as_they_stand() {
    let world = World::new("samples").await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let mut count = 0;
    for file in fs::read_dir(folder).expect("samples") {
        let path = file.expect("a file").path();
        let text = fs::read_to_string(&path).expect("read it");
        let sample: Value = serde_yaml::from_str(&text).expect("YAML");
        assert_eq!(refusal_of(&world, &sample).await, None, "{}", path.display());
        count += 1;
    }
    assert!(count >= 3);
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn mistake_is_refused_with_a_sentence_that_says_what_to_change() {
    let world = World::new("mistakes").await;
    let table = [
        ("BrokerCluster", "a", "{storage: {size: 1Mi}}", "at least 1Gi, such as 10Gi"),
        ("BrokerCluster", "a", "{storage: {size: ten}}", "at least 1Gi, such as 10Gi"),
        ("BrokerCluster", "a", "{}", "storage"),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, storag: {}}", "storag"),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, groups: 0}", "spec.groups"),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, replicasPerGroup: 3}", "must be 1"),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, flush: Never}", "Sync"),
        (
            "BrokerCluster",
            "a",
            "{storage: {size: 1Gi}, retention: {time: 3w}}",
            "spec.retention.time",
        ),
        (
            "BrokerCluster",
            "a-name-that-is-longer-than-thirty",
            "{storage: {size: 1Gi}}",
            "at most 30 characters",
        ),
        ("BrokerCluster", "0a", "{storage: {size: 1Gi}}", "begin with a letter"),
        ("BrokerCluster", "a", "{storage: {size: 10}}", "at least 1Gi, such as 10Gi"),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, retention: {size: big}}", "such as 8Gi"),
        (
            "BrokerCluster",
            "a",
            "{storage: {size: 1Gi}, retention: {size: 1Gi}}",
            "less than storage.size",
        ),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, retention: {time: 59s}}", "at least 1m"),
        ("BrokerCluster", "a", "{storage: {size: 1Gi}, image: a b}", "name of an image"),
        (
            "BrokerCluster",
            "a",
            "{storage: {size: 1Gi}, resources: {limits: {memory: lots}}}",
            "such as cpu: 500m",
        ),
        (
            "BrokerCluster",
            "a",
            "{storage: {size: 1Gi}, resources: {limits: {memory: 512}}}",
            "write a unit",
        ),
        (
            "BrokerCluster",
            "a",
            "{storage: {size: 1Gi}, resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}}",
            "requests must not be above limits",
        ),
        (
            "BrokerCluster",
            "a",
            "{storage: {size: 1Gi}, nameServers: {resources: {requests: {cpu: much}}}}",
            "such as cpu: 100m",
        ),
        ("Topic", "a", "{clusterRef: {name: My_Shop}}", "must be the name of a BrokerCluster"),
        (
            "ConsumerGroup",
            "a",
            "{clusterRef: {name: shop}, topics: [{name: a/b}]}",
            "the name that clients use",
        ),
        ("Topic", "a", "{}", "clusterRef"),
        ("Topic", "a.b", "{clusterRef: {name: shop}}", "set spec.name"),
        ("Topic", "a", "{clusterRef: {name: shop}, name: '%RETRY%x'}", "choose another"),
        ("Topic", "a", "{clusterRef: {name: shop}, name: TBW102}", "choose another"),
        ("Topic", "a", "{clusterRef: {name: shop}, name: a/b}", "spec.name"),
        ("Topic", "a", "{clusterRef: {name: shop}, queues: 0}", "spec.queues"),
        ("Topic", "a", "{clusterRef: {name: shop}, type: Delay}", "Fifo"),
        (
            "ConsumerGroup",
            "a",
            "{clusterRef: {name: shop}, scaling: {targetRef: {kind: Deployment, name: a}, maxReplicas: 1}}",
            "scaling needs topics",
        ),
        (
            "ConsumerGroup",
            "a",
            "{clusterRef: {name: shop}, topics: [{name: t}], \
              scaling: {targetRef: {kind: Deployment, name: a}, minReplicas: 2, maxReplicas: 1}}",
            "must not be above",
        ),
    ];
    for (kind, name, spec, sentence) in table {
        let refusal = refusal_of(&world, &object(kind, name, spec)).await;
        let refusal = refusal.unwrap_or_else(|| panic!("{kind} {spec} was accepted"));
        assert!(refusal.contains(sentence), "{kind} {spec}: {refusal}");
    }
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn quantities_may_be_numbers_and_images_digests() {
    let world = World::new("quantities").await;
    let spec = "{storage: {size: 2147483648}, retention: {time: 1m, size: 1073741824}, \
                 image: 'registry:5000/a/gantry-broker@sha256:0a', \
                 resources: {requests: {cpu: 1}, limits: {cpu: 2, memory: 1Gi}}}";
    assert_eq!(refusal_of(&world, &object("BrokerCluster", "a", spec)).await, None);
}

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn change_that_would_lose_messages_is_refused() {
    let world = World::new("changes").await;
    let made = [
        object("BrokerCluster", "a", "{groups: 2, storage: {size: 2Gi, storageClassName: fast}}"),
        object("Topic", "a", "{clusterRef: {name: shop}, name: A}"),
    ];
    let cluster: BrokerCluster = serde_json::from_value(made[0].clone()).expect("a cluster");
    let topic: Topic = serde_json::from_value(made[1].clone()).expect("a topic");
    let cluster = world.api().create(&PostParams::default(), &cluster).await.expect("make it");
    world.api().create(&PostParams::default(), &topic).await.expect("make it");
    assert_eq!(cluster.name_any(), "a");
    let table = [
        (
            "BrokerCluster",
            "{groups: 1, storage: {size: 2Gi, storageClassName: fast}}",
            "groups may only grow",
        ),
        (
            "BrokerCluster",
            "{groups: 2, storage: {size: 1Gi, storageClassName: fast}}",
            "storage.size may only grow",
        ),
        (
            "BrokerCluster",
            "{groups: 2, storage: {size: 2Gi, storageClassName: slow}}",
            "storageClassName cannot be changed",
        ),
        (
            "BrokerCluster",
            "{groups: 2, storage: {size: 2Gi, storageClassName: null}}",
            "storageClassName cannot be set or removed later",
        ),
        ("Topic", "{clusterRef: {name: other}, name: A}", "create another Topic"),
        ("Topic", "{clusterRef: {name: shop}, name: B}", "spec.name cannot be changed"),
        ("Topic", "{clusterRef: {name: shop}}", "cannot be set or removed later"),
    ];
    for (kind, spec, sentence) in table {
        let merge = Patch::Merge(object(kind, "a", spec));
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let changed = match kind {
            "Topic" => {
                // A merge leaves out what it does not name: null takes it away.
                let mut patch = object(kind, "a", spec);
                if patch["spec"]["name"].is_null() {
                    patch["spec"]["name"] = Value::Null;
                }
                let patched = world.api::<Topic>().patch("a", &params, &Patch::Merge(patch)).await;
                patched.map(|_| ())
            }
            _ => world.api::<BrokerCluster>().patch("a", &params, &merge).await.map(|_| ()),
        };
        let refusal = changed.expect_err(spec).to_string();
        assert!(refusal.contains(sentence), "{spec}: {refusal}");
    }
}
