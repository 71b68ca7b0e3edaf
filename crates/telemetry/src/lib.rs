//! Logs, metrics and health endpoints, alike in every binary.
//! Invariant: a component answers for itself alone: liveness and readiness ask the checks of this process, no peer.
//! Leaves which metrics and checks there are to the components.

mod http;
mod logs;
mod metrics;
mod output;
mod process;
mod ready;

use std::sync::Arc;

use parking_lot::Mutex;

pub use http::{HttpError, HttpServer};
pub use logs::{LogError, LogFormat, init_logs};
pub use metrics::RecorderError;
pub use output::print;
pub use ready::{ReadyReport, ReadyState};

/// Called before each scrape, so that a component can copy its own counters into metrics.
pub type ScrapeHook = Box<dyn Fn() + Send + Sync>;

/// What one process shows of itself: cheap to clone, shared by all components in the process.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

struct Shared {
    recorder: metrics::Recorder,
    checks: ready::Checks,
    liveness: ready::Checks,
    hooks: Mutex<Vec<Arc<ScrapeHook>>>,
}

impl Telemetry {
    /// Makes the process's metrics recorder, or takes the one that an earlier call made.
    ///
    /// # Errors
    /// When the process already has a recorder of another kind.
    pub fn new() -> Result<Self, RecorderError> {
        let recorder = metrics::Recorder::of_process()?;
        process::describe();
        let shared = Shared {
            recorder,
            checks: ready::Checks::default(),
            liveness: ready::Checks::default(),
            hooks: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Adds a readiness check under the component's name; the process is ready when all are.
    ///
    /// The check is called on each question and must be quick. It gives the reason when not ready.
    pub fn add_check(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.shared.checks.add(name, Box::new(check));
    }

    /// Adds a liveness check: once it says no, only another start of the process helps. Quick, like the others.
    pub fn add_liveness(
        &self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.shared.liveness.add(name, Box::new(check));
    }

    /// Adds a readiness check that is a state which the component sets; not ready at first, for `reason`.
    pub fn add_state(&self, name: &'static str, reason: &str) -> ReadyState {
        let state = ReadyState::not_ready(reason);
        let seen = state.clone();
        self.add_check(name, move || seen.get());
        state
    }

    /// Adds what is to be called before each scrape. It must be quick and must not add hooks itself.
    pub fn on_scrape(&self, hook: ScrapeHook) {
        self.shared.hooks.lock().push(Arc::new(hook));
    }

    /// Answers of all checks.
    pub fn ready(&self) -> ReadyReport {
        self.shared.checks.report()
    }

    /// Answers of all liveness checks.
    pub fn alive(&self) -> ReadyReport {
        self.shared.liveness.report()
    }

    /// All metrics in Prometheus' text form, after the hooks have run.
    pub fn render_metrics(&self) -> String {
        // The lock is not held while hooks run, so a slow one delays nobody else.
        let hooks: Vec<_> = self.shared.hooks.lock().clone();
        for hook in hooks {
            hook();
        }
        process::record();
        self.shared.recorder.render()
    }

    fn upkeep(&self) {
        self.shared.recorder.upkeep();
    }
}
