//! How commands write to standard output. A reader that has closed its end, as in `| head`, is
//! not an error.

use std::io::{self, Write};

use serde::Serialize;

/// Prints a report for programs, as JSON.
///
/// # Errors
/// When standard output fails, unless its reader has closed it.
pub(super) fn print_json(report: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(report)?))
}

/// Prints text, whether or not its reader is still there.
///
/// # Errors
/// When standard output fails, unless its reader has closed it.
pub(super) fn print(text: &str) -> io::Result<()> {
    print_to_reader(text).map(drop)
}

/// Prints text. Returns `false` once the reader has closed its end, so that a command which
/// prints again and again can stop.
///
/// # Errors
/// When standard output fails, unless its reader has closed it.
pub(super) fn print_to_reader(text: &str) -> io::Result<bool> {
    write_to_reader(&mut io::stdout().lock(), text.as_bytes())
}

/// Writes to standard output or standard error. Returns `false` once the reader has closed its end.
///
/// # Errors
/// When writing fails for another reason.
pub(super) fn write_to_reader(out: &mut impl Write, bytes: &[u8]) -> io::Result<bool> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}
