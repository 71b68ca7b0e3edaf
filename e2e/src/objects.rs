//! Objects of the API server: YAML applied as a user would, conditions read.
//! Invariant: a manifest is applied with strict validation, so that a misspelt field fails the test that has it.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, ValidationDirective},
    core::{DynamicObject, GroupVersionKind},
    discovery::pinned_kind,
};
use serde::Deserialize as _;

use crate::{Stage, until};

/// Who the tests say they are when they apply.
const FIELD_MANAGER: &str = "gantry-e2e";

/// Status of an object whose conditions follow the custom of Kubernetes.
pub trait Ready {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
    /// Generation of the spec that the conditions speak of.
    fn observed_generation(&self) -> Option<i64>;
}

macro_rules! ready {
    ($($kind:ty),*) => {$(
        impl Ready for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |status| &status.conditions)
            }
            fn observed_generation(&self) -> Option<i64> {
                self.status.as_ref().and_then(|status| status.observed_generation)
            }
        }
    )*};
}
ready!(gantry_resources::BrokerCluster, gantry_resources::Topic, gantry_resources::ConsumerGroup);

/// Splits a text into its YAML documents.
///
/// # Errors
/// When a document is no object.
pub fn documents(yaml: &str) -> Result<Vec<DynamicObject>> {
    let documents = serde_yaml::Deserializer::from_str(yaml).map(DynamicObject::deserialize);
    documents.collect::<Result<_, _>>().with_context(|| format!("read as objects:\n{yaml}"))
}

impl Stage {
    async fn dynamic(&self, object: &DynamicObject) -> Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("an object without a kind")?;
        let kind = GroupVersionKind::try_from(types)?;
        let (resource, _) = pinned_kind(&self.client, &kind).await?;
        Ok(Api::namespaced_with(self.client.clone(), &self.namespace, &resource))
    }

    /// Applies each document of `yaml` in the test's namespace, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When the API server refuses one, with its sentence.
    pub async fn apply(&self, yaml: &str) -> Result<Vec<DynamicObject>> {
        let params = PatchParams {
            field_validation: Some(ValidationDirective::Strict),
            ..PatchParams::apply(FIELD_MANAGER)
        };
        let mut applied = Vec::new();
        for object in documents(yaml)? {
            let name = object.name_any();
            let api = self.dynamic(&object).await?;
            applied.push(api.patch(&name, &params, &Patch::Apply(&object)).await?);
        }
        Ok(applied)
    }

    /// Deletes the object of that name and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be deleted, or is held for long.
    pub async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = self.api();
        let uid = api.get(name).await?.meta().uid.clone();
        api.delete(name, &DeleteParams::default()).await?;
        until(&format!("{name} is deleted"), crate::wait::SOON, async || {
            let left = api.get_opt(name).await?;
            let held = left.filter(|left| left.meta().uid == uid);
            ensure!(held.is_none(), "{:?}", held.map(|held| held.meta().clone()));
            Ok(())
        })
        .await
    }

    /// Waits until the object's condition `Ready` is `status` for its latest spec, and returns the object.
    ///
    /// # Errors
    /// When it is not so in time, with the conditions seen last.
    pub async fn ready<K>(&self, name: &str, status: &str) -> Result<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
            + Ready
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = self.api();
        until(&format!("{name} is Ready={status}"), crate::wait::LATER, async || {
            let object = api.get(name).await?;
            let latest = object.observed_generation() == object.meta().generation;
            let ready = object.conditions().iter().find(|condition| condition.type_ == "Ready");
            let so = latest && ready.is_some_and(|ready| ready.status == status);
            ensure!(so, "conditions {:?}", object.conditions());
            Ok(object)
        })
        .await
    }
}
