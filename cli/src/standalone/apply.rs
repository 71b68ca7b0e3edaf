//! `--apply`: `Topic` and `ConsumerGroup` manifests, the same that the operator reads.
//! Invariant: a manifest is created as it is written, or refused with file, line and name of what is wrong, before
//! anything is created; applying it again changes nothing.
//! Leaves scaling, deletion and other clusters to the operator: there is one cluster here, and such fields are
//! checked and passed over.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use gantry_client::{Admin, Client};
use gantry_model::{GroupConfig, GroupName, RETENTION_ATTRIBUTE, TopicConfig, TopicName};
use serde::Deserialize;

use crate::{
    commands::topic::{TYPE_ATTRIBUTE, TopicType},
    context::client,
    exit::Failure,
};

const API_VERSION: &str = "gantry.dev/v1alpha1";
/// Most failed attempts that a group may allow.
const ATTEMPTS_MAX: u32 = 1000;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    topics: Vec<TopicConfig>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    config: GroupConfig,
    topics: Vec<TopicName>,
    start_from: StartFrom,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum StartFrom {
    #[default]
    Latest,
    Earliest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Manifest<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: S,
    /// Of a manifest that was read from a cluster.
    #[serde(rename = "status")]
    _status: Option<serde_yaml::Value>,
}

/// Its other fields are Kubernetes' own, and a cluster fills in many.
#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// The cluster is this process, whatever its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterRef {
    #[serde(rename = "name")]
    _name: String,
}

#[derive(Deserialize)]
enum DeletionPolicy {
    Retain,
    Delete,
    DeleteIfEmpty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TopicSpec {
    name: Option<String>,
    #[serde(rename = "clusterRef")]
    _cluster_ref: Option<ClusterRef>,
    #[serde(default = "normal", rename = "type")]
    kind: TopicType,
    #[serde(default = "eight")]
    queues: u32,
    retention: Option<Retention>,
    #[serde(rename = "deletionPolicy")]
    _deletion_policy: Option<DeletionPolicy>,
}

fn normal() -> TopicType {
    TopicType::Normal
}

fn eight() -> u32 {
    8
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GroupSpec {
    name: Option<String>,
    #[serde(rename = "clusterRef")]
    _cluster_ref: Option<ClusterRef>,
    #[serde(default)]
    topics: Vec<TopicRef>,
    #[serde(default)]
    start_from: StartFrom,
    #[serde(default)]
    retry: Retry,
    scaling: Option<serde_yaml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retention {
    time: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicRef {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Retry {
    max_attempts: Option<u32>,
}

/// Reads one file, or all `.yaml`, `.yml` and `.json` files of a folder, sorted by name.
pub(crate) fn read(path: &Path) -> anyhow::Result<Manifests> {
    let mut all = Parsed::default();
    for file in files(path)? {
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        parse(&text, &mut all).with_context(|| file.display().to_string())?;
    }
    all.resolve()
}

fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("read {}", path.display());
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(reading)? {
        let file = entry.with_context(reading)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Manifests by the names of their resources, references not followed yet.
#[derive(Default)]
struct Parsed {
    topics: Vec<(String, TopicConfig)>,
    groups: Vec<(GroupConfig, Vec<String>, StartFrom)>,
}

impl Parsed {
    /// A group names topics by their resource; one without a resource here by its own name.
    fn resolve(self) -> anyhow::Result<Manifests> {
        let topic_of = |name: &String| {
            let declared = self.topics.iter().find(|(resource, _)| resource == name);
            match declared {
                Some((_, config)) => Ok(config.topic_name.clone()),
                None => TopicName::new(name),
            }
        };
        let mut groups = Vec::new();
        for (config, topics, start_from) in &self.groups {
            let topics = topics.iter().map(topic_of).collect::<Result<_, _>>();
            let topics = topics.with_context(|| format!("ConsumerGroup {}", config.group_name))?;
            groups.push(Group { config: config.clone(), topics, start_from: *start_from });
        }
        let topics = self.topics.into_iter().map(|(_, config)| config).collect();
        Ok(Manifests { topics, groups })
    }
}

fn parse(text: &str, all: &mut Parsed) -> anyhow::Result<()> {
    // Read twice: first for the kinds, then each as its kind, straight from the text, so that errors have a line.
    let kinds = serde_yaml::Deserializer::from_str(text).map(kind);
    let kinds: Vec<_> = kinds.collect::<anyhow::Result<_>>()?;
    for (kind, document) in kinds.into_iter().zip(serde_yaml::Deserializer::from_str(text)) {
        match kind {
            // Each document has to be read, so that the next one is.
            None => serde_yaml::Value::deserialize(document).map(drop)?,
            Some(Kind::Topic) => all.topics.push(topic(document)?),
            Some(Kind::ConsumerGroup) => all.groups.push(group(document)?),
        }
    }
    Ok(())
}

enum Kind {
    Topic,
    ConsumerGroup,
}

/// What a document is; `None` for one without content.
fn kind(document: serde_yaml::Deserializer<'_>) -> anyhow::Result<Option<Kind>> {
    let value = serde_yaml::Value::deserialize(document)?;
    if value.is_null() {
        return Ok(None);
    }
    let field = |name: &str| value.get(name).and_then(|field| field.as_str()).unwrap_or("");
    let api_version = field("apiVersion");
    if api_version != API_VERSION {
        let wrong = format!("apiVersion is {api_version:?}, expected {API_VERSION}");
        return Err(Failure::usage(wrong));
    }
    match field("kind") {
        "Topic" => Ok(Some(Kind::Topic)),
        "ConsumerGroup" => Ok(Some(Kind::ConsumerGroup)),
        // One folder serves laptop and cluster alike; what a cluster is made of means nothing to one process.
        "BrokerCluster" => {
            tracing::info!("left out: a BrokerCluster, this process is the whole cluster");
            Ok(None)
        }
        kind => Err(Failure::usage(format!("kind is {kind:?}, expected Topic or ConsumerGroup"))),
    }
}

fn topic(document: serde_yaml::Deserializer<'_>) -> anyhow::Result<(String, TopicConfig)> {
    let Manifest { metadata, spec, .. } =
        Manifest::<TopicSpec>::deserialize(document).context("Topic")?;
    let of_resource = || format!("Topic {}", metadata.name);
    let name = TopicName::new(spec.name.as_deref().unwrap_or(&metadata.name));
    let mut config = TopicConfig::new(name.with_context(of_resource)?, spec.queues);
    config.attributes.insert(TYPE_ATTRIBUTE.into(), spec.kind.attribute().into());
    if let Some(Retention { time }) = spec.retention {
        let retention_ms = humantime::parse_duration(&time)
            .map_err(|error| Failure::usage(format!("spec.retention.time is {time:?}: {error}")))
            .with_context(of_resource)?
            .as_millis();
        config.attributes.insert(RETENTION_ATTRIBUTE.into(), retention_ms.to_string());
    }
    config.validate().with_context(of_resource)?;
    Ok((metadata.name, config))
}

fn group(
    document: serde_yaml::Deserializer<'_>,
) -> anyhow::Result<(GroupConfig, Vec<String>, StartFrom)> {
    let Manifest { metadata, spec, .. } =
        Manifest::<GroupSpec>::deserialize(document).context("ConsumerGroup")?;
    let of_resource = || format!("ConsumerGroup {}", metadata.name);
    if spec.scaling.is_some() {
        tracing::warn!(group = metadata.name, "ignored: spec.scaling needs the operator");
    }
    let name = GroupName::new(spec.name.as_deref().unwrap_or(&metadata.name));
    let mut config = GroupConfig::new(name.with_context(of_resource)?);
    if let Some(attempts) = spec.retry.max_attempts {
        let most = format!("spec.retry.maxAttempts is {attempts}, at most {ATTEMPTS_MAX}");
        let attempts = Some(attempts).filter(|attempts| *attempts <= ATTEMPTS_MAX);
        let attempts = attempts.ok_or_else(|| Failure::usage(most)).with_context(of_resource)?;
        config.retry_max_times = i32::try_from(attempts)?;
    }
    let topics = spec.topics.into_iter().map(|topic| topic.name).collect();
    Ok((config, topics, spec.start_from))
}

/// Creates what was read. Topics come first: groups start in their queues.
pub(crate) async fn create(manifests: &Manifests, nameserver: SocketAddr) -> anyhow::Result<()> {
    if manifests.topics.is_empty() && manifests.groups.is_empty() {
        return Ok(());
    }
    let client = client(&nameserver.to_string())?;
    let created = create_all(manifests, &client).await;
    client.shutdown().await;
    created
}

async fn create_all(manifests: &Manifests, client: &Client) -> anyhow::Result<()> {
    let admin = Admin::new(client);
    for topic in &manifests.topics {
        let created = admin.create_topic(topic).await;
        created.with_context(|| format!("topic {}", topic.topic_name))?;
    }
    for group in &manifests.groups {
        let name = &group.config.group_name;
        admin.create_group(&group.config).await.with_context(|| format!("group {name}"))?;
        for topic in &group.topics {
            let started = start(&admin, client, group, topic).await;
            started.with_context(|| format!("start of group {name} in topic {topic}"))?;
        }
    }
    Ok(())
}

/// Commits where the group starts, in each queue in which it has no offset.
async fn start(
    admin: &Admin,
    client: &Client,
    group: &Group,
    topic: &TopicName,
) -> anyhow::Result<()> {
    let name = &group.config.group_name;
    for queue in client.route(topic).await?.read_queues() {
        if admin.offset(name, queue).await?.is_none() {
            let offset = match group.start_from {
                StartFrom::Latest => admin.max_offset(queue).await?,
                StartFrom::Earliest => admin.min_offset(queue).await?,
            };
            admin.set_offset(name, queue, offset).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "
apiVersion: gantry.dev/v1alpha1
kind: Topic
metadata: { name: orders }
spec: { clusterRef: { name: shop }, type: Fifo, name: OrderTopic }
---
apiVersion: gantry.dev/v1alpha1
kind: ConsumerGroup
metadata: { name: billing }
spec:
  topics: [ { name: orders }, { name: other } ]
  startFrom: Earliest
  retry: { maxAttempts: 3 }
";

    fn manifests(text: &str) -> anyhow::Result<Manifests> {
        let mut all = Parsed::default();
        parse(text, &mut all)?;
        all.resolve()
    }

    #[test]
    fn topics_and_groups_are_read_and_groups_find_their_topics() {
        let found = manifests(SAMPLE).unwrap();
        let topic = &found.topics[0];
        assert_eq!((&*topic.topic_name, topic.write_queues), ("OrderTopic", 8));
        assert_eq!(topic.attributes[TYPE_ATTRIBUTE], "FIFO");
        let group = &found.groups[0];
        assert_eq!(group.config.retry_max_times, 3);
        let names: Vec<&str> = group.topics.iter().map(TopicName::as_str).collect();
        assert_eq!(names, ["OrderTopic", "other"]);
        assert_eq!(group.start_from, StartFrom::Earliest);
    }

    #[test]
    fn unknown_fields_and_kinds_are_refused_by_name() {
        let misspelt = SAMPLE.replace("maxAttempts", "maxAttempt");
        let error = format!("{:#}", manifests(&misspelt).unwrap_err());
        assert!(error.contains("maxAttempt`") && error.contains("line 13"), "{error}");
        let error = format!("{:#}", manifests(&SAMPLE.replace("Fifo", "Fifi")).unwrap_err());
        assert!(error.contains("`Fifi`") && error.contains("line 5"), "{error}");
        let error = format!("{:#}", manifests(&SAMPLE.replace(": 3", ": 1001")).unwrap_err());
        assert!(error.contains("billing") && error.contains("1001, at most 1000"), "{error}");
        let error = manifests(&SAMPLE.replace("kind: Topic", "kind: Topics")).unwrap_err();
        assert!(error.to_string().contains("Topics"), "{error}");
        let error = manifests(&SAMPLE.replace("v1alpha1", "v2")).unwrap_err();
        assert!(error.to_string().contains("gantry.dev/v2"), "{error}");
    }

    /// Written out field by field: one that is added to the resources has to be added here, and read by `gantry`.
    #[test]
    fn every_field_that_the_operator_reads_is_read() {
        use gantry_resources::{self as resources, ClusterRef, Scaling, TargetRef};
        let cluster_ref = ClusterRef { name: "shop".into() };
        let topic = resources::TopicSpec {
            cluster_ref: cluster_ref.clone(),
            name: Some("OrderTopic".into()),
            kind: resources::TopicType::Fifo,
            queues: 4,
            retention: Some(resources::TopicRetention { time: resources::Duration::from_hours(7) }),
            deletion_policy: resources::DeletionPolicy::DeleteIfEmpty,
        };
        let target_ref = TargetRef {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "b".into(),
        };
        let scaling =
            Scaling { target_ref, min_replicas: 0, max_replicas: 9, backlog_per_replica: 100 };
        let group = resources::ConsumerGroupSpec {
            cluster_ref,
            name: Some("CID_billing".into()),
            topics: vec![resources::TopicRef { name: "OrderTopic".into() }],
            start_from: resources::StartFrom::Earliest,
            retry: resources::Retry { max_attempts: 5 },
            scaling: Some(scaling),
        };
        let mut topic = resources::Topic::new("order-topic", topic);
        topic.status = Some(resources::TopicStatus::default());
        let group = resources::ConsumerGroup::new("billing", group);
        let topic = serde_yaml::to_string(&topic).unwrap();
        let group = serde_yaml::to_string(&group).unwrap();
        let found = manifests(&format!("{topic}---\n# nothing\n---\n{group}")).unwrap();
        let config = &found.topics[0];
        assert_eq!((&*config.topic_name, config.write_queues), ("OrderTopic", 4));
        assert_eq!(config.retention_ms(), Some(7 * 3_600_000));
        let group = &found.groups[0];
        assert_eq!((&*group.config.group_name, group.config.retry_max_times), ("CID_billing", 5));
        assert_eq!((&*group.topics[0], group.start_from), ("OrderTopic", StartFrom::Earliest));
    }

    #[test]
    fn name_that_no_topic_can_have_is_refused_with_its_resource() {
        let error = format!("{:#}", manifests(&SAMPLE.replace("OrderTopic", "a.b")).unwrap_err());
        assert!(error.contains("Topic orders") && error.contains("'.'"), "{error}");
    }
}
