//! A progress bar, only on a terminal and only for long work.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;

/// A progress bar of bytes or a count; hidden if stderr is not a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar up to `total`, or a spinner if that is unknown.
    pub(super) fn new(doing: &'static str, total: Option<u64>) -> Self {
        let quiet = !output::notes_on_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if quiet {
            return Self { bar: ProgressBar::hidden() };
        }
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = if total.is_some() { "{msg} {wide_bar} {percent}% {eta}" } else { "{msg} {spinner} {elapsed}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        // Work that ends at once shows no bar.
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        bar.set_message(doing);
        Self { bar }
    }

    /// Adds to the work done.
    pub(super) fn advance(&mut self, by: u64) {
        self.bar.inc(by);
    }

    /// Shows another message.
    pub(super) fn say(&mut self, message: String) {
        self.bar.set_message(message);
        self.bar.tick();
    }

    /// Removes the bar.
    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}
