//! Output of tests that pass, whose `println!` libtest does not show.

use std::io::Write;

/// Writes a line to standard error, which libtest does not capture this way.
pub fn say(line: &str) {
    // A closed standard error does not matter to the test.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints a measured figure, such as one that the project promises.
pub fn figure(what: &str, value: &str) {
    say(&format!("FIGURE {what}: {value}"));
}

/// Prints that the test is skipped, and why.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
    say(&format!("SKIP {test}: {why}"));
}
