//! A line of limited rate: [`Line`].

use super::settings::Rate;

const NS_PER_S: u64 = 1_000_000_000;

impl Rate {
    /// The bytes that a frame of `len` bytes takes on the line.
    pub(crate) fn bytes_on_line(&self, len: u32) -> u64 {
        let len = (i64::from(len) + i64::from(self.overhead)).max(0);
        if self.cell == 0 {
            return len as u64;
        }
        let cell = i64::from(self.cell);
        let cells = (len + cell - 1) / cell;
        (cells * (cell + i64::from(self.cell_overhead))) as u64
    }
}

/// A line that sends one frame after the other.
#[derive(Debug)]
pub(super) struct Line {
    rate: Rate,
    /// When the last frame has left, in ns, ...
    free: u64,
    /// ... and the fraction of a nanosecond, in units of 1/`bits_per_second`: rounding it off at every
    /// frame would make a line of 5 Gbit/s one per cent faster for frames of 64 bytes.
    rest: u64,
}

impl Line {
    pub(super) fn new(rate: Rate) -> Self {
        Line {
            rate,
            free: 0,
            rest: 0,
        }
    }

    /// Sends a frame of `len` bytes that is ready at `ready`; returns when it has left.
    #[inline]
    pub(super) fn send(&mut self, ready: u64, len: u32) -> u64 {
        if ready > self.free {
            (self.free, self.rest) = (ready, 0);
        }
        // Within the ranges of `Rate`, and for frames of 64 KiB, this stays below 2^60.
        let work = self.rate.bytes_on_line(len) * 8 * NS_PER_S + self.rest;
        self.free = self.free.saturating_add(work / self.rate.bits_per_second);
        self.rest = work % self.rate.bits_per_second;
        self.free
    }

    /// The frames that wait under the old rate stay in front.
    pub(super) fn follow(&mut self, before: &Line) {
        self.free = before.free;
        if self.rate.bits_per_second == before.rate.bits_per_second {
            self.rest = before.rest;
        }
    }

    pub(super) fn clear(&mut self) {
        (self.free, self.rest) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GBIT: u64 = 1_000_000_000;

    fn line(bits_per_second: u64) -> Line {
        Line::new(Rate {
            bits_per_second,
            overhead: 0,
            cell: 0,
            cell_overhead: 0,
        })
    }

    /// Sends for about a second. How far off the rate is, as a share.
    fn error(bits_per_second: u64, len: u32) -> f64 {
        let mut line = line(bits_per_second);
        let count = (bits_per_second / 8 / u64::from(len)).min(200_000);
        let mut last = 1_000;
        for _ in 0..count {
            last = line.send(1_000, len);
        }
        let bits = count * u64::from(len) * 8;
        let achieved = bits as f64 / ((last - 1_000) as f64 / 1e9);
        (achieved / bits_per_second as f64 - 1.0).abs()
    }

    #[test]
    fn the_rate_is_kept_from_one_megabit_to_five_gigabit() {
        for bits_per_second in [
            GBIT / 1000,
            GBIT / 100,
            GBIT / 10,
            GBIT / 7,
            GBIT,
            5 * GBIT / 2,
            4_999_999_999,
            5 * GBIT,
        ] {
            for len in [60, 64, 577, 1514, 9014] {
                let error = error(bits_per_second, len);
                assert!(error < 1e-5, "{bits_per_second} bit/s, {len} B: {error}");
            }
        }
    }

    #[test]
    fn an_idle_line_saves_nothing_up() {
        let mut line = line(8 * GBIT / 1000);
        assert_eq!(line.send(0, 1000), 1_000_000);
        assert_eq!(line.send(500_000, 1000), 2_000_000);
        assert_eq!(line.send(10_000_000, 1000), 11_000_000);
    }

    #[test]
    fn overhead_and_cells() {
        let bytes = |overhead, cell, cell_overhead, len| {
            let rate = Rate {
                bits_per_second: 1,
                overhead,
                cell,
                cell_overhead,
            };
            rate.bytes_on_line(len)
        };
        assert_eq!(bytes(24, 0, 0, 64), 88);
        assert_eq!(bytes(-14, 0, 0, 64), 50);
        assert_eq!(bytes(-14, 0, 0, 10), 0);
        // tc-netem(8): 50 bytes are two cells of ATM.
        assert_eq!(bytes(0, 48, 5, 50), 106);
        assert_eq!(bytes(0, 48, 5, 96), 106);
        assert_eq!(bytes(0, 48, -8, 48), 40);
    }
}
