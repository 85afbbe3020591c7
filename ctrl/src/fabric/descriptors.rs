//! Room for open descriptors: a shell's usual 1024 are too few for a datacenter.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::cables::CablesError;

/// For whatever is not an end of a cable.
const OTHERS: u64 = 256;

/// For an end that a front end with one pair of queues is plugged in at: a packet socket, a
/// listener, a connection, kick and call of two rings, and how the port waits for them; twice,
/// for a session that ends while the next begins.
const EACH_END: u64 = 20;

/// Lets this process, and what it starts, open as many descriptors as cables need.
///
/// # Errors
/// [`CablesError::Descriptors`] when the hard limit is lower, and cannot be raised.
pub(super) fn make_room(cables: usize) -> Result<(), CablesError> {
    let needed = OTHERS + 2 * cables as u64 * EACH_END;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = Rlimit {
        current: Some(needed),
        maximum: maximum.map(|maximum| maximum.max(needed)),
    };
    setrlimit(Resource::Nofile, wanted).map_err(|_| CablesError::Descriptors {
        needed,
        allowed: maximum.unwrap_or(needed),
    })
}
