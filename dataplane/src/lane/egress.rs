//! The end of a lane: [`Egress`] sends frames in the form that their receiver takes.

use super::{LaneTaps, Verdicts};
use crate::capture::Verdict;
use crate::frame::Offloads;
use crate::frame::{Burst, MAX_BURST};
use crate::offload::Cut;
use crate::port::Port;
use crate::stats::{DropReason, Losses};

/// The port that frames leave by, the taps that observe them, and memory to cut them in.
pub(super) struct Egress<'a> {
    pub(super) port: &'a mut Port,
    pub(super) cut: &'a mut Burst,
    pub(super) cut_losses: &'a mut Losses,
    pub(super) taps: &'a mut LaneTaps,
    /// What became of each frame of the burst so far; `None` when nothing did.
    pub(super) verdicts: Option<&'a Verdicts>,
    pub(super) now: u64,
}

/// For each frame of the cut burst: its index in the burst that it came from, and whether it is one of
/// several pieces.
type Origins = [(u8, bool); MAX_BURST];

/// Frames that sending a burst made of its super-frames.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cuts {
    /// How many frames more than the burst has are to be counted.
    pub(super) more: u64,
    /// How many pieces were made. Those of a receiver that is full are only counted.
    pub(super) made: u64,
}

impl Egress<'_> {
    /// Sends the burst.
    #[inline]
    pub(super) fn send(&mut self, burst: &Burst, losses: &mut Losses) -> Cuts {
        let mut next = 0;
        while next < burst.len() {
            let takes = self.port.takes();
            if !takes.contains(burst.needs()) {
                return self.send_finished(burst, next, takes, losses);
            }
            let from = next;
            next = self.port.send(burst, next, losses);
            if self.taps.any_on_wire() {
                for index in from..next {
                    if losses.fate(index).is_none() {
                        let verdict = self.verdict(index);
                        self.taps.left(self.now, burst, index, &verdict);
                    }
                }
            }
        }
        Cuts::default()
    }

    fn verdict(&self, index: usize) -> Verdict {
        self.verdicts
            .map_or_else(Verdict::default, |verdicts| verdicts.0[index])
    }

    /// As [`Egress::send`], but first finishes checksums and cuts super-frames that the receiver does
    /// not take. Once the receiver takes no piece any more, it gets no other one of this burst: they are
    /// counted without being made.
    fn send_finished(
        &mut self,
        burst: &Burst,
        from: usize,
        takes: Offloads,
        losses: &mut Losses,
    ) -> Cuts {
        // The kernel may refuse a super-frame that stays whole, and there is no second try from here.
        let takes = if self.port.needs_syscall() {
            takes.without(Offloads::ALL.without(Offloads::CSUM))
        } else {
            takes
        };
        let mut cuts = Cuts::default();
        let mut refused = None;
        let mut origins: Origins = [(0, false); MAX_BURST];
        for index in from..burst.len() {
            if takes.contains(burst.frame_needs(index)) {
                if !self.cut.has_room() {
                    refused = self.flush(&origins, losses);
                }
                origins[self.cut.len()] = (index as u8, false);
                self.cut.push_again(burst, index);
                continue;
            }
            let Some(mut pieces) = Cut::new(burst, index, takes) else {
                losses.lose(index, DropReason::Malformed);
                continue;
            };
            let several = pieces.len() > 1;
            cuts.more += pieces.len() as u64 - 1;
            while pieces.len() > 0 {
                if !self.cut.has_room() {
                    refused = self.flush(&origins, losses);
                }
                if let (Some(reason), true) = (refused, several) {
                    losses.lose_pieces(index, pieces.len() as u16, reason);
                    break;
                }
                cuts.made += 1;
                origins[self.cut.len()] = (index as u8, several);
                pieces.add_next(self.cut);
            }
        }
        self.flush(&origins, losses);
        cuts
    }

    /// Sends the cut burst. Returns why its last frame was lost, if the next one would be, too.
    fn flush(&mut self, origins: &Origins, losses: &mut Losses) -> Option<DropReason> {
        let sent = self.port.send(self.cut, 0, self.cut_losses);
        // A port does not refuse a frame that it has just agreed to take. If it does, it is counted.
        let rest = sent..self.cut.len();
        self.cut_losses.lose_all(rest, DropReason::PortError);
        for (index, (origin, several)) in origins[..self.cut.len()].iter().enumerate() {
            let origin = usize::from(*origin);
            match self.cut_losses.fate(index) {
                Some(reason) if *several => losses.lose_piece(origin, reason),
                Some(reason) => losses.lose(origin, reason),
                None if self.taps.any_on_wire() => {
                    let verdict = self.verdict(origin);
                    self.taps.left(self.now, self.cut, index, &verdict);
                }
                None => {}
            }
        }
        let last = self.cut.len().checked_sub(1);
        let refused = last.and_then(|last| self.cut_losses.fate(last));
        self.cut_losses.clear();
        self.cut.clear();
        refused.filter(|reason| matches!(reason, DropReason::ReceiverFull | DropReason::Unplugged))
    }
}
