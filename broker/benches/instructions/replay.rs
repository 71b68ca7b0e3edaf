//! The replay: a broker and its only client on one thread, the same requests in the same order each time.
//! Invariant: every answer is a success of the expected size; one phase measures one thing. Nothing is synced while
//! phases before the restart run, so that pulls there read the ring, and those after it read the views.
//! Leaves counting to whoever runs it: [`gate_mark`] begins and ends what is measured.

use std::{
    hint::black_box,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::{Context, ensure};
use gantry_broker::{Broker, RunningBroker};
use gantry_model::settings::{BrokerSettings, Bytes, Duration};
use gantry_telemetry::Telemetry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::frames::{BATCH_MESSAGES, BATCH_TOPIC, SINGLE_TOPIC, batch, pull, single};

/// Single messages of the measured phase.
const SINGLES: usize = 2048;
/// Batches of the measured phase.
const BATCHES: usize = 256;
/// Pulls of each measured phase, of 32 messages each.
const PULLS: usize = 48;
/// Messages of one pull.
const PULLED: usize = 32;
/// Requests before the measured ones, so that buffers have grown and topics exist.
const WARM_UP: usize = 128;
/// Requests written at once, as a client with several threads has them in flight.
const PIPELINED: usize = 16;
/// Smallest answer that holds the messages of a pull of 1 KiB messages.
const PULL_ANSWER_BYTES: usize = PULLED * 1024;

/// Name of a phase, and the messages that it moves.
pub(crate) struct Phase {
    /// What it is called in the file of numbers.
    pub(crate) name: &'static str,
    /// What the instructions are divided by.
    pub(crate) messages: usize,
}

/// The phases, in the order in which they run.
pub(crate) const PHASES: [Phase; 5] = [
    Phase { name: "send_1kib", messages: SINGLES },
    Phase { name: "send_batch_32x128", messages: BATCHES * BATCH_MESSAGES },
    Phase { name: "pull_1kib_tail", messages: PULLS * PULLED },
    Phase { name: "pull_128_tail", messages: PULLS * PULLED },
    Phase { name: "pull_1kib_views", messages: PULLS * PULLED },
];

/// Where a measured phase begins or ends; found by its name.
#[inline(never)]
pub(crate) fn gate_mark(phase: usize) {
    black_box(phase);
}

/// Runs all phases on a store in `dir`.
pub(crate) fn run(dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (broker, mut client) = start(dir).await?;
        client.phase(0, SINGLES, 0, single).await?;
        client.phase(1, BATCHES, 0, batch).await?;
        client.pulls(2, SINGLE_TOPIC, PULL_ANSWER_BYTES).await?;
        client.pulls(3, BATCH_TOPIC, PULLED * 128).await?;
        drop(client);
        broker.stop().await?;
        let (broker, mut client) = start(dir).await?;
        client.pulls(4, SINGLE_TOPIC, PULL_ANSWER_BYTES).await?;
        drop(client);
        broker.stop().await?;
        Ok(())
    })
}

async fn start(dir: &Path) -> anyhow::Result<(RunningBroker, Client)> {
    let settings = BrokerSettings {
        data_dir: dir.to_owned(),
        bind: IpAddr::from([127, 0, 0, 1]),
        remoting_port: 0,
        grpc_port: 0,
        vip_channel: false,
        auto_create_queues_max: 1,
        segment_size: Bytes::mib(64),
        flush_interval: Duration::from_secs(60),
        dirty_bytes_max: Bytes::gib(1),
        drain: Duration::from_millis(0),
        ..BrokerSettings::default()
    };
    let broker = Broker::start(settings, &Telemetry::new()?).await.context("start the broker")?;
    let client = Client::connect(broker.addresses().remoting).await?;
    Ok((broker, client))
}

/// The only client.
struct Client {
    stream: TcpStream,
    inbound: Vec<u8>,
    filled: usize,
}

impl Client {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, inbound: vec![0; 256 * 1024], filled: 0 })
    }

    /// Pulls of the queue from its begin.
    async fn pulls(&mut self, phase: usize, topic: &str, bytes: usize) -> anyhow::Result<()> {
        let frame = |number: usize| pull(number, topic, number % PULLS * PULLED);
        let requests = (0..PULLS).map(frame).collect::<anyhow::Result<Vec<_>>>()?;
        for request in &requests {
            self.exchange(request, 1, bytes).await?;
        }
        gate_mark(phase);
        for request in &requests {
            self.exchange(request, 1, bytes).await?;
        }
        gate_mark(phase);
        Ok(())
    }

    /// Requests of one kind, some at once.
    async fn phase(
        &mut self,
        phase: usize,
        requests: usize,
        bytes: usize,
        frame: fn(usize) -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let frames = (0..WARM_UP + requests).map(frame).collect::<anyhow::Result<Vec<_>>>()?;
        let bursts: Vec<Vec<u8>> = frames.chunks(PIPELINED).map(<[Vec<u8>]>::concat).collect();
        let (warm_up, measured) = bursts.split_at(WARM_UP / PIPELINED);
        for burst in warm_up {
            self.exchange(burst, PIPELINED, bytes).await?;
        }
        gate_mark(phase);
        for burst in measured {
            self.exchange(burst, PIPELINED, bytes).await?;
        }
        gate_mark(phase);
        Ok(())
    }

    /// Writes requests and reads as many answers, each a success of at least `bytes`.
    async fn exchange(
        &mut self,
        requests: &[u8],
        answers: usize,
        bytes: usize,
    ) -> anyhow::Result<()> {
        self.stream.write_all(requests).await?;
        let mut seen = 0;
        while seen < answers {
            let read = self.stream.read(&mut self.inbound[self.filled..]).await?;
            ensure!(read > 0, "the broker closed the connection, or an answer is too large");
            self.filled += read;
            seen += self.take_answers(bytes)?;
        }
        ensure!(seen == answers && self.filled == 0, "more answers than requests");
        Ok(())
    }

    fn take_answers(&mut self, bytes: usize) -> anyhow::Result<usize> {
        let (mut at, mut seen) = (0, 0);
        while let Some(prefix) = self.inbound[at..self.filled].first_chunk::<4>() {
            let end = at + 4 + u32::from_be_bytes(*prefix) as usize;
            if end > self.filled {
                break;
            }
            let answer = &self.inbound[at + 4..end];
            let success = answer.get(4..).is_some_and(|json| json.starts_with(b"{\"code\":0,"));
            ensure!(
                success && answer.len() >= bytes,
                "answer of {} bytes is no success of at least {bytes}: {}",
                answer.len(),
                String::from_utf8_lossy(&answer[..answer.len().min(300)])
            );
            at = end;
            seen += 1;
        }
        self.inbound.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(seen)
    }
}
