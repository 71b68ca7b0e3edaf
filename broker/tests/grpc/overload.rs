//! More than the broker can do. Sends that wait for a disk that has stopped answering: a bounded amount of them waits,
//! the others are refused with the code on which producers pause, and none that was taken is lost. Sends that nobody
//! read for long are refused in part. The disk is one whose syncs or writes a test holds up.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::Path,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use gantry_broker::{Broker, RunningBroker, SystemResolver, services::clock::Clock};
use gantry_model::settings::{self, BrokerSettings, Bytes, FlushMode};
use gantry_proto::v2::{Code, SendMessageRequest};
use gantry_remoting::{
    Command, Frame, RequestCode,
    client::{Channel, ChannelSettings, PendingCall, RefuseRequests},
};
use gantry_store::{
    Store,
    log::{
        files::{Files, LogFile, WriteFailure},
        memory_files::MemoryFiles,
    },
    views::MemoryViews,
};
use gantry_telemetry::Telemetry;
use parking_lot::{Condvar, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use super::{
    client::{Client, code as status_code, message, of_client, send as grpc_send},
    world::{bodies, call, field, pull, send, soon, until},
};

/// Memory of the broker: 4 MiB of it for sends that wait.
const MEMORY: Bytes = Bytes::mib(64);
const WAITING_MAX: usize = 4 << 20;
const BODY: usize = 64 << 10;
/// Answer codes: success, and the one on which producers pause.
const SUCCESS: i32 = 0;
const SYSTEM_BUSY: i32 = 2;
/// A request that no broker knows.
const UNKNOWN: RequestCode = RequestCode(31_999);

/// What a gate holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Sync,
    Write,
}

/// Holds up one kind of step until it is opened.
#[derive(Default)]
struct Gate {
    closed: Mutex<Option<Step>>,
    opened: Condvar,
}

impl Gate {
    fn close(&self, step: Step) {
        *self.closed.lock() = Some(step);
    }

    fn open(&self) {
        *self.closed.lock() = None;
        self.opened.notify_all();
    }

    fn pass(&self, step: Step) {
        // The worker that waits here may be the one that is to look after timers and sockets.
        tokio::task::block_in_place(|| {
            let mut closed = self.closed.lock();
            self.opened.wait_while(&mut closed, |closed| *closed == Some(step));
        });
    }
}

/// A disk in memory behind a gate.
struct GatedFiles(MemoryFiles, Arc<Gate>);

struct GatedFile(Arc<dyn LogFile>, Arc<Gate>);

impl GatedFiles {
    fn gated(&self, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        Arc::new(GatedFile(file, Arc::clone(&self.1)))
    }
}

impl Files for GatedFiles {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.gated(self.0.open(path)?))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.gated(self.0.create(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_space(dir)
    }
}

impl LogFile for GatedFile {
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(out, at)
    }
    fn read_at_hand(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        self.0.read_at_hand(out, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), WriteFailure> {
        self.1.pass(Step::Write);
        self.0.write_at(bytes, at)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass(Step::Sync);
        self.0.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }
}

struct World {
    broker: RunningBroker,
    gate: Arc<Gate>,
}

impl World {
    async fn start(flush: FlushMode) -> Self {
        let settings = BrokerSettings {
            bind: IpAddr::from([127, 0, 0, 1]),
            remoting_port: 0,
            vip_channel: false,
            grpc_port: 0,
            segment_size: Bytes::mib(16),
            drain: settings::Duration::from_millis(0),
            flush,
            memory: Some(MEMORY),
            ..BrokerSettings::default()
        };
        let gate = Arc::new(Gate::default());
        let files = Arc::new(GatedFiles(MemoryFiles::new(), Arc::clone(&gate)));
        let telemetry = Telemetry::new().unwrap();
        let broker = Broker::start_over(
            settings,
            &telemetry,
            Arc::new(SystemResolver),
            Clock::new(),
            Box::new(move |options, now| {
                Store::open_on(options, Arc::<MemoryViews>::default(), files, now)
            }),
        );
        Self { broker: broker.await.unwrap(), gate }
    }

    async fn connect(&self) -> Channel {
        let address = self.broker.addresses().remoting.to_string();
        let handler = Arc::new(RefuseRequests);
        Channel::connect(&address, &ChannelSettings::default(), handler).await.unwrap()
    }

    fn waiting_bytes(&self) -> usize {
        self.broker.services().backlog.bytes()
    }
}

fn body(n: usize) -> String {
    format!("{n} {}", "x".repeat(BODY))
}

/// Sends one message after the other without waiting for an answer, until one is refused. Returns the answers of those
/// that were taken, still to come, and the refusal.
async fn fill(channel: &Channel) -> (Vec<PendingCall>, Command) {
    let mut taken = Vec::new();
    loop {
        let mut sent = channel.begin_call(&send("orders", &[], &body(taken.len()))).unwrap();
        // A later request of the connection is answered at once, so after the send was taken or refused.
        call(channel, Command::request(UNKNOWN)).await;
        match futures::poll!(&mut sent) {
            Poll::Pending => taken.push(sent),
            Poll::Ready(answer) => return (taken, answer.unwrap()),
        }
        assert!(taken.len() * BODY <= 2 * WAITING_MAX, "more is taken than may wait");
    }
}

/// Bodies of all messages of queue 0, in order.
async fn received(channel: &Channel) -> Vec<String> {
    let (mut found, mut offset) = (Vec::new(), 0);
    loop {
        let answer = call(channel, pull("readers", "orders", offset, "*")).await;
        if answer.code != SUCCESS {
            return found;
        }
        found.extend(bodies(&answer));
        offset = field(&answer, "nextBeginOffset").parse().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_beyond_those_that_may_wait_for_the_disk_are_refused_and_none_that_was_taken_is_lost()
{
    let world = World::start(FlushMode::Sync).await;
    let channel = world.connect().await;
    let mut client =
        Client::connect(format!("http://{}", world.broker.addresses().grpc)).await.unwrap();
    // It makes the topic, and the group of the readers.
    assert_eq!(call(&channel, send("orders", &[], "first")).await.code, SUCCESS);
    assert_eq!(received(&channel).await, ["first"]);
    world.gate.close(Step::Sync);
    let mut other = client.clone();
    let by_grpc = tokio::spawn(async move {
        grpc_send(&mut other, vec![message("orders", "01", "by gRPC")]).await
    });
    until(async || (world.waiting_bytes() > 0).then_some(())).await;

    let (taken, refusal) = fill(&channel).await;
    assert_eq!(refusal.code, SYSTEM_BUSY);
    let remark = refusal.remark.unwrap();
    assert!(remark.starts_with("[OVERLOAD]system busy"), "{remark}");
    assert!(remark.ends_with("wait for the disk, the limit is 4Mi"), "{remark}");
    let waiting = world.waiting_bytes();
    assert!((WAITING_MAX..WAITING_MAX + 2 * BODY).contains(&waiting), "{waiting} bytes wait");
    let answer = grpc_send(&mut client, vec![message("orders", "02", "refused")]).await;
    assert_eq!(status_code(answer.status.as_ref()), Code::TooManyRequests);
    assert_eq!(world.waiting_bytes(), waiting, "what is refused does not wait");

    world.gate.open();
    let count = taken.len();
    for answer in taken {
        assert_eq!(soon(answer).await.unwrap().code, SUCCESS);
    }
    assert_eq!(status_code(soon(by_grpc).await.unwrap().status.as_ref()), Code::Ok);
    until(async || (world.waiting_bytes() == 0).then_some(())).await;
    assert_eq!(call(&channel, send("orders", &[], "after")).await.code, SUCCESS);
    let mut found = received(&channel).await;
    // The one by gRPC is in some queue of the topic.
    found.retain(|body| body != "by gRPC");
    let sent = (0..count).map(body);
    let expected: Vec<_> =
        ["first".to_owned()].into_iter().chain(sent).chain(["after".into()]).collect();
    assert!(found == expected, "{} messages of {}", found.len(), expected.len());
    world.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_beyond_those_that_may_be_held_are_ended_before_their_bytes_are_taken() {
    /// Two of them fit into what gRPC calls may hold, 4 MiB, and a third does not. Two may also wait for the disk;
    /// that a third may not is told in band, after it was read.
    const LARGE: usize = 1900 << 10;
    let world = World::start(FlushMode::Sync).await;
    let client =
        Client::connect(format!("http://{}", world.broker.addresses().grpc)).await.unwrap();
    let try_send = |id: &'static str, bytes: usize| {
        let mut client = client.clone();
        let messages = vec![message("orders", id, &"x".repeat(bytes))];
        let request = of_client(SendMessageRequest { messages });
        async move { client.send_message(request).await.map(tonic::Response::into_inner) }
    };
    let channel = world.connect().await;
    // It makes the topic.
    assert_eq!(call(&channel, send("orders", &[], "first")).await.code, SUCCESS);
    world.gate.close(Step::Sync);
    let held = ["01", "02"].map(|id| tokio::spawn(try_send(id, LARGE)));
    // Each counts as its request and its record.
    until(async || (world.waiting_bytes() > 4 * LARGE).then_some(())).await;
    let waiting = world.waiting_bytes();
    let refusal = soon(try_send("03", LARGE)).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::ResourceExhausted);
    let words = refusal.message();
    assert!(
        words.starts_with("system busy, start flow control for a while: calls hold"),
        "{words}"
    );
    assert_eq!(world.waiting_bytes(), waiting, "what is refused does not wait");

    world.gate.open();
    for sent in held {
        let answer = soon(sent).await.unwrap().unwrap();
        assert_eq!(status_code(answer.status.as_ref()), Code::Ok);
    }
    // What they held is free.
    let answer = until(async || try_send("04", LARGE).await.ok()).await;
    assert_eq!(status_code(answer.status.as_ref()), Code::Ok);
    world.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_that_nobody_read_for_long_are_refused_in_part_and_the_others_stored() {
    const SENDS: usize = 1000;
    /// Longer than a send may wait to be read.
    const WAIT: Duration = Duration::from_millis(250);
    let world = World::start(FlushMode::Async).await;
    let channel = world.connect().await;
    assert_eq!(call(&channel, send("orders", &[], "first")).await.code, SUCCESS);
    assert_eq!(received(&channel).await, ["first"]);
    world.gate.close(Step::Write);
    // The broker reads a part of them and is held up in the first append, while the system holds the others.
    let mut wire = BytesMut::new();
    let text = |n: usize| format!("{n} {}", "x".repeat(1024));
    for n in 0..SENDS {
        let sent = Command { opaque: n as i32, ..send("orders", &[], &text(n)) };
        sent.encode(&mut wire).unwrap();
    }
    let (mut reader, mut writer) =
        TcpStream::connect(world.broker.addresses().remoting).await.unwrap().into_split();
    let written = tokio::spawn(async move { writer.write_all(&wire).await.map(|()| writer) });
    let began = Instant::now();
    until(async || (began.elapsed() > WAIT).then_some(())).await;
    world.gate.open();

    let mut refused = BTreeSet::new();
    let mut input = BytesMut::new();
    for _ in 0..SENDS {
        let answer = soon(next_answer(&mut reader, &mut input)).await;
        if answer.code != SUCCESS {
            assert_eq!(answer.code, SYSTEM_BUSY);
            let remark = answer.remark.unwrap();
            assert!(remark.starts_with("[TIMEOUT_CLEAN_QUEUE]broker busy"), "{remark}");
            refused.insert(answer.opaque as usize);
        }
    }
    let sent = (0..SENDS).filter(|n| !refused.contains(n)).map(text);
    let stored: Vec<_> = ["first".to_owned()].into_iter().chain(sent).collect();
    let refused = refused.len();
    assert!((1..=SENDS / 8).contains(&refused), "{refused} refused");
    let found = received(&channel).await;
    assert!(found == stored, "{} messages of {}", found.len(), stored.len());
    // It has caught up.
    assert_eq!(call(&channel, send("orders", &[], "after")).await.code, SUCCESS);
    drop(written.await.unwrap().unwrap());
    world.broker.stop().await.unwrap();
}

/// The next answer of a connection.
async fn next_answer(reader: &mut OwnedReadHalf, input: &mut BytesMut) -> Command {
    loop {
        if let Some(frame) = Frame::decode(input).unwrap() {
            return Command::from_frame(frame).unwrap();
        }
        assert!(reader.read_buf(input).await.unwrap() > 0, "the connection is open");
    }
}
