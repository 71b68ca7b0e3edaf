//! The promise that an answered message is never lost, held against a server that is killed under load.
//! Each round sends from several tasks, kills the server by its process id while they send, starts it
//! again on the same data and reads everything back.
//! A killed process loses what it had not handed to the system; lost power is for the store's own tests.

mod ledger;
mod load;
mod server;

use ledger::Ledger;
use server::{Server, Settings};

/// Kills for each flush mode; `GANTRY_KILLS` sets another number.
const KILLS_DEFAULT: u32 = 3;

/// Answers in each round before the kill: enough for every sender to be well under way.
const ANSWERS_BEFORE_KILL: usize = 1_500;

#[test]
#[ignore = "kills a server again and again: `make test`, `make test-kill` and `make soak` run it"]
fn answered_messages_survive_kills_with_sync_flush() {
    survive_kills("sync");
}

#[test]
#[ignore = "kills a server again and again: `make test`, `make test-kill` and `make soak` run it"]
fn answered_messages_survive_kills_with_async_flush() {
    survive_kills("async");
}

fn survive_kills(flush: &'static str) {
    let folder = tempfile::tempdir().expect("a folder for the data");
    let settings = Settings::new(folder.path(), flush);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut ledger = Ledger::default();
    for round in 1..=kills() {
        let server = Server::start(&settings);
        let broker = settings.broker();
        let kill = move || server.kill();
        let answers =
            runtime.block_on(load::send_through_kill(&broker, round, ANSWERS_BEFORE_KILL, kill));
        for (place, id) in answers {
            ledger.note(place, id);
        }
        let server = Server::start(&settings);
        check(&runtime, &settings, &ledger, &format!("{flush} flush, after kill {round}"));
        server.kill();
    }
}

fn kills() -> u32 {
    std::env::var("GANTRY_KILLS").map_or(KILLS_DEFAULT, |kills| {
        kills.parse().unwrap_or_else(|e| panic!("GANTRY_KILLS is {kills}: {e}"))
    })
}

/// Reads all queues and compares them with the answers.
fn check(runtime: &tokio::runtime::Runtime, settings: &Settings, ledger: &Ledger, when: &str) {
    let queues = runtime.block_on(load::read_all(&settings.broker()));
    let stored: usize = queues.values().map(Vec::len).sum();
    println!("{when}: {} answered, {stored} stored in {} queues", ledger.len(), queues.len());
    let complaints = ledger.check(&queues);
    assert!(complaints.is_empty(), "{when}:\n{}", complaints.join("\n"));
}
