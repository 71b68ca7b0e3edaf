//! Opens a store in every state that a crash may have left, and looks whether all is there that was promised.
//! Invariant: a state is opened once for each life of it: what is seen of the same disk with the same views is the same.
//! Leaves to `history` what must be there.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
};

use gantry_model::QueueId;

use super::{
    super::world::push,
    life::{Life, options},
    seen::Seen,
};
use crate::{
    Batch, Flush, Now, Store,
    log::{crash_states::Sampling, memory_files::MemoryFiles},
    views::MemoryViews,
};

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

/// A disk, by its fingerprint, with the views of one moment.
type State = (u64, Option<usize>);

/// Checks one crash after the other.
pub(super) struct Checks<'a> {
    life: &'a Life,
    sampling: Sampling,
    /// What was seen of the states of the stop before: most of them are states of the next one as well.
    known: HashMap<State, Arc<Seen>>,
    /// Disks with views that were looked at, those that were known included.
    pub(super) states: usize,
    /// Those of them that were opened.
    pub(super) opened: usize,
    moments: BTreeSet<usize>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(life: &'a Life, sampling: Sampling) -> Self {
        let (known, moments) = (HashMap::new(), BTreeSet::new());
        Self { life, sampling, known, states: 0, opened: 0, moments }
    }

    /// Checks every crash after so many changes as `stops` says.
    pub(super) fn check(&mut self, stops: Range<usize>) {
        let last = stops.end - 1;
        stops.for_each(|changes| self.check_stop(changes));
        for flush in self.life.moments.flushes(last) {
            assert!(self.moments.contains(&flush), "no crash left the views of moment {flush}");
        }
    }

    fn check_stop(&mut self, changes: usize) {
        let mut seen_now = HashMap::new();
        let sampling = Sampling { seed: changes as u64, ..self.sampling };
        for (state, disk) in self.life.disk.states_after(changes, sampling).iter().enumerate() {
            let fingerprint = disk.fingerprint();
            let mut first: Option<Arc<Seen>> = None;
            for moment in self.life.moments.after(changes, fingerprint) {
                let flush = self.life.flush;
                let name = format!("{flush:?}, change {changes}, state {state}, views {moment:?}");
                let known = self.known.get(&(fingerprint, moment)).cloned();
                let seen = known.unwrap_or_else(|| self.open(disk, moment, changes, &name).into());
                let complaints = self.life.history.complaints(changes, &seen);
                assert_eq!(complaints, [""; 0], "{name}");
                assert_eq!(first.get_or_insert_with(|| seen.clone()), &seen, "{name}, other views");
                seen_now.insert((fingerprint, moment), seen);
                self.moments.extend(moment);
                self.states += 1;
            }
        }
        self.known = seen_now;
    }

    /// Opens a state, twice, and gives what is seen.
    fn open(
        &mut self,
        disk: &MemoryFiles,
        moment: Option<usize>,
        changes: usize,
        name: &str,
    ) -> Seen {
        let Life { flush, now_ms, .. } = *self.life;
        let views = self.life.moments.views_at(moment);
        let opened = Opened::on(disk.copy(), views, flush, now_ms, name);
        let seen = Seen::of(&opened.store);
        let again = opened.crash(changes as u64, name);
        assert_eq!(Seen::of(&again.store), seen, "{name}, opened again");
        if moment.is_none() {
            again.goes_on(changes as u64, name);
        }
        self.opened += 1;
        seen
    }
}
