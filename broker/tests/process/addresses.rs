//! Names and what they stand for: the broker's own host and its name servers, with a resolver of the test's.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use futures::future::BoxFuture;
use gantry_broker::{Broker, Resolve, RunningBroker};
use gantry_model::settings::BrokerSettings;
use gantry_remoting::{
    Command, RequestCode,
    client::{Channel, ChannelSettings, RefuseRequests},
    server::{Answers, Connection, Request, Server, ServerLimits, Service},
};
use gantry_telemetry::Telemetry;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};

use super::world::{call, field, messages, pull, send, soon, until};

/// Host of the name servers.
const NAMES: &str = "shop-ns-pods";
/// Host of the broker.
const OWN: &str = "shop-broker-0";

/// Names that the test sets; a name without addresses fails.
#[derive(Debug, Clone, Default)]
struct Names(Arc<Mutex<BTreeMap<String, Vec<SocketAddr>>>>);

impl Names {
    fn set(&self, host: &str, addresses: &[SocketAddr]) {
        self.0.lock().unwrap().insert(host.into(), addresses.to_vec());
    }
}

impl Resolve for Names {
    fn resolve(&self, host_port: &str) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let (host, port) = host_port.rsplit_once(':').unwrap();
        let port = port.parse().unwrap();
        let found = self.0.lock().unwrap().get(host).cloned();
        let found = found.filter(|addresses| !addresses.is_empty());
        let own = host == OWN;
        Box::pin(async move {
            let mut found = found.ok_or_else(|| io::Error::other("no such host"))?;
            if own {
                for address in &mut found {
                    address.set_port(port);
                }
            }
            Ok(found)
        })
    }
}

/// A name server that only remembers.
#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<Command>>>,
    open: Arc<Mutex<usize>>,
}

impl Service for Recorder {
    fn handle(&self, _: &Arc<Connection>, requests: &mut Vec<Request>, answers: &mut Answers) {
        for request in requests.drain(..) {
            let view = request.view().unwrap();
            answers.success(view.reply_to());
            self.seen.lock().unwrap().push(Command::from_view(&view, request.body.clone()));
            *self.open.lock().unwrap() += 1;
        }
    }

    fn closed(&self, _: &Arc<Connection>) {
        *self.open.lock().unwrap() = 0;
    }
}

impl Recorder {
    /// Serves on an address of its own until the sender is dropped.
    async fn serve(&self) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = Server::new(Arc::new(self.clone()), ServerLimits::default());
        tokio::spawn(server.serve(listener, stopped));
        (address, stop)
    }

    /// Waits for a registration and returns the address that it names.
    async fn registered(&self) -> String {
        let is_whole = |command: &Command| command.code == RequestCode::REGISTER_BROKER.0;
        let registration = until(async || {
            let seen = std::mem::take(&mut *self.seen.lock().unwrap());
            seen.into_iter().rfind(is_whole)
        });
        field(&registration.await, "brokerAddr").to_owned()
    }
}

fn ip(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, last]), 0)
}

async fn start(names: &Names, telemetry: &Telemetry) -> (RunningBroker, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let settings = BrokerSettings {
        data_dir: dir.path().to_owned(),
        bind: IpAddr::from([0, 0, 0, 0]),
        advertise: Some(OWN.into()),
        remoting_port: 0,
        vip_channel: false,
        grpc_port: 0,
        // Longer than any test waits: what is seen comes from looking at the names.
        register_interval: gantry_model::settings::Duration::from_secs(60),
        name_servers: vec![format!("{NAMES}:9876")],
        ..BrokerSettings::default()
    };
    let resolver = Arc::new(names.clone());
    let broker = soon(Broker::start_with(settings, telemetry, resolver)).await.unwrap();
    (broker, dir)
}

#[tokio::test]
async fn broker_waits_for_its_own_name_and_says_so() {
    let names = Names::default();
    let telemetry = Telemetry::new().unwrap();
    let started = start(&names, &telemetry);
    let told = async {
        until(async || {
            let report = telemetry.ready().to_string();
            report.contains("the advertised host shop-broker-0 does not resolve").then_some(())
        })
        .await;
        names.set(OWN, &[ip(1)]);
    };
    let ((broker, _dir), ()) = tokio::join!(started, told);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn broker_is_ready_with_its_first_name_server_and_stays_so_without_any() {
    let names = Names::default();
    names.set(OWN, &[ip(1)]);
    let telemetry = Telemetry::new().unwrap();
    let (broker, _dir) = start(&names, &telemetry).await;
    let report = telemetry.ready().to_string();
    assert!(report.contains("registration: not registered with any name server yet"), "{report}");
    let recorder = Recorder::default();
    let (address, server) = recorder.serve().await;
    names.set(NAMES, &[address]);
    recorder.registered().await;
    until(async || telemetry.ready().is_ready().then_some(())).await;
    server.send_replace(true);
    names.set(NAMES, &[]);
    // It has noticed when it is back: a second one is told, and meanwhile it never was unready.
    let second = Recorder::default();
    let (address, _server) = second.serve().await;
    assert!(telemetry.ready().is_ready());
    names.set(NAMES, &[address]);
    second.registered().await;
    assert!(telemetry.ready().is_ready());
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn new_name_server_is_told_without_a_restart_and_one_that_is_gone_is_left_alone() {
    let names = Names::default();
    names.set(OWN, &[ip(1)]);
    let (first, second) = (Recorder::default(), Recorder::default());
    let (first_address, _first_server) = first.serve().await;
    let (second_address, _second_server) = second.serve().await;
    names.set(NAMES, &[first_address]);
    let telemetry = Telemetry::new().unwrap();
    let (broker, _dir) = start(&names, &telemetry).await;
    first.registered().await;
    names.set(NAMES, &[first_address, second_address]);
    second.registered().await;
    names.set(NAMES, &[second_address]);
    // The connection to the one that left the name is given up.
    until(async || (*first.open.lock().unwrap() == 0).then_some(())).await;
    broker.stop().await.unwrap();
    let last = second.seen.lock().unwrap().pop().unwrap();
    assert_eq!(last.code, RequestCode::UNREGISTER_BROKER.0);
}

#[tokio::test]
async fn another_address_of_the_broker_reaches_routes_and_new_messages_without_a_restart() {
    let names = Names::default();
    names.set(OWN, &[ip(1)]);
    let recorder = Recorder::default();
    let (address, _server) = recorder.serve().await;
    names.set(NAMES, &[address]);
    let telemetry = Telemetry::new().unwrap();
    let (broker, _dir) = start(&names, &telemetry).await;
    let port = broker.addresses().remoting.port();
    assert_eq!(recorder.registered().await, format!("127.0.0.1:{port}"));
    names.set(OWN, &[ip(2)]);
    assert_eq!(recorder.registered().await, format!("127.0.0.2:{port}"));
    let remoting = format!("127.0.0.1:{port}");
    let handler = Arc::new(RefuseRequests);
    let channel = Channel::connect(&remoting, &ChannelSettings::default(), handler).await.unwrap();
    assert_eq!(call(&channel, send("orders", &[], "x")).await.code, 0);
    let answer = call(&channel, pull("g", "orders", 0, "*")).await;
    assert_eq!(messages(&answer)[0].store_host().to_string(), format!("127.0.0.2:{port}"));
    // A name that fails for a while changes nothing.
    names.set(OWN, &[]);
    assert_eq!(call(&channel, send("orders", &[], "y")).await.code, 0);
    broker.stop().await.unwrap();
}
