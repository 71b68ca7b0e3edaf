//! Counts the instructions of a fixed replay of sends and pulls, and holds them against the numbers in the tree.
//! Invariant: only the thread that serves counts; what it executes does not depend on load of the machine. A number
//! that grew by more than 5 % fails. `GANTRY_UPDATE=1` writes the numbers anew.
//! Leaves the requests to `replay.rs` and counting to valgrind's callgrind.

mod frames;
mod numbers;
mod replay;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Argument with which the program runs itself under valgrind; the folder of the store follows.
const REPLAY: &str = "--replay";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<bool> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == REPLAY) {
        let dir = arguments.next().context("a folder follows --replay")?;
        replay::run(Path::new(&dir))?;
        return Ok(true);
    }
    let dir = tempfile::tempdir()?;
    count(dir.path())?;
    let measured = per_message(dir.path())?;
    numbers::judge(&measured)
}

/// Runs the replay under callgrind, which writes counts of each thread at each mark.
fn count(dir: &Path) -> anyhow::Result<()> {
    let store = dir.join("store");
    let out = dir.join("counts");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--dump-before=*gate_mark*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .arg(REPLAY)
        .arg(store)
        .output()
        .context("run valgrind, which scripts/setup installs")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the replay ended with {}:\n{words}", output.status);
    Ok(())
}

/// Instructions of the first thread for each message, in the order of [`replay::PHASES`].
///
/// Dump 2n+2 holds what was executed between the two marks of phase n; dumps count from 1.
fn per_message(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let mut measured = Vec::new();
    for (index, phase) in replay::PHASES.iter().enumerate() {
        let path = dir.join(format!("counts.{}-01", 2 * index + 2));
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("counts of phase {}: {}", phase.name, path.display()))?;
        let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let Some(instructions) = totals.and_then(|total| total.trim().parse::<u64>().ok()) else {
            bail!("{} has no totals", path.display());
        };
        measured.push(instructions / phase.messages as u64);
    }
    Ok(measured)
}
