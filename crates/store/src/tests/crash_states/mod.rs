//! Every state in which a power cut may leave a store: the disk after each single change that a life made, what was not
//! synced kept, lost or torn, with views from every moment before.
//! `GANTRY_CRASH_SAMPLES` sets how many random subsets are tried where there are too many for all.

mod history;
mod life;
mod seen;
mod views;

use std::{collections::BTreeSet, sync::Arc};

use gantry_model::QueueId;

use super::world::push;
use crate::{
    Batch, Flush, Now, Store,
    log::{
        crash_states::Sampling,
        memory_files::{MemoryFiles, Operation},
    },
    views::MemoryViews,
};
use life::{Life, options};
use seen::Seen;

/// Random subsets for each place, unless the environment says otherwise.
const RANDOM_SUBSETS: usize = 2;
/// Up to so many pieces that are not synced, every subset is tried.
const ALL_SUBSETS_OF: usize = 3;

fn random_subsets() -> usize {
    let given = std::env::var("GANTRY_CRASH_SAMPLES").ok();
    given.map_or(RANDOM_SUBSETS, |text| text.parse().expect("GANTRY_CRASH_SAMPLES is a number"))
}

/// A store after a crash.
struct Opened {
    store: Arc<Store>,
    disk: MemoryFiles,
    views: Arc<MemoryViews>,
    now_ms: u64,
}

impl Opened {
    fn on(disk: MemoryFiles, views: MemoryViews, flush: Flush, now_ms: u64, name: &str) -> Self {
        let views = Arc::new(views);
        let now = Now { wall_ms: now_ms, monotonic_ms: now_ms };
        let files = Arc::new(disk.clone());
        let opened = Store::open_on(options(flush), views.clone(), files, now);
        let (store, report) = opened.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(report.damage, [], "{name}");
        Self { store, disk, views, now_ms }
    }

    /// The power fails once more.
    fn crash(self, seed: u64, name: &str) -> Self {
        let (disk, views) = (self.disk.crash(seed), self.views.after_crash());
        Self::on(disk, views, self.store.options.flush, self.now_ms, name)
    }

    /// Life goes on: a message comes behind all others, and nothing old comes with it.
    fn goes_on(self, seed: u64, name: &str) {
        let now = Now { wall_ms: self.now_ms, monotonic_ms: self.now_ms };
        let Some(topic) = self.store.topics().first().cloned() else { return };
        let mut before = Seen::of(&self.store).queues.remove(&(topic.id, 0)).expect(name);
        let mut batch = Batch::new();
        push(&mut batch, &topic, 0, "", "after the crash");
        self.store.append(&mut batch, now).unwrap();
        self.store.sync().unwrap();
        assert_eq!(batch.placed(0).queue_offset.0, before.max, "{name}");
        before.max += 1;
        before.bodies.push("after the crash".to_owned());
        for store in [Arc::clone(&self.store), self.crash(seed, name).store] {
            let after = Seen::of(&store).queues.remove(&(topic.id, 0)).expect(name);
            assert_eq!(after, before, "{name}");
            let bounds = store.queue_bounds(&topic, QueueId(0)).unwrap();
            assert_eq!(bounds.max.0, before.max, "{name}");
        }
    }
}

/// Checks every state that a crash after `changes` changes may leave; returns how many.
fn check(life: &Life, flush: Flush, changes: usize) -> usize {
    let sampling =
        Sampling { all_subsets_of: ALL_SUBSETS_OF, random: random_subsets(), seed: changes as u64 };
    let mut checked = 0;
    for (state, disk) in life.disk.states_after(changes, sampling).iter().enumerate() {
        let mut first: Option<Seen> = None;
        for (views_name, views) in life.views.after(changes) {
            let name =
                format!("{flush:?}, crash after change {changes}, state {state}, {views_name}");
            let opened = Opened::on(disk.copy(), views, flush, life.now_ms, &name);
            let seen = Seen::of(&opened.store);
            assert_eq!(life.history.complaints(changes, &seen), [""; 0], "{name}");
            let again = opened.crash(changes as u64, &name);
            assert_eq!(Seen::of(&again.store), seen, "{name}, opened again");
            if first.is_none() {
                again.goes_on(changes as u64, &name);
            }
            assert_eq!(first.get_or_insert_with(|| seen.clone()), &seen, "{name}, other views");
            checked += 1;
        }
    }
    checked
}

/// Checks the crashes at every change whose number leaves `part` when divided by `parts`.
fn check_every_stop(flush: Flush, part: usize, parts: usize) {
    let life = Life::lived(flush);
    let stops = (0..=life.disk.changes()).filter(|changes| changes % parts == part);
    let checked: usize = stops.map(|changes| check(&life, flush, changes)).sum();
    println!("{checked} states of {} changes, {flush:?}, {part} of {parts}", life.disk.changes());
    assert!(checked > life.disk.changes(), "{checked} states");
}

#[test]
fn crash_states_hold_all_that_was_synced_at_every_other_change() {
    check_every_stop(Flush::Sync, 0, 2);
}

#[test]
fn crash_states_hold_all_that_was_synced_at_the_changes_between() {
    check_every_stop(Flush::Sync, 1, 2);
}

#[test]
fn crash_states_hold_all_that_was_synced_where_writes_are_confirmed_before() {
    check_every_stop(Flush::Async, 0, 3);
}

#[test]
fn life_that_is_crashed_makes_every_sort_of_change() {
    use Operation::{Create, Remove, Rename, Resize, Sync, SyncDir, Write};
    let life = Life::lived(Flush::Sync);
    let asked = life.disk.asked();
    let sorts: BTreeSet<_> = asked.iter().map(|a| format!("{:?}", a.operation)).collect();
    for operation in [Create, Remove, Rename, Resize, Sync, SyncDir, Write] {
        assert!(sorts.contains(&format!("{operation:?}")), "{operation:?}");
    }
    let is_free = |path: &std::path::Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("free-"))
    };
    let mut renamed = asked.iter().filter(|a| a.operation == Rename).map(|a| is_free(&a.path));
    assert!(renamed.any(|is_free| is_free), "a file is written again");
}
