//! Stub.

/// CLOCK_MONOTONIC in ns.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What to add for wall time.
pub fn wall_offset() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    (time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64) - now()
}
