//! Scrub: reads everything that is on disk once in a while, so that rot is found while it can still be told.
//! Invariant: a step reads about as much as it may and holds no lock while it does; what it reads stays in no cache of
//! ours; a place is reported once, whoever meets it.
//! Leaves the rate to its caller, and repair to those that own the files: views and key index are made again from the
//! log, and what the log lost is skipped.
//!
//! A pass goes through the log up to what was synced when it began, then the key index, then the views. A file in the
//! store's folder holds the segment that was reached, so that a restart costs one segment at most.

mod progress;

use gantry_model::PhysicalOffset;

use crate::{
    keys::{KeyError, KeyPlace},
    log::{ReadError, Walked},
    options::Now,
    store::Store,
    views::{Step, View, ViewError, layout},
};

pub(crate) use progress::Scrub;
use progress::{Pass, Stage};

/// How a scrub goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Whether a pass is under way.
    pub is_running: bool,
    /// Everything of the log before was read in this pass, or in the last one if none is under way.
    pub position: PhysicalOffset,
    /// Bytes read since the store was opened.
    pub bytes: u64,
    /// Passes that ended since the store was opened.
    pub passes: u64,
    /// When the last whole pass ended, in milliseconds since 1970; 0 before the first.
    pub last_pass_ms: u64,
}

/// Why a step did not get on. It is tried again from the same place.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The log could not be read.
    #[error("read the log")]
    Log(#[from] ReadError),
    /// The key index could not be read.
    #[error("read the key index")]
    Keys(#[from] KeyError),
    /// The views could not be read.
    #[error("read the views")]
    Views(#[from] ViewError),
}

impl Store {
    /// Reads about `bytes_max` bytes of the pass that is under way, or begins one if the last one began
    /// `interval_ms` ago. Says whether there is more to read at once. Blocks; one thread calls it.
    pub fn scrub_step(
        &self,
        bytes_max: u64,
        interval_ms: u64,
        now: Now,
    ) -> Result<bool, ScrubError> {
        let Some(pass) = self.scrub.go_on(interval_ms, now) else { return Ok(false) };
        let next = match &pass.stage {
            Stage::Log(from) => self.scrub_log(*from, &pass, bytes_max)?,
            Stage::Keys(place) => self.scrub_keys(*place, bytes_max)?,
            Stage::Views(view, key) => self.scrub_views(*view, key, bytes_max)?,
        };
        let has_more = next.is_some();
        self.scrub.reached(pass, next, now);
        Ok(has_more)
    }

    fn scrub_log(
        &self,
        from: PhysicalOffset,
        pass: &Pass,
        bytes_max: u64,
    ) -> Result<Option<Stage>, ScrubError> {
        let from = from.max(self.log_start());
        let to = from.plus(bytes_max.max(1));
        let mut cursor = self.log.records(from, pass.end);
        while cursor.position() < to {
            match cursor.next() {
                Ok(Some(Walked::Record { .. })) => {}
                // What is given up meanwhile may hold other records by now.
                Ok(Some(Walked::Damage(damage))) if damage.position < self.log_start() => {}
                Ok(Some(Walked::Damage(damage))) => {
                    self.note_damage(damage.position..damage.end, damage.reason.to_string());
                }
                Ok(None) => {
                    self.scrub.read(pass.end.0.saturating_sub(from.0));
                    return Ok(Some(Stage::Keys(KeyPlace::default())));
                }
                // Anything but a disk that refuses to read is of no place.
                Err(ReadError::Io { source, .. }) => {
                    let damage = cursor.skip_unreadable(&source);
                    self.note_damage(damage.position..damage.end, damage.reason.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.scrub.read(cursor.position().0 - from.0);
        Ok(Some(Stage::Log(cursor.position())))
    }

    fn scrub_keys(&self, place: KeyPlace, bytes_max: u64) -> Result<Option<Stage>, ScrubError> {
        let next = self.upkeep.keys.check(place, bytes_max)?;
        self.note_broken_keys();
        Ok(Some(match next {
            Some(next) => {
                self.scrub.read(bytes_max);
                Stage::Keys(next)
            }
            None => Stage::Views(0, Vec::new()),
        }))
    }

    fn scrub_views(
        &self,
        index: usize,
        from: &[u8],
        bytes_max: u64,
    ) -> Result<Option<Stage>, ScrubError> {
        let Some(view) = View::ALL.get(index) else { return Ok(None) };
        let (mut bytes, mut stopped_at) = (0, None);
        let outcome = self.views.scan_once(*view, from..layout::END, &mut |key, value| {
            if bytes >= bytes_max {
                stopped_at = Some(key.to_vec());
                return Step::Stop;
            }
            bytes += (key.len() + value.len()) as u64;
            Step::Next
        });
        self.scrub.read(bytes);
        match outcome {
            Ok(()) => {}
            // Reported, and marked: all views are made again. The rest of this one says no more.
            Err(ViewError::Damaged { .. }) => self.note_view_damage(),
            Err(error) => return Err(error.into()),
        }
        Ok(Some(match stopped_at {
            Some(key) => Stage::Views(index, key),
            None => Stage::Views(index + 1, Vec::new()),
        }))
    }
}
