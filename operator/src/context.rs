//! What the controllers share: client, settings, caches, events, retries.
//! Invariant: a reconcile reads from the caches; every write goes through `apply`, `status` or an API call of its own.
//! Leaves what is done with it to the folder of each kind.

use std::{fmt::Debug, sync::Arc};

use futures::future::BoxFuture;
use gantry_resources::{BrokerCluster, ConsumerGroup, Topic};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{Api, Client, Resource, core::DeserializeGuard, runtime::watcher};

use crate::{
    apply::Applier,
    brokers::Pool,
    cache::{Cache, Kind},
    events::Events,
    labels,
    retries::Retries,
    settings::Settings,
};

/// What the controllers share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What the operator was told at start.
    pub settings: Settings,
    /// Namespace of the operator itself.
    pub operator_namespace: String,
    /// What the API server told.
    pub caches: Caches,
    /// Applies rendered objects.
    pub applier: Applier,
    /// Says what happened, as events.
    pub events: Events,
    /// How often objects have failed in a row.
    pub retries: Retries,
    /// Clients of clusters.
    pub brokers: Pool,
}

/// A cache for each kind that reconcilers read.
pub struct Caches {
    /// All clusters.
    pub clusters: Arc<Cache<BrokerCluster>>,
    /// All topics.
    pub topics: Arc<Cache<Topic>>,
    /// All consumer groups.
    pub groups: Arc<Cache<ConsumerGroup>>,
    /// Of the following, those that the operator made.
    pub stateful_sets: Arc<Cache<StatefulSet>>,
    /// Services.
    pub services: Arc<Cache<Service>>,
    /// Settings of servers.
    pub config_maps: Arc<Cache<ConfigMap>>,
    /// Disruption budgets.
    pub budgets: Arc<Cache<PodDisruptionBudget>>,
    /// Network policies.
    pub policies: Arc<Cache<NetworkPolicy>>,
    /// Pods of servers.
    pub pods: Arc<Cache<Pod>>,
    /// Volumes of brokers.
    pub claims: Arc<Cache<PersistentVolumeClaim>>,
}

impl Context {
    /// The context of an operator that speaks through `client`. Its caches are empty until they run.
    pub fn new(client: Client, settings: Settings) -> Self {
        let operator_namespace = settings
            .operator_namespace
            .clone()
            .unwrap_or_else(|| client.default_namespace().to_owned());
        Self {
            caches: Caches::new(&client, settings.namespace.as_deref()),
            applier: Applier::new(client.clone()),
            events: Events::new(client.clone()),
            retries: Retries::default(),
            brokers: Pool::default(),
            client,
            settings,
            operator_namespace,
        }
    }

    /// The API of a kind in one namespace, for what the caches do not answer.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

impl Caches {
    fn new(client: &Client, namespace: Option<&str>) -> Self {
        let scope = Scope { client, namespace };
        Self {
            clusters: scope.all(),
            topics: scope.all(),
            groups: scope.all(),
            stateful_sets: scope.ours(),
            services: scope.ours(),
            config_maps: scope.ours(),
            budgets: scope.ours(),
            policies: scope.ours(),
            pods: scope.ours(),
            claims: scope.ours(),
        }
    }

    /// The watches of all caches, each to be run at once with the others.
    pub fn watches(&self) -> Vec<BoxFuture<'static, ()>> {
        vec![
            Box::pin(self.clusters.clone().run()),
            Box::pin(self.topics.clone().run()),
            Box::pin(self.groups.clone().run()),
            Box::pin(self.stateful_sets.clone().run()),
            Box::pin(self.services.clone().run()),
            Box::pin(self.config_maps.clone().run()),
            Box::pin(self.budgets.clone().run()),
            Box::pin(self.policies.clone().run()),
            Box::pin(self.pods.clone().run()),
            Box::pin(self.claims.clone().run()),
        ]
    }

    /// Waits until every cache holds what the API server has.
    pub async fn filled(&self) {
        self.clusters.filled().await;
        self.topics.filled().await;
        self.groups.filled().await;
        self.stateful_sets.filled().await;
        self.services.filled().await;
        self.config_maps.filled().await;
        self.budgets.filled().await;
        self.policies.filled().await;
        self.pods.filled().await;
        self.claims.filled().await;
    }
}

/// Which namespaces are watched.
struct Scope<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
}

impl Scope<'_> {
    /// Every object of a kind.
    fn all<K: Kind + Resource<Scope = NamespaceResourceScope> + Debug>(&self) -> Arc<Cache<K>> {
        Arc::new(Cache::new(self.api(), watcher::Config::default()))
    }

    /// Objects that carry the operator's label.
    fn ours<K: Kind + Resource<Scope = NamespaceResourceScope> + Debug>(&self) -> Arc<Cache<K>> {
        let ours = watcher::Config::default().labels(labels::MANAGED);
        Arc::new(Cache::new(self.api(), ours))
    }

    fn api<K: Kind + Resource<Scope = NamespaceResourceScope>>(&self) -> Api<DeserializeGuard<K>> {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}
