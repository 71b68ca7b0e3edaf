//! `gantry bench` as somebody at a terminal uses it.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::world::*;

/// Longest time that anything may take: a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "measured";

/// Messages of the topic.
fn stored(world: &World) -> u64 {
    let ended = world.run(&["topic", "stats", TOPIC]);
    let total = ended.out.lines().last().unwrap_or_default().split_whitespace().next();
    total.and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[test]
fn signal_ends_a_measurement_early_and_shows_what_was_measured_until_then() {
    let world = World::start();
    for signal in ["INT", "TERM"] {
        let before = stored(&world);
        let run = ["bench", "produce", "--topic", TOPIC, "--rate", "1000", "--output", "json"];
        let mut bench = world.command(&run);
        bench.args(["--warm-up", "0s", "--duration", "1h"]).stdout(Stdio::piped());
        let bench = bench.spawn().unwrap();
        let start = Instant::now();
        while stored(&world) < before + 200 {
            assert!(start.elapsed() < PATIENCE, "nothing is sent");
            thread::sleep(Duration::from_millis(10));
        }
        let kill = format!("kill -{signal} {}", bench.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let output = bench.wait_with_output().unwrap();
        assert!(output.status.success(), "{signal}: {output:?}");
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let messages = rows[0]["messages"].as_u64().unwrap();
        assert!(messages > 0 && messages <= stored(&world) - before, "{signal}: {rows}");
        assert_eq!(rows[0]["failed"], 0, "{signal}: {rows}");
        assert!(rows[0]["latency"]["p99_us"].as_f64().unwrap() > 0.0, "{signal}: {rows}");
    }
}
