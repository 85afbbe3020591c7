//! Limits of open descriptors: the usual 1024 of a shell are too few for a datacenter.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cables::error::CablesError;
use crate::preflight::finding::{Finding, Severity};

/// Descriptors for everything except the ends of cables.
const OTHERS: u64 = 256;

/// Descriptors of an end without a front end: a packet socket and a listener.
const IDLE_END: u64 = 2;

/// Descriptors of a front end with one pair of queues: a connection, kick and call of two rings, and
/// the port's epoll; twice, for a session that ends while the next begins.
const FRONT_END: u64 = 18;

/// Lets this process and its children open as many descriptors as the cables need. Returns a notice
/// if the hard limit suffices to come up, but not for a front end at every end.
///
/// # Errors
/// [`CablesError::Descriptors`] when too few are allowed, and the hard limit cannot be raised.
pub(super) fn make_room(cables: usize) -> Result<Option<String>, CablesError> {
    let ends = 2 * cables as u64;
    let needed = OTHERS + ends * (IDLE_END + FRONT_END);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` means unlimited.
    if current.is_none_or(|current| current >= needed) {
        return Ok(None);
    }
    let raise = |to: u64, maximum: Option<u64>| {
        let current = Some(to);
        setrlimit(Resource::Nofile, Rlimit { current, maximum })
    };
    if raise(needed, maximum.map(|maximum| maximum.max(needed))).is_ok() {
        return Ok(None);
    }
    let allowed = maximum.unwrap_or(needed);
    match front_ends(ends, allowed) {
        Some(room) if raise(allowed, maximum).is_ok() => Ok(Some(format!(
            "{allowed} open files are allowed, enough for {room} vhost-user front ends at {ends} \
             ends; for one at each: `ulimit -Hn {needed}`"
        ))),
        _ => Err(CablesError::Descriptors { needed, allowed }),
    }
}

/// What [`make_room`] says of this many cables, for `check` and `run` alike. It raises the limit of this
/// process, and changes nothing else.
pub(super) fn obstacle(cables: usize) -> Option<Finding> {
    match make_room(cables) {
        Ok(None) => None,
        Ok(Some(notice)) => Some(Finding::new(Severity::Warning, notice, "")),
        Err(error) => Some(Finding::new(
            Severity::Error,
            error.to_string(),
            "or fewer racks and positions",
        )),
    }
}

/// How many front ends can connect to this many ends. `None` if that is less than an eighth of the
/// ends.
fn front_ends(ends: u64, allowed: u64) -> Option<u64> {
    let left = allowed.checked_sub(OTHERS + ends * IDLE_END)?;
    Some(left / FRONT_END).filter(|room| *room >= ends.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_panel_comes_up_with_fewer_files_than_it_could_ever_need() {
        // 8 racks of 40 U under 4 spines have 1354 ends.
        assert_eq!(front_ends(1354, 20_000), Some(946));
        assert_eq!(front_ends(1354, 4096), None);
        assert_eq!(front_ends(1354, 1024), None);
        assert_eq!(front_ends(2, 4096), Some(213));
    }
}
