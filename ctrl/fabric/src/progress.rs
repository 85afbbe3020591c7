//! The output of `run` while it works: a line for each stage, one for each switch, then a live
//! line. On a terminal the lines change in place; otherwise each change is a line of its own.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// The time between two frames of a spinner.
const TURN: Duration = Duration::from_millis(100);

/// Shows the progress of a run on standard error.
pub struct Progress {
    started: Instant,
    bars: Option<MultiProgress>,
    live: Mutex<Option<ProgressBar>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Lines change in place if standard error is a terminal at this moment.
    pub fn new() -> Self {
        Progress {
            started: Instant::now(),
            bars: std::io::stderr().is_terminal().then(MultiProgress::new),
            live: Mutex::default(),
        }
    }

    /// Whether lines change in place, because standard error is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.bars.is_some()
    }

    /// Time since [`Progress::new`].
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Begins a stage. Its line starts with `what`.
    pub fn stage(&self, what: &str) -> Stage<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars
                .add(ProgressBar::new_spinner().with_style(style("  {spinner} {prefix}  {msg}")));
            bar.set_prefix(what.to_owned());
            bar.enable_steady_tick(TURN);
            bar
        });
        Stage {
            progress: self,
            what: what.into(),
            began: Instant::now(),
            bar,
            said: String::new(),
        }
    }

    /// Prints a line that stays.
    pub fn note(&self, text: &str) {
        match &self.bars {
            // Printing fails only if standard error does.
            Some(bars) => _ = bars.println(text),
            None => say(text),
        }
    }

    /// Sets the live line at the bottom. Does nothing without a terminal.
    pub fn live(&self, text: &str) {
        let Some(bars) = &self.bars else { return };
        let mut live = self.live.lock().expect("no holder of this lock can panic");
        let bar = live.get_or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner().with_style(style("  {spinner} {msg}")));
            bar.enable_steady_tick(TURN);
            bar
        });
        bar.set_message(text.to_owned());
    }

    /// Removes the live line at the bottom.
    pub fn quiet(&self) {
        if let Some(bar) = self
            .live
            .lock()
            .expect("no holder of this lock can panic")
            .take()
        {
            bar.finish_and_clear();
        }
    }
}

/// A stage that is under way. Dropping it unfinished removes its line.
pub struct Stage<'p> {
    progress: &'p Progress,
    what: String,
    began: Instant,
    bar: Option<ProgressBar>,
    said: String,
}

impl Stage<'_> {
    /// Shows the progress of the stage.
    pub fn update(&mut self, how_far: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(how_far.to_owned()),
            None if self.said != how_far => say(&format!("{}: {how_far}", self.what)),
            None => {}
        }
        how_far.clone_into(&mut self.said);
    }

    /// Ends the stage. Its final line shows `result` and how long the stage took.
    pub fn done(self, result: &str) {
        let text = format!(
            "  ✓ {}  {result}  ({})",
            self.what,
            duration(self.began.elapsed())
        );
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.note(&text);
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes a line to standard error. Unlike `eprintln!` it does not panic when standard error is
/// closed: closing the terminal must not end a fabric.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Formats a time in the units that people read best: `42 ms`, `3.4 s`, `2 min 5 s`.
pub fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates of this file are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        let said =
            [0.042, 3.44, 125.0, 7_400.0].map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(said, ["42 ms", "3.4 s", "2 min 5 s", "2 h 3 min"]);
    }
}
