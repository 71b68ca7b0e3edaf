//! A process that is held for a while, as a node that is out of memory or a debugger does it, and then goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gantry_remoting::client::Channel;
use tokio::sync::Semaphore;

use super::{
    program::Program,
    stop::everything,
    world::{code, field, pull_waiting, send, soon},
};

/// How long the process is held: many times the flush interval, the tick of upkeep, and the wait at which sends are
/// told that they were late.
const HELD: Duration = Duration::from_secs(3);
/// Answer code of a broker that asks to wait.
const BUSY: i32 = 2;

/// Sends on one connection until it is told to end; returns offset and body of what was answered.
async fn send_until(
    channel: Channel,
    ends: Arc<AtomicBool>,
    answered: Arc<Semaphore>,
) -> Vec<(usize, String)> {
    let mut stored = Vec::new();
    for number in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let body = format!("message {number}");
        let answer = channel.call(&send("orders", &[], &body), Duration::from_secs(20)).await;
        let answer = answer.expect("the connection outlives the pause");
        // What waited for the whole pause may be told so.
        assert!([0, BUSY].contains(&answer.code), "{answer:?}");
        if answer.code == 0 {
            stored.push((field(&answer, "queueOffset").parse().unwrap(), body));
            answered.add_permits(1);
        }
    }
    stored
}

async fn goes_on(flush: &str) {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serving(dir.path(), &format!("flush: {flush}"));
    let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
    let channel = program.connect().await;
    let sender = tokio::spawn(send_until(channel, Arc::clone(&ends), Arc::clone(&answered)));
    soon(answered.acquire_many(50)).await.unwrap().forget();
    let poller = program.connect().await;
    assert_eq!(code(&poller, send("others", &[], "first")).await, 0);
    let held = poller.begin_call(&pull_waiting("g", "others", 1, "*", 600_000)).unwrap();

    program.hold();
    tokio::time::sleep(HELD).await;
    program.let_go();

    // More than can have been on their way.
    soon(answered.acquire_many(200)).await.unwrap().forget();
    let other = program.connect().await;
    assert_eq!(code(&other, send("others", &[], "second")).await, 0);
    assert_eq!(soon(held).await.unwrap().code, 0, "the held pull gets what came behind the pause");
    ends.store(true, Ordering::Relaxed);
    let stored = soon(sender).await.unwrap();
    assert_eq!(Program::get(program.address("http"), "/readyz").0, "200", "{}", program.log());
    assert!(!program.log().contains("ERROR"), "{}", program.log());
    drop(program);

    let program = Program::serving(dir.path(), "");
    let all = everything(&program).await;
    assert!(stored.len() >= 250);
    for (offset, body) in stored {
        assert_eq!(all.get(offset), Some(&body), "at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn process_that_was_held_goes_on_and_keeps_all_it_answered_with_sync_flush() {
    goes_on("sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn process_that_was_held_goes_on_and_keeps_all_it_answered_with_async_flush() {
    goes_on("async").await;
}
