//! The stage of one test: a fresh namespace, a client, and a report when the test fails.
//! Invariant: the namespace is gone when the test ends, whatever its outcome, and a namespace that cannot end is a failure.
//! Leaves what is put on the stage to `objects` and `pods`.

use std::{future::Future, panic::resume_unwind, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};

use crate::{report, settings, until, wait};

/// What a test works with.
#[derive(Clone)]
pub struct Stage {
    /// A client of the cluster.
    pub client: Client,
    /// The namespace that is the test's own.
    pub namespace: String,
}

/// Runs one test on a stage of its own. On failure it prints the namespace's events, logs and statuses.
///
/// # Panics
/// When the test fails, with its reason.
pub async fn play<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Arc<Stage>) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let stage = Arc::new(Stage::new(name).await.expect("a namespace for the test"));
    let outcome = tokio::spawn(test(stage.clone())).await;
    let failed = !matches!(outcome, Ok(Ok(())));
    if failed {
        report::print(&stage).await;
    }
    if failed && settings::keep_failed() {
        eprintln!("kept: namespace {}", stage.namespace);
    } else if let Err(why) = stage.end().await {
        assert!(failed, "{name}: {why:#}");
        eprintln!("{name}: {why:#}");
    }
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(why)) => panic!("{name}: {why:#}"),
        Err(join) => resume_unwind(join.into_panic()),
    }
}

impl Stage {
    /// Makes a namespace that admits nothing but what the `restricted` profile does.
    async fn new(name: &str) -> Result<Self> {
        let client = settings::client().await?;
        let labels = [
            ("app.kubernetes.io/managed-by", "gantry-e2e"),
            ("pod-security.kubernetes.io/enforce", "restricted"),
        ];
        let namespace = Namespace {
            metadata: ObjectMeta {
                generate_name: Some(format!("e2e-{name}-")),
                labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let made = Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        let namespace = made.metadata.name.context("a namespace without a name")?;
        eprintln!("{name}: namespace {namespace}");
        Ok(Self { client, namespace })
    }

    /// An API of the test's own namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// DNS name of a Service here.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.svc.cluster.local", self.namespace)
    }

    async fn end(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        until("the namespace ends with all that is in it", wait::LATER, async || {
            let Some(left) = namespaces.get_opt(&self.namespace).await? else { return Ok(()) };
            let conditions = left.status.and_then(|status| status.conditions).unwrap_or_default();
            let holds = conditions.iter().filter(|condition| condition.status == "True");
            let holds: Vec<_> =
                holds.filter_map(|condition| condition.message.as_deref()).collect();
            bail!("namespace {} is held by: {holds:?}", self.namespace)
        })
        .await
    }
}

/// Runs several parts of a test at once and fails with the first that fails.
///
/// # Errors
/// With the first part's error.
pub async fn together<I, Fut>(parts: I) -> Result<()>
where
    I: IntoIterator<Item = Fut>,
    Fut: Future<Output = Result<()>>,
{
    let outcomes = futures::future::join_all(parts).await;
    let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}
