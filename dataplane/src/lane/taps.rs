//! What observes a lane: captures and the flight recorder, as [`LaneTaps`].

use crate::capture::{LaneTap, Recorder, Verdict};
use crate::frame::Burst;

/// Captures of one lane at the same time, at most.
const MAX_TAPS: usize = 16;

/// A capture's end at the lane. Its number names it in the command that ends it.
#[derive(Debug)]
pub(crate) struct NumberedTap {
    pub(crate) number: u64,
    pub(crate) tap: LaneTap,
}

/// The captures and the flight recorder of a lane. None of them can hold up a frame: where their
/// memory is full, the copy is lost.
#[derive(Debug, Default)]
pub(crate) struct LaneTaps {
    /// Boxed one by one: adding or removing one by command neither allocates nor frees here.
    #[expect(
        clippy::vec_box,
        reason = "the boxes go back to control, which made them"
    )]
    taps: Vec<Box<NumberedTap>>,
    recorder: Option<Box<Recorder>>,
    /// A tap or the recorder is there.
    any: bool,
    /// A tap observes the frames that leave.
    any_on_wire: bool,
}

impl LaneTaps {
    /// Nothing observes the lane.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any
    }

    /// A tap observes the frames that leave.
    #[inline]
    pub(super) fn any_on_wire(&self) -> bool {
        self.any_on_wire
    }

    /// Reports a frame that entered at `time` (ns of [`clock::now`](crate::clock::now)), and what
    /// became of it.
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

    /// Reports a frame that left at `time`.
    pub(super) fn left(&mut self, time: u64, burst: &Burst, index: usize, verdict: &Verdict) {
        let frame = burst.frame(index);
        for NumberedTap { tap, .. } in self.taps.iter_mut().map(|tap| &mut **tap) {
            if tap.spec().wire {
                tap.see(time, burst.header(index), &frame, verdict);
            }
        }
    }

    /// Adds a capture; gives it back when there are [`MAX_TAPS`] already.
    pub(super) fn add(&mut self, tap: Box<NumberedTap>) -> Result<(), Box<NumberedTap>> {
        if self.taps.len() == MAX_TAPS {
            return Err(tap);
        }
        self.taps.push(tap);
        self.update_flags();
        Ok(())
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Box<NumberedTap>> {
        let at = self.taps.iter().position(|tap| tap.number == number)?;
        let tap = self.taps.swap_remove(at);
        self.update_flags();
        Some(tap)
    }

    pub(super) fn set_recorder(&mut self, new: Option<Box<Recorder>>) -> Option<Box<Recorder>> {
        let old = std::mem::replace(&mut self.recorder, new);
        self.update_flags();
        old
    }

    /// Kept beside the list so that the frame path asks one flag a burst.
    fn update_flags(&mut self) {
        self.any_on_wire = self.taps.iter().any(|tap| tap.tap.spec().wire);
        self.any = self.recorder.is_some() || !self.taps.is_empty();
    }
}
