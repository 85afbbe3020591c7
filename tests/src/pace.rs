//! How slow this machine's memory is: [`slowness`].

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

/// Words of the memory that is read, 64 MiB: far more than the caches hold.
const WORDS: usize = 8 << 20;

/// Reads that are timed together, some ms long, and how many times. The fastest counts: this is to
/// measure the memory, not which thread the scheduler ran instead.
const READS: u32 = 20_000;
const TRIES: usize = 20;

/// Nanoseconds of one such read, loop included, on the machine for which the limits were chosen.
const REFERENCE_NS: f64 = 110.0;

/// The most that a limit is stretched: a machine that is slower still fails the tests.
const MOST: f64 = 5.0;

/// How many times longer than on the reference machine work takes here that memory bounds, 1 to 5.
///
/// Emulated switches spend their time on memory accesses. Where neighbours take the bandwidth of a
/// shared host, the same nine switches need three times as long while its arithmetic is as fast as
/// ever. A limit on waiting is to catch what hangs, not that. Measured once in a process.
pub fn slowness() -> f64 {
    static SLOWNESS: OnceLock<f64> = OnceLock::new();
    *SLOWNESS.get_or_init(|| (read_ns() / REFERENCE_NS).clamp(1.0, MOST))
}

/// Each read's address depends on the read before it, so that none overlap.
fn read_ns() -> f64 {
    let words: Vec<u64> = (0..WORDS as u64).collect();
    let mut at = 1_u64;
    let mut one_try = || {
        let began = Instant::now();
        for _ in 0..READS {
            let next = at
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            at = next ^ words[(next >> 33) as usize % WORDS];
        }
        began.elapsed().as_nanos() as f64 / f64::from(READS)
    };
    let fastest = (0..TRIES).map(|_| one_try()).fold(f64::MAX, f64::min);
    black_box(at);
    fastest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_never_shortened() {
        assert!((1.0..=MOST).contains(&slowness()));
        crate::figure("slowness of memory", &format!("{:.2}", slowness()));
    }
}
