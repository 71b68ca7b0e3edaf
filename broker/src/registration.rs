//! Registration: tells every name server which topics this broker has, and where it is.
//! Invariant: each name server hears of the whole table when it is reached first and every interval, and of changes
//! at once; one that is down is tried again each time and logged once.
//! Leaves routes to the name servers. Source: RocketMQ remoting, request codes 103, 104.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{join_all, select_all};
use gantry_model::TopicName;
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{CallError, Channel, ChannelSettings, ConnectError, RefuseRequests},
    command::{
        data_version::DataVersion,
        nameserver::{BrokerIdentity, RegisterBroker},
        register::RegisterBody,
        topics::TopicTable,
    },
    json::JsonBody,
};
use gantry_store::Topic;
use tokio::{
    net::lookup_host,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::services::Services;

/// Longest time for one call to a name server.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for saying good-bye to all of them.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two tries to reach a name server that is down.
const RETRY: Duration = Duration::from_secs(1);
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

struct NameServer {
    channel: Option<Channel>,
    /// Whether it answered last time; unknown at first.
    up: Option<bool>,
}

/// What to tell name servers.
struct News {
    /// The whole table, for those that may not know it.
    whole: Vec<Command>,
    /// The topics that changed, for those that know the rest; `None`: tell everybody everything.
    changed: Option<Vec<Command>>,
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
        let mut whole_due = Instant::now();
        loop {
            let change = *changes.borrow_and_update();
            let topics = self.services.changes.take();
            let whole = Instant::now() >= whole_due;
            if whole {
                whole_due = Instant::now() + interval;
            }
            self.register_all((!whole).then_some(topics)).await;
            self.services.changes.note_announced(change);
            sleep(PAUSE).await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = changes.changed() => {}
                () = sleep_until(whole_due) => {}
                () = self.trouble() => {}
            }
        }
        if tokio::time::timeout(UNREGISTER_TIMEOUT, self.unregister_all()).await.is_err() {
            tracing::warn!("a name server did not confirm the unregistration in time");
        }
    }

    /// Returns when a name server closed its connection, or when it is time to try one that is down.
    async fn trouble(&self) {
        let channels = self.servers.values().filter_map(|server| server.channel.as_ref());
        let closed: Vec<_> = channels.map(|channel| Box::pin(channel.closed())).collect();
        let any_down = self.servers.len() != closed.len() || !self.unresolved.is_empty();
        let retry = if any_down { RETRY } else { Duration::MAX };
        let closed = async {
            if closed.is_empty() {
                std::future::pending::<()>().await;
            }
            select_all(closed).await;
        };
        tokio::select! {
            () = sleep(retry) => {}
            () = closed => {}
        }
    }

    /// Tells everybody of the `changed` topics, or of all.
    async fn register_all(&mut self, changed: Option<BTreeSet<TopicName>>) {
        self.resolve_own_host().await;
        self.resolve_servers().await;
        if self.servers.is_empty() {
            return;
        }
        let news = self.news(changed);
        let each = self.servers.iter_mut().map(|(address, server)| {
            let news = &news;
            async move {
                let known = news.changed.as_ref().filter(|_| server.knows_the_rest());
                server.tell(*address, known.unwrap_or(&news.whole)).await;
            }
        });
        join_all(each).await;
    }

    fn news(&self, changed: Option<BTreeSet<TopicName>>) -> News {
        let topics = &self.services.topics;
        let changed = changed.map(|names| {
            let found: Vec<_> = names.iter().filter_map(|name| topics.get(name)).collect();
            self.register_requests(&found)
        });
        let needs_whole =
            changed.is_none() || self.servers.values().any(|server| !server.knows_the_rest());
        let whole = if needs_whole { self.register_requests(&topics.all()) } else { Vec::new() };
        News { whole, changed }
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

    fn register_requests(&self, topics: &[Arc<Topic>]) -> Vec<Command> {
        let version = self.services.store.topics_version();
        let data_version = DataVersion {
            counter: version.counter as i64,
            state_version: version.state_version as i64,
            timestamp: version.timestamp_ms as i64,
        };
        let each = topics.chunks(TOPICS_MAX).map(|topics| {
            let entry = |topic: &Arc<Topic>| (topic.name().to_string(), topic.config.clone());
            let topic_config_table = topics.iter().map(entry).collect();
            let table = TopicTable { data_version, topic_config_table, ..TopicTable::default() };
            let body =
                RegisterBody { topic_config_serialize_wrapper: table, ..RegisterBody::default() };
            self.register_request(body.to_json())
        });
        each.collect()
    }

    fn register_request(&self, body: Bytes) -> Command {
        let settings = &self.services.settings;
        let header = RegisterBroker {
            broker_name: &settings.broker_name,
            broker_addr: &self.services.store_host.get().to_string(),
            cluster_name: &settings.cluster_name,
            ha_server_addr: Some(""),
            broker_id: 0,
            compressed: Some(false),
            body_crc32: Some(gantry_record::crc::checksum(&body) & 0x7FFF_FFFF),
            ..RegisterBroker::default()
        };
        Command::request(RequestCode::REGISTER_BROKER).with_header(&header).with_body(body)
    }

    fn unregister_request(&self) -> Command {
        let settings = &self.services.settings;
        let header = BrokerIdentity {
            broker_name: &settings.broker_name,
            broker_addr: &self.services.store_host.get().to_string(),
            cluster_name: &settings.cluster_name,
            broker_id: 0,
        };
        Command::request(RequestCode::UNREGISTER_BROKER).with_header(&header)
    }

    async fn unregister_all(&mut self) {
        let request = [self.unregister_request()];
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
    /// Whether it was told of everything over the connection that is open.
    fn knows_the_rest(&self) -> bool {
        self.up == Some(true) && self.channel.as_ref().is_some_and(|channel| !channel.is_closed())
    }

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
