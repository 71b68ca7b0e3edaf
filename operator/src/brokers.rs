//! What the operator asks of the brokers of one cluster, and the pool of clients that carries it.
//! Invariant: every question has an end; an error names the broker; a cluster that is gone keeps no connection.
//! Leaves decisions to `topic` and `consumer_group`, which are tested with a fake of the trait.

#[cfg(test)]
pub(crate) mod fake;

use std::{collections::HashMap, time::Duration};

use futures::future::BoxFuture;
use gantry_client::{
    Admin, AdminError, BrokerProgress, Client, ClientError, ClientSettings, Primary, QueueBounds,
};
use gantry_model::{GroupConfig, TopicConfig, TopicName};
use gantry_resources::BrokerCluster;
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::{
    Context,
    broker_cluster::names::{self, NAME_SERVER_PORT},
};

/// Longest wait for a connection, and for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// An answer that comes or fails.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, AdminError>>;

/// The brokers of one cluster. Each call but the first is to the broker of that address.
pub trait Brokers: Send + Sync {
    /// The primaries that the name servers know.
    fn all(&self) -> Answer<'_, Vec<Primary>>;
    /// A topic's definition.
    fn topic<'a>(&'a self, address: &'a str, topic: &'a str) -> Answer<'a, Option<TopicConfig>>;
    /// Makes or changes a topic.
    fn declare_topic<'a>(&'a self, address: &'a str, config: &'a TopicConfig) -> Answer<'a, ()>;
    /// Deletes a topic and its messages.
    fn delete_topic<'a>(&'a self, address: &'a str, topic: &'a TopicName) -> Answer<'a, ()>;
    /// First and next offsets of a topic's queues.
    fn bounds<'a>(
        &'a self,
        address: &'a str,
        topic: &'a str,
    ) -> Answer<'a, Option<Vec<QueueBounds>>>;
    /// A group's definition.
    fn group<'a>(&'a self, address: &'a str, group: &'a str) -> Answer<'a, Option<GroupConfig>>;
    /// Makes or changes a group.
    fn declare_group<'a>(&'a self, address: &'a str, config: &'a GroupConfig) -> Answer<'a, ()>;
    /// A group's offset in a queue.
    fn offset<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topic: &'a str,
        queue: u32,
    ) -> Answer<'a, Option<u64>>;
    /// Offset of a queue's first message stored at a time or later, the queue's end without one.
    fn offset_at<'a>(
        &'a self,
        address: &'a str,
        topic: &'a str,
        queue: u32,
        time_ms: u64,
    ) -> Answer<'a, u64>;
    /// Commits a group's offset in a queue.
    fn set_offset<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topic: &'a str,
        queue: u32,
        offset: u64,
    ) -> Answer<'a, ()>;
    /// What a group has before it on these topics.
    fn progress<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topics: &'a [String],
    ) -> Answer<'a, BrokerProgress>;
}

/// Brokers that are asked over the remoting protocol.
#[derive(Clone)]
pub struct RemotingBrokers {
    admin: Admin,
    cluster: String,
}

impl Brokers for RemotingBrokers {
    fn all(&self) -> Answer<'_, Vec<Primary>> {
        Box::pin(self.admin.primaries(Some(&self.cluster)))
    }

    fn topic<'a>(&'a self, address: &'a str, topic: &'a str) -> Answer<'a, Option<TopicConfig>> {
        Box::pin(async move { self.admin.at(address).topic(topic).await })
    }

    fn declare_topic<'a>(&'a self, address: &'a str, config: &'a TopicConfig) -> Answer<'a, ()> {
        Box::pin(async move { self.admin.at(address).declare_topic(config).await })
    }

    fn delete_topic<'a>(&'a self, address: &'a str, topic: &'a TopicName) -> Answer<'a, ()> {
        Box::pin(async move { self.admin.at(address).delete_topic(topic).await })
    }

    fn bounds<'a>(
        &'a self,
        address: &'a str,
        topic: &'a str,
    ) -> Answer<'a, Option<Vec<QueueBounds>>> {
        Box::pin(async move { self.admin.at(address).topic_stats(topic).await })
    }

    fn group<'a>(&'a self, address: &'a str, group: &'a str) -> Answer<'a, Option<GroupConfig>> {
        Box::pin(async move { self.admin.at(address).group(group).await })
    }

    fn declare_group<'a>(&'a self, address: &'a str, config: &'a GroupConfig) -> Answer<'a, ()> {
        Box::pin(async move { self.admin.at(address).declare_group(config).await })
    }

    fn offset<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topic: &'a str,
        queue: u32,
    ) -> Answer<'a, Option<u64>> {
        Box::pin(async move { self.admin.at(address).offset(group, topic, queue).await })
    }

    fn offset_at<'a>(
        &'a self,
        address: &'a str,
        topic: &'a str,
        queue: u32,
        time_ms: u64,
    ) -> Answer<'a, u64> {
        Box::pin(async move { self.admin.at(address).offset_at(topic, queue, time_ms).await })
    }

    fn set_offset<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topic: &'a str,
        queue: u32,
        offset: u64,
    ) -> Answer<'a, ()> {
        Box::pin(
            async move { self.admin.at(address).set_offset(group, topic, queue, offset).await },
        )
    }

    fn progress<'a>(
        &'a self,
        address: &'a str,
        group: &'a str,
        topics: &'a [String],
    ) -> Answer<'a, BrokerProgress> {
        Box::pin(async move { self.admin.at(address).progress(group, topics).await })
    }
}

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The cluster has no address for its name servers yet.
    #[error("the name servers of cluster {cluster} have no address yet")]
    NoAddress {
        /// The cluster.
        cluster: String,
    },
    /// A client could not be made.
    #[error("make a client of name server {address}")]
    Client {
        /// The name server.
        address: String,
        /// Why.
        source: ClientError,
    },
}

/// Clients of clusters, each with its connections.
#[derive(Default)]
pub struct Pool {
    /// By namespace and name; with the address that the client asks.
    clients: Mutex<HashMap<(String, String), (String, Client)>>,
}

impl Pool {
    /// The brokers of a cluster, through the address of its name servers' Service. The address and not the name: it is
    /// the same as long as the Service is there, and needs no resolver.
    ///
    /// # Errors
    /// While the Service has none.
    pub fn brokers(
        &self,
        ctx: &Context,
        cluster: &BrokerCluster,
    ) -> Result<RemotingBrokers, PoolError> {
        let (name, namespace) = (cluster.name_any(), cluster.namespace().unwrap_or_default());
        let service = ctx.caches.services.get(&namespace, &names::name_servers(&name));
        let ip = service.and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
        let Some(ip) = ip.filter(|ip| ip != "None" && !ip.is_empty()) else {
            return Err(PoolError::NoAddress { cluster: name });
        };
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip };
        let address = format!("{host}:{NAME_SERVER_PORT}");
        let client = self.client(namespace, name.clone(), address)?;
        Ok(RemotingBrokers { admin: Admin::new(&client), cluster: name })
    }

    fn client(
        &self,
        namespace: String,
        cluster: String,
        address: String,
    ) -> Result<Client, PoolError> {
        let mut clients = self.clients.lock();
        let key = (namespace, cluster);
        if let Some((known, client)) = clients.get(&key)
            && *known == address
        {
            return Ok(client.clone());
        }
        let settings = ClientSettings {
            request_timeout: ANSWER_WITHIN,
            connect_timeout: ANSWER_WITHIN,
            ..ClientSettings::new([&address])
        };
        let client = Client::start(settings)
            .map_err(|source| PoolError::Client { address: address.clone(), source })?;
        if let Some((_, old)) = clients.insert(key, (address, client.clone())) {
            tokio::spawn(async move { old.shutdown().await });
        }
        Ok(client)
    }

    /// Ends the connections to a cluster that is gone.
    pub fn forget(&self, namespace: &str, cluster: &str) {
        let gone = self.clients.lock().remove(&(namespace.to_owned(), cluster.to_owned()));
        if let Some((_, client)) = gone {
            tokio::spawn(async move { client.shutdown().await });
        }
    }
}
