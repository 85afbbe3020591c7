//! The output of `run` while it works: a line for each stage, one for each switch, then a live
//! line. On a terminal the lines change in place; elsewhere, and on a terminal that cannot do that,
//! each change is a line of its own.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::{utc, wording};

/// What stands before the text of a live line: the spinner, and blanks.
const SPINNER: &str = "    ";

/// The time between two frames of a spinner.
const TURN: Duration = Duration::from_millis(100);

/// Shows the progress of a run on standard error.
pub struct Progress {
    started: Instant,
    /// Lines that stay begin with the time.
    is_log: bool,
    bars: Option<MultiProgress>,
    live: Mutex<Option<ProgressBar>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Lines change in place if standard error is a terminal that can do that, at this moment.
    pub fn new() -> Self {
        let term = std::env::var("TERM").unwrap_or_default();
        let in_place = std::io::stderr().is_terminal() && moves_its_cursor(&term);
        Progress {
            started: Instant::now(),
            is_log: false,
            bars: in_place.then(MultiProgress::new),
            live: Mutex::default(),
        }
    }

    /// The same for a command that runs for long: each line begins with the date and time, unless
    /// lines change in place.
    pub fn log() -> Self {
        let progress = Progress::new();
        Progress {
            is_log: progress.bars.is_none(),
            ..progress
        }
    }

    /// Whether lines change in place.
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
        let text = &wording::without_numbers(text);
        match &self.bars {
            // Printing fails only if standard error does.
            Some(bars) => _ = bars.println(text),
            None => self.say(text),
        }
    }

    /// Prints a line that stays, about something that happened just now, with its time.
    pub fn notice(&self, sign: char, text: &str) {
        if self.bars.is_some() {
            let time = utc::time(SystemTime::now());
            self.note(&format!("  {sign} {time}  {text}"));
        } else {
            self.note(&format!("  {sign} {text}"));
        }
    }

    fn say(&self, text: &str) {
        if self.is_log {
            say(&format!("{}{text}", stamp()));
        } else {
            say(text);
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
        bar.set_message(folded(text, columns()));
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
            None if self.said != how_far => {
                self.progress.say(&format!("  · {}: {how_far}", self.what));
            }
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

/// The columns that standard error has for the text of a live line.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(80, |size| match size.ws_col {
        // A terminal that does not know.
        0 => 80,
        columns => usize::from(columns),
    });
    columns.saturating_sub(SPINNER.chars().count()).max(1)
}

/// A live line on a terminal of so many columns: it goes on in another line between two of its parts,
/// not within a word. A part that is too long by itself is cut.
fn folded(text: &str, columns: usize) -> String {
    const BETWEEN: &str = " · ";
    let mut lines = vec![String::new()];
    let mut length = 0;
    for part in text.split(BETWEEN) {
        let part: String = part.chars().take(columns).collect();
        let more = part.chars().count();
        let line = lines.last_mut().expect("there is a first line");
        if length == 0 {
            *line = part;
            length = more;
        } else if length + BETWEEN.chars().count() + more <= columns {
            *line += BETWEEN;
            *line += &part;
            length += BETWEEN.chars().count() + more;
        } else {
            lines.push(part);
            length = more;
        }
    }
    lines.join(&format!("\n{SPINNER}"))
}

/// Whether a terminal of this kind, as `TERM` has it, can move its cursor.
fn moves_its_cursor(term: &str) -> bool {
    !matches!(term, "" | "dumb")
}

/// What a line of a log begins with: date and time.
pub fn stamp() -> String {
    utc::date_and_time(SystemTime::now())
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
    fn lines_change_in_place_only_where_the_cursor_moves() {
        assert!(moves_its_cursor("xterm-256color"));
        assert!(!moves_its_cursor("dumb") && !moves_its_cursor(""));
    }

    #[test]
    fn a_live_line_breaks_between_its_parts() {
        let line = "ready · 9/9 switches · 32/32 sessions · 0 frames/s";
        assert_eq!(folded(line, 80), line);
        assert_eq!(
            folded(line, 30),
            "ready · 9/9 switches\n    32/32 sessions · 0 frames/s"
        );
        assert_eq!(folded("waits for leaf1", 5), "waits");
        for columns in 1..60 {
            for line in folded(line, columns).lines() {
                let line = line.strip_prefix(SPINNER).unwrap_or(line);
                assert!(line.chars().count() <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn durations_read_naturally() {
        let said =
            [0.042, 3.44, 125.0, 7_400.0].map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(said, ["42 ms", "3.4 s", "2 min 5 s", "2 h 3 min"]);
    }
}
