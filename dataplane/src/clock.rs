//! The one clock of impairments, captures and the flight recorder.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CLOCK_MONOTONIC: never set back, the same for all threads.
#[inline]
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Add this to [`now`] to get the nanoseconds since 1970, by the system's clock at this moment. A
/// caller that asks once and keeps the answer has time stamps that agree with each other even when
/// the system's clock is set.
pub fn wall_offset() -> u64 {
    let before = now();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let middle = before + (now() - before) / 2;
    let wall = wall.unwrap_or(Duration::ZERO).as_nanos() as u64;
    wall.saturating_sub(middle)
}
