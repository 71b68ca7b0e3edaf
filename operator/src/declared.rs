//! What a `Topic` and a `ConsumerGroup` have in common: each declares a name on a cluster.
//! Invariant: of several resources that declare the same name the eldest counts; the others wait until it goes.
//! Leaves what is declared to the folder of each kind.

use std::sync::Arc;

use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Resource, ResourceExt,
    runtime::{Controller, reflector::ObjectRef},
};

use crate::{
    Context,
    cache::{Cache, Kind},
    controllers,
};

/// A resource that declares a name on a cluster.
pub(crate) trait Declared: Kind + Resource<Scope = NamespaceResourceScope> {
    /// The cluster's name.
    fn cluster(&self) -> &str;
    /// The name in the spec, if there is one.
    fn own_name(&self) -> Option<&str>;

    /// Name that clients use.
    fn client_name(&self) -> String {
        self.own_name().map_or_else(|| self.name_any(), str::to_owned)
    }
}

impl Declared for Topic {
    fn cluster(&self) -> &str {
        &self.spec.cluster_ref.name
    }

    fn own_name(&self) -> Option<&str> {
        self.spec.name.as_deref()
    }
}

impl Declared for ConsumerGroup {
    fn cluster(&self) -> &str {
        &self.spec.cluster_ref.name
    }

    fn own_name(&self) -> Option<&str> {
        self.spec.name.as_deref()
    }
}

/// A controller that wakes a resource when it, its cluster or another one that declares its name changes.
pub(crate) fn controller<K: Declared>(
    cache: &Arc<Cache<K>>,
    clusters: &Cache<BrokerCluster>,
) -> Controller<K> {
    let (of_cluster, rivals) = (cache.clone(), cache.clone());
    Controller::for_shared_stream(cache.changes(), cache.store())
        .with_config(controllers::config())
        .watches_shared_stream(clusters.changes(), move |cluster| {
            let all = of_cluster.in_namespace(&cluster.namespace().unwrap_or_default());
            refs(all.into_iter().filter(|object| object.cluster() == cluster.name_any()))
        })
        // One that goes may make room for a younger one.
        .watches_shared_stream(cache.changes(), move |object| refs(others(&rivals, &*object)))
}

fn refs<K: Declared>(objects: impl Iterator<Item = Arc<K>>) -> Vec<ObjectRef<K>> {
    objects.map(|object| ObjectRef::from_obj(&*object)).collect()
}

/// Other resources that declare the same name on the same cluster.
pub(crate) fn others<K: Declared>(
    cache: &Cache<K>,
    object: &K,
) -> impl Iterator<Item = Arc<K>> + use<K> {
    rivals(cache.in_namespace(&object.namespace().unwrap_or_default()), object)
}

/// Name of another resource that declares the same and is older.
pub(crate) fn elder<K: Declared>(cache: &Cache<K>, object: &K) -> Option<String> {
    eldest(others(cache, object), object)
}

/// Of all resources of a namespace, the others that declare what `object` does.
fn rivals<K: Declared>(all: Vec<Arc<K>>, object: &K) -> impl Iterator<Item = Arc<K>> + use<K> {
    let (uid, cluster) = (object.uid(), object.cluster().to_owned());
    let name = object.client_name();
    all.into_iter().filter(move |other| {
        other.uid() != uid && other.cluster() == cluster && other.client_name() == name
    })
}

/// The eldest of its rivals, if it is older than `object`. Of one second, the first by name.
fn eldest<K: Declared>(rivals: impl Iterator<Item = Arc<K>>, object: &K) -> Option<String> {
    let age = |object: &K| (object.creation_timestamp(), object.name_any());
    let eldest = rivals.min_by_key(|rival| age(rival))?;
    (age(&eldest) < age(object)).then(|| eldest.name_any())
}

/// The cluster of a resource, unless it is being deleted.
pub(crate) fn cluster_of(ctx: &Context, object: &impl Declared) -> Option<Arc<BrokerCluster>> {
    let namespace = object.namespace().unwrap_or_default();
    let cluster = ctx.caches.clusters.get(&namespace, object.cluster())?;
    cluster.metadata.deletion_timestamp.is_none().then_some(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, second: u32, own_name: Option<&str>) -> Arc<Topic> {
        let topic = serde_json::json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Topic",
            "metadata": {
                "name": name, "namespace": "ns", "uid": name,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": { "clusterRef": { "name": "shop" }, "name": own_name },
        });
        Arc::new(serde_json::from_value(topic).expect("a topic"))
    }

    #[test]
    fn eldest_of_those_that_declare_one_name_counts_and_the_others_know_whose_it_is() {
        let (first, second) = (topic("orders", 1, None), topic("b", 2, Some("orders")));
        let (third, other) = (topic("a", 2, Some("orders")), topic("c", 0, None));
        let all = vec![third.clone(), second.clone(), first.clone(), other.clone()];
        let elder = |topic: &Topic| eldest(rivals(all.clone(), topic), topic);
        assert_eq!(elder(&first), None);
        assert_eq!(elder(&second).as_deref(), Some("orders"));
        assert_eq!(elder(&third).as_deref(), Some("orders"));
        assert_eq!(elder(&other), None, "another name");
        let rest = vec![second.clone(), third.clone()];
        assert_eq!(eldest(rivals(rest.clone(), &third), &third), None, "its elder went");
        assert_eq!(eldest(rivals(rest, &second), &second).as_deref(), Some("a"));
    }
}
