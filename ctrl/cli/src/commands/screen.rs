//! The size of the terminal that shows a report.

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
