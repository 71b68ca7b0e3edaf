//! Progress of long work: one line on the terminal, nothing at all when nobody looks.
//! Invariant: writes to standard error only, and only when that is a terminal.
//! Leaves results to `output`.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A spinner with a message and a count.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Progress of work whose amount is not known.
    pub(crate) fn spinner() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} {msg} · {human_pos} · {elapsed}");
        bar.set_style(style.expect("the template is a constant and valid"));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Progress of work of which there is `total`.
    pub(crate) fn of(total: u64) -> Self {
        let progress = Self::spinner();
        let style = ProgressStyle::with_template(
            "{spinner} {msg} {wide_bar} {human_pos}/{human_len} · {eta}",
        );
        progress.0.set_style(style.expect("the template is a constant and valid"));
        progress.0.set_length(total);
        progress
    }

    /// Says what is going on and how far it is.
    pub(crate) fn tell(&self, message: &str, count: u64) {
        self.0.set_message(message.to_owned());
        self.0.set_position(count);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
