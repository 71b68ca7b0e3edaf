//! Scenario W7: one topic, and many, of few queues each.
//! Invariant: the load goes to all topics in turn; memory is compared with that of the same server before the topics,
//! once it has come to rest.
//! Leaves sending to `bench`, and starts and stops to `suite`.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, ToSocketAddrs as _},
    time::Instant,
};

use anyhow::Context as _;
use gantry_client::{Admin, Client};
use gantry_model::{TopicConfig, TopicName};

use super::{
    LoadArgs,
    answer::AnswerReader,
    load::connect,
    process::Sample,
    produce,
    report::Row,
    request::{OPAQUE_BASE, frame},
    server::Server,
    suite::{Owned, Suite},
    target::{self, with_client},
};
use crate::progress::Progress;

/// Request code of a route.
const ROUTE: u16 = 105;
/// Request code of a broker's whole topic table, which is also what it registers, in parts.
const TOPIC_TABLE: u16 = 21;

impl Suite<'_> {
    /// A row for each number of topics.
    pub(super) fn topics(&self) -> anyhow::Result<Vec<Row>> {
        let (mut rows, mut rate_of_64) = (Vec::new(), None);
        for topics in self.args.many_topics.iter().copied() {
            let mut row = if self.args.server_binary.is_some() {
                self.topics_of_own(topics)?
            } else {
                self.topics_of_given(topics)?
            };
            match rate_of_64 {
                _ if topics == 64 => rate_of_64 = row.rate_per_s(),
                Some(rate) if topics > 64 => {
                    let share = row.rate_per_s().unwrap_or_default() / rate;
                    row.figures.insert("of_64_topics".into(), share);
                }
                _ => {}
            }
            rows.push(row);
        }
        Ok(rows)
    }

    fn topics_load(&self, topics: u32, server_pid: Option<u32>) -> LoadArgs {
        LoadArgs { topics, queues: self.args.topic_queues, ..self.load(server_pid) }
    }

    fn topics_of_given(&self, topics: u32) -> anyhow::Result<Row> {
        let load = self.topics_load(topics, self.args.server_pid);
        create_and_send(self.nameserver, &load)
    }

    fn topics_of_own(&self, topics: u32) -> anyhow::Result<Row> {
        let owned = self.own("async")?;
        let idle = owned.server.settled_memory()?;
        let load = self.topics_load(topics, Some(owned.server.process.pid()));
        let mut row = create_and_send(&owned.server.nameserver, &load)?;
        let each = |bytes: u64| bytes.saturating_sub(idle) as f64 / f64::from(topics);
        let sent = each(owned.server.settled_memory()?);
        let Owned { server, data: _data } = self.restart(owned, "async")?;
        row.figures.insert("restart_ms".into(), server.ready_after.as_secs_f64() * 1e3);
        if topics > 64 {
            row.figures.insert("bytes_each_after_load".into(), sent);
            row.figures.insert("bytes_each_restarted".into(), each(server.settled_memory()?));
        }
        let last = target::topic_names(&load.topic, topics).pop().context("at least one topic")?;
        row.figures.extend(answer_sizes(&server, &last)?);
        server.process.stop()?;
        Ok(row)
    }
}

fn create_and_send(nameserver: &str, load: &LoadArgs) -> anyhow::Result<Row> {
    let names = target::topic_names(&load.topic, load.topics);
    let cpu_us =
        || load.server_pid.map(|pid| Sample::take(pid).map(|sample| sample.cpu_us)).transpose();
    let (start, cpu_before) = (Instant::now(), cpu_us()?);
    with_client(nameserver, async |client| create_many(client, &names, load.queues).await)?;
    let seconds = start.elapsed().as_secs_f64();
    let cpu_us = cpu_us()?.zip(cpu_before).map(|(after, before)| after - before);
    let target = target::found_at(nameserver, names, load.queues)?;
    let mut row = produce(load, &target)?.row("W7", load);
    if load.queues > 1 {
        row.what = format!("{} of {} queues", row.what, load.queues);
    }
    if load.topics > 1 {
        row.figures.insert("created_per_s".into(), f64::from(load.topics) / seconds);
        if let Some(cpu_us) = cpu_us.filter(|_| load.topics > 64) {
            row.figures.insert("create_cpu_us".into(), cpu_us as f64 / f64::from(load.topics));
        }
    }
    Ok(row)
}

/// Bytes of the answers that name servers and brokers give for their topics; for a refused one, its code.
fn answer_sizes(server: &Server, topic: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let nameserver = server.nameserver.to_socket_addrs()?.next();
    let nameserver = nameserver.context("the name server has an address")?;
    let requests = [
        ("route", nameserver, ROUTE, format!(r#"{{"topic":"{topic}"}}"#)),
        ("topic_table", server.remoting, TOPIC_TABLE, "{}".into()),
    ];
    let figures = requests.map(|(name, address, code, fields)| {
        Ok(match answer_bytes(address, code, &fields)? {
            Ok(bytes) => (format!("{name}_bytes"), bytes as f64),
            Err(code) => (format!("{name}_refused_with_code"), f64::from(code)),
        })
    });
    figures.into_iter().collect()
}

/// Bytes of the body that answers one request, or the code with which it is refused.
fn answer_bytes(address: SocketAddr, code: u16, fields: &str) -> io::Result<Result<usize, i32>> {
    let mut stream = connect(address)?;
    let header = format!(
        r#"{{"code":{code},"extFields":{fields},"flag":0,"language":"JAVA","opaque":{OPAQUE_BASE},"serializeTypeCurrentRPC":"JSON","version":479}}"#,
    );
    stream.write_all(&frame(header.as_bytes(), b""))?;
    let mut answers = AnswerReader::new();
    loop {
        if let Some(answer) = answers.next()? {
            return Ok(if answer.code == 0 { Ok(answer.body.len()) } else { Err(answer.code) });
        }
        answers.fill(&mut stream)?;
    }
}

/// Creates topics, several at once.
pub(super) async fn create_many(
    client: &Client,
    names: &[String],
    queues: u32,
) -> anyhow::Result<()> {
    /// Requests in flight: enough to show what the server can do.
    const IN_FLIGHT: usize = 64;
    let progress = Progress::of(names.len() as u64);
    let mut requests = tokio::task::JoinSet::new();
    for (number, name) in names.iter().enumerate() {
        while requests.len() >= IN_FLIGHT {
            if let Some(created) = requests.join_next().await {
                created??;
            }
        }
        let config = TopicConfig::new(TopicName::new(name)?, queues);
        let admin = Admin::new(client);
        requests.spawn(async move { admin.declare_topic(&config).await });
        progress.tell("creating topics", number as u64);
    }
    while let Some(created) = requests.join_next().await {
        created??;
    }
    Ok(())
}
