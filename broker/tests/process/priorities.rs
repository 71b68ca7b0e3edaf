//! Priorities of a broker's threads: what nobody waits for leaves the processor to those that answer.

use super::{program::Program, world::until};

/// Steps by which upkeep is below the others.
const UPKEEP_BELOW: i32 = 10;
/// Steps by which writing and merging the views' tables is.
const TABLES_BELOW: i32 = 10;
/// The lowest priority that there is.
const LOWEST: i32 = 19;

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_tables_and_cold_reads_leave_the_processor_to_those_that_answer_and_to_look_ups() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serving(dir.path(), "");
    let usual = program.nice_values()["gantry-broker"];
    let upkeep = (usual + UPKEEP_BELOW).min(LOWEST);
    let tables = (usual + TABLES_BELOW).min(LOWEST);
    let wanted = [
        ("cold-begin-0", usual),
        ("cold-begin-1", usual),
        ("cold-read-0", LOWEST),
        ("gantry-commit", usual),
        ("gantry-flush", usual),
        ("gantry-scrub", upkeep),
        ("gantry-timers", usual),
        ("gantry-upkeep", upkeep),
        ("gantry-views", usual),
        ("look-up-0", usual),
        ("look-up-1", usual),
        ("rocksdb:high", tables),
        ("rocksdb:low", tables),
    ];
    // Each thread lowers its own as its first act.
    until(async || {
        let found = program.nice_values();
        let is_so = |(name, nice): &(&str, i32)| found.get(*name) == Some(nice);
        wanted.iter().all(is_so).then_some(())
    })
    .await;
}
