//! A quarter of the log: what pending timers hold is known, and new ones are refused beyond it.

use super::world::{KINDS, Kind, World};
use crate::AppendError;

const DUE_MS: u64 = 1_800_000_000_000;

fn limited(kind: Kind) -> World {
    World::with(kind, |options| options.retention.bytes = Some(256 * 1024))
}

/// Bytes that pending timers hold, measured anew by a store that was closed.
fn measured_again(world: &mut World) -> Option<u64> {
    world.reopen();
    world.store().maintain(world.now()).unwrap();
    world.store().pending_bytes()
}

#[test]
fn timers_are_refused_beyond_a_quarter_of_the_log_and_taken_again_when_some_have_ended() {
    for kind in KINDS {
        let world = limited(kind);
        let topic = world.topic("orders", 1);
        world.store().maintain(world.now()).unwrap();
        let mut parked = Vec::new();
        let error = loop {
            match world.store().check_pending() {
                Ok(()) => parked.push(world.park("orders", DUE_MS + parked.len() as u64)),
                Err(error) => break error,
            }
        };
        let AppendError::PendingFull { bytes, bytes_max } = error else { panic!("{error}") };
        assert!(bytes_max == 64 * 1024 && bytes > bytes_max && bytes < bytes_max + 1024, "{bytes}");
        let each = bytes / parked.len() as u64;
        for (index, position) in parked[..20].iter().enumerate() {
            world.fire(&topic, DUE_MS + index as u64, *position).unwrap();
        }
        assert_eq!(world.store().pending_bytes(), Some(bytes - 20 * each), "{kind:?}");
        assert!(world.store().check_pending().is_ok());
    }
}

#[test]
fn what_pending_timers_hold_is_the_same_counted_and_measured() {
    for kind in KINDS {
        let mut world = limited(kind);
        let topic = world.topic("orders", 1);
        world.topic("gone", 1);
        world.store().maintain(world.now()).unwrap();
        let parked: Vec<_> = (0..30).map(|n| world.park("orders", DUE_MS + n)).collect();
        for n in 0..5 {
            world.park("gone", DUE_MS + n);
        }
        world.settle();
        for n in 30..40 {
            world.park("orders", DUE_MS + n);
        }
        for (index, position) in parked[..7].iter().enumerate() {
            world.fire(&topic, DUE_MS + index as u64, *position).unwrap();
        }
        let counted = world.store().pending_bytes();
        assert_eq!(measured_again(&mut world), counted, "{kind:?}");
        assert!(counted.unwrap() > 0);

        // Timers of a topic that is deleted are not counted from the next look on.
        world.store().delete_topic("gone", world.now()).unwrap();
        world.store().maintain(world.now()).unwrap();
        let without = world.store().pending_bytes();
        assert!(without < counted, "{without:?} {counted:?}");
        assert_eq!(measured_again(&mut world), without, "{kind:?}");
    }
}

#[test]
fn without_a_limit_of_the_log_no_timer_is_refused() {
    let world = World::new(Kind::Memory);
    world.topic("orders", 1);
    world.store().maintain(world.now()).unwrap();
    (0..600).for_each(|n| _ = world.park("orders", DUE_MS + n));
    assert_eq!(world.store().pending_bytes(), None);
    assert!(world.store().check_pending().is_ok());
}
