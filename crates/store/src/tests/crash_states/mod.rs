//! Every state in which a power cut may leave a store: the disk after each single change that a life made, what was not
//! synced kept, lost or torn, with views from every moment before.
//! `GANTRY_CRASH_SAMPLES` sets how many random subsets are tried where there are too many for all.

mod check;
mod history;
mod life;
mod seen;
mod steps;
mod views;

use crate::{Flush, log::crash_states::Sampling};
use check::Checks;
use life::Life;
use steps::Sort;

/// Random subsets for each place, unless the environment says otherwise.
const RANDOM_SUBSETS: usize = 2;
/// Up to so many pieces that are not synced, every subset is tried.
const ALL_SUBSETS_OF: usize = 3;

/// Part of a life whose crashes one test checks, as every test of the crate shall be quick: the first or second half.
#[derive(Debug, Clone, Copy)]
enum Half {
    First,
    Second,
}

fn sampling() -> Sampling {
    let given = std::env::var("GANTRY_CRASH_SAMPLES").ok();
    let random = given
        .map_or(RANDOM_SUBSETS, |text| text.parse().expect("GANTRY_CRASH_SAMPLES is a number"));
    Sampling { all_subsets_of: ALL_SUBSETS_OF, random, seed: 0 }
}

/// Checks the crashes at every change in one half of a life. `states` is how many there were when this was written:
/// a life or a choice of states that shrinks by more than a tenth is noticed.
fn check_every_stop(flush: Flush, half: Half, states: usize) {
    let life = Life::lived(flush);
    let (changes, sampling) = (life.disk.changes(), sampling());
    let stops = match half {
        Half::First => 0..changes / 2,
        Half::Second => changes / 2..changes + 1,
    };
    let mut checks = Checks::new(&life, sampling);
    checks.check(stops.clone());
    println!(
        "{flush:?}, {half:?}: {stops:?} changes, {} states, {} opened",
        checks.states, checks.opened
    );
    if sampling.random >= RANDOM_SUBSETS {
        assert!(checks.states >= states / 10 * 9, "{} states, not {states}", checks.states);
    }
}

#[test]
fn crash_states_of_a_young_store_hold_all_that_was_synced() {
    check_every_stop(Flush::Sync, Half::First, 3_970);
}

#[test]
fn crash_states_of_an_old_store_hold_all_that_was_synced() {
    check_every_stop(Flush::Sync, Half::Second, 3_619);
}

#[test]
fn crash_states_of_a_young_store_hold_all_that_was_synced_where_writes_are_confirmed_before() {
    check_every_stop(Flush::Async, Half::First, 3_902);
}

#[test]
fn crash_states_of_an_old_store_hold_all_that_was_synced_where_writes_are_confirmed_before() {
    check_every_stop(Flush::Async, Half::Second, 3_619);
}

#[test]
fn life_that_is_crashed_takes_steps_of_every_sort() {
    for flush in [Flush::Sync, Flush::Async] {
        let steps = Life::lived(flush).steps;
        for sort in Sort::ALL {
            assert!(steps.contains(&sort), "{flush:?}: no {sort:?} in {steps:?}");
        }
    }
}
