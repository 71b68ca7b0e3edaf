//! Bad peers: connections that wait, read slowly, stop in the middle of a frame, come and go, or send nonsense.
//! Invariant: a run ends by itself, and says how much of its kind of trouble it made.
//! Leaves the good clients beside it to `load`, and the verdict to the soak that starts both.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use socket2::SockRef;

use super::{malformed, report::Row, request::frame};

/// Time between two looks at connections that only wait.
const LOOK: Duration = Duration::from_millis(200);
/// Pulls that a slow reader writes at once, so that it costs the server's machine no more than what it is about.
const PULLS_AT_ONCE: usize = 128;
/// Bytes of pulls that wait in the system for the server, besides those that it has room for.
const UNSENT_BYTES: u32 = 64 * 1024;
/// What a frame announces that never comes.
const ANNOUNCED_BYTES: u32 = 1 << 20;

/// What a bad peer does.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Kind {
    /// Connects and says nothing.
    Idle,
    /// Asks for messages as fast as it may and reads one byte a second.
    SlowReader,
    /// Sends the beginning of a frame of 1 MiB and stops.
    HalfOpen,
    /// Connects and closes, again and again.
    Flood,
    /// Sends frames that are wrong in one way or another.
    Frames,
}

/// Which trouble, and how much.
#[derive(Debug, Clone, Args)]
pub(crate) struct PeersArgs {
    /// Address of the broker's remoting port.
    #[arg(long)]
    address: SocketAddr,
    /// What the peers do.
    #[arg(long)]
    kind: Kind,
    /// Connections at a time.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// Connects a second of `flood`, frames a second of `frames`.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Topic that slow readers read; it should hold messages.
    #[arg(long, default_value = "gantry-bench")]
    topic: String,
    /// Offset in queue 0 that slow readers ask for; one that is there brings 32 messages an answer.
    #[arg(long, default_value_t = 0)]
    queue_offset: u64,
    /// Folder of files that `frames` changes and sends, besides the frames it makes itself.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// How long.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

/// Makes trouble until the time is over.
pub(crate) fn run(args: &PeersArgs) -> anyhow::Result<Row> {
    let end = Instant::now() + args.duration;
    let (unit, count, open) = match args.kind {
        Kind::Idle => ("connections", u64::from(args.connections), wait(&connect_all(args)?, end)),
        Kind::SlowReader => ("bytes_read", slow_readers(args, end)?, 0),
        Kind::HalfOpen => {
            let mut streams = connect_all(args)?;
            for stream in &mut streams {
                stream.write_all(&half_a_frame())?;
            }
            ("connections", u64::from(args.connections), wait(&streams, end))
        }
        Kind::Flood => ("connects", flood(args, end)?, 0),
        Kind::Frames => {
            let seeds = malformed::seeds(args.corpus.as_deref())?;
            ("frames", malformed::send(args.address, &seeds, args.rate, end)?, 0)
        }
    };
    let what = format!("{:?} for {:?}", args.kind, args.duration);
    Ok(Row::of_figures("peers", what, [(unit, count as f64), ("open_at_end", f64::from(open))]))
}

fn connect_all(args: &PeersArgs) -> io::Result<Vec<TcpStream>> {
    (0..args.connections).map(|_| TcpStream::connect(args.address)).collect()
}

/// Waits for the end, and counts connections that the server has kept until then.
fn wait(streams: &[TcpStream], end: Instant) -> u32 {
    thread::sleep(end.saturating_duration_since(Instant::now()));
    streams.iter().map(|stream| u32::from(is_open(stream))).sum()
}

fn is_open(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    match looked {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn half_a_frame() -> Vec<u8> {
    let mut bytes = ANNOUNCED_BYTES.to_be_bytes().to_vec();
    bytes.extend_from_slice(&600_u32.to_be_bytes());
    bytes.extend_from_slice(br#"{"code":310,"extFields":{"a":"#);
    bytes
}

/// Keeps each connection full of pulls and reads one byte a second of the answers.
fn slow_readers(args: &PeersArgs, end: Instant) -> io::Result<u64> {
    let pulls = pull_frame(&args.topic, args.queue_offset).repeat(PULLS_AT_ONCE);
    let mut streams = connect_all(args)?
        .into_iter()
        .map(|stream| Asking::new(args.address, stream))
        .collect::<io::Result<Vec<_>>>()?;
    let mut read = 0;
    let mut next_read = Instant::now();
    while Instant::now() < end {
        for asking in &mut streams {
            asking.ask(&pulls)?;
        }
        if Instant::now() >= next_read {
            next_read += Duration::from_secs(1);
            for asking in &mut streams {
                read += asking.read_byte()?;
            }
        }
        thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(read)
}

/// A slow reader; it connects again when the server has had enough of it.
struct Asking {
    /// The system does not know it any more once the server has closed.
    address: SocketAddr,
    stream: TcpStream,
    /// Bytes of the pulls that are half written.
    written: usize,
}

impl Asking {
    fn new(address: SocketAddr, stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // Enough for the server to have always something to read; what would lie here besides is the generator's work.
        SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
        Ok(Self { address, stream, written: 0 })
    }

    fn ask(&mut self, pulls: &[u8]) -> io::Result<()> {
        loop {
            match self.stream.write(&pulls[self.written..]) {
                Ok(count) => self.written = (self.written + count) % pulls.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return self.again(),
            }
        }
    }

    fn read_byte(&mut self) -> io::Result<u64> {
        match self.stream.read(&mut [0]) {
            Ok(0) => self.again().map(|()| 0),
            Ok(count) => Ok(count as u64),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(_) => self.again().map(|()| 0),
        }
    }

    fn again(&mut self) -> io::Result<()> {
        *self = Self::new(self.address, TcpStream::connect(self.address)?)?;
        Ok(())
    }
}

fn pull_frame(topic: &str, offset: u64) -> Vec<u8> {
    let header = format!(
        concat!(
            r#"{{"code":11,"extFields":{{"consumerGroup":"slow-readers","topic":"{topic}","queueId":"0","#,
            r#""queueOffset":"{offset}","maxMsgNums":"32","sysFlag":"4","commitOffset":"0","#,
            r#""suspendTimeoutMillis":"15000","subscription":"*","subVersion":"0"}},"flag":0,"#,
            r#""language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}}"#,
        ),
        topic = topic,
        offset = offset
    );
    frame(header.as_bytes(), &[])
}

/// Connects and closes at a rate; waits where the machine has no port left.
fn flood(args: &PeersArgs, end: Instant) -> io::Result<u64> {
    let mut pace = Pace::new(args.rate, end);
    let mut connects = 0;
    while pace.next() {
        match TcpStream::connect(args.address) {
            Ok(_) => connects += 1,
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => thread::sleep(LOOK),
            Err(error) => return Err(error),
        }
    }
    Ok(connects)
}

/// So many steps a second, without catching up more than one look's worth.
pub(super) struct Pace {
    due: Instant,
    step: Duration,
    end: Instant,
}

impl Pace {
    pub(super) fn new(rate: u32, end: Instant) -> Self {
        Self { due: Instant::now(), step: Duration::from_secs(1) / rate, end }
    }

    /// Waits for the next step; `false` when the time is over.
    pub(super) fn next(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.end {
            return false;
        }
        // Sleeping for each step would cost more than the step.
        if self.due > now + Duration::from_millis(2) {
            thread::sleep(self.due - now);
        }
        self.due = (self.due + self.step).max(now.checked_sub(LOOK).unwrap_or(now));
        true
    }
}
