//! How far a scrub is, in memory and in a small file.
//! Invariant: what the file says is believed only where it can do no harm: a pass goes on where a segment begins, or
//! from the start.
//! Leaves reading to the scrub.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use gantry_model::PhysicalOffset;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::ScrubStatus;
use crate::{
    keys::KeyPlace,
    log::{Log, files::Files},
    options::Now,
};

/// Name of the file in the store's folder.
const NAME: &str = "scrub";
/// Bytes of the file that are read: four numbers need less.
const SAVED_BYTES_MAX: usize = 1024;

/// Stands for a segment when all of the log was read.
const LOG_DONE: u64 = u64::MAX;

/// What is read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// The record that begins there.
    Log(PhysicalOffset),
    Keys(KeyPlace),
    /// The view of that number, from that key on.
    Views(usize, Vec<u8>),
}

/// A pass that is under way.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    /// Where the log ends for this pass.
    pub(super) end: PhysicalOffset,
    pub(super) stage: Stage,
}

/// What the file holds, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    /// When the newest pass began, in milliseconds since 1970; 0 if none did.
    begun_ms: u64,
    /// When the last whole one ended.
    last_pass_ms: u64,
    /// Segment that it has reached, or [`LOG_DONE`]; nothing if it has ended.
    at: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    pass: Option<Pass>,
    saved: Saved,
    status: ScrubStatus,
}

/// The scrub's memory.
pub(crate) struct Scrub {
    files: Arc<dyn Files>,
    path: PathBuf,
    log: Log,
    state: Mutex<State>,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Scrub {
    /// Goes on where the last process stopped.
    pub(crate) fn open(dir: &Path, files: Arc<dyn Files>, log: Log) -> Self {
        let path = dir.join(NAME);
        let saved = load(files.as_ref(), &path).unwrap_or_default();
        let pass = saved.at.map(|at| {
            let is_base = log.segments().iter().any(|segment| segment.base.0 == at);
            let stage = match at {
                LOG_DONE => Stage::Keys(KeyPlace::default()),
                at if is_base => Stage::Log(PhysicalOffset(at)),
                _ => Stage::Log(log.start()),
            };
            Pass { end: log.synced(), stage }
        });
        let mut status = ScrubStatus { last_pass_ms: saved.last_pass_ms, ..ScrubStatus::default() };
        if let Some(pass) = &pass {
            (status.is_running, status.position) = (true, position_of(pass));
        }
        Self { files, path, log, state: Mutex::new(State { pass, saved, status }) }
    }

    pub(crate) fn status(&self) -> ScrubStatus {
        self.state.lock().status
    }

    /// The pass that is under way, or a new one if it is time.
    pub(super) fn go_on(&self, interval_ms: u64, now: Now) -> Option<Pass> {
        let mut state = self.state.lock();
        if state.pass.is_none() {
            let begun_ms = state.saved.begun_ms;
            // A clock that was set back by more than that is no reason to wait for it.
            if begun_ms > 0 && now.wall_ms.abs_diff(begun_ms) < interval_ms {
                return None;
            }
            let start = self.log.start();
            let pass = Pass { end: self.log.synced(), stage: Stage::Log(start) };
            state.saved.begun_ms = now.wall_ms;
            state.saved.at = Some(start.0);
            state.status.is_running = true;
            state.pass = Some(pass);
            self.save(&state.saved);
        }
        state.pass.clone()
    }

    /// Notes that bytes were read.
    pub(super) fn read(&self, bytes: u64) {
        self.state.lock().status.bytes += bytes;
    }

    /// Notes what `pass` reads next; nothing ends it.
    pub(super) fn reached(&self, mut pass: Pass, next: Option<Stage>, now: Now) {
        let mut state = self.state.lock();
        let Some(next) = next else {
            state.pass = None;
            state.saved.at = None;
            state.saved.last_pass_ms = now.wall_ms;
            let status = &mut state.status;
            (status.is_running, status.position) = (false, pass.end);
            status.passes += 1;
            status.last_pass_ms = now.wall_ms;
            self.save(&state.saved);
            return;
        };
        pass.stage = next;
        state.status.position = position_of(&pass);
        let at = self.segment_of(&pass);
        if state.saved.at != Some(at) {
            state.saved.at = Some(at);
            self.save(&state.saved);
        }
        state.pass = Some(pass);
    }

    /// Where the pass goes on after a restart.
    fn segment_of(&self, pass: &Pass) -> u64 {
        let Stage::Log(at) = &pass.stage else { return LOG_DONE };
        let segments = self.log.segments();
        let before = segments.iter().rev().map(|segment| segment.base).find(|base| base <= at);
        before.unwrap_or(*at).0
    }

    /// What is not saved is read once more after a restart, and nothing worse.
    fn save(&self, saved: &Saved) {
        if let Err(error) = self.try_save(saved) {
            tracing::warn!(path = %self.path.display(), %error, "the scrub's progress is not saved");
        }
    }

    fn try_save(&self, saved: &Saved) -> io::Result<()> {
        let draft = self.path.with_extension("tmp");
        // Left over from a save that failed; usually there is none.
        let _ = self.files.remove(&draft);
        let file = self.files.create(&draft)?;
        file.write_at(&serde_json::to_vec(saved)?, 0).map_err(|failure| failure.source)?;
        self.files.rename(&draft, &self.path)
    }
}

/// Everything of the log before was read.
fn position_of(pass: &Pass) -> PhysicalOffset {
    match &pass.stage {
        Stage::Log(at) => *at,
        Stage::Keys(_) | Stage::Views(..) => pass.end,
    }
}

fn load(files: &dyn Files, path: &Path) -> Option<Saved> {
    let mut bytes = vec![0; SAVED_BYTES_MAX];
    let read = files.open(path).ok()?.read_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(&bytes[..read]).ok()
}
