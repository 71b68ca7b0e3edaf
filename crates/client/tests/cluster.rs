//! The client against a real name server and broker in this process.
//! Invariant: every test has a cluster of its own, on free ports, which ends with it.
//! Waits for conditions, and for time only as a bound.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use gantry_broker::{Broker, RunningBroker};
use gantry_client::{
    Admin, Cause, Client, ClientSettings, Consumed, Consumer, ConsumerSettings, Message,
    MessageQueue, Producer, ProducerSettings, PullReader, PullStatus, ReceivedMessage, StartFrom,
    Subscription,
};
use gantry_model::{
    GroupName, TopicConfig, TopicName,
    settings::{BrokerSettings, NameServerSettings},
};
use gantry_nameserver::{NameServer, RunningNameServer};
use gantry_telemetry::Telemetry;
use tokio::sync::{Mutex, mpsc};

/// Longest wait for something that should happen at once.
const SOON: Duration = Duration::from_secs(20);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct World {
    name_server: RunningNameServer,
    broker: RunningBroker,
    data: tempfile::TempDir,
    /// The broker's own: what it registered there ends with it.
    telemetry: Telemetry,
}

impl World {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let telemetry = Telemetry::new().unwrap();
        let settings = NameServerSettings { bind: HOST, port: 0, ..NameServerSettings::default() };
        let name_server = NameServer::start(settings, &telemetry).await.unwrap();
        let settings = broker_settings(&data, &name_server, 0);
        let broker = Broker::start(settings, &telemetry).await.unwrap();
        let world = Self { name_server, broker, data, telemetry };
        world.registered().await;
        world
    }

    fn client(&self) -> Client {
        Client::start(ClientSettings::new([self.name_server.addr.to_string()])).unwrap()
    }

    async fn registered(&self) {
        let client = self.client();
        eventually(async || client.route("TBW102").await.is_ok()).await;
        client.shutdown().await;
    }

    /// Stops the broker and starts it again at the same place.
    async fn restart_broker(self) -> Self {
        let port = self.broker.addresses().remoting.port();
        self.broker.stop().await.unwrap();
        let settings = broker_settings(&self.data, &self.name_server, port);
        drop(self.telemetry);
        let telemetry = Telemetry::new().unwrap();
        let broker = Broker::start(settings, &telemetry).await.unwrap();
        let world = Self { broker, telemetry, name_server: self.name_server, data: self.data };
        world.registered().await;
        world
    }

    async fn stop(self) {
        self.broker.stop().await.unwrap();
        self.name_server.stop().await;
    }
}

fn broker_settings(
    data: &tempfile::TempDir,
    name_server: &RunningNameServer,
    remoting_port: u16,
) -> BrokerSettings {
    BrokerSettings {
        data_dir: data.path().to_owned(),
        bind: HOST,
        remoting_port,
        vip_channel: false,
        grpc_port: 0,
        http_port: 0,
        name_servers: vec![name_server.addr.to_string()],
        ..BrokerSettings::default()
    }
}

async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the condition holds soon");
}

fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

fn group() -> GroupName {
    GroupName::new("billing").unwrap()
}

fn producer(client: &Client) -> Producer {
    Producer::new(client, ProducerSettings::new(GroupName::new("shop").unwrap()))
}

fn consumer_settings() -> ConsumerSettings {
    ConsumerSettings {
        start_from: StartFrom::Earliest,
        ..ConsumerSettings::new(group(), vec![Subscription::all(topic())])
    }
}

type Arrivals = Arc<Mutex<mpsc::UnboundedReceiver<ReceivedMessage>>>;

/// A consumer that answers `consumed` for every message and passes it on.
async fn consumer(
    client: &Client,
    settings: ConsumerSettings,
    consumed: Consumed,
) -> (Consumer, Arrivals) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let handler = move |message| {
        // The test may have seen enough and have gone.
        let _ = arrived.send(message);
        async move { consumed }
    };
    let consumer = Consumer::start(client, settings, handler).await.unwrap();
    (consumer, Arc::new(Mutex::new(arrivals)))
}

async fn next(arrivals: &Arrivals) -> ReceivedMessage {
    let mut arrivals = arrivals.lock().await;
    tokio::time::timeout(SOON, arrivals.recv()).await.expect("a message arrives").unwrap()
}

async fn all_queues(client: &Client) -> Vec<MessageQueue> {
    client.route(&topic()).await.unwrap().read_queues().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_message_is_read_with_everything_it_carried() {
    let world = World::start().await;
    let client = world.client();
    let message = Message::new(topic(), "hello").with_tag("new").with_keys(["k1", "k2"]);
    let receipt = producer(&client).send(&message).await.unwrap();
    let reader = PullReader::new(&client, group(), "*");
    // The route of a topic that its first message made appears with the broker's next registration.
    eventually(async || client.route(&topic()).await.is_ok()).await;
    let batch = reader.pull(&receipt.queue, receipt.queue_offset, 1, Duration::ZERO).await.unwrap();
    assert_eq!(batch.status, PullStatus::Found);
    let found = &batch.messages[0];
    assert_eq!(found.id(), receipt.message_id);
    assert_eq!(found.offset_message_id, receipt.offset_message_id);
    assert_eq!((&found.body[..], found.tag()), (&b"hello"[..], Some("new")));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["k1", "k2"]);
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_gets_consecutive_places_and_one_way_messages_arrive() {
    let world = World::start().await;
    let client = world.client();
    let producer = producer(&client);
    let batch: Vec<_> = ["a", "b", "c"].map(|body| Message::new(topic(), body)).into();
    let receipt = producer.send_batch(&batch).await.unwrap();
    eventually(async || client.route(&topic()).await.is_ok()).await;
    producer.send_one_way(&Message::new(topic(), "d")).await.unwrap();
    let reader = PullReader::new(&client, group(), "*");
    let found =
        reader.pull(&receipt.queue, receipt.queue_offset, 32, Duration::ZERO).await.unwrap();
    let bodies: Vec<_> = found.messages.iter().take(3).map(|message| &message.body[..]).collect();
    assert_eq!(bodies, [b"a", b"b", b"c"]);
    let admin = Admin::new(&client);
    eventually(async || {
        let mut sum = 0;
        for queue in all_queues(&client).await {
            sum += admin.max_offset(&queue).await.unwrap();
        }
        sum == 4
    })
    .await;
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_pull_is_answered_when_a_message_comes() {
    let world = World::start().await;
    let client = world.client();
    let producer = producer(&client);
    let first = producer.send(&Message::new(topic(), "first")).await.unwrap();
    eventually(async || client.route(&topic()).await.is_ok()).await;
    let (reader, queue) = (PullReader::new(&client, group(), "*"), first.queue.clone());
    let waiting = tokio::spawn(async move { reader.pull(&queue, 1, 32, SOON / 2).await });
    producer.send_to(&first.queue, &Message::new(topic(), "second")).await.unwrap();
    let batch = tokio::time::timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(&batch.messages[0].body[..], b"second");
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_outlive_the_consumer_and_no_message_is_read_twice() {
    let world = World::start().await;
    let client = world.client();
    let producer = producer(&client);
    producer.send(&Message::new(topic(), "one")).await.unwrap();
    eventually(async || client.route(&topic()).await.is_ok()).await;
    let (first, arrivals) = consumer(&client, consumer_settings(), Consumed::Done).await;
    assert_eq!(&next(&arrivals).await.body[..], b"one");
    first.stop().await;
    producer.send(&Message::new(topic(), "two")).await.unwrap();
    let (second, arrivals) = consumer(&client, consumer_settings(), Consumed::Done).await;
    assert_eq!(&next(&arrivals).await.body[..], b"two");
    second.stop().await;
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_that_was_not_handled_is_read_by_the_next_member() {
    let world = World::start().await;
    let client = world.client();
    producer(&client).send(&Message::new(topic(), "one")).await.unwrap();
    eventually(async || client.route(&topic()).await.is_ok()).await;
    let (first, arrivals) = consumer(&client, consumer_settings(), Consumed::Keep).await;
    next(&arrivals).await;
    first.stop().await;
    let (second, arrivals) = consumer(&client, consumer_settings(), Consumed::Done).await;
    assert_eq!(&next(&arrivals).await.body[..], b"one");
    second.stop().await;
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_all_queues_and_one_takes_over_when_the_other_leaves() {
    let world = World::start().await;
    let (one, two) = (world.client(), world.client());
    producer(&one).send(&Message::new(topic(), "x")).await.unwrap();
    eventually(async || one.route(&topic()).await.is_ok()).await;
    let (first, _arrivals) = consumer(&one, consumer_settings(), Consumed::Done).await;
    let (second, _arrivals) = consumer(&two, consumer_settings(), Consumed::Done).await;
    let own = |consumer: &Consumer| -> Vec<MessageQueue> {
        consumer.queues().into_iter().filter(|queue| *queue.topic == *topic()).collect()
    };
    let all = all_queues(&one).await;
    eventually(async || {
        let (mut first, second) = (own(&first), own(&second));
        let shared = !first.is_empty() && !second.is_empty();
        first.extend(second);
        first.sort();
        shared && first == all
    })
    .await;
    first.stop().await;
    eventually(async || own(&second) == all).await;
    second.stop().await;
    one.shutdown().await;
    two.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumer_gets_only_the_tags_it_wants() {
    let world = World::start().await;
    let client = world.client();
    let producer = producer(&client);
    // "Aa" and "BB" have the same hash: the broker cannot tell them apart, the client does.
    for tag in ["BB", "c", "Aa"] {
        producer.send(&Message::new(topic(), tag).with_tag(tag)).await.unwrap();
    }
    eventually(async || client.route(&topic()).await.is_ok()).await;
    let mut settings = consumer_settings();
    settings.subscriptions[0].expression = "Aa || c".into();
    let (reader, arrivals) = consumer(&client, settings, Consumed::Done).await;
    let mut tags = vec![
        next(&arrivals).await.tag().unwrap().to_owned(),
        next(&arrivals).await.tag().unwrap().to_owned(),
    ];
    tags.sort();
    assert_eq!(tags, ["Aa", "c"]);
    reader.stop().await;
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_broker_are_all_there_though_they_come_in_parts() {
    let world = World::start().await;
    let client = world.client();
    let mut made = tokio::task::JoinSet::new();
    let names: Vec<_> = (0..2_050).map(|number| format!("many-{number:04}")).collect();
    for name in &names {
        let (admin, config) =
            (Admin::new(&client), TopicConfig::new(TopicName::new(name).unwrap(), 1));
        made.spawn(async move { admin.declare_topic(&config).await.unwrap() });
    }
    made.join_all().await;
    let address = world.broker.addresses().remoting.to_string();
    let found = Admin::new(&client).topics_of_broker(&address).await.unwrap();
    assert!(names.iter().all(|name| found[name].topic_name.as_str() == name));
    assert!(found.contains_key("TBW102"));
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sender_and_consumer_go_on_after_the_broker_was_restarted() {
    let world = World::start().await;
    let client = world.client();
    let producer = producer(&client);
    producer.send(&Message::new(topic(), "before")).await.unwrap();
    eventually(async || client.route(&topic()).await.is_ok()).await;
    let (reader, arrivals) = consumer(&client, consumer_settings(), Consumed::Done).await;
    assert_eq!(&next(&arrivals).await.body[..], b"before");
    let world = world.restart_broker().await;
    eventually(async || producer.send(&Message::new(topic(), "after")).await.is_ok()).await;
    while &next(&arrivals).await.body[..] != b"after" {}
    reader.stop().await;
    client.shutdown().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_whether_something_is_missing_or_nobody_answers() {
    let world = World::start().await;
    let client = world.client();
    let missing = client.route("nothing").await.unwrap_err();
    assert_eq!(Cause::of(&missing), Some(Cause::NotFound));
    let nobody = Client::start(ClientSettings::new(["127.0.0.1:1"])).unwrap();
    let error = Admin::new(&nobody).topics().await.unwrap_err();
    assert_eq!(Cause::of(&error), Some(Cause::Unreachable));
    nobody.shutdown().await;
    client.shutdown().await;
    world.stop().await;
}
