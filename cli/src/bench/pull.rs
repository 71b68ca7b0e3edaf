//! Reader: one long-polling pull in flight for each queue, as a push consumer has.
//! Invariant: every message of a queue is counted once, in order, from its start offset on.
//! Leaves set-up and measuring to its callers. Layout: RocketMQ remoting, request code 11, and the
//! message record.

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::atomic::Ordering::Relaxed,
    thread,
    time::Duration,
};

use super::{
    answer::{Answer, AnswerReader, number_after},
    load::{Outcome, Shared},
    request::{OPAQUE_BASE, frame},
};

/// Bits of a pull's `sysFlag`: wait for messages, the expression is in the request.
const SUSPEND_AND_SUBSCRIPTION: u32 = 2 + 4;
/// Bit of a pull's `sysFlag`: commit `commitOffset` on the way.
const COMMIT: u32 = 1;
/// Wait before a refused pull is sent again, so that a broken server is not flooded.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);
/// Answer code of a pull whose offset lies before what is kept.
const OFFSET_MOVED: i32 = 21;
/// Refusals after which a reader gives up: 10 s of nothing but errors.
const REFUSALS_MAX: u64 = 1_000;

/// What one reader reads.
#[derive(Debug, Clone)]
pub(crate) struct PullShape {
    pub group: String,
    pub topic: String,
    pub broker_name: String,
    /// Queue numbers with the offset at which to start.
    pub queues: Vec<(u32, u64)>,
    /// Subscription expression, `*` for all.
    pub expression: String,
    /// Whether each pull commits the offset reached.
    pub commit: bool,
    /// Whether bodies begin with the time at which they were meant to be sent.
    pub stamped: bool,
    /// Whether the run counts the messages that the server passed over too.
    pub scanned: bool,
    /// Of how many messages that are sent the expression matches one.
    pub one_of: u64,
}

/// Reads until the run stops and the connection is shut down, or the budget is spent.
pub(crate) fn pull_loop(
    stream: &TcpStream,
    shape: &PullShape,
    shared: &Shared,
) -> io::Result<Outcome> {
    let mut puller = Puller::start(stream, shape, shared)?;
    while puller.turn()? {}
    Ok(puller.outcome)
}

/// A reader whose pulls are with the server.
pub(crate) struct Puller<'a> {
    stream: &'a TcpStream,
    shape: &'a PullShape,
    shared: &'a Shared,
    answers: AnswerReader,
    offsets: Vec<u64>,
    asked: Vec<u8>,
    /// What it has read.
    pub(crate) outcome: Outcome,
}

impl<'a> Puller<'a> {
    /// Asks for the first messages of each queue.
    pub(crate) fn start(
        mut stream: &'a TcpStream,
        shape: &'a PullShape,
        shared: &'a Shared,
    ) -> io::Result<Self> {
        let offsets: Vec<u64> = shape.queues.iter().map(|(_, start)| *start).collect();
        for (at, offset) in offsets.iter().enumerate() {
            stream.write_all(&pull_frame(shape, at, *offset))?;
        }
        let (answers, outcome) = (AnswerReader::new(), Outcome::new());
        Ok(Self { stream, shape, shared, answers, offsets, asked: Vec::new(), outcome })
    }

    /// Waits for answers, counts what they hold and asks for more. Returns whether there is more to do.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let Self { stream, shape, shared, answers, offsets, asked, outcome } = self;
        match answers.fill(stream) {
            Ok(()) => {}
            Err(_) if shared.stop.load(Relaxed) => return Ok(false),
            Err(error) => return Err(error),
        }
        let now_ns = shared.clock.now_ns();
        while let Some(answer) = answers.next()? {
            if !answer.response {
                continue;
            }
            let at = answer.opaque.wrapping_sub(OPAQUE_BASE) as usize;
            let Some(offset) = offsets.get_mut(at) else {
                return Err(invalid("answer to no request"));
            };
            *offset = take_pull(&answer, *offset, now_ns, shape, shared, outcome)?;
            asked.extend_from_slice(&pull_frame(shape, at, *offset));
        }
        if shared.stop.load(Relaxed) || shared.is_complete() {
            return Ok(false);
        }
        stream.write_all(asked)?;
        asked.clear();
        Ok(true)
    }
}

/// Counts the messages of one answer and returns where to go on.
fn take_pull(
    answer: &Answer<'_>,
    offset: u64,
    now_ns: u64,
    shape: &PullShape,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<u64> {
    let mut count = 0;
    match answer.code {
        0 => {
            let measure_from_ns = shared.measure_from_ns.load(Relaxed);
            for body in bodies(answer.body) {
                let body = body?;
                count += 1;
                let stamp = body.first_chunk::<8>().filter(|_| shape.stamped);
                let intended_ns = stamp.map(|stamp| u64::from_be_bytes(*stamp));
                if let Some(intended_ns) = intended_ns.filter(|at| *at >= measure_from_ns) {
                    outcome.record(now_ns.saturating_sub(intended_ns));
                }
            }
            outcome.received += count;
            outcome.pulls[usize::from(count == 0)] += 1;
            if !shape.scanned {
                shared.done.fetch_add(count, Relaxed);
            }
        }
        19..=OFFSET_MOVED => outcome.pulls[1] += 1,
        code => {
            let refused = outcome.refusals.entry(code).or_default();
            *refused += 1;
            shared.failed.fetch_add(1, Relaxed);
            if *refused > REFUSALS_MAX {
                return Err(io::Error::other(format!("pulls are refused with code {code}")));
            }
            thread::sleep(REFUSED_PAUSE);
            return Ok(offset);
        }
    }
    let next = number_after(answer.header, br#""nextBeginOffset":"#);
    let next = next.ok_or_else(|| invalid("pull answer without nextBeginOffset"))? as u64;
    let way = next.saturating_sub(offset);
    if shape.scanned {
        shared.done.fetch_add(way, Relaxed);
    }
    match answer.code {
        OFFSET_MOVED => outcome.skipped += way,
        _ => outcome.passed += way.saturating_sub(count),
    }
    Ok(next)
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The bodies of concatenated records.
fn bodies(mut records: &[u8]) -> impl Iterator<Item = io::Result<&[u8]>> {
    const SYS_FLAG_AT: usize = 36;
    const BODY_BYTES_AT: usize = 84;
    let int = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes) as usize)
    };
    let mut next = move || {
        let record = records.get(..int(records, 0)?)?;
        records = &records[record.len()..];
        let flags = int(record, SYS_FLAG_AT)?;
        // Bits 4 and 5: the host before is an IPv6 address, 12 bytes longer.
        let at = BODY_BYTES_AT + 12 * ((flags >> 4 & 1) + (flags >> 5 & 1));
        let body = record.get(at + 4..)?.get(..int(record, at)?)?;
        Some((body, records.is_empty()))
    };
    let mut ended = records.is_empty();
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let Some((body, last)) = next() else {
            ended = true;
            return Some(Err(invalid("pull answer with a broken record")));
        };
        ended = last;
        Some(Ok(body))
    })
}

fn pull_frame(shape: &PullShape, at: usize, offset: u64) -> Vec<u8> {
    let PullShape { group, topic, broker_name, expression, commit, .. } = shape;
    let queue = shape.queues[at].0;
    let flag = SUSPEND_AND_SUBSCRIPTION + if *commit { COMMIT } else { 0 };
    let opaque = OPAQUE_BASE + at as u32;
    let header = format!(
        concat!(
            r#"{{"code":11,"extFields":{{"bname":"{broker}","commitOffset":"{offset}","consumerGroup":"{group}","#,
            r#""expressionType":"TAG","maxMsgNums":"32","queueId":"{queue}","queueOffset":"{offset}","#,
            r#""subVersion":"0","subscription":"{expression}","suspendTimeoutMillis":"15000","sysFlag":"{flag}","#,
            r#""topic":"{topic}"}},"flag":0,"language":"JAVA","opaque":{opaque},"#,
            r#""serializeTypeCurrentRPC":"JSON","version":479}}"#,
        ),
        broker = broker_name,
        offset = offset,
        group = group,
        queue = queue,
        expression = expression,
        flag = flag,
        topic = topic,
        opaque = opaque,
    );
    frame(header.as_bytes(), b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(body: &[u8]) -> Vec<u8> {
        let host = "127.0.0.1:1".parse().unwrap();
        let draft = gantry_record::Draft {
            topic: "bench",
            queue: 0.into(),
            flag: 0,
            sys_flag: 0,
            born_time_ms: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_offset: 0,
            body,
            properties: b"",
        };
        let mut bytes = Vec::new();
        gantry_record::encode(&draft, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn bodies_of_concatenated_records_come_one_by_one() {
        let records = [record(b"one"), record(b"")].concat();
        let found: Vec<_> = bodies(&records).map(|body| body.unwrap().to_vec()).collect();
        assert_eq!(found, [b"one".to_vec(), b"".to_vec()]);
        assert_eq!(bodies(b"").count(), 0);
    }

    #[test]
    fn cut_records_are_an_error_and_not_an_endless_loop() {
        let records = [record(b"one"), record(b"two")].concat();
        for cut in [1, 50, records.len() / 2 + 3, records.len() - 1] {
            let found: Vec<_> = bodies(&records[..cut]).collect();
            assert!(found.last().unwrap().is_err(), "{cut}");
        }
        let zeros = [0; 200];
        assert!(bodies(&zeros).next().unwrap().is_err());
    }

    fn shape() -> PullShape {
        PullShape {
            group: "g".into(),
            topic: "t".into(),
            broker_name: "b".into(),
            queues: vec![(7, 0)],
            expression: "*".into(),
            commit: true,
            stamped: false,
            scanned: false,
            one_of: 1,
        }
    }

    #[test]
    fn pull_frame_is_valid_json() {
        let frame = pull_frame(&shape(), 0, 42);
        let header: serde_json::Value = serde_json::from_slice(&frame[8..]).unwrap();
        assert_eq!(header["extFields"]["queueOffset"], "42");
        assert_eq!(header["extFields"]["sysFlag"], "7");
        assert_eq!(header["extFields"]["queueId"], "7");
    }

    #[test]
    fn what_is_passed_over_counts_as_scanned_and_answers_without_messages_are_told_apart() {
        let (shape, shared) = (PullShape { scanned: true, ..shape() }, Shared::new(None));
        let mut outcome = Outcome::new();
        let mut take = |code, next: u64, body: &[u8], offset| {
            let header = format!(r#"{{"nextBeginOffset":"{next}"}}"#);
            let header = header.as_bytes();
            let answer = Answer { code, opaque: OPAQUE_BASE, response: true, header, body };
            take_pull(&answer, offset, 0, &shape, &shared, &mut outcome).unwrap()
        };
        assert_eq!(take(0, 100, &record(b"one"), 40), 100);
        assert_eq!(take(20, 130, b"", 100), 130);
        assert_eq!(take(19, 130, b"", 130), 130);
        assert_eq!(take(21, 200, b"", 130), 200);
        assert_eq!((outcome.received, outcome.pulls), (1, [1, 3]));
        assert_eq!((outcome.passed, outcome.skipped), (59 + 30, 70), "the server told of the last");
        assert_eq!(shared.done.load(Relaxed), 160);
    }
}
