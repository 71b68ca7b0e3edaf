//! Power cuts: any subset of unsynced sectors and names may be gone, and the log is a prefix of what was appended.

use super::*;
use crate::log::crash_states::Dice;

/// What was appended, with its position, and how much of it had been synced.
#[derive(Default)]
struct History {
    records: Vec<(PhysicalOffset, Vec<u8>)>,
    synced: usize,
}

fn live(world: &mut World, history: &mut History, dice: &mut Dice) {
    for _ in 0..dice.below(40) {
        let count = 1 + dice.below(4);
        let bodies: Vec<_> = (0..count)
            .map(|_| {
                let size_max = if dice.below(5) == 0 { 900 } else { 60 };
                let size = dice.below(size_max);
                vec![dice.below(256) as u8; size as usize]
            })
            .collect();
        let slices: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
        let places = world.append(&slices);
        history.records.extend(places.into_iter().zip(bodies));
        if dice.below(6) == 0 {
            world.log.sync().unwrap();
            history.synced = history.records.len();
        }
        if dice.below(12) == 0 {
            unlink(world, history, dice);
        }
    }
}

fn unlink(world: &mut World, history: &mut History, dice: &mut Dice) {
    let segments = world.log.segments();
    let before = segments[dice.below(segments.len() as u64) as usize].base;
    world.writer.unlink_before(before).unwrap();
    let start = world.log.start();
    let gone = history.records.partition_point(|(position, _)| *position < start);
    history.records.drain(..gone);
    history.synced -= gone.min(history.synced);
}

#[test]
fn after_any_power_cut_the_log_holds_all_that_was_synced_and_a_prefix_of_the_rest() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let mut world = World::new();
        let mut history = History::default();
        for generation in 0..6 {
            live(&mut world, &mut history, &mut dice);
            world = World::on(world.disk.crash(dice.below(1 << 40)));
            let (found, damage) = world.walk();
            let context = format!("seed {seed}, generation {generation}");
            assert_eq!((damage, &world.report.damage), (vec![], &vec![]), "{context}");
            let start = world.log.start();
            let first = history.records.partition_point(|(position, _)| *position < start);
            let expected = &history.records[first..];
            assert!(found.len() + first >= history.synced, "{context}: synced records are gone");
            assert!(found.len() <= expected.len(), "{context}: more than was appended");
            assert_eq!(found, expected[..found.len()], "{context}");
            history.records = found;
            history.synced = history.records.len();
        }
    }
}

#[test]
fn power_cut_while_opening_does_no_harm() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut world = World::new();
        let mut history = History::default();
        live(&mut world, &mut history, &mut dice);
        let disk = world.disk.crash(seed);
        let expected = World::on(disk.crash(0)).walk();
        // `disk` has no unsynced bytes, so each opening starts from the same; the cut strikes what opening wrote.
        let opening = World::on(disk);
        for cut in 0..10 {
            let again = World::on(opening.disk.crash(cut));
            assert_eq!(again.walk(), expected, "seed {seed}, cut {cut}");
            assert_eq!(again.report.damage, []);
        }
    }
}
