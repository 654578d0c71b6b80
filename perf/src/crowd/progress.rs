//! The progress bar on stderr while the crowd plays. Where stderr is no terminal it stays silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::stage::Pulse;

/// How often it is redrawn.
pub const EVERY: Duration = Duration::from_millis(200);

/// The bar.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar that is full when so many buyers are done.
    pub fn new(buyers: usize) -> Self {
        let bar = ProgressBar::new(buyers as u64);
        let template = "{elapsed_precise} [{bar:30}] {pos}/{len} buyers done  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }

    /// Shows the counts of this moment.
    pub fn show(&self, pulse: &Pulse) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.0.set_position(count(&pulse.done));
        self.0.set_message(format!(
            "arrived {}  answers {}  accepted {}  paid {}  refused {}  lost {}",
            count(&pulse.arrived),
            count(&pulse.answers),
            count(&pulse.accepted),
            count(&pulse.paid),
            count(&pulse.refused),
            count(&pulse.lost),
        ));
    }

    /// Says what goes on before or after the play.
    pub fn say(&self, words: &str) {
        self.0.set_message(words.to_owned());
    }

    /// Takes the bar away.
    pub fn end(self) {
        self.0.finish_and_clear();
    }
}
