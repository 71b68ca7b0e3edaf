//! The client: name servers, routes, connections and heartbeats that producers, consumers and admin
//! calls share.
//! Invariant: after `shutdown` no task of it runs, brokers have been told, connections are closed.
//! Leaves what is sent and read to `producer`, `consumer`, `pull` and `admin`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gantry_record::UniqueIds;
use gantry_remoting::{
    Command, RequestCode, ResponseCode,
    client::{Channel, ChannelHandler, ChannelSettings},
    command::{
        heartbeat::{ConsumerData, HeartbeatBody, ProducerData, UnregisterClient},
        nameserver::{RouteRequest, TopicRoute},
    },
    json::JsonBody,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    connections::{Connections, unreadable},
    error::{RequestError, RouteError},
    route::Route,
};

/// Topic in whose image brokers make unknown topics.
const TEMPLATE_TOPIC: &str = "TBW102";
/// Queues that a producer wants for a topic made by its first message; RocketMQ's default.
pub(crate) const TEMPLATE_QUEUES: u32 = 4;
/// A route that nobody asked for so long is forgotten: 20 refreshes of 30 s.
const ROUTE_UNUSED_MAX: Duration = Duration::from_mins(10);
/// A route that failed is asked for again at most so often, however many requests fail with it.
const ROUTE_AGE_MIN: Duration = Duration::from_millis(200);
/// Longest wait for a broker to hear that a client leaves.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Name servers, `host:port`; an item may hold several, separated by `;` or `,`.
    pub name_servers: Vec<String>,
    /// Time for one request and its answer. Default 3 s.
    pub request_timeout: Duration,
    /// Time for a connection to be made. Default 3 s.
    pub connect_timeout: Duration,
    /// Age at which routes are asked for again. Default 30 s.
    pub route_interval: Duration,
    /// Time between two heartbeats. Default 30 s; brokers forget a client after 120 s.
    pub heartbeat_interval: Duration,
}

impl ClientSettings {
    /// RocketMQ's defaults.
    pub fn new(name_servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            name_servers: name_servers.into_iter().map(Into::into).collect(),
            request_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            route_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
        }
    }

    fn addresses(&self) -> Vec<String> {
        let items = self.name_servers.iter().flat_map(|item| item.split([';', ',']));
        let bare = |item: &str| item.trim().trim_start_matches("http://").to_owned();
        items.map(bare).filter(|item| !item.is_empty()).collect()
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no name server in the settings.
    #[error("no name server is given")]
    NoNameServer,
}

/// A client of a cluster; cheap to clone.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: ClientSettings,
    pub(crate) id: String,
    pub(crate) connections: Connections,
    pub(crate) unique_ids: UniqueIds,
    name_servers: Vec<String>,
    /// Index of the name server that answered last.
    name_server: AtomicUsize,
    routes: Mutex<HashMap<String, CachedRoute>>,
    groups: Arc<Groups>,
    stop: watch::Sender<bool>,
}

#[derive(Clone)]
struct CachedRoute {
    route: Arc<Route>,
    asked_at: Instant,
    used_at: Instant,
    /// Whether the topic does not exist yet and this is the template's route.
    template: bool,
}

/// The groups in which this client produces and consumes.
#[derive(Default)]
struct Groups {
    producers: Mutex<BTreeMap<String, usize>>,
    consumers: Mutex<BTreeMap<String, Member>>,
}

/// A consumer as heartbeats announce it.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) data: ConsumerData,
    /// Told when other members come or go.
    pub(crate) members_changed: Arc<Notify>,
}

impl ChannelHandler for Groups {
    fn request(&self, channel: &Channel, request: Command) {
        if request.request_code() == RequestCode::NOTIFY_CONSUMER_IDS_CHANGED {
            let group = request.ext.get("consumerGroup").unwrap_or_default();
            if let Some(member) = self.consumers.lock().get(group) {
                member.members_changed.notify_one();
            }
            return;
        }
        gantry_remoting::client::RefuseRequests.request(channel, request);
    }
}

impl Client {
    /// Makes a client and starts its background task. No server is asked yet.
    pub fn start(settings: ClientSettings) -> Result<Self, ClientError> {
        let name_servers = settings.addresses();
        if name_servers.is_empty() {
            return Err(ClientError::NoNameServer);
        }
        let groups = Arc::new(Groups::default());
        let channel = ChannelSettings {
            connect_timeout: settings.connect_timeout,
            ..ChannelSettings::default()
        };
        let ip = own_address(&name_servers[0]);
        let inner = Arc::new(Inner {
            id: client_id(ip),
            connections: Connections::new(channel, Arc::clone(&groups) as Arc<dyn ChannelHandler>),
            unique_ids: UniqueIds::new(ip, std::process::id(), rand::random()),
            name_server: AtomicUsize::new(rand::random_range(0..name_servers.len())),
            name_servers,
            routes: Mutex::default(),
            groups,
            stop: watch::Sender::new(false),
            settings,
        });
        tokio::spawn(upkeep(Arc::downgrade(&inner), inner.stop.subscribe()));
        Ok(Self { inner })
    }

    /// Id under which brokers know this client.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Tells brokers that this client leaves and closes all connections. Stop consumers before.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let producers: Vec<_> = self.inner.groups.producers.lock().keys().cloned().collect();
        for group in producers {
            self.inner.leave(Some(&group), None).await;
        }
        self.inner.connections.close().await;
    }

    /// The route of a topic, from memory when it is known.
    pub async fn route(&self, topic: &str) -> Result<Arc<Route>, RouteError> {
        self.inner.route(topic, false).await
    }
}

impl Inner {
    /// Milliseconds since 1970.
    pub(crate) fn now_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.settings.request_timeout
    }

    /// Asks name servers, beginning with the one that answered last, until one answers.
    pub(crate) async fn ask_name_servers(
        &self,
        command: &Command,
    ) -> Result<(String, Command), RequestError> {
        let first = self.name_server.load(Relaxed);
        let mut last = None;
        for step in 0..self.name_servers.len() {
            let index = (first + step) % self.name_servers.len();
            let address = &self.name_servers[index];
            match self.connections.ask(address, command, self.timeout()).await {
                Ok(answer) => {
                    self.name_server.store(index, Relaxed);
                    return Ok((address.clone(), answer));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is at least one name server"))
    }

    /// Sends `command` to each name server; the first failure is returned after all were asked.
    pub(crate) async fn tell_name_servers(&self, command: &Command) -> Result<(), RequestError> {
        let mut result = Ok(());
        for address in &self.name_servers {
            let told = self.connections.call(address, command, self.timeout()).await;
            result = result.and(told.map(|_| ()));
        }
        result
    }

    /// The route of `topic`; for a topic that does not exist that of the template, if `for_sending`.
    pub(crate) async fn route(
        &self,
        topic: &str,
        for_sending: bool,
    ) -> Result<Arc<Route>, RouteError> {
        {
            let mut routes = self.routes.lock();
            let cached = routes.get_mut(topic).filter(|cached| for_sending || !cached.template);
            if let Some(cached) = cached {
                cached.used_at = Instant::now();
                return Ok(Arc::clone(&cached.route));
            }
        }
        self.ask_route(topic, for_sending).await
    }

    /// The route of `topic`, asked for again unless that has just been done.
    pub(crate) async fn renewed_route(
        &self,
        topic: &str,
        for_sending: bool,
    ) -> Result<Arc<Route>, RouteError> {
        let fresh = self.routes.lock().get(topic).is_some_and(|cached| {
            cached.asked_at.elapsed() < ROUTE_AGE_MIN && (for_sending || !cached.template)
        });
        if fresh {
            self.route(topic, for_sending).await
        } else {
            self.ask_route(topic, for_sending).await
        }
    }

    async fn ask_route(&self, topic: &str, for_sending: bool) -> Result<Arc<Route>, RouteError> {
        let (route, template) = match self.fetch_route(topic).await {
            Err(RouteError::TopicNotFound { .. }) if for_sending => {
                let template =
                    self.fetch_route(TEMPLATE_TOPIC).await.map_err(|error| match error {
                        RouteError::TopicNotFound { .. } => {
                            RouteError::TopicNotFound { topic: topic.to_owned() }
                        }
                        error => error,
                    })?;
                (template.as_template_of(topic, TEMPLATE_QUEUES), true)
            }
            route => (route?, false),
        };
        let (route, now) = (Arc::new(route), Instant::now());
        let cached =
            CachedRoute { route: Arc::clone(&route), asked_at: now, used_at: now, template };
        self.routes.lock().insert(topic.to_owned(), cached);
        Ok(route)
    }

    async fn fetch_route(&self, topic: &str) -> Result<Route, RouteError> {
        let fields = RouteRequest {
            topic,
            accept_standard_json_only: Some(true),
            ..RouteRequest::default()
        };
        let command = Command::request(RequestCode::GET_ROUTEINFO_BY_TOPIC).with_header(&fields);
        let (address, answer) = self.ask_name_servers(&command).await?;
        match answer.response_code() {
            ResponseCode::SUCCESS => {
                let body = TopicRoute::from_json(&answer.body)
                    .map_err(|error| unreadable(&address, "a route", error))?;
                Ok(Route::new(topic, body))
            }
            ResponseCode::TOPIC_NOT_EXIST => {
                Err(RouteError::TopicNotFound { topic: topic.to_owned() })
            }
            _ => Err(crate::connections::refused(&address, &answer).into()),
        }
    }

    /// Forgets what is known about a topic, after it was made or deleted.
    pub(crate) fn forget_route(&self, topic: &str) {
        self.routes.lock().remove(topic);
    }

    /// A producer begins in `group`.
    pub(crate) fn add_producer(&self, group: &str) {
        *self.groups.producers.lock().entry(group.to_owned()).or_default() += 1;
    }

    /// A consumer begins; false when this client already consumes in its group.
    pub(crate) fn add_consumer(&self, member: Member) -> bool {
        let mut consumers = self.groups.consumers.lock();
        let group = member.data.group_name.clone();
        let free = !consumers.contains_key(&group);
        if free {
            consumers.insert(group, member);
        }
        free
    }

    /// A consumer ends.
    pub(crate) async fn remove_consumer(&self, group: &str) {
        self.groups.consumers.lock().remove(group);
        self.leave(None, Some(group)).await;
    }

    /// Tells all brokers that this client leaves a group. Who does not hear it, finds out by itself.
    async fn leave(&self, producer_group: Option<&str>, consumer_group: Option<&str>) {
        let fields = UnregisterClient { client_id: &self.id, producer_group, consumer_group };
        let command = Command::request(RequestCode::UNREGISTER_CLIENT).with_header(&fields);
        for address in self.broker_addresses(false) {
            let told = self.connections.call(&address, &command, FAREWELL_TIMEOUT).await;
            if let Err(error) = told {
                tracing::debug!(%error, "a broker was not told that this client leaves");
            }
        }
    }

    /// Tells all brokers who is there. A broker that does not hear it is told again next time.
    pub(crate) async fn heartbeat(&self) {
        let body = HeartbeatBody {
            client_id: self.id.clone(),
            consumer_data_set: {
                let consumers = self.groups.consumers.lock();
                consumers.values().map(|member| member.data.clone()).collect()
            },
            producer_data_set: {
                let producers = self.groups.producers.lock();
                producers.keys().map(|group| ProducerData { group_name: group.clone() }).collect()
            },
            ..HeartbeatBody::default()
        };
        if body.consumer_data_set.is_empty() && body.producer_data_set.is_empty() {
            return;
        }
        let primaries_only = body.consumer_data_set.is_empty();
        let command = Command::request(RequestCode::HEART_BEAT).with_body(body.to_json());
        for address in self.broker_addresses(primaries_only) {
            if let Err(error) = self.connections.call(&address, &command, self.timeout()).await {
                tracing::warn!(%error, "heartbeat failed");
            }
        }
    }

    fn broker_addresses(&self, primaries_only: bool) -> BTreeSet<String> {
        let routes = self.routes.lock();
        let groups = routes.values().flat_map(|cached| cached.route.brokers().values());
        let wanted = groups.flat_map(|group| {
            group.addresses.iter().filter(|(id, _)| !primaries_only || **id == 0)
        });
        wanted.map(|(_, address)| address.clone()).collect()
    }

    /// Asks again for all routes in use; what cannot be asked for stays as it is.
    async fn refresh_routes(&self) {
        let topics: Vec<(String, bool)> = {
            let mut routes = self.routes.lock();
            routes.retain(|_, cached| cached.used_at.elapsed() < ROUTE_UNUSED_MAX);
            routes.iter().map(|(topic, cached)| (topic.clone(), cached.template)).collect()
        };
        for (topic, template) in topics {
            let used_at = self.routes.lock().get(&topic).map(|cached| cached.used_at);
            match self.ask_route(&topic, template).await {
                Ok(_) => {
                    if let (Some(used_at), Some(cached)) =
                        (used_at, self.routes.lock().get_mut(&topic))
                    {
                        cached.used_at = used_at;
                    }
                }
                Err(RouteError::TopicNotFound { .. }) => self.forget_route(&topic),
                Err(error) => tracing::warn!(%topic, %error, "route was not refreshed"),
            }
        }
    }
}

/// Refreshes routes and sends heartbeats until the client is shut down or dropped.
async fn upkeep(inner: Weak<Inner>, mut stopped: watch::Receiver<bool>) {
    let Some((route_interval, heartbeat_interval)) = inner
        .upgrade()
        .map(|inner| (inner.settings.route_interval, inner.settings.heartbeat_interval))
    else {
        return;
    };
    let mut routes = tokio::time::interval(route_interval);
    let mut heartbeats = tokio::time::interval(heartbeat_interval);
    // The first tick of each comes at once.
    routes.tick().await;
    heartbeats.tick().await;
    loop {
        let heartbeat = tokio::select! {
            _ = routes.tick() => false,
            _ = heartbeats.tick() => true,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let Some(inner) = inner.upgrade() else { return };
        let work = async {
            if heartbeat { inner.heartbeat().await } else { inner.refresh_routes().await }
        };
        tokio::select! {
            () = work => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// The address from which this machine reaches `server`; no packet is sent to find out.
fn own_address(server: &str) -> IpAddr {
    let reach = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect(server).ok()?;
        socket.local_addr().ok()
    };
    reach().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

fn client_id(ip: IpAddr) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    // In containers neither address nor process number tells two clients apart.
    format!("{ip}@{}-{:08x}-{number}", std::process::id(), rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_server_lists_are_taken_in_every_usual_form() {
        let settings = ClientSettings::new(["a:1;b:2", " http://c:3 ,d:4", ""]);
        assert_eq!(settings.addresses(), ["a:1", "b:2", "c:3", "d:4"]);
    }

    #[tokio::test]
    async fn client_without_name_server_is_refused() {
        assert!(matches!(
            Client::start(ClientSettings::new([" ; "])),
            Err(ClientError::NoNameServer)
        ));
    }

    #[test]
    fn clients_of_one_process_have_different_ids() {
        assert_ne!(client_id(Ipv4Addr::LOCALHOST.into()), client_id(Ipv4Addr::LOCALHOST.into()));
    }
}
