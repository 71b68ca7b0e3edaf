//! Administration: topics, groups, offsets, messages and the state of brokers.
//! Invariant: a change that concerns several brokers is tried on all of them; the first failure is
//! returned after that, so that a repetition finishes what is missing.
//! Leaves printing to the command line and reconciling to the operator.

mod at;
mod groups;
mod messages;
mod offsets;
mod parts;
mod topics;

use std::collections::BTreeMap;

use gantry_record::MessageIdError;
use gantry_remoting::{
    Command, RequestCode,
    command::{broker::KeyValueTable, nameserver::ClusterInfo},
    json::JsonBody,
};

pub use at::{BrokerAdmin, BrokerProgress, QueueLag};
pub use groups::Members;
pub use offsets::GroupProgress;
pub use topics::QueueBounds;

use crate::{
    client::Client,
    connections::unreadable,
    error::{RequestError, RouteError},
    message::MessageQueue,
};

/// Why an administrative call failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A server did not answer well.
    #[error("{operation}")]
    Request {
        /// What was to be done.
        operation: &'static str,
        /// The cause.
        source: RequestError,
    },
    /// The topic or broker has no route.
    #[error("{operation}")]
    Route {
        /// What was to be done.
        operation: &'static str,
        /// The cause.
        source: RouteError,
    },
    /// There is no broker that could be told.
    #[error("{operation}: no broker is registered")]
    NoBroker {
        /// What was to be done.
        operation: &'static str,
    },
    /// A text is no message id.
    #[error("read the message id {id}")]
    MessageId {
        /// The text.
        id: String,
        /// The cause.
        source: MessageIdError,
    },
}

/// Administrative calls.
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

/// A broker group's primary.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Primary {
    /// Name of its cluster.
    pub cluster: String,
    /// Name of the broker group.
    pub broker_name: String,
    /// Where it is.
    pub address: String,
}

impl Admin {
    /// Calls through `client`.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone() }
    }

    /// Clusters, broker groups and their addresses.
    pub async fn cluster_info(&self) -> Result<ClusterInfo, AdminError> {
        let operation = "ask for the clusters";
        let command = Command::request(RequestCode::GET_BROKER_CLUSTER_INFO);
        let (address, answer) = self
            .client
            .inner
            .ask_name_servers(&command)
            .await
            .map_err(|source| AdminError::Request { operation, source })?;
        read(&address, &answer.body).map_err(|source| AdminError::Request { operation, source })
    }

    /// Primaries of all broker groups, or of those of one cluster.
    pub async fn primaries(&self, cluster: Option<&str>) -> Result<Vec<Primary>, AdminError> {
        let info = self.cluster_info().await?;
        let groups = info.broker_addr_table.into_values();
        let wanted = groups.filter(|group| cluster.is_none_or(|cluster| group.cluster == cluster));
        Ok(wanted
            .filter_map(|group| {
                let address = group.broker_addrs.get(&0)?.clone();
                Some(Primary { cluster: group.cluster, broker_name: group.broker_name, address })
            })
            .collect())
    }

    /// State of one broker, as names and values.
    pub async fn runtime_info(
        &self,
        address: &str,
    ) -> Result<BTreeMap<String, String>, AdminError> {
        let command = Command::request(RequestCode::GET_BROKER_RUNTIME_INFO);
        let table: KeyValueTable =
            self.get("ask for the state of a broker", address, &command).await?;
        Ok(table.table)
    }

    /// Calls one server and returns its answer.
    async fn call(
        &self,
        operation: &'static str,
        address: &str,
        command: &Command,
    ) -> Result<Command, AdminError> {
        let inner = &self.client.inner;
        let answer = inner.connections.call(address, command, inner.timeout()).await;
        answer.map_err(|source| AdminError::Request { operation, source })
    }

    /// Calls one server and reads the body of its answer.
    async fn get<B: JsonBody>(
        &self,
        operation: &'static str,
        address: &str,
        command: &Command,
    ) -> Result<B, AdminError> {
        let answer = self.call(operation, address, command).await?;
        read(address, &answer.body).map_err(|source| AdminError::Request { operation, source })
    }

    /// Tells all primaries the same; all are told even if one fails.
    async fn tell_all(&self, operation: &'static str, command: &Command) -> Result<(), AdminError> {
        let primaries = self.primaries(None).await?;
        if primaries.is_empty() {
            return Err(AdminError::NoBroker { operation });
        }
        let mut result = Ok(());
        for primary in primaries {
            let told = self.call(operation, &primary.address, command).await;
            result = result.and(told.map(|_| ()));
        }
        result
    }

    /// Address of the primary that has `queue`.
    async fn primary_of(
        &self,
        operation: &'static str,
        queue: &MessageQueue,
    ) -> Result<String, AdminError> {
        let failed = |source| AdminError::Route { operation, source };
        let route = self.client.inner.route(&queue.topic, false).await.map_err(failed)?;
        let address = route.reader(&queue.broker_name, 0).map(str::to_owned);
        address.ok_or_else(|| {
            failed(RouteError::BrokerNotFound { broker_name: queue.broker_name.clone() })
        })
    }

    /// Names and addresses of the broker groups of a topic.
    async fn brokers_of(
        &self,
        operation: &'static str,
        topic: &str,
    ) -> Result<Vec<(String, String)>, AdminError> {
        let failed = |source| AdminError::Route { operation, source };
        let route = self.client.inner.renewed_route(topic, false).await.map_err(failed)?;
        let groups = route.brokers().iter();
        Ok(groups
            .filter_map(|(name, group)| Some((name.clone(), group.any()?.to_owned())))
            .collect())
    }
}

fn read<B: JsonBody>(address: &str, body: &[u8]) -> Result<B, RequestError> {
    B::from_json(body).map_err(|error| unreadable(address, "a body", error))
}
