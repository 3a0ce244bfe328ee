//! How far a check is: a bar on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::out;
use crate::cli::text::bytes;

/// Between two lines, where no terminal shows the bar.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// The progress of reading `total` bytes of media.
pub struct Progress {
    total: u64,
    done: u64,
    bar: Option<ProgressBar>,
    told_at: Instant,
}

impl Progress {
    /// Nothing is read yet.
    pub fn begin(total: u64) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style =
                ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left  {wide_msg}");
            bar.set_style(style.expect("the template is a constant"));
            bar
        });
        Self { total, done: 0, bar, told_at: Instant::now() }
    }

    /// From here on it is about this session.
    pub fn look_at(&self, session: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(session.to_owned());
        }
    }

    /// So many bytes more.
    pub fn advance(&mut self, count: u64) {
        self.done += count;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.told_at.elapsed() >= LINE_INTERVAL {
            self.told_at = Instant::now();
            out::note(&format!("checked {} of {}", bytes(self.done), bytes(self.total)));
        }
    }

    /// Takes the bar away.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
