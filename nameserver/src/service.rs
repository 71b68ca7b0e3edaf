//! Remoting front of the name server: one function for each request code, errors turned into codes.
//! Invariant: every request gets one answer; what a peer sends is checked before it reaches the table.
//! Leaves sockets to the remoting server, rules to the route table, bytes of bodies to `bodies`.

use std::{collections::BTreeSet, fmt::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_model::{Permission, TopicName, limits::QUEUES_MAX, settings::NameServerSettings};
use gantry_remoting::{
    ReplyTo, RequestCode, ResponseCode,
    command::{
        data_version::DataVersion,
        nameserver::{STANDARD_ROUTE_VERSION, TopicRoute},
    },
    json::{JsonBody, to_json},
    server::{Answers, Connection, Request, Service},
};
use metrics::counter;
use parking_lot::{Mutex, RwLock};

use crate::{
    bodies::{self, RouteForm},
    call::{Call, Handled, Refusal, Reply, TEXT_BYTES_MAX},
    kv::{KvConfig, ORDER_TOPIC_CONFIG},
    register::{BodyForm, RegisterBody},
    routes::{Member, Queues, Registered, Registration, RouteTable},
};

/// Bytes of answers after which a batch is written before it goes on: a list of 100,000 topics is
/// some megabytes, and one read may bring hundreds of requests for it.
const BATCH_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Time since any fixed moment, on a clock that never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What answers the requests of brokers, clients and tools.
pub struct NameService {
    routes: RwLock<RouteTable>,
    kv: Arc<RwLock<KvConfig>>,
    settings: NameServerSettings,
    clock: Clock,
    started: Duration,
    /// Brokers that have not registered yet.
    awaited: Mutex<BTreeSet<String>>,
}

/// A change of the key-value configuration, made on a thread that may wait for the disk.
enum KvChange {
    Put { namespace: String, key: String, value: String },
    Delete { namespace: String, key: String },
}

impl NameService {
    /// A service with an empty table.
    pub fn new(settings: NameServerSettings, kv: KvConfig, clock: Clock) -> Self {
        Self {
            routes: RwLock::default(),
            kv: Arc::new(RwLock::new(kv)),
            awaited: Mutex::new(settings.expected_brokers.iter().cloned().collect()),
            started: clock(),
            settings,
            clock,
        }
    }

    /// Ready once every expected broker has registered, or the wait for them is over.
    pub fn ready(&self) -> Result<(), String> {
        let awaited = self.awaited.lock();
        let waited = (self.clock)().saturating_sub(self.started);
        if awaited.is_empty() || waited >= self.settings.ready_wait_max.as_std() {
            return Ok(());
        }
        let names: Vec<_> = awaited.iter().map(String::as_str).collect();
        Err(format!("waits for registration of {}", names.join(", ")))
    }

    /// Forgets brokers that were silent for too long; gives the connections they came through.
    pub fn expire(&self) -> Vec<u64> {
        let (members, connections) = self.routes.write().expire((self.clock)());
        for member in &members {
            tracing::warn!(
                broker = member.broker,
                id = member.id,
                addr = member.addr,
                "silent broker forgotten"
            );
        }
        count_gone("silent", members.len());
        connections
    }

    /// Copies the size of the table into metrics.
    pub fn record_metrics(&self) {
        let routes = self.routes.read();
        let gauge = |name: &'static str, value: usize| metrics::gauge!(name).set(value as f64);
        gauge("gantry_nameserver_broker_groups", routes.groups().count());
        gauge("gantry_nameserver_brokers", routes.live_count());
        gauge("gantry_nameserver_topics", routes.topic_count());
        gauge("gantry_nameserver_clusters", routes.clusters().len());
        gauge("gantry_nameserver_kv_entries", self.kv.read().len());
    }

    fn handle_one(&self, connection: &Arc<Connection>, request: &Request, answers: &mut Answers) {
        let view = match request.view() {
            Ok(view) => view,
            Err(error) => return connection.reject(&error),
        };
        let (reply, code) = (view.reply_to(), view.request_code());
        counter!("gantry_nameserver_requests_total", "code" => code.name()).increment(1);
        let call = Call { view, body: &request.body, connection };
        let handled = match kv_change(&call, code) {
            Some(Ok(change)) => return self.change_kv(change, connection, reply),
            Some(Err(refusal)) => Err(refusal),
            None => self.dispatch(&call, code),
        };
        match handled {
            Ok(Reply { ext, body }) => {
                let answer = answers.begin(reply, ResponseCode::SUCCESS);
                let answer = ext.iter().fold(answer, |answer, (k, v)| answer.ext(k, v));
                answer.body(&body);
            }
            Err(Refusal { code, remark }) => answers.refuse(reply, code, &remark),
        }
    }

    fn dispatch(&self, call: &Call<'_>, code: RequestCode) -> Handled {
        match code {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => self.route(call),
            RequestCode::REGISTER_BROKER => self.register(call),
            RequestCode::BROKER_HEARTBEAT => self.heartbeat(call),
            RequestCode::UNREGISTER_BROKER => self.unregister(call),
            RequestCode::QUERY_DATA_VERSION => self.query_data_version(call),
            RequestCode::GET_BROKER_CLUSTER_INFO => {
                Ok(Reply::body(bodies::cluster_info(&self.routes.read())))
            }
            RequestCode::GET_BROKER_MEMBER_GROUP => self.member_group(call),
            RequestCode::WIPE_WRITE_PERM_OF_BROKER => self.wipe_write_permission(call),
            RequestCode::ADD_WRITE_PERM_OF_BROKER => self.add_write_permission(call),
            RequestCode::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(call),
            RequestCode::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(call),
            RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.all_topics(),
            RequestCode::GET_TOPICS_BY_CLUSTER => self.topics_of_cluster(call),
            RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS => self.system_topics(),
            RequestCode::GET_UNIT_TOPIC_LIST => self.topics_by_flag(|flag| flag & 1 != 0),
            RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST => self.topics_by_flag(|flag| flag & 2 != 0),
            RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => {
                self.topics_by_flag(|flag| flag & 3 == 2)
            }
            RequestCode::GET_KV_CONFIG => self.get_kv(call),
            RequestCode::GET_KVLIST_BY_NAMESPACE => self.kv_list(call),
            RequestCode::GET_NAMESRV_CONFIG => self.settings_lines(),
            RequestCode::UPDATE_NAMESRV_CONFIG => Err(Refusal::new(
                ResponseCode::NO_PERMISSION,
                "the name server reads its settings at start; change them there and restart it",
            )),
            other => Err(Refusal::new(
                ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
                format!(" request type {} not supported", other.0),
            )),
        }
    }

    fn route(&self, call: &Call<'_>) -> Handled {
        let topic = call.required("topic")?;
        let zone = call.zone_asked();
        let is_standard = call.flag("acceptStandardJsonOnly") == Some(true)
            || (call.view.version >= STANDARD_ROUTE_VERSION && zone.is_none());
        let form = if is_standard { RouteForm::Standard } else { RouteForm::Legacy };
        let order = self.order_topic_conf(topic);
        let routes = self.routes.read();
        let mut entries = routes
            .route(topic)
            .filter(|(_, group, _)| zone.is_none_or(|zone| group.serves_zone(zone)))
            .peekable();
        if entries.peek().is_none() && routes.route(topic).next().is_none() {
            let shown: String = topic.chars().take(TEXT_BYTES_MAX).collect();
            return Err(Refusal::new(
                ResponseCode::TOPIC_NOT_EXIST,
                format!("No topic route info in name server for the topic: {shown}"),
            ));
        }
        Ok(Reply::body(bodies::route(entries, order.as_deref(), form)))
    }

    /// The queue list of an ordered topic, if routes carry it.
    fn order_topic_conf(&self, topic: &str) -> Option<String> {
        let is_wanted = self.settings.order_message_enable;
        is_wanted
            .then(|| self.kv.read().get(ORDER_TOPIC_CONFIG, topic).map(str::to_owned))
            .flatten()
    }

    fn register(&self, call: &Call<'_>) -> Handled {
        let registered = self.try_register(call);
        let result = if registered.is_ok() { "accepted" } else { "refused" };
        counter!("gantry_nameserver_registrations_total", "result" => result).increment(1);
        if let Err(Refusal { remark, .. }) = &registered {
            tracing::warn!(peer = %call.connection.peer(), "{remark}");
        }
        registered
    }

    fn try_register(&self, call: &Call<'_>) -> Handled {
        let registration = self.registration(call)?;
        let Member { broker, id, addr, .. } = registration.member.clone();
        let topics = registration.topics.len();
        let is_whole = call.flag("gantryPartial") != Some(true);
        let forget_missing = self.settings.delete_topic_with_broker_registration && is_whole;
        let registered = self.routes.write().register(registration, forget_missing, (self.clock)());
        let master = match registered.map_err(|e| Refusal::error(&e))? {
            Registered::Stale => {
                tracing::warn!(broker, id, addr, "registration ignored: a later term holds the id");
                return Ok(Reply::default());
            }
            Registered::Accepted { master } => master,
        };
        tracing::debug!(broker, id, addr, topics, "registered");
        self.awaited.lock().remove(&broker);
        Ok(self.registered(master))
    }

    fn registration(&self, call: &Call<'_>) -> Result<Registration, Refusal> {
        let form = BodyForm {
            version: call.view.version,
            compressed: call.flag("compressed") == Some(true),
            crc: call
                .number("bodyCrc32")?
                .map_or(Ok(0), u32::try_from)
                .map_err(|e| Refusal::error(&e))?,
            bytes_max: self.settings.register_bytes_max.get(),
        };
        let member = call.member()?;
        let expiry = call.number("heartbeatTimeoutMillis")?.filter(|millis| *millis > 0);
        let default_expiry = self.settings.broker_expiry.as_std();
        let expiry = expiry.map_or(default_expiry, |ms| Duration::from_millis(ms.unsigned_abs()));
        let zone = call.view.ext.get("__ZONE_NAME").filter(|zone| !zone.is_empty());
        let zone = zone.map(|_| call.name("__ZONE_NAME").map(str::to_owned)).transpose()?;
        let has_ha = call.view.ext.get("haServerAddr").is_some_and(|addr| !addr.is_empty());
        let ha_addr = if has_ha { call.addr("haServerAddr")? } else { "" }.to_owned();
        let acting_master = call.flag("enableActingMaster");
        let body = RegisterBody::decode(call.body, form).map_err(|e| Refusal::error(&e))?;
        if body.skipped > 0 {
            counter!("gantry_nameserver_invalid_topics_total").increment(body.skipped);
            tracing::warn!(
                broker = member.broker,
                skipped = body.skipped,
                "topics that are not valid were left out"
            );
        }
        let RegisterBody { data_version, topics, .. } = body;
        let connection = call.connection.id();
        Ok(Registration {
            member,
            ha_addr,
            acting_master,
            zone,
            expiry,
            data_version,
            topics,
            connection,
        })
    }

    fn registered(&self, master: Option<(String, String)>) -> Reply {
        let mut reply = Reply::default();
        if let Some((addr, ha_addr)) = master {
            reply.ext = vec![("haServerAddr", ha_addr), ("masterAddr", addr)];
        }
        if self.settings.return_order_topic_config_to_broker
            && let Some(table) = self.kv.read().namespace(ORDER_TOPIC_CONFIG)
        {
            reply.body = bodies::kv_table(table);
        }
        reply
    }

    fn heartbeat(&self, call: &Call<'_>) -> Handled {
        let (cluster, addr) = (call.name("clusterName")?, call.addr("brokerAddr")?);
        // As in the reference, an unknown broker gets no error: it registers at its next turn.
        self.routes.write().heartbeat(cluster, addr, (self.clock)());
        Ok(Reply::default())
    }

    fn unregister(&self, call: &Call<'_>) -> Handled {
        let member = call.member()?;
        let is_known = self.routes.write().unregister(&member);
        let Member { broker, id, addr, .. } = member;
        tracing::info!(broker, id, addr, is_known, "unregistered");
        count_gone("unregistered", usize::from(is_known));
        Ok(Reply::default())
    }

    fn query_data_version(&self, call: &Call<'_>) -> Handled {
        let (cluster, addr) = (call.name("clusterName")?, call.addr("brokerAddr")?);
        let theirs = DataVersion::from_json(call.body).map_err(|e| Refusal::error(&e))?;
        let mut routes = self.routes.write();
        routes.heartbeat(cluster, addr, (self.clock)());
        let ours = routes.data_version(cluster, addr);
        let mut reply = Reply::ext("changed", ours != Some(theirs));
        if let Some(ours) = ours {
            reply.body = to_json(&ours);
        }
        Ok(reply)
    }

    fn member_group(&self, call: &Call<'_>) -> Handled {
        let (cluster, broker) = (call.name("clusterName")?, call.name("brokerName")?);
        let routes = self.routes.read();
        Ok(Reply::body(bodies::member_group(cluster, broker, routes.group(broker))))
    }

    fn wipe_write_permission(&self, call: &Call<'_>) -> Handled {
        let broker = call.name("brokerName")?;
        let count = self.routes.write().wipe_write_permission(broker);
        tracing::info!(broker, topics = count, "write permission taken");
        Ok(Reply::ext("wipeTopicCount", count))
    }

    fn add_write_permission(&self, call: &Call<'_>) -> Handled {
        let broker = call.name("brokerName")?;
        let count = self.routes.write().add_write_permission(broker);
        tracing::info!(broker, topics = count, "write permission given");
        Ok(Reply::ext("addTopicCount", count))
    }

    fn delete_topic(&self, call: &Call<'_>) -> Handled {
        let topic = call.name("topic")?;
        let cluster = call.view.ext.get("clusterName").filter(|cluster| !cluster.is_empty());
        self.routes.write().delete_topic(topic, cluster);
        tracing::info!(topic, cluster, "topic deleted");
        Ok(Reply::default())
    }

    fn register_topic(&self, call: &Call<'_>) -> Handled {
        let topic = TopicName::new(call.required("topic")?).map_err(|e| Refusal::error(&e))?;
        let added = TopicRoute::from_json(call.body).map_err(|e| Refusal::error(&e))?;
        let mut queues = Vec::with_capacity(added.queue_datas.len());
        for queue in added.queue_datas {
            if queue.read_queue_nums.max(queue.write_queue_nums) > QUEUES_MAX || queue.perm > 15 {
                let expected = format!("at most {QUEUES_MAX} queues and a permission of 0..=15");
                return Err(Refusal::error(&format!("queues of {topic}: expected {expected}")));
            }
            let one = Queues {
                perm: Permission(queue.perm),
                read_queues: queue.read_queue_nums,
                sys_flag: queue.topic_sys_flag,
                write_queues: queue.write_queue_nums,
            };
            queues.push((queue.broker_name, one));
        }
        self.routes.write().add_topic(&topic, queues);
        Ok(Reply::default())
    }

    fn topic_list(&self, list: impl FnOnce(&RouteTable) -> Bytes) -> Handled {
        if !self.settings.enable_topic_list {
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "disable"));
        }
        Ok(Reply::body(list(&self.routes.read())))
    }

    fn all_topics(&self) -> Handled {
        self.topic_list(|routes| bodies::topic_list(routes.topics(), None))
    }

    fn topics_of_cluster(&self, call: &Call<'_>) -> Handled {
        let cluster = call.name("cluster")?;
        self.topic_list(|routes| bodies::topic_list(routes.topics_of_cluster(cluster), None))
    }

    fn topics_by_flag(&self, wanted: impl Fn(u32) -> bool) -> Handled {
        self.topic_list(|routes| bodies::topic_list(routes.topics_by_flag(wanted), None))
    }

    /// Clusters and broker groups are system topics too; the client asks the broker for the others.
    fn system_topics(&self) -> Handled {
        self.topic_list(|routes| {
            let addr = routes.groups().find_map(|(_, group)| group.addrs.values().next());
            let names = routes.clusters().into_iter().chain(routes.groups().map(|(name, _)| name));
            bodies::topic_list(names, addr.map(String::as_str))
        })
    }

    fn get_kv(&self, call: &Call<'_>) -> Handled {
        let (namespace, key) = (call.required("namespace")?, call.required("key")?);
        let kv = self.kv.read();
        let absent = || {
            let remark = format!("No config item, Namespace: {namespace} Key: {key}");
            Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark)
        };
        kv.get(namespace, key).map(|value| Reply::ext("value", value)).ok_or_else(absent)
    }

    fn kv_list(&self, call: &Call<'_>) -> Handled {
        let namespace = call.required("namespace")?;
        let kv = self.kv.read();
        let absent = || {
            let remark = format!("No config item, Namespace: {namespace}");
            Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark)
        };
        kv.namespace(namespace).map(|table| Reply::body(bodies::kv_table(table))).ok_or_else(absent)
    }

    fn settings_lines(&self) -> Handled {
        let settings = serde_json::to_value(&self.settings).map_err(|e| Refusal::error(&e))?;
        let mut lines = String::new();
        for (key, value) in settings.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // Memory does not fail to be written.
            let _ = writeln!(lines, "{key}={value}");
        }
        Ok(Reply::body(lines.into()))
    }

    /// Changes the configuration on a thread that may wait for the disk, and answers from there.
    fn change_kv(&self, change: KvChange, connection: &Arc<Connection>, reply: ReplyTo) {
        let (kv, connection) = (Arc::clone(&self.kv), Arc::clone(connection));
        tokio::task::spawn_blocking(move || {
            let changed = match &change {
                KvChange::Put { namespace, key, value } => kv.write().put(namespace, key, value),
                KvChange::Delete { namespace, key } => kv.write().delete(namespace, key),
            };
            let remark = changed.err().map(|error| {
                tracing::error!(%error, "key-value configuration not changed");
                error.to_string()
            });
            let code = match remark {
                None => ResponseCode::SUCCESS,
                Some(_) => ResponseCode::SYSTEM_ERROR,
            };
            let sent = connection.answer(reply, code, remark.as_deref(), |answer| answer.body(&[]));
            if let Err(error) = sent {
                tracing::debug!(%error, "nobody waits for the answer any more");
            }
        });
    }

    fn forget_connection(&self, connection: u64) {
        let members = self.routes.write().connection_closed(connection);
        for Member { broker, id, addr, .. } in &members {
            tracing::info!(broker, id, addr, "connection ended, broker forgotten");
        }
        count_gone("disconnected", members.len());
    }
}

impl Service for NameService {
    fn handle(
        &self,
        connection: &Arc<Connection>,
        requests: &mut Vec<Request>,
        answers: &mut Answers,
    ) {
        let mut taken = 0;
        for request in requests.iter() {
            self.handle_one(connection, request, answers);
            taken += 1;
            if answers.bytes() >= BATCH_ANSWER_BYTES_MAX {
                break;
            }
        }
        requests.drain(..taken);
    }

    fn closed(&self, connection: &Arc<Connection>) {
        self.forget_connection(connection.id());
    }
}

fn count_gone(reason: &'static str, count: usize) {
    counter!("gantry_nameserver_brokers_gone_total", "reason" => reason).increment(count as u64);
}

/// The change that a request asks for, if it is one of those that wait for the disk.
fn kv_change(call: &Call<'_>, code: RequestCode) -> Option<Result<KvChange, Refusal>> {
    let text = |key: &str| call.required(key).map(str::to_owned);
    match code {
        RequestCode::PUT_KV_CONFIG => Some((|| {
            let (namespace, key) = (text("namespace")?, text("key")?);
            let value = call.view.ext.get("value").unwrap_or_default().to_owned();
            Ok(KvChange::Put { namespace, key, value })
        })()),
        RequestCode::DELETE_KV_CONFIG => {
            Some((|| Ok(KvChange::Delete { namespace: text("namespace")?, key: text("key")? }))())
        }
        _ => None,
    }
}
