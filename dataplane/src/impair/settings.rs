//! The settings of an impairment: [`Impairment`], passive data.

use std::sync::Arc;
use std::time::Duration;

use super::distribution::Distribution;
use crate::bpf::Program;

/// Longest delay, jitter or slot.
pub const MAX_TIME: Duration = Duration::from_secs(3600);
/// Fastest rate, in bit/s: the largest for which the arithmetic is exact.
pub const MAX_RATE: u64 = 10_000_000_000_000;
/// Most bytes, either way, that a rate may add to a frame.
pub const MAX_OVERHEAD: i32 = 65_535;
/// Largest cell, in bytes.
pub const MAX_CELL: u32 = 65_535;
/// Most bytes, either way, that a rate may add to a cell.
pub const MAX_CELL_OVERHEAD: i32 = 1_024;

/// The rate that the default limit assumes where none is set: a lane is not faster.
const FASTEST: u64 = 40_000_000_000;
/// The queue in front of a rate, in addition to the frames that its delay holds.
const QUEUE: Duration = Duration::from_millis(200);
/// The default limit's range, in bytes.
const LEAST_HOLD: u64 = 16 << 20;
const LEAST_HOLD_WITH_RATE: u64 = 256 << 10;
const MOST_HOLD: u64 = 1 << 30;

/// One lane's impairment, with the keys of tc-netem(8) and their meaning; the module's
/// documentation says how they act together. The default does nothing.
///
/// All probabilities and correlations are 0..=1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Impairment {
    /// Every frame waits this long. Up to [`MAX_TIME`].
    pub delay: Duration,
    /// The delay varies by this much: at most by this either way when it is distributed uniformly,
    /// otherwise this is the standard deviation. Up to [`MAX_TIME`]. A delay is never below 0.
    pub jitter: Duration,
    /// The correlation of a frame's jitter with that of the frame before.
    pub delay_correlation: f64,
    /// How the jitter is distributed.
    pub distribution: Distribution,
    /// Which frames are lost.
    pub loss: Loss,
    /// Frames that can carry a congestion mark (RFC 3168) get one instead of being lost.
    pub ecn: bool,
    /// Frames that are sent twice.
    pub duplicate: Chance,
    /// Frames of which one bit is flipped.
    pub corrupt: Chance,
    /// Frames that do not wait, and so overtake those that do.
    pub reorder: Chance,
    /// With `reorder`: of this many frames at most one overtakes; `gap - 1` frames wait before the
    /// next may overtake. 0 and 1: every frame may.
    pub gap: u32,
    /// The rate of the line. `None`: unlimited.
    pub rate: Option<Rate>,
    /// How much may wait at a time. `None`: [`Impairment::hold_bytes`].
    pub limit: Option<Limit>,
    /// Frames leave in bursts.
    pub slot: Option<Slot>,
    /// The same seed and the same frames give the same verdicts. Two lanes of one seed lose
    /// frames of the same numbers: give each its own.
    pub seed: u64,
    /// Drops exactly these frames; the frames that match are counted from 1 since this was set.
    pub drop_nth: Arc<[u64]>,
    /// Only frames that match are judged; all others pass as without an impairment.
    pub matches: Option<Program>,
}

/// An event that happens to some frames.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Chance {
    /// The share of the frames, 0..=1.
    pub probability: f64,
    /// The correlation of a frame's random number with that of the frame before, 0..=1.
    pub correlation: f64,
}

/// Which frames are lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Loss {
    /// No frame is lost.
    #[default]
    None,
    /// Every frame is lost with the same probability.
    Random {
        /// The share of the frames, 0..=1.
        probability: f64,
        /// The correlation of a frame's random number with that of the frame before, 0..=1.
        correlation: f64,
    },
    /// The Markov chain of Salsano, Ludovici and Ordine. States: 1 all is well, 2 received
    /// within a burst of losses, 3 lost within a burst, 4 lost alone; `pAB` leads from A to B.
    /// [`Loss::state`] knows the defaults.
    State {
        /// A burst begins. With `p14` at most 1.
        p13: f64,
        /// A burst ends. With `p32` at most 1.
        p31: f64,
        /// Frames are received within a burst.
        p32: f64,
        /// ... and lost again.
        p23: f64,
        /// A frame is lost alone.
        p14: f64,
    },
    /// Gilbert and Elliott: a good and a bad state. [`Loss::gemodel`] knows the defaults.
    Gemodel {
        /// From the good state to the bad one.
        p: f64,
        /// From the bad state to the good one.
        r: f64,
        /// Share of the frames that *survive* in the bad state (tc-netem(8) takes `1-h`).
        h: f64,
        /// Share of the frames that *survive* in the good state (tc-netem(8) takes `1-k`).
        k: f64,
    },
}

/// A line of limited rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// 1..=[`MAX_RATE`].
    pub bits_per_second: u64,
    /// Bytes that a frame takes on the line beyond its own (Ethernet: 24, with FCS, preamble and
    /// gap); below 0 for less. Up to [`MAX_OVERHEAD`] either way.
    pub overhead: i32,
    /// The line carries cells of this many bytes of payload (ATM: 48), the last one padded;
    /// 0: not divided into cells. Up to [`MAX_CELL`].
    pub cell: u32,
    /// Bytes that a cell takes beyond its payload (ATM: 5). Up to [`MAX_CELL_OVERHEAD`] either
    /// way; a cell cannot be shorter than 0 bytes.
    pub cell_overhead: i32,
}

/// How much may wait at once. A frame that comes when this is full is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes that may wait; above 0.
    Bytes(u64),
    /// Frames that may wait; above 0. Their bytes are still limited to [`Impairment::hold_bytes`].
    Frames(u64),
}

/// Frames gather until a slot opens and then leave together, as on DOCSIS, Wi-Fi or LTE.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The time from one slot to the next.
    pub wait: SlotWait,
    /// Frames that fit into a slot; 0: any number.
    pub frames: u64,
    /// A slot is over when this many bytes have left in it, counting the last frame whole;
    /// 0: any number.
    pub bytes: u64,
}

/// How long until the next slot.
#[derive(Debug, Clone, PartialEq)]
pub enum SlotWait {
    /// Uniform between the two.
    Between {
        /// Shortest wait.
        min: Duration,
        /// Longest wait, not below `min`, above 0, up to [`MAX_TIME`].
        max: Duration,
    },
    /// Distributed like the `delay` and `jitter` of a frame.
    Distributed {
        /// Mean, up to [`MAX_TIME`].
        delay: Duration,
        /// Deviation, above 0, up to [`MAX_TIME`].
        jitter: Duration,
        /// Its distribution.
        distribution: Distribution,
    },
}

impl Loss {
    /// [`Loss::State`] with the defaults of tc-netem(8) for values that are not given: with `p13` alone,
    /// a frame is lost with that probability.
    pub fn state(
        p13: f64,
        p31: Option<f64>,
        p32: Option<f64>,
        p23: Option<f64>,
        p14: Option<f64>,
    ) -> Self {
        Loss::State {
            p13,
            p31: p31.unwrap_or(1.0 - p13),
            p32: p32.unwrap_or(0.0),
            p23: p23.unwrap_or(1.0),
            p14: p14.unwrap_or(0.0),
        }
    }

    /// [`Loss::Gemodel`] from the values that tc-netem(8) takes, with its defaults for values
    /// that are not given: `loss_in_bad` is its `1-h`, `loss_in_good` its `1-k`.
    pub fn gemodel(
        p: f64,
        r: Option<f64>,
        loss_in_bad: Option<f64>,
        loss_in_good: Option<f64>,
    ) -> Self {
        Loss::Gemodel {
            p,
            r: r.unwrap_or(1.0 - p),
            h: 1.0 - loss_in_bad.unwrap_or(1.0),
            k: 1.0 - loss_in_good.unwrap_or(0.0),
        }
    }

    /// Whether it never loses a frame.
    fn is_none(&self) -> bool {
        match *self {
            Loss::None => true,
            Loss::Random { probability, .. } => probability == 0.0,
            Loss::State { p13, p14, .. } => p13 == 0.0 && p14 == 0.0,
            Loss::Gemodel { p, h, k, .. } => k >= 1.0 && (p == 0.0 || h >= 1.0),
        }
    }
}

impl Chance {
    pub(super) fn is_never(&self) -> bool {
        self.probability == 0.0
    }
}

impl Slot {
    fn longest(&self) -> Duration {
        match &self.wait {
            SlotWait::Between { max, .. } => *max,
            SlotWait::Distributed {
                delay,
                jitter,
                distribution,
            } => delay.saturating_add(jitter.saturating_mul(distribution.reach())),
        }
    }
}

impl Impairment {
    /// Whether frames pass as without an impairment: no key that is set has an effect.
    pub fn is_clean(&self) -> bool {
        self.delay.is_zero() && !self.acts_on_wire_frames()
    }

    /// Whether wire frames are judged, so that super-frames have to be cut first. Constant delay alone
    /// leaves them whole.
    pub fn acts_on_wire_frames(&self) -> bool {
        !self.jitter.is_zero()
            || !self.loss.is_none()
            || !self.duplicate.is_never()
            || !self.corrupt.is_never()
            || !self.reorder.is_never()
            || self.rate.is_some()
            || self.slot.is_some()
            || !self.drop_nth.is_empty()
    }

    /// Whether a frame may have to wait.
    pub(super) fn holds(&self) -> bool {
        !self.delay.is_zero()
            || !self.jitter.is_zero()
            || self.rate.is_some()
            || self.slot.is_some()
    }

    /// Most bytes that wait at a time. Without a `limit` in bytes: as many as a lane at full rate sends
    /// in the longest delay, so that a delay never costs throughput (16 MiB..=1 GiB); with a `rate`,
    /// as many as that sends in the longest delay and 200 ms more, the queue in front of a line
    /// (256 KiB..=1 GiB).
    pub fn hold_bytes(&self) -> u64 {
        if let Some(Limit::Bytes(bytes)) = self.limit {
            return bytes;
        }
        let slot = self.slot.as_ref().map_or(Duration::ZERO, Slot::longest);
        let longest = self.longest_delay().saturating_add(slot);
        let (rate, time, least) = match self.rate {
            Some(rate) => {
                let time = longest.saturating_add(QUEUE);
                (rate.bits_per_second, time, LEAST_HOLD_WITH_RATE)
            }
            None => (FASTEST, longest, LEAST_HOLD),
        };
        let bytes = u128::from(rate).saturating_mul(time.as_nanos()) / 8_000_000_000;
        u64::try_from(bytes)
            .unwrap_or(u64::MAX)
            .clamp(least, MOST_HOLD)
    }

    fn longest_delay(&self) -> Duration {
        let jitter = self.jitter.saturating_mul(self.distribution.reach());
        self.delay.saturating_add(jitter)
    }

    /// Whether a frame of `len` bytes that waited this long, in ns, was queued behind others in front
    /// of the line of limited rate.
    pub(crate) fn was_queued(&self, waited: u64, len: u32) -> bool {
        let Some(rate) = &self.rate else { return false };
        let alone = self.longest_delay();
        let on_the_line =
            u128::from(rate.bytes_on_line(len)) * 8_000_000_000 / u128::from(rate.bits_per_second);
        u128::from(waited) > alone.as_nanos() + on_the_line * 3 / 2
    }

    /// Whether frames may be changed, so that their checksums have to be finished first.
    pub(crate) fn finishes_checksums(&self) -> bool {
        !self.corrupt.is_never()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(delay: u64, rate: Option<u64>) -> u64 {
        let settings = Impairment {
            delay: Duration::from_millis(delay),
            rate: rate.map(|bits_per_second| Rate {
                bits_per_second,
                overhead: 0,
                cell: 0,
                cell_overhead: 0,
            }),
            ..Impairment::default()
        };
        settings.hold_bytes()
    }

    #[test]
    fn the_hold_has_room_for_the_bandwidth_delay_product() {
        assert_eq!(held(0, None), 16 << 20);
        assert_eq!(held(50, None), 250_000_000);
        assert_eq!(held(3_600_000, None), 1 << 30);
        assert_eq!(held(50, Some(1_000_000)), 256 << 10);
        assert_eq!(held(800, Some(1_000_000_000)), 125_000_000);
    }

    #[test]
    fn what_does_nothing_is_clean() {
        let changed = |change: fn(&mut Impairment)| {
            let mut settings = Impairment::default();
            change(&mut settings);
            (settings.is_clean(), settings.acts_on_wire_frames())
        };
        let (clean, cuts, whole) = ((true, false), (false, true), (false, false));
        assert_eq!(changed(|_| ()), clean);
        assert_eq!(changed(|it| it.seed = 5), clean);
        assert_eq!(changed(|it| it.limit = Some(Limit::Frames(3))), clean);
        assert_eq!(
            changed(|it| it.loss = Loss::gemodel(0.0, Some(0.5), None, None)),
            clean
        );
        assert_eq!(changed(|it| it.delay = Duration::from_millis(1)), whole);
        assert_eq!(changed(|it| it.jitter = Duration::from_millis(1)), cuts);
        assert_eq!(changed(|it| it.drop_nth = [4].into()), cuts);
        assert_eq!(
            changed(|it| it.loss = Loss::gemodel(0.0, None, None, Some(0.1))),
            cuts
        );
    }
}
