//! Damage: places of the folder that do not hold what was written there, as reads, starts and scrubs come upon them.
//! Invariant: a place is reported and counted once, however often and by whomever it is met.
//! Leaves finding damage, and what follows from it, to those that read.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use gantry_model::PhysicalOffset;
use hashbrown::HashSet;

use crate::{store::Store, views::ViewDamage};

/// Damaged places that status shows; the counts go on.
const SHOWN_MAX: usize = 100;
/// Places that are told from new ones: some 100 bytes each, so 6 MiB. Beyond them one that is met twice counts twice.
const KNOWN_MAX: usize = 65_536;

/// A place that cannot be read as what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the folder where a file is not known.
    pub path: PathBuf,
    /// Byte in the file where the damage begins, if it is known.
    pub file_offset: Option<u64>,
    /// Position in the log, for a place of the log.
    pub position: Option<PhysicalOffset>,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(at) = self.file_offset {
            write!(f, ": byte {at}")?;
        }
        if let Some(position) = self.position {
            write!(f, ", position {position}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Damaged places met since opening.
#[derive(Debug, Default)]
pub(crate) struct DamageList {
    newest: Vec<Damage>,
    /// Damaged places of the log: where each begins, and where it ends.
    known: BTreeMap<u64, u64>,
    known_files: HashSet<PathBuf>,
    records: u64,
    files: u64,
}

impl DamageList {
    /// Takes in a place of the log; `false` if it was met before.
    fn push_log(&mut self, place: &Range<u64>, damage: Damage) -> bool {
        let before = self.known.range(..=place.start).next_back();
        if before.is_some_and(|(start, end)| *start == place.start || place.start < *end) {
            return false;
        }
        if self.known.len() < KNOWN_MAX {
            self.known.insert(place.start, place.end);
        }
        self.records += 1;
        self.show(damage);
        true
    }

    /// Takes in a file of views or key index; `false` if it was met before.
    fn push_file(&mut self, damage: Damage) -> bool {
        if self.known_files.contains(&damage.path) {
            return false;
        }
        if self.known_files.len() < KNOWN_MAX {
            self.known_files.insert(damage.path.clone());
        }
        self.files += 1;
        self.show(damage);
        true
    }

    fn show(&mut self, damage: Damage) {
        if self.newest.len() == SHOWN_MAX {
            self.newest.remove(0);
        }
        self.newest.push(damage);
    }

    /// Where the last damaged place of the log begins.
    pub(crate) fn last_start(&self) -> Option<PhysicalOffset> {
        self.known.last_key_value().map(|(start, _)| PhysicalOffset(*start))
    }

    /// The newest places, the newest last.
    pub(crate) fn newest(&self) -> &[Damage] {
        &self.newest
    }

    /// Number of damaged places of the log.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Number of damaged files of views and key index.
    pub(crate) fn files(&self) -> u64 {
        self.files
    }
}

impl Store {
    /// Reports a damaged place of the log, unless it was reported before.
    pub(crate) fn note_damage(&self, place: Range<PhysicalOffset>, reason: String) {
        let (path, file_offset) = self.log.locate(place.start);
        let position = Some(place.start);
        let damage = Damage { path, file_offset, position, reason };
        if self.damage.lock().push_log(&(place.start.0..place.end.0), damage.clone()) {
            report(&damage, "damaged record in the log");
        }
    }

    /// Reports files of the key index that were given up, each of which is made again from the log; whether there are
    /// any that nobody has reported yet.
    pub(crate) fn note_broken_keys(&self) -> bool {
        let broken = self.upkeep.keys.take_broken();
        let is_news = !broken.is_empty();
        for path in broken {
            let reason = "the file of the key index is broken, and is made again".into();
            self.note_file(&Damage { path, file_offset: None, position: None, reason });
        }
        is_news
    }

    /// The damaged file of the views, or their folder where it is not known, for which the next start makes them again
    /// from the log. What is intact is served until then.
    pub fn damaged_views(&self) -> Option<&Path> {
        let file = self.views.damaged_file()?;
        self.note_view_damage();
        Some(file)
    }

    /// Reports damage in the views.
    pub(crate) fn note_view_damage(&self) {
        for ViewDamage { path, file_offset, reason, .. } in self.views.take_damage() {
            self.note_file(&Damage { path, file_offset, position: None, reason });
        }
    }

    /// Reports a damaged file of the views or of the key index, unless it was reported before.
    fn note_file(&self, damage: &Damage) {
        if self.damage.lock().push_file(damage.clone()) {
            report(damage, "damaged file of views or key index");
        }
    }
}

fn report(damage: &Damage, what: &str) {
    let Damage { path, file_offset, position, reason } = damage;
    let position = position.map(|position| position.0);
    tracing::error!(file = %path.display(), file_offset, position, reason, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(position: u64) -> Damage {
        Damage {
            path: "/log/0".into(),
            file_offset: Some(position),
            position: Some(PhysicalOffset(position)),
            reason: "rot".into(),
        }
    }

    #[test]
    fn place_that_is_met_again_counts_once_whether_alone_or_with_its_neighbours() {
        let mut list = DamageList::default();
        assert!(list.push_log(&(100..200), damage(100)));
        assert!(!list.push_log(&(100..300), damage(100)), "a scrub finds two as one");
        assert!(list.push_log(&(200..300), damage(200)));
        assert!(!list.push_log(&(250..260), damage(250)));
        assert!(list.push_log(&(300..301), damage(300)));
        assert!(!list.push_log(&(300..400), damage(300)));
        assert_eq!((list.records(), list.newest().len()), (3, 3));
    }

    #[test]
    fn only_the_newest_places_are_shown_and_all_are_counted() {
        let mut list = DamageList::default();
        (0..150).for_each(|at| assert!(list.push_log(&(at * 10..at * 10 + 5), damage(at * 10))));
        assert_eq!((list.records(), list.newest().len()), (150, SHOWN_MAX));
        assert_eq!(list.newest().last(), Some(&damage(1490)));
        let file = |name: &str| Damage { path: name.into(), position: None, ..damage(0) };
        assert!(
            list.push_file(file("a")) && !list.push_file(file("a")) && list.push_file(file("b"))
        );
        assert_eq!((list.records(), list.files()), (150, 2));
    }
}
