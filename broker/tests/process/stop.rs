//! SIGTERM: with sends under way, with a held pull, during the start.

use std::{sync::Arc, time::Duration};

use gantry_remoting::client::Channel;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    program::Program,
    world::{bodies, call, code, field, pull, pull_waiting, send, soon},
};

const SENDERS: usize = 4;
const ANSWERS_BEFORE_STOP: usize = 200;

/// Sends until it is refused or cut off; returns offset and body of what was answered, and the last code if any.
async fn send_on(
    channel: Channel,
    sender: usize,
    answered: Arc<Semaphore>,
) -> (Vec<(usize, String)>, Option<i32>) {
    let mut stored = Vec::new();
    for number in 0.. {
        let body = format!("{sender}-{number}");
        match channel.call(&send("orders", &[], &body), Duration::from_secs(20)).await {
            Ok(answer) if answer.code == 0 => {
                stored.push((field(&answer, "queueOffset").parse().unwrap(), body));
                answered.add_permits(1);
            }
            Ok(answer) => return (stored, Some(answer.code)),
            Err(_) => break,
        }
    }
    (stored, None)
}

pub(crate) async fn everything(program: &Program) -> Vec<String> {
    let channel = program.connect().await;
    let mut all = Vec::new();
    loop {
        let answer = call(&channel, pull("g", "orders", all.len() as i64, "*")).await;
        if answer.code != 0 {
            return all;
        }
        all.extend(bodies(&answer));
    }
}

async fn keeps_what_was_answered(flush: &str) {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serving(dir.path(), &format!("flush: {flush}"));
    let answered = Arc::new(Semaphore::new(0));
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let channel = program.connect().await;
        senders.spawn(send_on(channel, sender, Arc::clone(&answered)));
    }
    let _ = soon(answered.acquire_many(ANSWERS_BEFORE_STOP as u32)).await.unwrap();
    program.terminate();
    let (status, log) = program.ended();
    assert!(status.success(), "{status}: {log}");
    let mut stored = Vec::new();
    let mut codes = Vec::new();
    while let Some(ended) = soon(senders.join_next()).await {
        let (answers, code) = ended.unwrap();
        stored.extend(answers);
        codes.extend(code);
    }
    assert_eq!(codes, [14; SENDERS], "each sender is refused before it is cut off");

    let program = Program::serving(dir.path(), "");
    let all = everything(&program).await;
    for (offset, body) in stored {
        assert_eq!(all.get(offset), Some(&body), "at {offset}");
    }
}

// Waiting for the process blocks the thread, and its clients go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn every_message_answered_before_a_stop_is_there_after_it_with_sync_flush() {
    keeps_what_was_answered("sync").await;
}

// Waiting for the process blocks the thread, and its clients go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn every_message_answered_before_a_stop_is_there_after_it_with_async_flush() {
    keeps_what_was_answered("async").await;
}

// Waiting for the process blocks the thread, and its clients go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn stop_answers_a_held_pull_and_waits_for_no_idle_client() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serving(dir.path(), "");
    let channel = program.connect().await;
    assert_eq!(code(&channel, send("orders", &[], "x")).await, 0);
    let idle = program.connect().await;
    let waiting = channel.begin_call(&pull_waiting("g", "orders", 1, "*", 600_000)).unwrap();
    // Requests of a connection are worked on in order: the pull is held once the next one is answered.
    assert_eq!(code(&channel, send("others", &[], "x")).await, 0);
    program.terminate();
    assert_eq!(soon(waiting).await.unwrap().code, 19);
    let (status, log) = program.ended();
    assert!(status.success(), "{status}: {log}");
    soon(idle.closed()).await;
}

#[test]
fn stop_while_the_advertised_host_does_not_resolve_ends_at_once_and_health_said_why() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // A name that no resolver has (RFC 6761); the HTTP port is known before there is a ready line.
    let program = Program::spawn_at(dir.path(), port, "advertise: shop-broker-0.invalid");
    program.wait_for_log("does not resolve yet");
    let http = format!("127.0.0.1:{port}");
    assert_eq!(Program::get(&http, "/healthz").0, "200");
    let (status, body) = Program::get(&http, "/readyz");
    assert_eq!(status, "503");
    assert!(body.contains("shop-broker-0.invalid does not resolve"), "{body}");
    program.terminate();
    let (status, log) = program.ended();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("stops before it has started"), "{log}");
}
