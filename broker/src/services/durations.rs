//! How long something took: counts by range, the longest, and percentiles.
//! Invariant: counting takes no lock; a percentile is too high by a sixteenth at most, and never too low.
//! Leaves the measuring to its callers.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
};

/// Bits of a number that tell its bucket, besides its size: 16 buckets for each power of two.
const BITS: u32 = 4;
const PER_POWER: usize = 1 << BITS;
/// Buckets for every number of 64 bits.
const BUCKETS: usize = (64 - BITS as usize + 1) * PER_POWER;

/// Durations since the start.
#[derive(Debug)]
pub struct Durations {
    buckets: Box<[AtomicU64; BUCKETS]>,
    max_us: AtomicU64,
}

impl Default for Durations {
    fn default() -> Self {
        let buckets = Box::new(array::from_fn(|_| AtomicU64::new(0)));
        Self { buckets, max_us: AtomicU64::new(0) }
    }
}

impl Durations {
    /// Counts `times` things that took `us` microseconds each.
    pub fn add(&self, us: u64, times: u64) {
        self.buckets[bucket(us)].fetch_add(times, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    /// The longest, in microseconds.
    pub fn max_us(&self) -> u64 {
        self.max_us.load(Ordering::Relaxed)
    }

    /// Time within which this share of all things was done, in microseconds; 0 if there was none.
    pub fn percentile_us(&self, share: f64) -> u64 {
        let counts: Vec<u64> = self.counts().collect();
        let all: u64 = counts.iter().sum();
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        reached.map_or(0, |index| last_of(index).min(self.max_us()))
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))
    }
}

/// Numbers below 16 have a bucket of their own; larger ones share it with those that begin with the same bits.
fn bucket(us: u64) -> usize {
    let shift = (u64::BITS - us.leading_zeros()).saturating_sub(BITS + 1);
    let power = if us < PER_POWER as u64 { 0 } else { shift as usize + 1 };
    power * PER_POWER + (us >> shift) as usize % PER_POWER
}

/// Largest number of a bucket.
fn last_of(index: usize) -> u64 {
    let (power, low) = (index / PER_POWER, (index % PER_POWER) as u64);
    match power.checked_sub(1) {
        None => low,
        Some(shift) => ((PER_POWER as u64 + low) << shift) + ((1 << shift) - 1),
    }
}

/// Counts by range, in milliseconds, as RocketMQ shows them.
#[derive(Debug, Default)]
pub struct Ranges([AtomicU64; BOUNDS.len()]);

/// Name of each range and the first number of milliseconds beyond it.
const BOUNDS: [(&str, u64); 13] = [
    ("<=0ms", 1),
    ("0~10ms", 10),
    ("10~50ms", 50),
    ("50~100ms", 100),
    ("100~200ms", 200),
    ("200~500ms", 500),
    ("500ms~1s", 1_000),
    ("1~2s", 2_000),
    ("2~3s", 3_000),
    ("3~4s", 4_000),
    ("4~5s", 5_000),
    ("5~10s", 10_000),
    ("10s~", u64::MAX),
];

impl Ranges {
    /// Counts `times` things that took `us` microseconds each.
    pub fn add(&self, us: u64, times: u64) {
        let index = BOUNDS.partition_point(|(_, end_ms)| *end_ms <= us / 1_000);
        self.0[index].fetch_add(times, Ordering::Relaxed);
    }

    /// `[<=0ms]:n [0~10ms]:n …`; a reader of the reference's takes 31 bits of each count.
    pub fn text(&self) -> String {
        let named = BOUNDS.iter().zip(&self.0);
        let texts = named.map(|((name, _), count)| {
            let count = count.load(Ordering::Relaxed).min(i32::MAX as u64);
            format!("[{name}]:{count}")
        });
        texts.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_holds_its_number_and_is_a_sixteenth_wide_at_most() {
        let powers = (0..64).map(|shift| 1_u64 << shift);
        let numbers = powers.flat_map(|power| [power - 1, power, power + power / 3]);
        for number in numbers.chain([u64::MAX]) {
            let last = last_of(bucket(number));
            assert!(last >= number, "{number} is in a bucket that ends at {last}");
            assert!(last - number <= number / 16, "{number} is in a bucket that ends at {last}");
        }
    }

    #[test]
    fn percentile_is_the_time_within_which_that_share_was_done() {
        let durations = Durations::default();
        assert_eq!(durations.percentile_us(0.99), 0);
        durations.add(10, 990);
        durations.add(100_000, 10);
        assert_eq!(durations.percentile_us(0.99), 10);
        assert_eq!(durations.percentile_us(0.999), 100_000);
        assert_eq!(durations.max_us(), 100_000);
    }

    #[test]
    fn ranges_count_each_time_once_and_name_all_thirteen() {
        let ranges = Ranges::default();
        for us in [0, 999, 1_000, 9_999, 10_000, 9_999_999, 10_000_000, u64::MAX] {
            ranges.add(us, 1);
        }
        assert_eq!(
            ranges.text(),
            "[<=0ms]:2 [0~10ms]:2 [10~50ms]:1 [50~100ms]:0 [100~200ms]:0 [200~500ms]:0 \
             [500ms~1s]:0 [1~2s]:0 [2~3s]:0 [3~4s]:0 [4~5s]:0 [5~10s]:1 [10s~]:2"
        );
        ranges.add(0, u64::from(u32::MAX));
        assert!(ranges.text().starts_with("[<=0ms]:2147483647 "));
    }
}
