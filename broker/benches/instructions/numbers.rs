//! The numbers in the tree: `instructions.toml` beside this file.
//! Invariant: each phase has a number there, and no other name has one; comments survive an update.
//! Leaves measuring to its caller.

use std::{env, fmt::Write, fs, path::PathBuf};

use anyhow::{Context, ensure};

use crate::replay::PHASES;

/// Growth in percent from which a number fails, and a fall from which the table says that it can be kept.
const TOLERANCE_PERCENT: f64 = 5.0;

/// Prints measured and kept numbers; `false` when one grew too much.
pub(crate) fn judge(measured: &[u64]) -> anyhow::Result<bool> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions/instructions.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    if env::var("GANTRY_UPDATE").is_ok_and(|value| value == "1") {
        fs::write(&path, renew(&text, measured))?;
        println!("numbers written to {}", path.display());
        return Ok(true);
    }
    let kept = parse(&text)?;
    println!("{:<20} {:>10} {:>10} {:>8}", "instructions/message", "kept", "measured", "change");
    let mut holds = true;
    for ((phase, &now), kept) in PHASES.iter().zip(measured).zip(kept) {
        let percent = (now as f64 / kept as f64 - 1.0) * 100.0;
        let verdict = match percent {
            grown if grown > TOLERANCE_PERCENT => "FAILED: grew",
            fallen if fallen < -TOLERANCE_PERCENT => "ok, fell: GANTRY_UPDATE=1 keeps it",
            _ => "ok",
        };
        holds &= percent <= TOLERANCE_PERCENT;
        println!("{:<20} {kept:>10} {now:>10} {percent:>+7.1}%  {verdict}", phase.name);
    }
    if !holds {
        println!(
            "more than {TOLERANCE_PERCENT} % more; if that is meant, GANTRY_UPDATE=1 writes the numbers anew"
        );
    }
    Ok(holds)
}

/// The kept numbers, in the order of the phases.
fn parse(text: &str) -> anyhow::Result<Vec<u64>> {
    let entries = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "));
    let entries: Vec<(&str, &str)> = entries.collect();
    ensure!(entries.len() == PHASES.len(), "{} numbers for {} phases", entries.len(), PHASES.len());
    let number = |name: &str| {
        let (_, value) = entries.iter().find(|(key, _)| *key == name).context("no such entry")?;
        let value: u64 = value.trim().parse()?;
        ensure!(value > 0, "0 is no number of instructions");
        Ok(value)
    };
    let find = |phase: &crate::replay::Phase| {
        number(phase.name).with_context(|| format!("number of {}", phase.name))
    };
    PHASES.iter().map(find).collect()
}

/// The file with new numbers below its comments.
fn renew(text: &str, measured: &[u64]) -> String {
    let comments = text.lines().take_while(|line| line.starts_with('#') || line.is_empty());
    let mut renewed: String = comments.fold(String::new(), |text, line| text + line + "\n");
    for (phase, number) in PHASES.iter().zip(measured) {
        writeln!(renewed, "{} = {number}", phase.name).expect("a string takes everything");
    }
    renewed
}
