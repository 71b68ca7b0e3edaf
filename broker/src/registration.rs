//! Registration: tells every name server which topics this broker has, and where it is.
//! Invariant: each name server hears of the whole table at start and every interval, and of changes at once;
//! one that is down is tried again each time and logged once.
//! Leaves routes to the name servers. Source: RocketMQ remoting, request codes 103, 104.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{CallError, Channel, ChannelSettings, ConnectError, RefuseRequests},
};
use serde::Serialize;
use tokio::{net::lookup_host, sync::watch, time::sleep};

use crate::services::Services;

/// Longest time for one call to a name server.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for saying good-bye to all of them.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(1);
/// Least time between two registrations, so that many changes make few of them.
const PAUSE: Duration = Duration::from_millis(10);
/// Topics in one registration: at about 150 bytes each far below the frame limit of 16 MiB.
const TOPICS_MAX: usize = 50_000;

/// Why a name server was not told.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("refused with {code}: {remark}")]
    Refused { code: ResponseCode, remark: String },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    filter_server_list: [&'a str; 0],
    topic_config_serialize_wrapper: Wrapper<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrapper<'a> {
    data_version: Version,
    mapping_data_version: Version,
    topic_config_table: BTreeMap<&'a str, &'a gantry_model::TopicConfig>,
    topic_queue_mapping_detail_map: BTreeMap<&'a str, ()>,
    topic_queue_mapping_info_map: BTreeMap<&'a str, ()>,
}

#[derive(Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    counter: u64,
    state_version: u64,
    timestamp: u64,
}

struct NameServer {
    channel: Option<Channel>,
    /// Whether it answered last time; unknown at first.
    up: Option<bool>,
}

/// The task that registers.
pub(crate) struct Registration {
    services: Arc<Services>,
    port: u16,
    servers: BTreeMap<SocketAddr, NameServer>,
    unresolved: BTreeSet<String>,
}

impl Registration {
    /// Registers the broker as reachable at the advertised host and `port`.
    pub(crate) fn new(services: Arc<Services>, port: u16) -> Self {
        Self { services, port, servers: BTreeMap::new(), unresolved: BTreeSet::new() }
    }

    /// Registers until `stop` turns true, then unregisters.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut changes = self.services.changes.subscribe();
        let interval = self.services.settings.register_interval.as_std();
        loop {
            let change = *changes.borrow_and_update();
            self.register_all().await;
            self.services.changes.note_announced(change);
            sleep(PAUSE).await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = changes.changed() => {}
                () = sleep(interval) => {}
            }
        }
        if tokio::time::timeout(UNREGISTER_TIMEOUT, self.unregister_all()).await.is_err() {
            tracing::warn!("a name server did not confirm the unregistration in time");
        }
    }

    async fn register_all(&mut self) {
        self.resolve_own_host().await;
        self.resolve_servers().await;
        let requests = self.register_requests();
        let each = self.servers.iter_mut().map(|(address, server)| {
            let requests = &requests;
            async move { server.tell(*address, requests).await }
        });
        join_all(each).await;
    }

    /// The advertised host may have another address than before.
    async fn resolve_own_host(&self) {
        let host = self.services.settings.advertised_host();
        match resolve_advertised(&host, self.port).await {
            Ok(address) => self.services.store_host.set(address),
            Err(error) => tracing::warn!(host, %error, "the advertised host does not resolve"),
        }
    }

    async fn resolve_servers(&mut self) {
        let names: Vec<String> =
            self.services.settings.name_server_list().map(str::to_owned).collect();
        let mut found = BTreeSet::new();
        for name in names {
            match lookup_host(name.as_str()).await {
                Ok(addresses) => {
                    found.extend(addresses);
                    self.unresolved.remove(&name);
                }
                Err(error) => {
                    if self.unresolved.insert(name.clone()) {
                        tracing::warn!(name, %error, "name server does not resolve; trying on");
                    }
                }
            }
        }
        // While a name does not resolve, the addresses known for it may still be right.
        if self.unresolved.is_empty() {
            self.servers.retain(|address, _| found.contains(address));
        }
        for address in found {
            self.servers.entry(address).or_insert(NameServer { channel: None, up: None });
        }
    }

    fn register_requests(&self) -> Vec<Command> {
        let topics = self.services.topics.all();
        let version = self.services.store.topics_version();
        let data_version = Version {
            counter: version.counter,
            state_version: version.state_version,
            timestamp: version.timestamp_ms,
        };
        let chunks = topics.chunks(TOPICS_MAX);
        chunks
            .map(|topics| {
                let table = topics.iter().map(|topic| (topic.name().as_str(), &topic.config));
                let wrapper = Wrapper {
                    data_version,
                    mapping_data_version: Version::default(),
                    topic_config_table: table.collect(),
                    topic_queue_mapping_detail_map: BTreeMap::new(),
                    topic_queue_mapping_info_map: BTreeMap::new(),
                };
                let body =
                    Body { filter_server_list: [], topic_config_serialize_wrapper: wrapper };
                self.register_request(gantry_remoting::json::to_json(&body))
            })
            .collect()
    }

    fn register_request(&self, body: Bytes) -> Command {
        let crc = gantry_record::crc::checksum(&body) & 0x7FFF_FFFF;
        self.with_identity(Command::request(RequestCode::REGISTER_BROKER))
            .with_ext("haServerAddr", "")
            .with_ext("compressed", "false")
            .with_ext("bodyCrc32", crc.to_string())
            .with_body(body)
    }

    fn with_identity(&self, command: Command) -> Command {
        let settings = &self.services.settings;
        command
            .with_ext("brokerName", settings.broker_name.as_str())
            .with_ext("brokerAddr", self.services.store_host.get().to_string())
            .with_ext("clusterName", settings.cluster_name.as_str())
            .with_ext("brokerId", "0")
    }

    async fn unregister_all(&mut self) {
        let request = [self.with_identity(Command::request(RequestCode::UNREGISTER_BROKER))];
        let each = self.servers.iter_mut().filter(|(_, server)| server.up == Some(true)).map(
            |(address, server)| {
                let request = &request;
                async move { server.tell(*address, request).await }
            },
        );
        join_all(each).await;
    }
}

impl NameServer {
    async fn tell(&mut self, address: SocketAddr, requests: &[Command]) {
        let result = self.try_tell(address, requests).await;
        let up = result.is_ok();
        if let Err(error) = &result {
            self.channel = None;
            if self.up != Some(false) {
                let error: &(dyn std::error::Error + 'static) = error;
                tracing::warn!(%address, error, "name server was not told; trying on");
            }
        } else if self.up != Some(true) {
            tracing::info!(%address, "registered with name server");
        }
        self.up = Some(up);
    }

    async fn try_tell(
        &mut self,
        address: SocketAddr,
        requests: &[Command],
    ) -> Result<(), RegisterError> {
        let channel = self.open(address).await?;
        for request in requests {
            let answer = channel.call(request, CALL_TIMEOUT).await?;
            if answer.response_code() != ResponseCode::SUCCESS {
                let remark = answer.remark.unwrap_or_default();
                return Err(RegisterError::Refused { code: ResponseCode(answer.code), remark });
            }
        }
        Ok(())
    }

    /// The name server takes a closed connection for a broker that is gone, so one is kept open.
    async fn open(&mut self, address: SocketAddr) -> Result<Channel, ConnectError> {
        if let Some(channel) = self.channel.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let settings = ChannelSettings::default();
        let connected =
            Channel::connect(&address.to_string(), &settings, Arc::new(RefuseRequests)).await?;
        self.channel = Some(connected.clone());
        Ok(connected)
    }
}

/// The address that clients use for `host`: an IPv4 one if there is any, since ids then are shorter and every
/// client reads them.
pub(crate) async fn resolve_advertised(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| std::io::Error::other("the name has no address"))
}
