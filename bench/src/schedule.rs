//! When frames are due: an open loop. A delay at the sender does not move the schedule, so it counts
//! for every frame that had to wait. Pure.

/// Nanoseconds per second.
const SECOND: u128 = 1_000_000_000;

/// A constant rate of frames, of which the first is due at time 0. Times are in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Frames per 1,000 seconds.
    rate: u64,
}

impl Schedule {
    /// A schedule of `frames_per_second`, rounded to a multiple of 0.001 and at least that.
    pub(crate) fn at(frames_per_second: f64) -> Schedule {
        Schedule {
            rate: ((frames_per_second * 1000.0).round() as u64).max(1),
        }
    }

    /// When the frame with this number, counted from 0, is due.
    pub(crate) fn time(self, number: u64) -> u64 {
        (u128::from(number) * SECOND * 1000).div_ceil(u128::from(self.rate)) as u64
    }

    /// How many frames are due at this time or earlier.
    pub(crate) fn due(self, time: u64) -> u64 {
        (u128::from(time) * u128::from(self.rate) / (SECOND * 1000)) as u64 + 1
    }

    /// How many frames are due before this time.
    pub(crate) fn before(self, time: u64) -> u64 {
        time.checked_sub(1).map_or(0, |last| self.due(last))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_has_as_many_frames_as_the_rate() {
        for rate in [1.0, 3.0, 1_000.0, 14_880_952.4] {
            let schedule = Schedule::at(rate);
            assert_eq!(
                schedule.before(1_000_000_000),
                f64::ceil(rate) as u64,
                "{rate}"
            );
            assert_eq!(schedule.time(0), 0);
        }
        assert_eq!(Schedule::at(3.0).time(1), 333_333_334);
        assert_eq!(Schedule::at(1.0).before(0), 0);
    }

    proptest! {
        #[test]
        fn a_frame_is_due_at_its_time_and_not_before(
            rate in 1_u64..20_000_000_000,
            number in 1_u64..1_000_000_000,
        ) {
            let schedule = Schedule { rate };
            let time = schedule.time(number);
            prop_assert!(schedule.due(time) > number);
            prop_assert!(time == schedule.time(number - 1) || schedule.due(time - 1) <= number);
        }
    }
}
