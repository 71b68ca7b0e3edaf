//! Asks name servers which brokers they know.
//! Invariant: a broker counts as registered when every name server that was asked knows it; each question has an end.
//! Leaves what follows from it to `observe`.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::future::{BoxFuture, try_join_all};
use gantry_client::{Admin, AdminError, Client, ClientError, ClientSettings};
use parking_lot::Mutex;

/// Longest wait for a connection, and for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Addresses of registered brokers, by broker name.
pub type Registered = BTreeMap<String, String>;

/// Why the name servers were not understood.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// There is none to ask.
    #[error("no name server is ready")]
    NoneReady,
    /// A client could not be made.
    #[error("make a client of name server {address}")]
    Client {
        /// The name server.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// One did not answer.
    #[error("ask name server {address}")]
    Ask {
        /// The name server.
        address: String,
        /// Why.
        source: Box<AdminError>,
    },
}

/// Knows which brokers are registered.
pub trait Registry: Send + Sync {
    /// The brokers of a cluster that all of its name servers, at `addresses`, know.
    fn registered<'a>(
        &'a self,
        namespace: &'a str,
        cluster: &'a str,
        addresses: &'a [String],
    ) -> BoxFuture<'a, Result<Registered, RegistryError>>;
}

/// Asks over the remoting protocol, with one connection for each name server.
#[derive(Default)]
pub struct RemotingRegistry {
    /// By namespace and name of the cluster, then by address.
    clients: Mutex<HashMap<(String, String), HashMap<String, Client>>>,
}

impl Registry for RemotingRegistry {
    fn registered<'a>(
        &'a self,
        namespace: &'a str,
        cluster: &'a str,
        addresses: &'a [String],
    ) -> BoxFuture<'a, Result<Registered, RegistryError>> {
        Box::pin(async move {
            self.keep_only(namespace, cluster, addresses).await;
            let answers = addresses.iter().map(|address| self.ask(namespace, cluster, address));
            let answers = try_join_all(answers).await?;
            let common = answers.into_iter().reduce(|mut all, answer| {
                all.retain(|broker, _| answer.contains_key(broker));
                all
            });
            common.ok_or(RegistryError::NoneReady)
        })
    }
}

impl RemotingRegistry {
    /// Ends the connections to name servers of the cluster that are none of these.
    pub async fn keep_only(&self, namespace: &str, cluster: &str, addresses: &[String]) {
        let key = (namespace.to_owned(), cluster.to_owned());
        let gone: Vec<Client> = {
            let mut clusters = self.clients.lock();
            let Some(clients) = clusters.get_mut(&key) else { return };
            let gone = clients.extract_if(|address, _| !addresses.contains(address));
            let gone = gone.map(|(_, client)| client).collect();
            if clients.is_empty() {
                clusters.remove(&key);
            }
            gone
        };
        for client in gone {
            client.shutdown().await;
        }
    }

    async fn ask(
        &self,
        namespace: &str,
        cluster: &str,
        address: &str,
    ) -> Result<Registered, RegistryError> {
        let admin = Admin::new(&self.client(namespace, cluster, address)?);
        let primaries = admin.primaries(Some(cluster)).await.map_err(|source| {
            RegistryError::Ask { address: address.to_owned(), source: Box::new(source) }
        })?;
        Ok(primaries.into_iter().map(|primary| (primary.broker_name, primary.address)).collect())
    }

    fn client(
        &self,
        namespace: &str,
        cluster: &str,
        address: &str,
    ) -> Result<Client, RegistryError> {
        let mut clusters = self.clients.lock();
        let clients = clusters.entry((namespace.to_owned(), cluster.to_owned())).or_default();
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let settings = ClientSettings {
            request_timeout: ANSWER_WITHIN,
            connect_timeout: ANSWER_WITHIN,
            ..ClientSettings::new([address])
        };
        let client = Client::start(settings)
            .map_err(|source| RegistryError::Client { address: address.to_owned(), source })?;
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }
}
