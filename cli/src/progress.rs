//! The progress bar, on a terminal only.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::Progress;

/// How much of the inputs was read.
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar for a command that prints while it reads: none where both would be on one screen, as what is printed would
    /// begin in the bar's line. There the lines show that it goes on.
    pub fn beside_output(bytes: u64) -> Self {
        if io::stdout().is_terminal() { Self(ProgressBar::hidden()) } else { Self::new(bytes) }
    }

    /// A bar over so many bytes. 0, as standard input has, gets a spinner.
    pub fn new(bytes: u64) -> Self {
        // Drawn on standard error, and not at all when that is no terminal.
        let (bar, template) = if bytes > 0 {
            (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {bytes}/{total_bytes}  {eta} left")
        } else {
            (ProgressBar::new_spinner(), "{spinner} {elapsed}")
        };
        Self(bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn advanced(&self, bytes: u64, _records: u64) {
        self.0.inc(bytes);
    }
}
