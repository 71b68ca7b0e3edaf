//! Looks at the folder of a store, stopped or in use, for tools: what it is, what is in it, whether it is whole.
//! Invariant: not a byte is changed and no lock is held; what a running broker changes under the look is no damage.
//! Leaves how things are shown to the command line.

mod kind;
mod model;
mod summary;
mod verify;

use std::{
    fs::{File, TryLockError},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use gantry_model::PhysicalOffset;

use model::ApplyError;

pub use kind::{ImagePart, ImagePiece, Kind};
pub use summary::{
    ClientState, KeyFileSummary, SegmentSummary, StateFrom, Summary, TopicSummary, ViewsSummary,
};
pub use verify::{Finding, Part, Tell, Verdict};

use crate::{
    image::ImageError,
    keys::{self, KeyError, KeyFile},
    log::{
        self, OpenError,
        survey::{ItemCursor, ReadOnlyFiles, Survey, survey},
    },
    state::StateError,
    views::{self, ViewError, ViewRead, layout},
};

/// Folder of the broker in the data folder of `gantry standalone`.
const STANDALONE_STORE: &str = "broker";

/// Why a folder cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It holds no store.
    #[error("{} is no store: it has no folder `log`{hint}", dir.display())]
    NotAStore {
        /// The folder.
        dir: PathBuf,
        /// Where there is one.
        hint: String,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log cannot be read.
    #[error("read the log")]
    Read(#[from] log::ReadError),
    /// The key index cannot be read.
    #[error("read the key index")]
    Keys(#[from] KeyError),
    /// The views, or a table made of the log, cannot be read.
    #[error("read the views")]
    Views(#[from] ViewError),
    /// A state image cannot be read.
    #[error("read a state image")]
    Image(#[from] ImageError),
    /// A state record cannot be understood.
    #[error("decode the state record at position {position}")]
    State {
        /// Where it is.
        position: PhysicalOffset,
        /// Why not.
        source: StateError,
    },
    /// The system refused something.
    #[error("{action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl InspectError {
    /// Whether the cause is that a newer release has written there.
    pub fn is_newer_format(&self) -> bool {
        matches!(self, Self::Log(OpenError::NewerFormat { .. }))
    }
}

fn io_error<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> InspectError + use<'a> {
    move |source| InspectError::Io { action, path: path.to_owned(), source }
}

/// Who has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: it is stopped.
    Nobody,
    /// A running broker.
    Process {
        /// Its process id, as it left it; it may be one of another container.
        pid: Option<u32>,
    },
}

/// One file of the key index as it was found.
pub(crate) struct FoundKeys {
    name: String,
    range: Range<u64>,
    /// None if it is not whole.
    file: Option<KeyFile>,
}

/// Views for reading.
pub(crate) type Views = Box<dyn ViewRead + Send + Sync>;

/// A store's folder that is looked at.
pub struct StoreReader {
    dir: PathBuf,
    holder: Holder,
    /// None if there are none.
    views: Option<Result<Views, ViewError>>,
    keys: Vec<FoundKeys>,
    log: Survey,
}

impl std::fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreReader").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl StoreReader {
    /// Looks at the store in `dir`, or in the data folder of `gantry standalone` that `dir` is.
    pub fn open(dir: &Path) -> Result<Self, InspectError> {
        let dir = find_store(dir)?;
        let holder = holder(&dir)?;
        // What is derived comes first: the log that is read later holds all that it is derived from.
        let views = open_views(&dir.join("views"))?;
        let keys = open_keys(&dir.join("keys"))?;
        let log = survey(&dir.join("log"), PhysicalOffset(0))?;
        Ok(Self { dir, holder, views, keys, log })
    }

    /// The store's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who had the store open when the look began.
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// The log as it was found.
    pub fn log(&self) -> &Survey {
        &self.log
    }

    /// Everything in the log from the first record at or behind `from` up to, but without, `to`.
    pub fn items(
        &self,
        from: PhysicalOffset,
        to: PhysicalOffset,
    ) -> Result<ItemCursor, InspectError> {
        Ok(self.log.items(from, to)?)
    }

    /// The views, and how far they are applied, if they are of this release's layout and the log goes on where they end.
    fn usable_views(&self) -> Option<(&dyn ViewRead, PhysicalOffset)> {
        let views = self.views.as_ref()?.as_ref().ok()?;
        let applied = views.applied_as().ok()?;
        let is_usable = applied.version == layout::VERSION
            && applied.position > PhysicalOffset(0)
            && (self.log.start()..=self.log.end()).contains(&applied.position);
        is_usable.then_some((&**views as &dyn ViewRead, applied.position))
    }
}

/// The folder of the store that `dir` is, or leads to.
fn find_store(dir: &Path) -> Result<PathBuf, InspectError> {
    let is_store = |dir: &Path| dir.join("log").is_dir();
    // An error of its own for a folder that cannot be read at all.
    let entries = std::fs::read_dir(dir).map_err(io_error("list folder", dir))?;
    if is_store(dir) {
        return Ok(dir.to_owned());
    }
    let standalone = dir.join(STANDALONE_STORE);
    if is_store(&standalone) {
        return Ok(standalone);
    }
    let above = dir.parent().filter(|_| dir.file_name().is_some_and(|name| name == "log"));
    let below = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_store(path) || is_store(&path.join(STANDALONE_STORE)));
    let near: Vec<_> = above.map(Path::to_owned).into_iter().chain(below).take(3).collect();
    let names: Vec<_> = near.iter().map(|path| path.display().to_string()).collect();
    let hint = if names.is_empty() {
        ", and no folder in it is one".to_owned()
    } else {
        format!("; try {}", names.join(" or "))
    };
    Err(InspectError::NotAStore { dir: dir.to_owned(), hint })
}

/// Who has the store open: its lock is asked for, and let go of at once, as a reader who keeps no other out.
fn holder(dir: &Path) -> Result<Holder, InspectError> {
    let path = dir.join("lock");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
        file => file.map_err(io_error("open", &path))?,
    };
    match file.try_lock_shared() {
        Ok(()) => {
            file.unlock().map_err(io_error("let go of the lock", &path))?;
            return Ok(Holder::Nobody);
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(io_error("ask for the lock", &path)(error)),
    }
    let pid = io::read_to_string(&file).map_err(io_error("read", &path))?;
    Ok(Holder::Process { pid: pid.trim().parse().ok() })
}

fn open_views(dir: &Path) -> Result<Option<Result<Views, ViewError>>, InspectError> {
    // RocksDB names its newest state there; without it there is nothing to open.
    if dir.join("CURRENT").try_exists().map_err(io_error("look for", dir))? {
        Ok(Some(views::open_for_reading(dir)))
    } else {
        Ok(None)
    }
}

fn open_keys(dir: &Path) -> Result<Vec<FoundKeys>, InspectError> {
    let names = match log::files::Files::list(&ReadOnlyFiles, dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(io_error("list folder", dir))?,
    };
    let mut found = Vec::new();
    for name in names {
        let Some(range) = keys::range_of_name(&name) else { continue };
        let path = dir.join(&name);
        match KeyFile::open(&ReadOnlyFiles, &path, range.clone()) {
            // A longer one has just taken its place.
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            file => found.push(FoundKeys { file: file?, name, range }),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
