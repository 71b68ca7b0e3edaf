//! `--apply`: `Topic` and `ConsumerGroup` manifests, the same that the operator reads.
//! Invariant: a manifest is created as it is written, or refused with the name of what is wrong.
//! Leaves scaling and other clusters to the operator; such fields are accepted and named in the log.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use gantry_client::{Admin, Client};
use gantry_model::{GroupConfig, GroupName, TopicConfig, TopicName};
use serde::Deserialize;

use crate::{
    commands::topic::{TYPE_ATTRIBUTE, TopicType},
    context::client,
    exit::Failure,
};

const API_VERSION: &str = "gantry.dev/v1alpha1";

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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TopicSpec {
    name: Option<String>,
    #[serde(rename = "clusterRef")]
    _cluster_ref: Option<serde_yaml::Value>,
    #[serde(default = "normal", rename = "type")]
    kind: TopicType,
    #[serde(default = "eight")]
    queues: u32,
    retention: Option<serde_yaml::Value>,
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
    _cluster_ref: Option<serde_yaml::Value>,
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
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = serde_yaml::Value::deserialize(document)?;
        if value.is_null() {
            continue;
        }
        let field = |name: &str| value.get(name).and_then(|field| field.as_str()).unwrap_or("");
        let (api_version, kind) = (field("apiVersion").to_owned(), field("kind").to_owned());
        if api_version != API_VERSION {
            return Err(Failure::usage(format!(
                "apiVersion is {api_version:?}, expected {API_VERSION}"
            )));
        }
        match kind.as_str() {
            "Topic" => all.topics.push(topic(value)?),
            "ConsumerGroup" => all.groups.push(group(value)?),
            kind => {
                return Err(Failure::usage(format!(
                    "kind is {kind:?}, expected Topic or ConsumerGroup"
                )));
            }
        }
    }
    Ok(())
}

fn topic(value: serde_yaml::Value) -> anyhow::Result<(String, TopicConfig)> {
    let Manifest { metadata, spec, .. }: Manifest<TopicSpec> =
        serde_yaml::from_value(value).context("Topic")?;
    let of_resource = || format!("Topic {}", metadata.name);
    if spec.retention.is_some() {
        tracing::warn!(topic = metadata.name, "ignored: spec.retention; the whole log has one");
    }
    let name = TopicName::new(spec.name.as_deref().unwrap_or(&metadata.name));
    let mut config = TopicConfig::new(name.with_context(of_resource)?, spec.queues);
    config.attributes.insert(TYPE_ATTRIBUTE.into(), spec.kind.attribute().into());
    config.validate().with_context(of_resource)?;
    Ok((metadata.name, config))
}

fn group(value: serde_yaml::Value) -> anyhow::Result<(GroupConfig, Vec<String>, StartFrom)> {
    let Manifest { metadata, spec, .. }: Manifest<GroupSpec> =
        serde_yaml::from_value(value).context("ConsumerGroup")?;
    if spec.scaling.is_some() {
        tracing::warn!(group = metadata.name, "ignored: spec.scaling needs the operator");
    }
    let name = GroupName::new(spec.name.as_deref().unwrap_or(&metadata.name));
    let name = name.with_context(|| format!("ConsumerGroup {}", metadata.name))?;
    let mut config = GroupConfig::new(name);
    if let Some(attempts) = spec.retry.max_attempts {
        config.retry_max_times = i32::try_from(attempts).unwrap_or(i32::MAX);
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
        assert!(error.contains("maxAttempt`"), "{error}");
        let error = manifests(&SAMPLE.replace("kind: Topic", "kind: Topics")).unwrap_err();
        assert!(error.to_string().contains("Topics"), "{error}");
        let error = manifests(&SAMPLE.replace("v1alpha1", "v2")).unwrap_err();
        assert!(error.to_string().contains("gantry.dev/v2"), "{error}");
    }

    #[test]
    fn name_that_no_topic_can_have_is_refused_with_its_resource() {
        let error = format!("{:#}", manifests(&SAMPLE.replace("OrderTopic", "a.b")).unwrap_err());
        assert!(error.contains("Topic orders") && error.contains("'.'"), "{error}");
    }
}
