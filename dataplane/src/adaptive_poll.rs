//! How long a worker goes on polling a port that has gone quiet: [`AdaptivePoll`].

use std::time::Duration;

/// Falling asleep and waking up cost some microseconds of CPU and, to the frame that wakes the
/// worker, some tens of latency. Polling a little longer saves them when the next frame is near
/// and is wasted when it is not. So the worker learns from how long it slept.
#[derive(Debug)]
pub(crate) struct AdaptivePoll {
    spin: Duration,
}

impl AdaptivePoll {
    const LEAST: Duration = Duration::from_micros(4);
    const MOST: Duration = Duration::from_micros(64);

    /// How long to poll after the last frame: 4 to 64 µs.
    pub(crate) fn spin(&self) -> Duration {
        self.spin
    }

    /// Learns from a sleep of this length: after a short one, a little more polling would have caught
    /// the frame; before a long one, polling was wasted.
    pub(crate) fn slept(&mut self, length: Duration) {
        self.spin = if length < 2 * Self::MOST {
            (self.spin * 2).min(Self::MOST)
        } else if length > 16 * Self::MOST {
            (self.spin / 2).max(Self::LEAST)
        } else {
            self.spin
        };
    }
}

impl Default for AdaptivePoll {
    fn default() -> Self {
        AdaptivePoll {
            spin: Duration::from_micros(32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_prolong_polling_and_long_ones_shorten_it() {
        let mut polling = AdaptivePoll::default();
        for _ in 0..10 {
            polling.slept(Duration::from_micros(20));
        }
        assert_eq!(polling.spin(), AdaptivePoll::MOST);
        for _ in 0..10 {
            polling.slept(Duration::from_secs(1));
        }
        assert_eq!(polling.spin(), AdaptivePoll::LEAST);
        polling.slept(Duration::from_micros(500));
        assert_eq!(polling.spin(), AdaptivePoll::LEAST);
    }
}
