//! The thread that scrubs the store: it reads everything once in a while, at a steady rate.
//! Invariant: in each second it reads about as much as the setting says, however fast the disk is.
//! Leaves reading and reports to the store.

use std::time::{Duration, Instant};

use crate::services::{Services, signal::Signal};

/// Steps a second: short ones leave the disk to others in between, and let the broker stop soon.
const STEPS_A_SECOND: u32 = 8;
/// Time between two looks for whether a pass is due, and after a failure.
const REST: Duration = Duration::from_secs(10);

/// Scrubs until `is_stopped`, which `wake` says to look at.
pub(crate) fn run(services: &Services, is_stopped: &dyn Fn() -> bool, wake: &Signal) {
    let settings = &services.settings;
    let rate = settings.scrub_rate.get();
    if rate == 0 {
        return;
    }
    let bytes = (rate / u64::from(STEPS_A_SECOND)).max(1);
    let interval_ms = settings.scrub_interval.as_std().as_millis() as u64;
    let store = &services.store;
    let mut passes = 0;
    while !is_stopped() {
        let began = Instant::now();
        let rest = match store.scrub_step(bytes, interval_ms, services.clock.now()) {
            Ok(true) => (Duration::from_secs(1) / STEPS_A_SECOND).saturating_sub(began.elapsed()),
            Ok(false) => {
                tell_end(services, &mut passes);
                REST
            }
            Err(error) => {
                services.counters.failed();
                tracing::error!(error = &error as &dyn std::error::Error, "scrub failed");
                REST
            }
        };
        wake.wait(rest);
    }
}

/// Logs the end of a pass once; `passes` are those that were logged.
fn tell_end(services: &Services, passes: &mut u64) {
    let status = services.store.status();
    if status.scrub.passes > *passes {
        *passes = status.scrub.passes;
        let (records, files) = (status.damaged_records, status.damaged_files);
        tracing::info!(damaged_records = records, damaged_files = files, "scrub ended");
    }
}
