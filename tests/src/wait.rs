//! Waiting for the thing itself, with a limit, instead of for a time.

use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Calls `look` until it finds something. `look` says in an `Err` what is still missing.
///
/// # Panics
/// After `limit`, with what was waited for and what was still missing at the last look.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) if began.elapsed() >= limit => {
                panic!("{what}: not within {limit:?}: {missing}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// `Ok` if `holds`; for [`until`].
///
/// # Errors
/// What `otherwise` says, if not.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
