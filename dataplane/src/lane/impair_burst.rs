//! Puts one burst through an impairment: [`ImpairBurst`].

use super::egress::Egress;
use super::{Impaired, LaneTaps, Verdicts};
use crate::capture::Verdict;
use crate::frame::Burst;
use crate::frame::Offloads;
use crate::hold::Wait;
use crate::impair::{Backlog, Fate, Impairer, ecn};
use crate::offload::Cut;
use crate::port::Port;
use crate::stats::{DropReason, Losses, Tally};

/// Bytes from a frame's beginning in which the ECN field is found.
const ECN_HEAD: usize = ecn::HEAD;

/// The state of one burst on its way through an impairment.
pub(super) struct ImpairBurst<'a> {
    pub(super) impaired: &'a mut Impaired,
    pub(super) now: u64,
    pub(super) taps: &'a mut LaneTaps,
    pub(super) to: Option<&'a mut Port>,
    pub(super) ready_losses: &'a mut Losses,
    /// By index in the burst of ready frames.
    pub(super) verdicts: &'a mut Verdicts,
    pub(super) cut: &'a mut Burst,
    pub(super) cut_losses: &'a mut Losses,
    pub(super) losses: &'a mut Losses,
    pub(super) tally: Tally,
    /// Pieces of super-frames that were made so far.
    pub(super) made: u64,
}

impl ImpairBurst<'_> {
    /// Judges one frame as it came, or each of its pieces.
    pub(super) fn frame(&mut self, received: &mut Burst, index: usize, ready: &mut Burst) {
        let settings = self.impaired.impairer.as_ref().map(Impairer::settings);
        let meant = settings.filter(|settings| match &settings.matches {
            Some(program) => program.run(&received.frame(index)) != 0,
            None => true,
        });
        let Some(settings) = meant else {
            return self.unjudged(received, index, ready);
        };
        if !settings.acts_on_wire_frames() {
            return self.whole(received, index, ready);
        }
        // With a checksum that is finished later, a flipped bit would go unnoticed.
        let takes = if settings.finishes_checksums() {
            Offloads::NONE
        } else {
            Offloads::CSUM
        };
        let Some(mut pieces) = Cut::new(received, index, takes) else {
            self.tally.frames_in += 1;
            self.losses.lose(index, DropReason::Malformed);
            let verdict = Verdict {
                dropped: Some(DropReason::Malformed),
                ..Verdict::default()
            };
            self.taps.entered(self.now, received, index, &verdict);
            return;
        };
        while pieces.len() > 0 {
            self.make_room(ready);
            pieces.add_next(ready);
            self.made += 1;
            self.piece(ready);
        }
    }

    /// A frame that the impairment does not mean goes on, but not past frames whose impairment was just
    /// taken away.
    fn unjudged(&mut self, received: &mut Burst, index: usize, ready: &mut Burst) {
        self.tally.frames_in += 1;
        let mut verdict = Verdict::default();
        if !self.impaired.is_overdue() {
            return self.goes_on(received, index, verdict, ready);
        }
        verdict.dropped = self.take_over(received, index, self.now, verdict).err();
        self.stays_behind(received, index, &verdict);
    }

    /// Judges a frame that was not cut: it goes on, waits in the hold, or is lost.
    fn whole(&mut self, received: &mut Burst, index: usize, ready: &mut Burst) {
        let fate = self.decide(received, index);
        let mut verdict = self.verdict(&fate);
        if self.goes_at_once(&fate) {
            return self.goes_on(received, index, verdict, ready);
        }
        if fate.dropped.is_none() {
            verdict.dropped = self.take_over(received, index, fate.release, verdict).err();
        }
        self.stays_behind(received, index, &verdict);
    }

    /// Judges the last of the ready frames, a piece of one that was cut: it stays there, is copied to
    /// wait, or is lost.
    fn piece(&mut self, ready: &mut Burst) {
        let index = ready.len() - 1;
        let fate = self.decide(ready, index);
        let mut verdict = self.verdict(&fate);
        if self.goes_at_once(&fate) {
            self.verdicts.0[index] = verdict;
            return;
        }
        if fate.dropped.is_none() {
            verdict.dropped = self.keep(ready, index, fate.release, verdict).err();
        }
        self.stays_behind(ready, index, &verdict);
        ready.pop();
    }

    fn goes_on(&mut self, burst: &Burst, index: usize, verdict: Verdict, ready: &mut Burst) {
        self.make_room(ready);
        self.verdicts.0[ready.len()] = verdict;
        ready.push_again(burst, index);
    }

    fn stays_behind(&mut self, burst: &Burst, index: usize, verdict: &Verdict) {
        if let Some(reason) = verdict.dropped {
            self.losses.count(reason, 1);
        }
        self.taps.entered(self.now, burst, index, verdict);
    }

    fn make_room(&mut self, ready: &mut Burst) {
        if !ready.has_room() {
            self.flush(ready);
        }
    }

    /// Decides what becomes of a frame, and of its duplicate if it gets one.
    fn decide(&mut self, burst: &Burst, index: usize) -> Fate {
        self.tally.frames_in += 1;
        let len = burst.frame_len(index) as u32;
        let Some(impairer) = &mut self.impaired.impairer else {
            return Fate::passes(self.now);
        };
        let hold = self.impaired.holds.last();
        let backlog = hold.map_or_else(Backlog::default, |hold| Backlog {
            frames: hold.frames(),
            bytes: hold.bytes(),
        });
        let mut head = [0; ECN_HEAD];
        let ect = impairer.settings().ecn && {
            let len = burst.copy_out(index, &mut head);
            ecn::ect(&head[..len])
        };
        let fate = impairer.judge(self.now, len, ect, backlog);
        let copy = fate
            .duplicate
            .then(|| impairer.judge_copy(&fate, self.now, len, ect, backlog));
        if let Some(copy) = copy {
            self.copy(burst, index, &copy);
        }
        self.account(&fate);
        fate
    }

    /// Makes the duplicate of a frame.
    fn copy(&mut self, burst: &Burst, index: usize, fate: &Fate) {
        self.tally.frames_in += 1;
        self.tally.impaired.duplicated += 1;
        self.impaired.accuracy.duplicated += 1;
        let verdict = Verdict {
            copy: true,
            ..self.verdict(fate)
        };
        let reason = match fate.dropped {
            None => self.keep(burst, index, fate.release, verdict).err(),
            dropped => dropped,
        };
        if let Some(reason) = reason {
            self.losses.count(reason, 1);
        }
    }

    fn verdict(&self, fate: &Fate) -> Verdict {
        Verdict {
            dropped: fate.dropped,
            delay: (fate.release > self.now).then(|| fate.release - self.now),
            duplicated: fate.duplicate,
            corrupted: fate.corrupt,
            reordered: fate.reordered,
            marked: fate.mark,
            ..Verdict::default()
        }
    }

    /// Whether a frame is sent from where it lies: it is due now, unchanged, and does not overtake a
    /// frame that is due now as well.
    fn goes_at_once(&self, fate: &Fate) -> bool {
        let next = self.impaired.next_release();
        fate.dropped.is_none()
            && fate.release <= self.now
            && fate.corrupt.is_none()
            && !fate.mark
            && next.is_none_or(|next| next > self.now)
    }

    fn wait(&self, release: u64, verdict: Verdict) -> Wait {
        Wait {
            arrival: self.now,
            release,
            verdict,
        }
    }

    /// Lets a frame of a burst that is not sent any more wait.
    fn take_over(
        &mut self,
        burst: &mut Burst,
        index: usize,
        release: u64,
        verdict: Verdict,
    ) -> Result<(), DropReason> {
        let wait = self.wait(release, verdict);
        let hold = self.impaired.holds.last_mut();
        let hold = hold.ok_or(DropReason::HoldFull)?;
        hold.take_over(burst, index, wait)
    }

    fn keep(
        &mut self,
        burst: &Burst,
        index: usize,
        release: u64,
        verdict: Verdict,
    ) -> Result<(), DropReason> {
        let wait = self.wait(release, verdict);
        let mend: Option<fn(&mut [u8])> = verdict.marked.then_some(ecn::mark);
        let hold = self.impaired.holds.last_mut();
        let hold = hold.ok_or(DropReason::HoldFull)?;
        hold.copy_in(burst, index, wait, mend)
    }

    fn account(&mut self, fate: &Fate) {
        let accuracy = &mut self.impaired.accuracy;
        accuracy.judged += 1;
        accuracy.lost += u64::from(fate.dropped == Some(DropReason::Loss));
        if fate.dropped.is_some() {
            return;
        }
        let counts = &mut self.tally.impaired;
        let count = |happened: bool, done: &mut u64, seen: &mut u64| {
            *done += u64::from(happened);
            *seen += u64::from(happened);
        };
        count(
            fate.corrupt.is_some(),
            &mut counts.corrupted,
            &mut accuracy.corrupted,
        );
        count(
            fate.reordered,
            &mut counts.reordered,
            &mut accuracy.reordered,
        );
        count(fate.mark, &mut counts.marked, &mut accuracy.marked);
        counts.delayed += u64::from(fate.release > self.now);
    }

    /// Sends the frames that are ready.
    pub(super) fn flush(&mut self, ready: &mut Burst) {
        if ready.is_empty() {
            return;
        }
        if let Some(port) = self.to.as_deref_mut() {
            let mut egress = Egress {
                port,
                cut: self.cut,
                cut_losses: self.cut_losses,
                taps: self.taps,
                verdicts: Some(self.verdicts),
                now: self.now,
            };
            let cuts = egress.send(ready, self.ready_losses);
            self.tally.frames_in += cuts.more;
            self.tally.frames_out += cuts.more;
            self.made += cuts.made;
        } else {
            let whole = 0..ready.len();
            self.ready_losses.lose_all(whole, DropReason::Unplugged);
        }
        for index in 0..ready.len() {
            let verdict = Verdict {
                dropped: self.ready_losses.fate(index),
                lost_pieces: self.ready_losses.pieces(index),
                ..self.verdicts.0[index]
            };
            self.taps.entered(self.now, ready, index, &verdict);
        }
        self.tally.frames_out += ready.len() as u64 - self.ready_losses.total();
        self.losses.absorb(self.ready_losses);
        self.ready_losses.clear();
        ready.clear();
    }
}
