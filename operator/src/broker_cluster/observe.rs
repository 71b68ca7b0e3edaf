//! Looks at what runs: pods, volumes and addresses in the caches, registrations at the name servers.
//! Invariant: what a cache has not heard of yet is told apart from what is up to date.
//! Reads alone; leaves decisions to `roll`, `volumes` and `report`.

use std::collections::BTreeMap;

use gantry_resources::BrokerCluster;
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;

use super::{
    names, pod_state,
    registry::{Registered, Registry, RegistryError},
    validate::Valid,
};
use crate::{
    Context,
    labels::{self, Component},
    with_causes,
};

/// One name server or broker that is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    /// Name of its pod.
    pub pod: String,
    /// What it is.
    pub component: Component,
    /// Number of its group, of a broker.
    pub group: i32,
    /// Uid of the pod, if it exists.
    pub uid: Option<String>,
    /// Whether the pod is of an older revision, or its revision is not known yet.
    pub outdated: bool,
    /// How far the pod is.
    pub life: Life,
    /// Why it cannot start, if it cannot.
    pub failing: Option<String>,
    /// Image that it runs.
    pub image: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Whether name servers know it.
    pub registration: Registration,
    /// Address in routes, of a broker that is registered.
    pub address: Option<String>,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Life {
    /// There is none.
    #[default]
    Missing,
    /// It has not been ready once since it was made.
    NeverReady,
    /// It was ready, and is not.
    NotReady,
    /// It is ready.
    Ready,
    /// It is being deleted.
    Stopping,
}

/// Whether name servers know a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Registration {
    /// It is none that registers.
    #[default]
    Needless,
    /// They do.
    Known,
    /// They do not.
    Missing,
    /// They were not asked or did not answer.
    Unknown,
}

impl Registration {
    /// Whether it cannot be told.
    pub(super) fn is_unknown(self) -> bool {
        self == Self::Unknown
    }
}

/// What runs of a cluster.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Every server that is to run, name servers first, brokers by group.
    pub servers: Vec<Server>,
    /// Whether the caches show every `StatefulSet` as its controller has seen it last.
    pub settled: bool,
    /// Volume claims of brokers that exist, with their present request.
    pub claims: Vec<Claim>,
    /// Address of the name servers' client Service.
    pub name_server_ip: Option<String>,
    /// Why the name servers could not be asked.
    pub registry_error: Option<String>,
}

/// A volume claim.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Size that it asks for.
    pub request: Quantity,
}

/// Volume sizes that the cluster's `StatefulSet`s were made with, by name.
pub(super) fn claim_sizes(ctx: &Context, cluster: &BrokerCluster) -> BTreeMap<String, Quantity> {
    let (cluster_name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
    let size = |group| {
        let name = names::group(&cluster_name, group);
        let set = ctx.caches.stateful_sets.get(&namespace, &name)?;
        // One of an earlier cluster of the name goes with it.
        let is_ours = is_owned_by(&*set, cluster.uid().as_deref());
        let claims = set.spec.as_ref()?.volume_claim_templates.as_ref().filter(|_| is_ours)?;
        Some((name, request(claims.first()?)?))
    };
    (0..cluster.spec.groups).filter_map(size).collect()
}

/// Looks at everything that belongs to `cluster`.
pub(super) async fn observe(
    ctx: &Context,
    registry: &dyn Registry,
    cluster: &Valid<'_>,
) -> Observed {
    let sets = SetRevisions { ctx, cluster };
    let name = &cluster.name;
    let ns_set = names::name_servers(name);
    let name_servers = (0..cluster.spec.name_servers.replicas).map(|replica| Server {
        component: Component::NameServer,
        ..sets.server(&ns_set, format!("{ns_set}-{replica}"))
    });
    let brokers = (0..cluster.spec.groups).flat_map(|group| {
        let set = names::group(name, group);
        let sets = &sets;
        (0..cluster.spec.replicas_per_group).map(move |replica| Server {
            component: Component::Broker,
            group,
            registration: Registration::Unknown,
            ..sets.server(&set, names::broker(name, group, replica))
        })
    });
    let mut servers: Vec<Server> = name_servers.chain(brokers).collect();
    let registered = ask(registry, cluster, &servers).await;
    let registry_error = registered.as_ref().err().map(|error| with_causes(error));
    if let Ok(registered) = &registered {
        register(&mut servers, name, registered);
    }
    let all_sets = std::iter::once(ns_set.clone())
        .chain((0..cluster.spec.groups).map(|group| names::group(name, group)));
    Observed {
        servers,
        settled: all_sets.into_iter().all(|set| sets.revision(&set).is_some()),
        claims: claims(ctx, cluster),
        name_server_ip: service_ip(ctx, cluster),
        registry_error,
    }
}

/// The newest revisions of a cluster's `StatefulSet`s.
struct SetRevisions<'a> {
    ctx: &'a Context,
    cluster: &'a Valid<'a>,
}

impl SetRevisions<'_> {
    /// The newest revision, if the set's controller has seen its newest spec.
    fn revision(&self, set: &str) -> Option<String> {
        let set = self.ctx.caches.stateful_sets.get(&self.cluster.namespace, set)?;
        newest_revision(&set)
    }

    fn server(&self, set: &str, pod: String) -> Server {
        let (caches, namespace) = (&self.ctx.caches, &self.cluster.namespace);
        let Some(found) = caches.pods.get(namespace, &pod) else {
            return Server { pod, ..Server::default() };
        };
        let server = of_pod(&found, self.revision(set).as_deref());
        // A pod of a cluster that was deleted may outlive it for a moment, ready and registered.
        let set = caches.stateful_sets.get(namespace, set);
        let is_of_set = set.is_some_and(|set| is_owned_by(&*found, set.uid().as_deref()));
        if is_of_set { server } else { Server { life: Life::Stopping, ..server } }
    }
}

fn is_owned_by(object: &impl ResourceExt, uid: Option<&str>) -> bool {
    object.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

fn newest_revision(set: &StatefulSet) -> Option<String> {
    let status = set.status.as_ref()?;
    let seen = status.observed_generation.is_some()
        && status.observed_generation == set.metadata.generation;
    status.update_revision.clone().filter(|_| seen)
}

fn of_pod(pod: &Pod, newest: Option<&str>) -> Server {
    let revision = pod.labels().get("controller-revision-hash").map(String::as_str);
    let status = pod.status.as_ref();
    Server {
        pod: pod.name_any(),
        uid: pod.uid(),
        outdated: newest.is_some() && revision != newest,
        life: pod_state::life(pod),
        failing: pod_state::failure(pod),
        image: pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.clone()),
        ip: status.and_then(|status| status.pod_ip.clone()),
        ..Server::default()
    }
}

async fn ask(
    registry: &dyn Registry,
    cluster: &Valid<'_>,
    servers: &[Server],
) -> Result<Registered, RegistryError> {
    let ready = servers
        .iter()
        .filter(|server| server.component == Component::NameServer && server.life == Life::Ready);
    let addresses: Vec<String> = ready
        .filter_map(|server| server.ip.as_deref())
        .map(|ip| socket_address(ip, names::NAME_SERVER_PORT))
        .collect();
    registry.registered(&cluster.namespace, &cluster.name, &addresses).await
}

/// `ip:port`, with brackets around an IPv6 address.
fn socket_address(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn register(servers: &mut [Server], cluster: &str, registered: &Registered) {
    let brokers = servers.iter_mut().filter(|server| server.component == Component::Broker);
    for server in brokers {
        let found = registered.get(&names::broker_name(cluster, server.group));
        server.address = found.cloned();
        server.registration =
            if found.is_some() { Registration::Known } else { Registration::Missing };
    }
}

fn claims(ctx: &Context, cluster: &Valid<'_>) -> Vec<Claim> {
    let wanted = (0..cluster.spec.groups).flat_map(|group| {
        let of_replica = move |replica| names::claim(&cluster.name, group, replica);
        (0..cluster.spec.replicas_per_group).map(of_replica)
    });
    let claim = |name: String| {
        let found = ctx.caches.claims.get(&cluster.namespace, &name)?;
        Some(Claim { uid: found.uid()?, request: request(&found)?, name })
    };
    wanted.filter_map(claim).collect()
}

fn request(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage").cloned()
}

fn service_ip(ctx: &Context, cluster: &Valid<'_>) -> Option<String> {
    let service =
        ctx.caches.services.get(&cluster.namespace, &names::name_servers(&cluster.name))?;
    let ip = service.spec.as_ref()?.cluster_ip.clone()?;
    (!ip.is_empty() && ip != "None").then(|| socket_address(&ip, names::NAME_SERVER_PORT))
}

/// The cluster that an object with the operator's labels belongs to.
pub(super) fn cluster_of<K: kube::Resource>(object: &K) -> Option<(String, String)> {
    let cluster = object.labels().get(labels::INSTANCE)?.clone();
    Some((cluster, object.namespace()?))
}
