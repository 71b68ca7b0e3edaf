//! Registration: tells every name server which topics this broker has, and where it is.
//! Invariant: each name server hears of the whole table when it is reached first and every interval, and of changes
//! at once; one that is down is tried again each time and logged once. Names are resolved again every few seconds
//! and whenever a connection breaks, so a new name server or another address of this broker needs no restart.
//! Leaves routes to the name servers. Source: RocketMQ remoting, request codes 103, 104.

mod split;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{join_all, select_all};
use gantry_model::{Permission, TopicConfig, TopicName};
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{CallError, Channel, ChannelSettings, ConnectError, RefuseRequests},
    command::{
        nameserver::{BrokerIdentity, RegisterBroker},
        register::RegisterBody,
        topics::TopicTable,
    },
    json::JsonBody,
};
use gantry_telemetry::ReadyState;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use self::split::split;
use crate::{
    remoting::versions,
    resolve::{Resolve, resolve_advertised, resolve_all},
    services::Services,
};

/// Longest time for one call to a name server.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for a connection to one: a pod that is gone may answer nothing at all, and the others wait meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time for saying good-bye to all of them.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time between two tries to reach a name server that is down.
const RETRY: Duration = Duration::from_secs(1);
/// Time between two looks at what the names stand for, while all is well. Costs one lookup for each name.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(2);
/// Least time between two registrations, so that many changes make few of them.
const PAUSE: Duration = Duration::from_millis(10);
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

/// Which topics a registration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of them.
    Table,
    /// Those that changed; the name server keeps the others.
    Change,
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
    resolver: Arc<dyn Resolve>,
    port: u16,
    servers: BTreeMap<SocketAddr, NameServer>,
    unresolved: BTreeSet<String>,
    /// Whether the own host did not resolve last time.
    lost_own_host: bool,
    /// Set at the first registration. A broker that later loses its name servers stays ready: it serves those who
    /// know it, and taking it out of its Service would make an outage of name servers one of brokers too.
    ready: Option<ReadyState>,
}

impl Registration {
    /// Registers the broker as reachable at the advertised host and `port`; `ready` learns of the first success.
    pub(crate) fn new(
        services: Arc<Services>,
        resolver: Arc<dyn Resolve>,
        port: u16,
        ready: Option<ReadyState>,
    ) -> Self {
        Self {
            services,
            resolver,
            port,
            servers: BTreeMap::new(),
            unresolved: BTreeSet::new(),
            lost_own_host: false,
            ready,
        }
    }

    /// Registers until `stop` turns true, then unregisters.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.register_for_ever() => {}
            // Fails when the broker itself is gone, and then there is nothing to wait for either.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if tokio::time::timeout(UNREGISTER_TIMEOUT, self.unregister_all()).await.is_err() {
            tracing::warn!("a name server did not confirm the unregistration in time");
        }
    }

    async fn register_for_ever(&mut self) {
        let mut changes = self.services.changes.subscribe();
        let interval = self.services.settings.register_interval.as_std();
        let mut whole_due = Instant::now();
        let mut look = true;
        loop {
            let change = *changes.borrow_and_update();
            let topics = self.services.changes.take();
            let whole = Instant::now() >= whole_due;
            if whole {
                whole_due = Instant::now() + interval;
            }
            let moved = look && self.resolve().await;
            self.register_all(topics, whole, moved).await;
            self.services.changes.note_announced(change);
            sleep(PAUSE).await;
            // Somebody may wait until a change is announced, so a slow resolver must not delay it.
            look = tokio::select! {
                _ = changes.changed() => false,
                () = sleep_until(whole_due) => true,
                () = self.trouble() => true,
            };
        }
    }

    /// Returns when a name server closed its connection, when it is time to try one that is down, or to look at
    /// the names again.
    async fn trouble(&self) {
        let channels = self.servers.values().filter_map(|server| server.channel.as_ref());
        let closed: Vec<_> = channels.map(|channel| Box::pin(channel.closed())).collect();
        let any_down = self.servers.len() != closed.len() || !self.unresolved.is_empty();
        let retry = if any_down { RETRY } else { RESOLVE_INTERVAL };
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

    /// Looks at what the names stand for. Returns whether this broker has another address than before.
    async fn resolve(&mut self) -> bool {
        let moved = self.resolve_own_host().await;
        self.resolve_servers().await;
        moved
    }

    /// Tells everybody of the `changed` topics, or of the `whole` table and what is no longer in it, over new
    /// connections if the broker `moved`.
    async fn register_all(&mut self, changed: BTreeSet<TopicName>, whole: bool, moved: bool) {
        if self.servers.is_empty() {
            return;
        }
        // A name server forgets an address with the connection that registered it. The old connections end after
        // the new address is known, so clients always find one.
        let old = if moved { self.take_channels() } else { Vec::new() };
        let news = self.news(&changed, whole);
        let each = self.servers.iter_mut().map(|(address, server)| {
            let news = &news;
            async move {
                let known = news.changed.as_ref().filter(|_| server.knows_the_rest());
                server.tell(*address, known.unwrap_or(&news.whole)).await;
            }
        });
        join_all(each).await;
        for channel in old {
            channel.close();
        }
        if self.servers.values().any(|server| server.up == Some(true))
            && let Some(ready) = self.ready.take()
        {
            ready.set_ready();
        }
    }

    fn take_channels(&mut self) -> Vec<Channel> {
        self.servers.values_mut().filter_map(|server| server.channel.take()).collect()
    }

    fn news(&self, changed: &BTreeSet<TopicName>, whole: bool) -> News {
        let topics = &self.services.topics;
        let (mut found, mut gone) = (Vec::new(), Vec::new());
        for name in changed {
            match topics.get(name) {
                Some(topic) => found.push(topic.config.clone()),
                None => gone.push(withdrawal(name)),
            }
        }
        let withdrawals = self.register_requests(gone, Part::Change);
        let needs_whole = whole || self.servers.values().any(|server| !server.knows_the_rest());
        let table = if needs_whole {
            let all = topics.all().iter().map(|topic| topic.config.clone()).collect();
            // After the table: a name server takes no single topic from a broker that it does not know.
            [self.register_requests(all, Part::Table), withdrawals.clone()].concat()
        } else {
            Vec::new()
        };
        let changed =
            (!whole).then(|| [self.register_requests(found, Part::Change), withdrawals].concat());
        News { whole: table, changed }
    }

    /// The advertised host may have another address than before: returns whether it has.
    async fn resolve_own_host(&mut self) -> bool {
        let host = self.services.settings.advertised_host();
        match resolve_advertised(&self.resolver, &host, self.port).await {
            Ok(address) => {
                self.lost_own_host = false;
                let before = self.services.store_host.get();
                if address == before {
                    return false;
                }
                tracing::info!(host, %before, %address, "the advertised host has another address");
                self.services.store_host.set(address);
                true
            }
            Err(error) => {
                if !self.lost_own_host {
                    tracing::warn!(host, %error, "the advertised host does not resolve; its last address stays");
                }
                self.lost_own_host = true;
                false
            }
        }
    }

    async fn resolve_servers(&mut self) {
        let names: Vec<String> =
            self.services.settings.name_server_list().map(str::to_owned).collect();
        let lookups = names.iter().map(|name| resolve_all(self.resolver.as_ref(), name));
        let answers = join_all(lookups).await;
        let mut found = BTreeSet::new();
        for (name, answer) in names.into_iter().zip(answers) {
            match answer {
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

    fn register_requests(&self, topics: Vec<TopicConfig>, part: Part) -> Vec<Command> {
        let data_version = versions::to_protocol(self.services.store.topics_version());
        let groups = split(topics);
        let partial = part == Part::Change || groups.len() > 1;
        let request = |topics: Vec<TopicConfig>| {
            let entry = |config: TopicConfig| (config.topic_name.to_string(), config);
            let topic_config_table = topics.into_iter().map(entry).collect();
            let table = TopicTable { data_version, topic_config_table, ..TopicTable::default() };
            let body =
                RegisterBody { topic_config_serialize_wrapper: table, ..RegisterBody::default() };
            self.register_request(body.to_json(), partial)
        };
        groups.into_iter().map(request).collect()
    }

    fn register_request(&self, body: Bytes, partial: bool) -> Command {
        let settings = &self.services.settings;
        let header = RegisterBroker {
            broker_name: &settings.broker_name,
            broker_addr: &self.services.store_host.get().to_string(),
            cluster_name: &settings.cluster_name,
            ha_server_addr: Some(""),
            broker_id: 0,
            compressed: Some(false),
            body_crc32: Some(gantry_record::crc::checksum(&body) & 0x7FFF_FFFF),
            partial: partial.then_some(true),
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
        // One that was being told when the broker stopped may know it too, so every open connection counts.
        let open = |server: &NameServer| {
            server.channel.as_ref().is_some_and(|channel| !channel.is_closed())
        };
        let each =
            self.servers.iter_mut().filter(|(_, server)| open(server)).map(|(address, server)| {
                let request = &request;
                async move { server.tell(*address, request).await }
            });
        join_all(each).await;
    }
}

/// Entry that says of a topic that this broker no longer has it: no queue to read or to write. Code 216 would
/// take the topic from every other broker too.
fn withdrawal(topic: &TopicName) -> TopicConfig {
    TopicConfig::new(topic.clone(), 0).with_permission(Permission(0))
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
        let settings =
            ChannelSettings { connect_timeout: CONNECT_TIMEOUT, ..ChannelSettings::default() };
        let connected =
            Channel::connect(&address.to_string(), &settings, Arc::new(RefuseRequests)).await?;
        self.channel = Some(connected.clone());
        Ok(connected)
    }
}
