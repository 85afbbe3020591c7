//! Who looks on at a lane: captures and the flight recorder.

use crate::capture::{LaneTap, Recorder, Verdict};
use crate::frame::Burst;

/// Captures of one lane at the same time, at most.
const MAX_TAPS: usize = 16;

/// A capture's end at the lane, and what to call it by.
#[derive(Debug)]
pub(crate) struct NumberedTap {
    pub(crate) number: u64,
    pub(crate) tap: LaneTap,
}

/// The onlookers of a lane. Nobody of them can hold up a frame.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Boxed one by one: what comes and goes by command is neither allocated nor freed here.
    #[expect(clippy::vec_box, reason = "the boxes go back to who made them")]
    taps: Vec<Box<NumberedTap>>,
    recorder: Option<Box<Recorder>>,
    /// Whether any of the taps looks at the frames that leave.
    wire: bool,
    any: bool,
}

impl Watch {
    /// Nobody looks.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        !self.any
    }

    /// Somebody looks at the frames that leave.
    #[inline]
    pub(super) fn is_wired(&self) -> bool {
        self.wire
    }

    /// A frame entered at `time`, and this became of it.
    #[inline]
    pub(super) fn entered(&mut self, time: u64, burst: &Burst, index: usize, verdict: &Verdict) {
        let frame = burst.frame(index);
        if let Some(recorder) = &mut self.recorder {
            recorder.see(time, burst.header(index), &frame, verdict);
        }
        for NumberedTap { tap, .. } in self.taps.iter_mut().map(|tap| &mut **tap) {
            if !tap.spec().wire {
                tap.see(time, burst.header(index), &frame, verdict);
            }
        }
    }

    /// A frame left at `time`.
    pub(super) fn left(&mut self, time: u64, burst: &Burst, index: usize, verdict: &Verdict) {
        let frame = burst.frame(index);
        for NumberedTap { tap, .. } in self.taps.iter_mut().map(|tap| &mut **tap) {
            if tap.spec().wire {
                tap.see(time, burst.header(index), &frame, verdict);
            }
        }
    }

    pub(super) fn tap(&mut self, tap: Box<NumberedTap>) -> Result<(), Box<NumberedTap>> {
        if self.taps.len() == MAX_TAPS {
            return Err(tap);
        }
        self.taps.push(tap);
        self.look_again();
        Ok(())
    }

    pub(super) fn untap(&mut self, number: u64) -> Option<Box<NumberedTap>> {
        let at = self.taps.iter().position(|tap| tap.number == number)?;
        let tap = self.taps.swap_remove(at);
        self.look_again();
        Some(tap)
    }

    pub(super) fn record(&mut self, recorder: Option<Box<Recorder>>) -> Option<Box<Recorder>> {
        let old = std::mem::replace(&mut self.recorder, recorder);
        self.look_again();
        old
    }

    fn look_again(&mut self) {
        self.wire = self.taps.iter().any(|tap| tap.tap.spec().wire);
        self.any = self.recorder.is_some() || !self.taps.is_empty();
    }
}
