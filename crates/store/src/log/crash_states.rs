//! States in which a power cut may leave the disk in memory.
//! Invariant: what was synced is in every state; of the rest each change of a folder, each new length and each sector
//! of a write is kept or lost on its own, whatever came before it.
//! Knows nothing of logs; leaves to `memory_files` what a disk is.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    ops::Range,
    sync::Arc,
};

use super::memory_files::{Content, Image, MemoryFiles, NameChange, Names, Pending, put};

/// Smallest piece of a write that a crash keeps or loses as a whole, in bytes.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Which of the legal states are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Up to so many pieces, every subset of them is made.
    pub all_subsets_of: usize,
    /// Beyond it: so many random subsets, beside all kept, all lost, each change alone lost, each change alone kept.
    pub random: usize,
    /// Chooses the random subsets.
    pub seed: u64,
}

/// A small generator of repeatable choices (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

impl MemoryFiles {
    /// Disks as they may be found when the power failed after the first `changes` recorded changes, each one once.
    ///
    /// Empty if nothing was recorded, or not so much.
    #[must_use]
    pub fn states_after(&self, changes: usize, sampling: Sampling) -> Vec<Self> {
        let Some(image) = self.image_after(changes) else { return Vec::new() };
        let pieces = Pieces::of(&image);
        let mut known = HashSet::new();
        let states = pieces.choices(sampling).into_iter().map(|kept| image.keep(&pieces, &kept));
        states.filter(|state| known.insert(state.fingerprint())).map(Self::of).collect()
    }

    /// Tells disks apart of which all is synced: the same for the same files with the same bytes.
    pub fn fingerprint(&self) -> u64 {
        self.look(Image::fingerprint)
    }
}

/// What of a disk is not synced, cut into what a crash keeps or loses as a whole.
struct Pieces {
    /// Files with changes that are not synced, and that some name may lead to.
    files: Vec<usize>,
    /// The pieces of each change: those of folders first, then those of `files` in their order.
    changes: Vec<Range<usize>>,
    count: usize,
}

impl Pieces {
    fn of(image: &Image) -> Self {
        let created = image.name_changes.iter().filter_map(|change| match change {
            NameChange::Create { id, .. } => Some(*id),
            NameChange::Rename { .. } | NameChange::Remove { .. } => None,
        });
        let mut files: Vec<_> = image.durable_names.values().copied().chain(created).collect();
        files.sort_unstable();
        files.dedup();
        files.retain(|id| !image.contents[*id].pending.is_empty());
        let mut pieces = Self { files, changes: Vec::new(), count: 0 };
        image.name_changes.iter().for_each(|_| pieces.push(1));
        for id in pieces.files.clone() {
            for change in &image.contents[id].pending {
                pieces.push(sectors(change).count());
            }
        }
        pieces
    }

    fn push(&mut self, count: usize) {
        self.changes.push(self.count..self.count + count);
        self.count += count;
    }

    /// For each state that is to be made, which pieces it keeps.
    fn choices(&self, sampling: Sampling) -> Vec<Vec<bool>> {
        if self.count <= sampling.all_subsets_of {
            let subset = |bits: u64| (0..self.count).map(|piece| bits >> piece & 1 == 1).collect();
            return (0..1 << self.count).map(subset).collect();
        }
        let mut choices = vec![vec![true; self.count], vec![false; self.count]];
        for change in &self.changes {
            for is_kept in [false, true] {
                let mut choice = vec![!is_kept; self.count];
                choice[change.clone()].fill(is_kept);
                choices.push(choice);
            }
        }
        let mut dice = Dice::new(sampling.seed);
        for _ in 0..sampling.random {
            choices.push((0..self.count).map(|_| dice.below(2) == 0).collect());
        }
        choices
    }
}

/// The sectors that a change touches, as ranges of its bytes; one for a new length.
fn sectors(change: &Pending) -> impl Iterator<Item = Range<usize>> {
    let (at, bytes) = match change {
        Pending::Length(_) => (0, 1),
        Pending::Write { at, bytes } => (*at, bytes.len() as u64),
    };
    let first = at / SECTOR_BYTES;
    (first..(at + bytes).div_ceil(SECTOR_BYTES)).map(move |sector| {
        let (from, to) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
        (from.max(at) - at) as usize..(to.min(at + bytes) - at) as usize
    })
}

/// Applies those sectors of a change that `keeps` wants.
fn apply_some(change: &Pending, to: &mut Vec<u8>, keeps: &mut impl FnMut() -> bool) {
    for range in sectors(change) {
        if keeps() {
            match change {
                Pending::Length(_) => change.apply(to),
                Pending::Write { at, bytes } => {
                    put(to, *at as usize + range.start, &bytes[range]);
                }
            }
        }
    }
}

impl Image {
    /// What a crash leaves that keeps the pieces that `kept` says.
    fn keep(&self, pieces: &Pieces, kept: &[bool]) -> Self {
        let mut kept = kept.iter().copied();
        let mut keeps = || kept.next().expect("one choice a piece");
        let mut names = self.durable_names.clone();
        for change in &self.name_changes {
            if keeps() {
                change.apply(&mut names);
            }
        }
        let mut contents: Vec<_> = self.contents.iter().map(durable).collect();
        for id in &pieces.files {
            let mut bytes = self.contents[*id].durable.to_vec();
            for change in &self.contents[*id].pending {
                apply_some(change, &mut bytes, &mut keeps);
            }
            contents[*id] = Content::synced(Arc::new(bytes));
        }
        Self::synced(names, contents)
    }

    /// What a crash leaves that keeps what the dice choose: of the folders' changes the first ones, of most other
    /// changes all or none.
    pub(super) fn crash(&self, dice: &mut Dice) -> Self {
        let mut names = self.durable_names.clone();
        let count = dice.below(self.name_changes.len() as u64 + 1) as usize;
        self.name_changes[..count].iter().for_each(|change| change.apply(&mut names));
        let contents = self.contents.iter().map(|content| {
            let mut bytes = content.durable.to_vec();
            for change in &content.pending {
                let mood = dice.below(4);
                let mut keeps = || mood == 1 || (mood > 1 && dice.below(2) == 0);
                apply_some(change, &mut bytes, &mut keeps);
            }
            Content::synced(Arc::new(bytes))
        });
        Self::synced(names, contents.collect())
    }

    /// Tells disks apart by their names and what is durable under them.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let names: &Names = &self.durable_names;
        for (path, id) in names {
            path.hash(&mut hasher);
            self.contents[*id].durable.hash(&mut hasher);
        }
        hasher.finish()
    }
}

fn durable(content: &Content) -> Content {
    Content::synced(content.durable.clone())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::log::files::Files as _;

    const FEW: Sampling = Sampling { all_subsets_of: 6, random: 0, seed: 1 };

    fn found(disk: &MemoryFiles, sampling: Sampling) -> BTreeSet<Vec<(String, Vec<u8>)>> {
        let states = disk.states_after(disk.changes(), sampling);
        let contents = |state: MemoryFiles| {
            let file = |path: std::path::PathBuf| {
                (path.display().to_string(), state.bytes(&path).unwrap())
            };
            state.paths().into_iter().map(file).collect()
        };
        states.into_iter().map(contents).collect()
    }

    /// A file `/d/a` that is synced with one byte.
    fn disk() -> (MemoryFiles, Arc<dyn crate::log::files::LogFile>) {
        let disk = MemoryFiles::new();
        disk.record();
        let file = disk.create(Path::new("/d/a")).unwrap();
        file.write_at(b"1", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        (disk, file)
    }

    #[test]
    fn synced_disk_has_one_state() {
        let (disk, _) = disk();
        assert_eq!(found(&disk, FEW), [vec![("/d/a".to_owned(), b"1".to_vec())]].into());
    }

    #[test]
    fn later_write_may_be_kept_without_the_earlier_one() {
        let (disk, file) = disk();
        file.write_at(b"2", 1).unwrap();
        file.write_at(b"3", 2).unwrap();
        let states = [&b"1"[..], b"12", b"1\x003", b"123"];
        let states = states.map(|bytes| vec![("/d/a".to_owned(), bytes.to_vec())]);
        assert_eq!(found(&disk, FEW), states.into());
    }

    #[test]
    fn write_is_torn_at_sectors_and_nowhere_else() {
        let (disk, file) = disk();
        file.write_at(&[7; 1024], 500).unwrap();
        let kept = |state: &Vec<(String, Vec<u8>)>| {
            let mut bytes = state[0].1.clone();
            bytes.resize(1524, 0);
            [500..512, 512..1024, 1024..1524].map(|sector| {
                assert!(bytes[sector.clone()].windows(2).all(|pair| pair[0] == pair[1]));
                bytes[sector.start]
            })
        };
        let states = found(&disk, FEW);
        assert_eq!(states.iter().map(kept).collect::<BTreeSet<_>>().len(), 8);
    }

    #[test]
    fn name_that_its_folder_was_not_synced_with_may_be_lost_and_the_sync_of_another_does_not_help()
    {
        let (disk, _) = disk();
        disk.rename(Path::new("/d/a"), Path::new("/d/b")).unwrap();
        disk.sync_dir(Path::new("/e")).unwrap();
        let names = |disk: &MemoryFiles| {
            let states = found(disk, FEW).into_iter();
            states.map(|state| state[0].0.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&disk), ["/d/a", "/d/b"]);
        disk.sync_dir(Path::new("/d")).unwrap();
        assert_eq!(names(&disk), ["/d/b"]);
    }

    #[test]
    fn many_pieces_are_sampled_with_each_change_alone_lost_and_alone_kept() {
        let (disk, file) = disk();
        (0..10).for_each(|n| file.write_at(b"x", 1 + n).unwrap());
        let states = found(&disk, FEW);
        assert_eq!(states.len(), 2 + 2 * 10);
        let more = found(&disk, Sampling { random: 20, ..FEW });
        assert!(more.len() > states.len() && states.is_subset(&more));
    }

    #[test]
    fn earlier_stop_does_not_see_later_changes() {
        let (disk, file) = disk();
        let before = disk.changes();
        file.write_at(b"2", 0).unwrap();
        assert_eq!(disk.states_after(before, FEW).len(), 1);
        assert_eq!(disk.states_after(before + 1, FEW).len(), 2);
        assert!(disk.states_after(before + 2, FEW).is_empty());
    }
}
