//! Memory of a broker: how much there is, and what each of its large parts may take of it.
//! Invariant: the parts and what the process needs besides add up to no more than there is; what does not fit is an
//! error at start and not a killed process later.
//! Leaves reading of the limit to the broker, and keeping to each size to its part.

use std::{ops::RangeInclusive, path::PathBuf};

use super::{BrokerSettings, Bytes};

/// What a broker plans with where nothing limits it but the machine, which it does not have for itself.
pub const MEMORY_UNLIMITED: Bytes = Bytes::mib(512);
/// Least memory of a broker.
pub const MEMORY_MIN: Bytes = Bytes::mib(64);

/// What a broker takes with all parts empty, with room to spare: an idle one was measured with 12 MiB.
const BASE: Bytes = Bytes::mib(16);

pub(super) const RING_RANGE: RangeInclusive<Bytes> = Bytes::mib(1)..=Bytes::gib(4);
pub(super) const VIEW_CACHE_RANGE: RangeInclusive<Bytes> = Bytes::mib(1)..=Bytes::gib(64);
pub(super) const VIEW_WRITE_RANGE: RangeInclusive<Bytes> = Bytes::mib(4)..=Bytes::gib(4);
pub(super) const CONNECTION_RANGE: RangeInclusive<Bytes> = Bytes::mib(16)..=Bytes::gib(64);
/// The end of the log alone, for whoever reads there: more would be a second file cache.
const LOG_BLOCK_RANGE: RangeInclusive<Bytes> = Bytes::mib(2)..=Bytes::mib(16);
/// One read of a piece of the log, and what alignment takes; the log takes a quarter of its blocks' memory if that is more.
const COLD_READ_MIN: Bytes = Bytes::mib(1);
/// From 4 MiB on, entries of 64 MiB of log with messages of 1 KiB fit before a file is written of them.
const KEY_RANGE: RangeInclusive<Bytes> = Bytes::mib(4)..=Bytes::mib(32);
const WAITING_RANGE: RangeInclusive<Bytes> = Bytes::mib(4)..=Bytes::gib(1);

/// How much memory a broker may use, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryLimit {
    /// The setting `memory`.
    Setting(Bytes),
    /// A container, or another control group that the process is in.
    Container {
        /// Its limit.
        bytes: Bytes,
        /// The file that has it.
        file: PathBuf,
    },
    /// The machine: nothing else limits the process.
    Machine(Bytes),
    /// Nobody: the system did not tell.
    Unknown,
}

impl MemoryLimit {
    /// The most that all parts together may take, where it is known.
    pub fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Setting(bytes) | Self::Container { bytes, .. } | Self::Machine(bytes) => {
                Some(*bytes)
            }
            Self::Unknown => None,
        }
    }

    /// What the sizes follow from.
    fn basis(&self) -> Bytes {
        match self {
            Self::Setting(bytes) | Self::Container { bytes, .. } => *bytes,
            Self::Machine(bytes) => (*bytes).min(MEMORY_UNLIMITED),
            Self::Unknown => MEMORY_UNLIMITED,
        }
    }
}

impl std::fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Setting(bytes) => write!(f, "the setting memory, {bytes}"),
            Self::Container { bytes, file } => {
                write!(f, "the container's limit, {bytes} in {}", file.display())
            }
            Self::Machine(bytes) => write!(f, "the machine's memory, {bytes}"),
            Self::Unknown => f.write_str("no limit that is known"),
        }
    }
}

/// Why a broker does not fit into its memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The limit is below what a broker needs.
    #[error("too little memory: a broker needs at least {MEMORY_MIN}, and has {limit}")]
    TooLittle {
        /// The limit.
        limit: MemoryLimit,
    },
    /// Sizes that were set by hand do not leave room for the others.
    #[error(
        "ring_size, view_cache_size, view_write_size, connection_memory and the rest of a broker add up to {total}, \
         more than {limit}"
    )]
    TooMuch {
        /// Their sum.
        total: Bytes,
        /// The limit.
        limit: MemoryLimit,
    },
}

/// Memory of a broker's large parts. Their sum and [`MemorySizes::base`] is the broker's bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySizes {
    /// For entries that wait for the views.
    pub ring: Bytes,
    /// Of the views' block cache.
    pub view_cache: Bytes,
    /// Of the views' write buffers.
    pub view_write: Bytes,
    /// For the end of the log and what was read of it last.
    pub log_blocks: Bytes,
    /// For what reads far behind the end of the log read into.
    pub cold_reads: Bytes,
    /// For keys of messages that are in no file of the key index yet.
    pub keys: Bytes,
    /// For requests that have not arrived as a whole, and answers that were not taken yet, of all connections.
    pub connections: Bytes,
    /// For sends that wait for the disk.
    pub waiting_sends: Bytes,
    /// Of the process with all of these empty.
    pub base: Bytes,
}

impl MemorySizes {
    /// The parts by name.
    pub fn parts(&self) -> [(&'static str, Bytes); 9] {
        let Self { ring, view_cache, view_write, log_blocks, keys, connections, .. } = *self;
        [
            ("ring", ring),
            ("view_cache", view_cache),
            ("view_write", view_write),
            ("log_blocks", log_blocks),
            ("cold_reads", self.cold_reads),
            ("keys", keys),
            ("connections", connections),
            ("waiting_sends", self.waiting_sends),
            ("base", self.base),
        ]
    }

    /// The sum of all parts: the bound of the process, tables of topics, groups and clients aside.
    pub fn total(&self) -> Bytes {
        Bytes::new(self.parts().iter().map(|(_, bytes)| bytes.get()).sum())
    }
}

impl BrokerSettings {
    /// Memory of the large parts: as set, or else its share of the `limit`. The shares are 93/128 together and the
    /// base comes to them; the rest is for tables of topics, groups and clients, and the file cache that reads come from.
    ///
    /// # Errors
    /// They do not fit.
    pub fn memory_sizes(&self, limit: &MemoryLimit) -> Result<MemorySizes, MemoryError> {
        let basis = limit.basis();
        if basis < MEMORY_MIN {
            return Err(MemoryError::TooLittle { limit: limit.clone() });
        }
        let share = |parts: u64, range: RangeInclusive<Bytes>| {
            Bytes::new(basis.get() / parts).clamp(*range.start(), *range.end())
        };
        let log_blocks = share(32, LOG_BLOCK_RANGE);
        let sizes = MemorySizes {
            ring: self.ring_size.unwrap_or_else(|| share(8, RING_RANGE)),
            view_cache: self.view_cache_size.unwrap_or_else(|| share(16, VIEW_CACHE_RANGE)),
            view_write: self.view_write_size.unwrap_or_else(|| share(8, VIEW_WRITE_RANGE)),
            log_blocks,
            cold_reads: Bytes::new(log_blocks.get() / 4).max(COLD_READ_MIN),
            keys: share(16, KEY_RANGE),
            connections: self.connection_memory.unwrap_or_else(|| share(4, CONNECTION_RANGE)),
            waiting_sends: share(16, WAITING_RANGE),
            base: BASE,
        };
        let total = sizes.total();
        if limit.bytes().is_some_and(|bytes| total > bytes) {
            return Err(MemoryError::TooMuch { total, limit: limit.clone() });
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes_mib(settings: &BrokerSettings, limit: &MemoryLimit) -> [u64; 9] {
        let sizes = settings.memory_sizes(limit).unwrap();
        sizes.parts().map(|(_, bytes)| bytes.get() >> 20)
    }

    fn container(bytes: Bytes) -> MemoryLimit {
        MemoryLimit::Container { bytes, file: "/sys/fs/cgroup/memory.max".into() }
    }

    #[test]
    fn limit_decides_what_is_not_set_by_hand() {
        let settings = BrokerSettings::default();
        let usual = [64, 32, 64, 16, 4, 32, 128, 32, 16];
        assert_eq!(sizes_mib(&settings, &MemoryLimit::Unknown), usual);
        assert_eq!(sizes_mib(&settings, &MemoryLimit::Machine(Bytes::gib(24))), usual);
        assert_eq!(sizes_mib(&settings, &MemoryLimit::Setting(Bytes::mib(512))), usual);
        assert_eq!(
            sizes_mib(&settings, &container(Bytes::gib(2))),
            [256, 128, 256, 16, 4, 32, 512, 128, 16]
        );
        assert_eq!(sizes_mib(&settings, &container(Bytes::mib(64))), [8, 4, 8, 2, 1, 4, 16, 4, 16]);
        let by_hand = BrokerSettings { ring_size: Some(Bytes::mib(7)), ..settings };
        assert_eq!(sizes_mib(&by_hand, &container(Bytes::gib(2)))[..2], [7, 128]);
    }

    #[test]
    fn parts_fit_into_every_limit_from_the_least_on() {
        let settings = BrokerSettings::default();
        for mib in (64..4096).chain((1..1024).map(|gib| gib << 10)) {
            let limit = container(Bytes::mib(mib));
            let sizes = settings.memory_sizes(&limit).unwrap();
            assert!(sizes.total() <= Bytes::mib(mib), "{sizes:?} in {mib} MiB");
        }
    }

    #[test]
    fn limit_below_the_least_is_refused_with_its_place() {
        let error = BrokerSettings::default().memory_sizes(&container(Bytes::mib(32))).unwrap_err();
        let words = "too little memory: a broker needs at least 64Mi, and has the container's limit, 32Mi in \
                     /sys/fs/cgroup/memory.max";
        assert_eq!(error.to_string(), words);
    }

    #[test]
    fn sizes_by_hand_that_do_not_fit_are_refused_and_those_beyond_the_plan_alone_are_not() {
        let settings = BrokerSettings { ring_size: Some(Bytes::gib(1)), ..Default::default() };
        let error = settings.memory_sizes(&container(Bytes::mib(512))).unwrap_err();
        assert!(error.to_string().contains("add up to 1348Mi"), "{error}");
        // Nobody said that 512 MiB are all there is.
        for limit in [MemoryLimit::Unknown, MemoryLimit::Machine(Bytes::gib(24))] {
            assert_eq!(sizes_mib(&settings, &limit)[0], 1024);
        }
    }
}
