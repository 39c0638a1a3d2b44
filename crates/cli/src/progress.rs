//! The progress of a command: a bar on a terminal, and an occasional line elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Minimum time between two lines where no bar is drawn.
const PAUSE: Duration = Duration::from_secs(15);

/// Returns whether standard error can show a bar that is redrawn in place.
///
/// A notebook runs commands in a terminal but keeps all of its output, so each redraw would be
/// visible. With `TERM=dumb`, lines cannot be overwritten.
pub fn draws_bars() -> bool {
    let notebook = std::env::var_os("JPY_PARENT_PID").is_some();
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !notebook && !dumb
}

/// The progress of a task that consists of many parts.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// When the last line was printed; `None` if there is a bar.
    lines: Option<Mutex<Instant>>,
}

/// Starts showing the progress of a task of `total` parts. `what` names them and what is done with
/// them, such as `images read`.
pub fn progress(total: usize, what: &'static str) -> Progress {
    let draws = draws_bars();
    let target = match draws {
        true => ProgressDrawTarget::stderr_with_hz(4),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_message(what);
    let bar = match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    };
    Progress { bar, what, lines: (!draws).then(|| Mutex::new(Instant::now())) }
}

impl Progress {
    /// Sets the number of parts that are done.
    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.say();
    }

    /// Adds `more` to the number of parts that are done.
    pub fn inc(&self, more: u64) {
        self.bar.inc(more);
        self.say();
    }

    /// Sets the total number of parts.
    pub fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Finishes the task and removes the bar.
    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self) {
        let Some(last) = &self.lines else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = line(&self.bar, self.what, last.elapsed()) {
            *last = Instant::now();
            // If standard error is closed, there is nowhere left to report that.
            let _ = writeln!(io::stderr(), "simdino: {line}");
        }
    }
}

/// Returns the line to print if the last one was `since` ago; `None` if it is too early or the task
/// is done.
fn line(bar: &ProgressBar, what: &str, since: Duration) -> Option<String> {
    let (done, total) = (bar.position(), bar.length().unwrap_or(0));
    (since >= PAUSE && done < total).then(|| format!("{what}: {done} of {total}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_now_and_then_until_the_end() {
        let bar = ProgressBar::with_draw_target(Some(8), ProgressDrawTarget::hidden());
        bar.set_position(3);
        assert_eq!(line(&bar, "images read", PAUSE - Duration::from_millis(1)), None);
        assert_eq!(line(&bar, "images read", PAUSE).as_deref(), Some("images read: 3 of 8"));
        bar.inc(5);
        assert_eq!(line(&bar, "images read", PAUSE), None);
    }
}
