//! The rates that the live lines of `run` and `patch` show.

use std::time::Instant;

/// Frames and bytes that have entered the lanes, and frames that the lanes have dropped.
type Totals = (u64, u64, u64);

/// The totals at the time of the last call, from which [`Traffic::rates`] computes.
pub(super) struct Traffic {
    at: Instant,
    totals: Totals,
}

impl Traffic {
    /// Begins with the `totals` of now.
    pub(super) fn new(totals: Totals) -> Self {
        Traffic {
            at: Instant::now(),
            totals,
        }
    }

    /// Time since the last call, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.at.elapsed().as_secs_f64()
    }

    /// The rates since the last call, as text.
    pub(super) fn rates(&mut self, totals: Totals) -> String {
        let seconds = self.seconds();
        let per_second = |now: u64, before: u64| (now - before) as f64 / seconds;
        let (frames, bytes, drops) = self.totals;
        let text = format!(
            "{:.0} frames/s · {:.1} Mbit/s · {:.0} dropped/s",
            per_second(totals.0, frames),
            per_second(totals.1, bytes) * 8.0 / 1e6,
            per_second(totals.2, drops)
        );
        *self = Traffic::new(totals);
        text
    }
}
