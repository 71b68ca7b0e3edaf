//! What every test needs: a broker, connections to it, and requests as clients write them.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_broker::{Broker, RunningBroker};
use gantry_model::settings::{BrokerSettings, Duration as SettingDuration};
use gantry_record::{RecordView, records};
use gantry_remoting::{
    Command, RequestCode,
    client::{Channel, ChannelHandler, ChannelSettings, RefuseRequests},
};
use gantry_telemetry::Telemetry;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Longest time that anything may take: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker and its folder.
pub(crate) struct World {
    pub(crate) broker: RunningBroker,
    pub(crate) telemetry: Telemetry,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut BrokerSettings)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut BrokerSettings)) -> Self {
        let mut settings = BrokerSettings {
            data_dir: dir.path().to_owned(),
            bind: IpAddr::from([127, 0, 0, 1]),
            remoting_port: 0,
            grpc_port: 0,
            segment_size: gantry_model::settings::Bytes::mib(16),
            drain: SettingDuration::from_millis(0),
            ..BrokerSettings::default()
        };
        change(&mut settings);
        let telemetry = Telemetry::new().unwrap();
        let broker = Broker::start(settings, &telemetry).await.unwrap();
        Self { broker, telemetry, dir }
    }

    pub(crate) async fn connect(&self) -> Channel {
        self.connect_with(Arc::new(RefuseRequests)).await
    }

    pub(crate) async fn connect_with(&self, handler: Arc<dyn ChannelHandler>) -> Channel {
        let address = self.broker.addresses().remoting.to_string();
        Channel::connect(&address, &ChannelSettings::default(), handler).await.unwrap()
    }

    pub(crate) async fn stop(self) -> TempDir {
        self.broker.stop().await.unwrap();
        self.dir
    }
}

/// Passes requests of the broker on to the test.
pub(crate) struct Requests(mpsc::UnboundedSender<Command>);

impl Requests {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Command>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self(sender)), receiver)
    }
}

impl ChannelHandler for Requests {
    fn request(&self, _: &Channel, request: Command) {
        // The test may have seen enough.
        let _ = self.0.send(request);
    }
}

/// Waits for what has to happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens within the test's patience")
}

/// Looks again and again until `look` finds something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    soon(async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

pub(crate) async fn call(channel: &Channel, request: Command) -> Command {
    channel.call(&request, PATIENCE).await.unwrap()
}

/// Code of the answer, for requests that are refused.
pub(crate) async fn code(channel: &Channel, request: Command) -> i32 {
    call(channel, request).await.code
}

pub(crate) fn request(code: RequestCode, fields: &[(&str, &str)]) -> Command {
    let request = Command::request(code);
    fields.iter().fold(request, |request, (key, value)| request.with_ext(*key, *value))
}

/// Properties as clients write them.
pub(crate) fn properties(entries: &[(&str, &str)]) -> String {
    entries.iter().fold(String::new(), |text, (key, value)| text + key + "\u{1}" + value + "\u{2}")
}

/// A send, request code 310, to queue 0.
pub(crate) fn send(topic: &str, entries: &[(&str, &str)], body: &str) -> Command {
    let fields = [
        ("a", "producers"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "7"),
        ("i", &properties(entries)),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    request(RequestCode::SEND_MESSAGE_V2, &fields)
        .with_body(Bytes::copy_from_slice(body.as_bytes()))
}

/// A pull that carries its subscription and does not wait.
pub(crate) fn pull(group: &str, topic: &str, offset: i64, expression: &str) -> Command {
    let fields = [
        ("consumerGroup", group),
        ("topic", topic),
        ("queueId", "0"),
        ("queueOffset", &offset.to_string()),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "15000"),
        ("subscription", expression),
        ("subVersion", "0"),
    ];
    request(RequestCode::PULL_MESSAGE, &fields)
}

/// The same, held for up to `ms`.
pub(crate) fn pull_waiting(
    group: &str,
    topic: &str,
    offset: i64,
    expression: &str,
    ms: u64,
) -> Command {
    pull(group, topic, offset, expression)
        .with_ext("sysFlag", "6")
        .with_ext("suspendTimeoutMillis", ms.to_string())
}

/// Messages of a pull's answer.
pub(crate) fn messages(answer: &Command) -> Vec<RecordView<'_>> {
    records(&answer.body).map(|record| record.unwrap()).collect()
}

pub(crate) fn bodies(answer: &Command) -> Vec<String> {
    let text = |record: RecordView<'_>| String::from_utf8(record.body().to_vec()).unwrap();
    messages(answer).into_iter().map(text).collect()
}

pub(crate) fn field<'c>(answer: &'c Command, name: &str) -> &'c str {
    answer.ext.get(name).unwrap_or_else(|| panic!("the answer has {name}: {answer:?}"))
}

/// A heartbeat of one consumer with these subscriptions.
pub(crate) fn heartbeat(client: &str, group: &str, subscriptions: &[(&str, &str, i64)]) -> Command {
    let subscriptions: Vec<_> = subscriptions
        .iter()
        .map(|(topic, expression, version)| {
            serde_json::json!({
                "topic": topic, "subString": expression, "subVersion": version,
                "tagsSet": [], "codeSet": ["1"], "expressionType": "TAG",
            })
        })
        .collect();
    let body = serde_json::json!({
        "clientID": client,
        "consumerDataSet": [{
            "groupName": group,
            "consumeType": "CONSUME_PASSIVELY",
            "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET",
            "subscriptionDataSet": subscriptions,
        }],
        "producerDataSet": [{ "groupName": "producers" }],
    });
    Command::request(RequestCode::HEART_BEAT).with_body(body.to_string())
}
