//! The terminal that shows a report: its size, and drawing one report over the other.

use rustix::termios::{Winsize, tcgetwinsize};

/// Columns of a report that no terminal shows.
const COLUMNS: usize = 100;

/// The columns of standard output.
pub(super) fn columns() -> usize {
    // A terminal that does not know its size says 0.
    size().map_or(COLUMNS, |size| match size.ws_col {
        0 => COLUMNS,
        columns => columns.into(),
    })
}

/// The lines of standard output, if it is a terminal that knows.
pub(super) fn lines() -> Option<usize> {
    let lines = size()?.ws_row;
    (lines > 0).then_some(lines.into())
}

fn size() -> Option<Winsize> {
    tcgetwinsize(std::io::stdout()).ok()
}

/// A report in place of the one before, on a screen of so many lines: what has no room is left out,
/// because the screen would scroll; `otherwise` says how to see it.
pub(super) fn redrawn(report: &str, lines: usize, otherwise: &str) -> String {
    let all: Vec<_> = report.lines().collect();
    let room = lines.saturating_sub(1).max(2);
    // ECMA-48: moves the cursor to the top left; each line clears what was right of it.
    let mut text = String::from("\x1b[H");
    let shown = if all.len() > room {
        room - 1
    } else {
        all.len()
    };
    for line in &all[..shown] {
        text += &format!("{line}\x1b[K\n");
    }
    if all.len() > shown {
        let more = all.len() - shown;
        text += &format!("and {more} more: {otherwise}\x1b[K\n");
    }
    text + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_drawn_over_the_one_before_and_never_scrolls() {
        assert_eq!(redrawn("a\nb\n", 24, ""), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        let long = "row\n".repeat(100);
        let drawn = redrawn(&long, 10, "make it taller");
        assert_eq!(drawn.lines().count(), 9 + 1, "the last is empty: {drawn}");
        assert!(drawn.contains("and 92 more: make it taller"), "{drawn}");
    }
}
