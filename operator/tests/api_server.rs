//! Promises of the operator that only a real API server can keep: writes, ownership, the Lease.
//! Invariant: each test has a namespace of its own, which goes with it; nothing here needs images or even a node.
//! Leaves clusters that serve to the end-to-end tests.
//!
//! They need a Kubernetes with Gantry's definitions: set `GANTRY_OPERATOR_TEST_KUBECONFIG` to its kubeconfig and run
//! `cargo test -p gantry-operator --test api_server -- --ignored`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use clap::Parser as _;
use gantry_operator::{
    Context, Settings, controllers,
    leader::{Candidate, LEASE, LostError},
};
use gantry_resources::BrokerCluster;
use http::{Method, Request};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Service},
    policy::v1::PodDisruptionBudget,
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
const PATIENCE: Duration = Duration::from_mins(1);

/// Counts requests of an operator that write anything.
#[derive(Clone, Default)]
struct Writes(Arc<AtomicUsize>);

#[derive(Clone)]
struct Counted<S> {
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
struct World {
    client: Client,
    namespace: String,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

/// An operator that works on the world's namespace.
struct Operator {
    writes: Writes,
    ctx: Arc<Context>,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), controllers::EndedError>>,
}

impl World {
    async fn new(promise: &str) -> Self {
        let alone = ALONE.lock().await;
        let client = Client::try_from(config().await).expect("a client");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let name = format!("gantry-test-{promise}-{}", std::process::id());
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        namespaces.create(&PostParams::default(), &namespace).await.expect("make a namespace");
        Self { client, namespace: name, _alone: alone }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn operator(&self) -> Operator {
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

    async fn apply(&self, spec: serde_json::Value) -> BrokerCluster {
        let cluster = json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "BrokerCluster",
            "metadata": { "name": "shop" }, "spec": spec,
        });
        let params = PatchParams::apply("a-user").force();
        self.api().patch("shop", &params, &Patch::Apply(&cluster)).await.expect("apply the cluster")
    }

    /// Waits until the object of that name is as wanted.
    async fn wait<K>(&self, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
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

    async fn wait_for_reason(&self, reason: &str) -> BrokerCluster {
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

fn reasons(cluster: &BrokerCluster) -> Vec<String> {
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    conditions.map(|condition| condition.reason.clone()).collect()
}

impl Operator {
    /// Waits until the operator's cache has the cluster as it is now, and a pass over it has ended without a write.
    async fn is_quiet(&self, world: &World) {
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
    async fn one_more_pass(&self, world: &World) {
        let done = passes();
        let stamp = format!("{:?}", std::time::SystemTime::now());
        let touch = json!({ "metadata": { "annotations": { "test/touched": stamp } } });
        let touched: BrokerCluster = world
            .api()
            .patch("shop", &PatchParams::default(), &Patch::Merge(&touch))
            .await
            .expect("touch the cluster");
        let version = touched.resource_version();
        until("the cache hears of the touch", || {
            let cached = self.ctx.caches.clusters.get(&world.namespace, "shop");
            cached.is_some_and(|cached| cached.resource_version() == version)
        })
        .await;
        // One pass may have begun before the touch was seen: the second one began after it.
        until("two passes end", || passes() >= done + 2).await;
    }

    async fn end(self) {
        self.stop.cancel();
        self.ended.await.expect("no panic").expect("an end by the signal");
    }
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
    assert_eq!(sets(&world).await, before);
    second.end().await;
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

#[tokio::test]
#[ignore = "needs a Kubernetes: set GANTRY_OPERATOR_TEST_KUBECONFIG"]
async fn lease_has_one_holder_and_is_free_at_once_when_released() {
    let world = World::new("lease").await;
    let candidate =
        |name: &str| Candidate::new(world.client.clone(), &world.namespace, name.to_owned());
    let (mut first, mut second) = (candidate("first"), candidate("second"));
    first.acquire().await;
    let taking_over = tokio::spawn(async move {
        second.acquire().await;
        second
    });
    let acquired = world.api::<Lease>().get(LEASE).await.expect("the Lease").spec;
    let renewed = world.wait(LEASE, "renewal", |lease: &Lease| lease.spec != acquired);
    tokio::select! {
        lost = first.keep() => panic!("the holder renews: {lost}"),
        renewed = renewed => {
            assert_eq!(renewed.spec.and_then(|spec| spec.holder_identity).as_deref(), Some("first"));
        }
    }
    assert!(!taking_over.is_finished(), "nobody else has it meanwhile");
    first.release().await;
    let second =
        tokio::time::timeout(PATIENCE, taking_over).await.expect("in time").expect("no panic");
    drop(second);
    let lost = tokio::time::timeout(PATIENCE, first.keep()).await.expect("in time");
    assert!(matches!(&lost, LostError::Taken { holder } if holder == "second"), "{lost}");
}
