//! A namespace of a test, and operators that work on it.
//! Invariant: the namespace is deleted at the end, of a failed test too; tests run one at a time.
//! Leaves what is promised to the tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use clap::Parser as _;
use gantry_operator::{Context, Settings, controllers};
use gantry_resources::BrokerCluster;
use http::{Method, Request};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service as TowerService};

const VARIABLE: &str = "GANTRY_OPERATOR_TEST_KUBECONFIG";
/// Longest wait for anything that is to happen.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Counts requests of an operator that write anything.
#[derive(Clone, Default)]
pub(crate) struct Writes(pub(crate) Arc<AtomicUsize>);

#[derive(Clone)]
pub(crate) struct Counted<S> {
    inner: S,
    writes: Writes,
}

impl<S> Layer<S> for Writes {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, writes: self.clone() }
    }
}

impl<S: TowerService<Request<B>>, B> TowerService<Request<B>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        if request.method() != Method::GET {
            self.writes.0.fetch_add(1, SeqCst);
        }
        self.inner.call(request)
    }
}

async fn config() -> Config {
    let path =
        std::env::var_os(VARIABLE).unwrap_or_else(|| panic!("set {VARIABLE} to a kubeconfig"));
    let kubeconfig = Kubeconfig::read_from(path).expect("read the kubeconfig");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("use the kubeconfig")
}

/// Metrics are those of the process, so one test runs at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A namespace that is deleted at the end, and the operators that watch it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

/// An operator that works on the world's namespace.
pub(crate) struct Operator {
    pub(crate) writes: Writes,
    ctx: Arc<Context>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), controllers::EndedError>>,
}

impl World {
    pub(crate) async fn new(promise: &str) -> Self {
        let alone = ALONE.lock().await;
        // Shown with a test that fails. A second call finds it done.
        let _ = gantry_telemetry::init_logs(gantry_telemetry::LogFormat::Text, "info");
        let client = Client::try_from(config().await).expect("a client");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let name = format!("gantry-test-{promise}-{}", std::process::id());
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        namespaces.create(&PostParams::default(), &namespace).await.expect("make a namespace");
        Self { client, namespace: name, _alone: alone }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn operator(&self) -> Operator {
        let writes = Writes::default();
        let client =
            ClientBuilder::try_from(config().await).expect("a client").with_layer(&writes).build();
        let images =
            ["--broker-image=none/gantry-broker:1", "--nameserver-image=none/gantry-nameserver:1"];
        let scope = format!("--namespace={}", self.namespace);
        let arguments = ["gantry-operator", &scope].into_iter().chain(images);
        let settings = Settings::parse_from(arguments);
        let ctx = Arc::new(Context::new(client, settings));
        let stop = CancellationToken::new();
        let ended = tokio::spawn(controllers::run(ctx.clone(), stop.clone(), || ()));
        Operator { writes, ctx, stop, ended }
    }

    pub(crate) async fn apply(&self, spec: serde_json::Value) -> BrokerCluster {
        let cluster = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "BrokerCluster",
            "metadata": { "name": "shop" }, "spec": spec,
        });
        let params = PatchParams::apply("a-user").force();
        self.api().patch("shop", &params, &Patch::Apply(&cluster)).await.expect("apply the cluster")
    }

    /// Waits until the object of that name is as wanted.
    pub(crate) async fn wait<K>(&self, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let api = self.api::<K>();
        let condition = |object: Option<&K>| object.is_some_and(&is);
        let waited = kube::runtime::wait::await_condition(api.clone(), name, condition);
        if let Ok(found) = tokio::time::timeout(PATIENCE, waited).await {
            return found.expect("watch").expect("an object");
        }
        let mut found = api.get_opt(name).await.expect("read it");
        if let Some(found) = &mut found {
            found.meta_mut().managed_fields = None;
        }
        panic!("{name}: no {what}, but {found:?}")
    }

    /// Waits until the scheduler has found no node for so many pods, and their sets know of them: from then on nothing
    /// changes by itself.
    pub(crate) async fn wait_for_stranded_pods(&self, count: usize) {
        let (pods, sets) = (self.api::<Pod>(), self.api::<StatefulSet>());
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let pods = pods.list(&ListParams::default()).await.expect("list the pods").items;
            let sets = sets.list(&ListParams::default()).await.expect("list the sets").items;
            let stranded = pods.iter().filter(|pod| is_stranded(pod)).count();
            if stranded == count && sets.iter().filter(|set| is_counted(set)).count() == count {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "not {count} stranded pods: {pods:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn wait_for_reason(&self, reason: &str) -> BrokerCluster {
        self.wait("shop", reason, |cluster: &BrokerCluster| {
            reasons(cluster).contains(&reason.to_owned())
        })
        .await
    }
}

impl Drop for World {
    /// Deletes the namespace, of a failed test too.
    fn drop(&mut self) {
        let name = self.namespace.clone();
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let client = Client::try_from(config().await).expect("a client");
                let namespaces: Api<Namespace> = Api::all(client);
                namespaces.delete(&name, &DeleteParams::default()).await.map(|_| ())
            })
        });
        if !matches!(deleted.join(), Ok(Ok(()))) {
            eprintln!("namespace {} is left behind", self.namespace);
        }
    }
}

/// Whether the set's controller has told of its one pod.
fn is_counted(set: &StatefulSet) -> bool {
    set.status.as_ref().is_some_and(|status| {
        status.replicas == 1
            && status.updated_replicas == Some(1)
            && status.observed_generation == set.metadata.generation
    })
}

fn is_stranded(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "PodScheduled" && one.status == "False")
}

fn reasons(cluster: &BrokerCluster) -> Vec<String> {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions.map(|condition| condition.reason.clone()).collect()
}

impl Operator {
    /// Waits until the operator's cache has the cluster as it is now, and a pass over it has ended without a write.
    pub(crate) async fn is_quiet(&self, world: &World) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let before = self.writes.0.load(SeqCst);
            self.one_more_pass(world).await;
            if self.writes.0.load(SeqCst) == before {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "the operator goes on writing");
        }
    }

    /// Touches the cluster in a way that asks for nothing, and waits until a pass that saw it has ended.
    pub(crate) async fn one_more_pass(&self, world: &World) {
        let done = passes();
        self.touch(world).await;
        // This one may have begun before the touch was seen; the next one began after it.
        until("a pass ends", || passes() > done).await;
        self.touch(world).await;
        until("another pass ends", || passes() > done + 1).await;
    }

    /// Changes an annotation, and waits until the operator's cache has it.
    async fn touch(&self, world: &World) {
        let stamp = format!("{:?}", std::time::SystemTime::now());
        let touch = json!({ "metadata": { "annotations": { "test/touched": stamp } } });
        let touched: BrokerCluster = world
            .api()
            .patch("shop", &PatchParams::default(), &Patch::Merge(&touch))
            .await
            .expect("touch the cluster");
        until("the cache hears of the touch", || {
            let cached = self.ctx.caches.clusters.get(&world.namespace, "shop");
            cached.is_some_and(|cached| version(&cached) >= version(&touched))
        })
        .await;
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.ended.await.expect("no panic").expect("an end by the signal");
    }
}

/// Versions of one object are numbers that grow.
fn version(cluster: &BrokerCluster) -> Option<u64> {
    cluster.resource_version()?.parse().ok()
}

/// Passes over clusters that have ended in this process.
fn passes() -> usize {
    let telemetry = gantry_telemetry::Telemetry::new().expect("a recorder");
    let metrics = telemetry.render_metrics();
    let lines = metrics.lines().filter(|line| {
        line.starts_with("gantry_operator_reconciles_total") && line.contains("BrokerCluster")
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// Waits for what no watch tells.
async fn until(what: &str, is: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
