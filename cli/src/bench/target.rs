//! Where the load goes: a broker, its topics, and the bounds of their queues.
//! Invariant: all topics of a target exist on its broker with the same number of queues.
//! Leaves the load itself to `load` and `pull`.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::Context as _;
use gantry_client::{Admin, Client, Route};
use gantry_model::{TopicConfig, TopicName};

use super::LoadArgs;
use crate::{context, context::Context, exit::Failure, progress::Progress};

/// One broker and topics on it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub broker_name: String,
    pub topics: Vec<String>,
    pub queues: u32,
    /// Bounds of the first topic's queues.
    pub min_offsets: Vec<u64>,
    pub max_offsets: Vec<u64>,
}

/// Names of the topics that `args` asks for, of the same length.
pub(crate) fn topic_names(topic: &str, topics: u32) -> Vec<String> {
    if topics == 1 {
        return vec![topic.to_owned()];
    }
    (0..topics).map(|number| format!("{topic}-{number:06}")).collect()
}

/// Makes the topics that `args` asks for and finds their broker.
pub(crate) fn prepare(context: &Context, args: &LoadArgs) -> anyhow::Result<Target> {
    prepare_at(context.nameserver(), args)
}

/// The same at a given name server.
pub(crate) fn prepare_at(nameserver: &str, args: &LoadArgs) -> anyhow::Result<Target> {
    let topics = topic_names(&args.topic, args.topics);
    with_client(nameserver, async |client| {
        create(client, &topics, args.queues).await?;
        find(client, topics, Some(args.queues)).await
    })
}

/// Finds the broker of topics that exist, all with as many queues.
pub(crate) fn found_at(
    nameserver: &str,
    topics: Vec<String>,
    queues: u32,
) -> anyhow::Result<Target> {
    with_client(nameserver, async |client| find(client, topics, Some(queues)).await)
}

/// Finds the broker of a topic that exists.
pub(crate) fn existing(context: &Context, topic: &str) -> anyhow::Result<Target> {
    with_client(context.nameserver(), async |client| {
        find(client, vec![topic.to_owned()], None).await
    })
}

/// Runs `work` with a client of `nameserver`.
pub(crate) fn with_client<T>(
    nameserver: &str,
    work: impl AsyncFnOnce(&Client) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = context::client(nameserver)?;
        let result = work(&client).await;
        client.shutdown().await;
        result
    })
}

/// Creates the topics that are missing.
pub(crate) async fn create(client: &Client, topics: &[String], queues: u32) -> anyhow::Result<()> {
    let admin = Admin::new(client);
    let known = admin.topics().await?;
    let progress = Progress::of(topics.len() as u64);
    for (number, topic) in topics.iter().enumerate() {
        let wanted = |route: &Route| route.write_queues().len() >= queues as usize;
        if known.binary_search(topic).is_ok()
            && client.route(topic).await.as_deref().is_ok_and(wanted)
        {
            continue;
        }
        progress.tell("creating topics", number as u64);
        let name = TopicName::new(topic).map_err(|error| Failure::usage(error.to_string()))?;
        admin.create_topic(&TopicConfig::new(name, queues)).await?;
    }
    Ok(())
}

async fn find(client: &Client, topics: Vec<String>, queues: Option<u32>) -> anyhow::Result<Target> {
    let first = topics.first().context("there is at least one topic")?;
    let route = client.route(first).await?;
    let queue = route.write_queues().first();
    let broker_name = queue.context("no broker takes messages for the topic")?.broker_name.clone();
    let address = route.primary(&broker_name).context("the broker has no primary")?;
    let address =
        address.to_socket_addrs()?.next().context("the broker's address is no address")?;
    let admin = Admin::new(client);
    let (mut min_offsets, mut max_offsets) = (Vec::new(), Vec::new());
    for queue in route.read_queues().iter().filter(|queue| queue.broker_name == broker_name) {
        min_offsets.push(admin.min_offset(queue).await?);
        max_offsets.push(admin.max_offset(queue).await?);
    }
    // A topic that was there before may have more queues than wanted; those stay unused.
    let queues = queues.unwrap_or(min_offsets.len() as u32).min(min_offsets.len() as u32);
    Ok(Target { address, broker_name, topics, queues, min_offsets, max_offsets })
}
