//! What a test says even when it passes: libtest keeps `println!` of passing tests to itself.

use std::io::Write;

/// Writes a line to standard error, past libtest's capture.
pub fn say(line: &str) {
    // Nothing depends on it.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A figure that the project promises.
pub fn figure(what: &str, value: &str) {
    say(&format!("FIGURE {what}: {value}"));
}

/// Says what is not tested, and why.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
    say(&format!("SKIP {test}: {why}"));
}
