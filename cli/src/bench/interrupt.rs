//! A signal that ends a measurement early: what was measured until then is shown all the same.
//! Invariant: the first SIGINT or SIGTERM is noted alone, the second one ends the process.
//! Leaves looking at the note to `measure`.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

/// Added to a signal's number to make the exit code that shells give it.
const SIGNAL_EXIT: i32 = 128;

/// From now on the first signal sets what is returned.
pub(crate) fn note_signals() -> io::Result<Arc<AtomicBool>> {
    let noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Asked in this order when a signal arrives: the first one finds nothing noted yet.
        flag::register_conditional_shutdown(signal, SIGNAL_EXIT + signal, Arc::clone(&noted))?;
        flag::register(signal, Arc::clone(&noted))?;
    }
    Ok(noted)
}
