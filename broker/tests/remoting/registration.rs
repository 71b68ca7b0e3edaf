//! Registration with name servers: request codes 103 and 104.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use gantry_model::{TopicConfig, TopicName};
use gantry_remoting::{
    Command, RequestCode,
    server::{Answers, Connection, Request, Server, ServerLimits, Service},
};
use tokio::{net::TcpListener, sync::watch};

use super::world::*;

/// A name server that only remembers.
#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<Command>>>,
}

impl Service for Recorder {
    fn handle(&self, _: &Arc<Connection>, requests: &mut Vec<Request>, answers: &mut Answers) {
        for request in requests.drain(..) {
            let view = request.view().unwrap();
            answers.success(view.reply_to());
            self.seen.lock().unwrap().push(Command::from_view(&view, request.body.clone()));
        }
    }

    fn closed(&self, _: &Arc<Connection>) {}
}

impl Recorder {
    /// Serves until the sender is dropped.
    async fn serve(&self, address: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = Server::new(Arc::new(self.clone()), ServerLimits::default());
        tokio::spawn(server.serve(listener, stopped));
        (address, stop)
    }

    fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn topics(registration: &Command) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&registration.body).unwrap();
    let table = body["topicConfigSerializeWrapper"]["topicConfigTable"].as_object().unwrap();
    table.keys().cloned().collect()
}

async fn world_at(address: SocketAddr) -> World {
    World::start_with(|settings| settings.name_servers = vec![address.to_string()]).await
}

#[tokio::test]
async fn broker_registers_all_topics_then_each_change_and_unregisters_when_it_stops() {
    let recorder = Recorder::default();
    let (address, _server) = recorder.serve(([127, 0, 0, 1], 0).into()).await;
    let world = world_at(address).await;
    let first = until(async || recorder.take().pop()).await;
    assert_eq!(first.code, RequestCode::REGISTER_BROKER.0);
    assert_eq!(field(&first, "brokerName"), "broker-a");
    assert_eq!(field(&first, "clusterName"), "DefaultCluster");
    assert_eq!(field(&first, "brokerId"), "0");
    assert_eq!(field(&first, "compressed"), "false");
    let remoting = world.broker.addresses().remoting.to_string();
    assert_eq!(field(&first, "brokerAddr"), remoting);
    let crc = gantry_record::crc::checksum(&first.body) & 0x7FFF_FFFF;
    assert_eq!(field(&first, "bodyCrc32"), crc.to_string());
    for topic in ["TBW102", "DefaultCluster", "broker-a", "SCHEDULE_TOPIC_XXXX", "BenchmarkTest"] {
        assert!(topics(&first).contains(&topic.to_owned()), "{topic}");
    }

    let services = world.broker.services();
    let orders = TopicConfig::new(TopicName::new("orders").unwrap(), 8);
    services.topics.put(orders.clone(), services.clock.now()).unwrap();
    let patience = std::time::Duration::from_secs(20);
    assert!(services.changes.announced(patience).await);
    let changes = recorder.take();
    assert!(changes.iter().any(|change| topics(change) == ["orders"]), "{changes:?}");
    services.topics.put(orders, services.clock.now()).unwrap();
    assert!(services.changes.announced(patience).await);
    assert!(recorder.take().is_empty(), "an equal definition is no news");

    world.stop().await;
    let last = recorder.take().pop().unwrap();
    assert_eq!(last.code, RequestCode::UNREGISTER_BROKER.0);
    assert_eq!(field(&last, "brokerAddr"), remoting);
}

#[tokio::test]
async fn name_server_that_was_restarted_is_told_everything_at_once() {
    let (first, second) = (Recorder::default(), Recorder::default());
    let (address, server) = first.serve(([127, 0, 0, 1], 0).into()).await;
    let world = world_at(address).await;
    until(async || first.take().pop()).await;
    server.send_replace(true);
    let (_, _server) = until(async || match TcpListener::bind(address).await {
        Ok(listener) => {
            drop(listener);
            Some(second.serve(address).await)
        }
        Err(_) => None,
    })
    .await;
    let again = until(async || second.take().pop()).await;
    assert!(topics(&again).contains(&"TBW102".to_owned()));
    world.stop().await;
}

#[tokio::test]
async fn name_server_that_comes_later_is_told_everything() {
    // Nobody listens there until the broker has tried, and no other test gets the port: this address is no other's.
    let free = TcpListener::bind("127.3.8.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let world = world_at(address).await;
    let services = world.broker.services();
    let channel = world.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "x")).await, 0);
    assert!(services.changes.announced(std::time::Duration::from_secs(20)).await);
    let recorder = Recorder::default();
    let (_, _server) = recorder.serve(address).await;
    let first = until(async || recorder.take().pop()).await;
    let found = topics(&first);
    for topic in ["orders", "TBW102"] {
        assert!(found.contains(&topic.to_owned()), "{topic}: {found:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn answer_to_a_deletion_comes_after_the_name_server_was_told_that_no_queue_is_left() {
    let recorder = Recorder::default();
    let (address, _server) = recorder.serve(([127, 0, 0, 1], 0).into()).await;
    let world = world_at(address).await;
    until(async || recorder.take().pop()).await;
    let channel = world.connect().await;
    call(&channel, send("orders", &[], "x")).await;
    let delete = request(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "orders")]);
    assert_eq!(code(&channel, delete).await, 0);
    let told = recorder.take();
    let last: serde_json::Value = serde_json::from_slice(&told.last().unwrap().body).unwrap();
    let table = &last["topicConfigSerializeWrapper"]["topicConfigTable"];
    let queues = (&table["orders"]["readQueueNums"], &table["orders"]["writeQueueNums"]);
    assert_eq!(queues, (&0.into(), &0.into()), "{last}");
    assert_eq!(table.as_object().unwrap().len(), 1, "the other topics stay as they are");
    world.stop().await;
}

#[tokio::test]
async fn answer_to_a_creation_comes_after_the_name_server_was_told() {
    let recorder = Recorder::default();
    let (address, _server) = recorder.serve(([127, 0, 0, 1], 0).into()).await;
    let world = world_at(address).await;
    until(async || recorder.take().pop()).await;
    let channel = world.connect().await;
    for number in 0..20 {
        let topic = format!("orders-{number}");
        let fields = [
            ("topic", topic.as_str()),
            ("readQueueNums", "1"),
            ("writeQueueNums", "1"),
            ("perm", "6"),
        ];
        let create = request(RequestCode::UPDATE_AND_CREATE_TOPIC, &fields);
        assert_eq!(code(&channel, create).await, 0);
        let told: Vec<_> = recorder.take().iter().flat_map(topics).collect();
        assert!(told.contains(&topic), "{topic}: {told:?}");
    }
    world.stop().await;
}

#[tokio::test]
async fn table_beyond_one_registration_reaches_the_name_server_whole_and_in_parts() {
    // 9 MiB of topics when encoded, in names of the greatest length.
    const TOPICS: usize = 16_000;
    const FRAME_BYTES_MAX: usize = 5 << 20;
    let world = World::start().await;
    let services = world.broker.services();
    let name = |n: usize| format!("{n:x>127}");
    for n in 0..TOPICS {
        let config = TopicConfig::new(TopicName::new(&name(n)).unwrap(), 1);
        services.topics.put(config, services.clock.now()).unwrap();
    }
    drop(services);
    let dir = world.stop().await;
    let recorder = Recorder::default();
    let (address, _server) = recorder.serve(([127, 0, 0, 1], 0).into()).await;
    let world =
        World::start_in(dir, |settings| settings.name_servers = vec![address.to_string()]).await;
    let mut found = std::collections::BTreeSet::new();
    until(|| {
        for registration in recorder.take() {
            assert!(registration.body.len() < FRAME_BYTES_MAX, "{}", registration.body.len());
            found.extend(topics(&registration));
        }
        let is_whole = (0..TOPICS).all(|n| found.contains(&name(n)));
        std::future::ready(is_whole.then_some(()))
    })
    .await;
    world.stop().await;
}
