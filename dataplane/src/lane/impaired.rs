//! What a lane with an impairment does: [`Impaired`].

use hdrhistogram::Histogram;

use super::exit::Exit;
use super::{Bursts, Watch};
use crate::capture::Verdict;
use crate::clock;
use crate::frame::{Burst, MAX_BURST};
use crate::hold::{Hold, Wait};
use crate::impair::{Fate, Held, Impairer, Impairment, ecn};
use crate::offload::{Cut, Offloads};
use crate::port::Port;
use crate::stats::{DropReason, LaneStats, Losses, Tally};

/// Holds of earlier impairments that frames may still wait in, and the one of this.
const MAX_HOLDS: usize = 4;

/// Bursts of held frames that leave in one go, at most: other cables wait meanwhile.
const BURSTS_PER_RELEASE: usize = 4;

/// Bytes of a frame's beginning in which ECN is looked for.
const ECN_HEAD: usize = ecn::HEAD;

/// A frame that leaves later than this after its time counts as late, in ns.
const LATE: u64 = 100_000;

/// How well a lane kept to what its impairment asked, since it was set.
#[derive(Debug, Clone)]
pub struct Accuracy {
    /// How many ns after their time the delayed frames were handed to the port: 1 ns to 10 s, two
    /// digits.
    pub delay_error: Histogram<u64>,
    /// Frames that were sent later than asked by more than 100 µs: the host was too busy.
    pub late: u64,
    /// Frames that the impairment decided on: super-frames as their pieces.
    pub judged: u64,
    /// Of these: lost on purpose.
    pub lost: u64,
    /// Marked (ECN) instead of lost.
    pub marked: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// With a bit flipped.
    pub corrupted: u64,
    /// Sent ahead of others.
    pub reordered: u64,
    /// Bytes that left while a rate limit had a queue, without the overhead that it adds.
    pub busy_bytes: u64,
    /// Frames that left then.
    pub busy_frames: u64,
    /// How long that was, in ns.
    pub busy_ns: u64,
}

impl Accuracy {
    fn new() -> Option<Self> {
        Some(Accuracy {
            delay_error: Histogram::new_with_bounds(1, 10_000_000_000, 2).ok()?,
            late: 0,
            judged: 0,
            lost: 0,
            marked: 0,
            duplicated: 0,
            corrupted: 0,
            reordered: 0,
            busy_bytes: 0,
            busy_frames: 0,
            busy_ns: 0,
        })
    }

    fn released(&mut self, late: u64) {
        // Within its bounds a histogram does not allocate.
        self.delay_error.saturating_record(late.max(1));
        self.late += u64::from(late > LATE);
    }
}

/// An impairment in force, and the frames that wait because of it.
#[derive(Debug)]
pub(crate) struct Impaired {
    /// `None` when it was taken away and only its frames still wait.
    impairer: Option<Impairer>,
    /// The last one takes frames in; the others are of earlier impairments.
    holds: Vec<Hold>,
    accuracy: Accuracy,
    /// When a frame that had waited was released last, while others waited: the beginning of
    /// what counts as busy.
    busy_since: Option<u64>,
    /// Of the frames that are leaving: when they should; 0 for those that did not wait.
    promised: [u64; MAX_BURST],
}

impl Impaired {
    /// Prepares an impairment; all memory that it may ever need is reserved here. `None` when
    /// there is not so much.
    pub(crate) fn new(settings: Impairment) -> Option<Box<Self>> {
        let mut holds = Vec::with_capacity(MAX_HOLDS);
        holds.push(Hold::new(settings.hold_bytes())?);
        Some(Box::new(Impaired {
            impairer: Some(Impairer::new(settings)),
            holds,
            accuracy: Accuracy::new()?,
            busy_since: None,
            promised: [0; MAX_BURST],
        }))
    }

    /// Takes over the frames that wait in an earlier one. What is of no more use stays with that,
    /// to be freed elsewhere.
    pub(super) fn succeed(&mut self, old: &mut Impaired, stats: &LaneStats) {
        if let (Some(new), Some(old)) = (&mut self.impairer, &old.impairer) {
            new.follow(old);
        }
        let large_enough = match (old.holds.last(), self.holds.last()) {
            (Some(theirs), Some(ours)) => theirs.is_as_large_as(ours),
            _ => false,
        };
        std::mem::swap(&mut self.holds, &mut old.holds);
        if large_enough {
            return;
        }
        // All of these vectors have room for MAX_HOLDS: nothing here allocates.
        let Some(ours) = old.holds.pop() else { return };
        while let Some(idle) = self.holds.iter().position(Hold::is_empty) {
            old.holds.push(self.holds.remove(idle));
        }
        if self.holds.len() == MAX_HOLDS {
            let mut oldest = self.holds.remove(0);
            let mut losses = Losses::default();
            losses.count(DropReason::HoldFull, oldest.purge());
            stats.add(&Tally::default(), &losses);
            old.holds.push(oldest);
        }
        self.holds.push(ours);
    }

    /// No frame is judged any more.
    pub(super) fn end(&mut self) {
        self.impairer = None;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.impairer.is_none() && self.next_release().is_none()
    }

    pub(super) fn accuracy(&self) -> Accuracy {
        self.accuracy.clone()
    }

    #[inline]
    pub(super) fn next_release(&self) -> Option<u64> {
        self.holds.iter().filter_map(Hold::next_release).min()
    }

    pub(super) fn purge(&mut self, reason: DropReason, stats: &LaneStats) {
        let frames = self.holds.iter_mut().map(Hold::purge).sum();
        if let Some(impairer) = &mut self.impairer {
            impairer.emptied();
        }
        let mut losses = Losses::default();
        losses.count(reason, frames);
        stats.add(&Tally::default(), &losses);
    }

    /// Judges every frame that was received: it goes out at once, waits, or is lost.
    pub(super) fn pass(
        &mut self,
        now: u64,
        stats: &LaneStats,
        watch: &mut Watch,
        mut to: Option<&mut Port>,
        memory: &mut Bursts,
    ) {
        // What is due goes first: nothing may overtake it.
        self.release(now, stats, watch, to.as_deref_mut(), memory);
        let mut passage = Passage {
            tally: Tally {
                frames_in: memory.losses.total(),
                bytes_in: memory.received.bytes(),
                ..Tally::default()
            },
            impaired: self,
            now,
            watch,
            to: to.as_deref_mut(),
            ready_losses: &mut memory.ready_losses,
            verdicts: &mut memory.verdicts,
            cut: &mut memory.cut,
            cut_losses: &mut memory.cut_losses,
            losses: &mut memory.losses,
        };
        let ready = &mut memory.ready;
        for index in 0..memory.received.len() {
            passage.frame(&mut memory.received, index, ready);
        }
        passage.flush(ready);
        stats.add(&passage.tally, &memory.losses);
        // A frame that was changed is a copy that waits, and may be due at once.
        self.release(now, stats, watch, to, memory);
    }

    /// Sends what is due, as much as may go in one go.
    pub(super) fn release(
        &mut self,
        now: u64,
        stats: &LaneStats,
        watch: &mut Watch,
        mut to: Option<&mut Port>,
        memory: &mut Bursts,
    ) {
        for _ in 0..BURSTS_PER_RELEASE {
            if self.next_release().is_none_or(|next| next > now) {
                return;
            }
            let Bursts {
                ready,
                ready_losses,
                verdicts,
                cut,
                cut_losses,
                ..
            } = memory;
            self.collect(now, ready, verdicts);
            let handed_over = clock::now();
            for promised in self.promised[..ready.len()].iter().filter(|at| **at > 0) {
                self.accuracy
                    .released(handed_over.saturating_sub(*promised));
            }
            let mut frames = ready.len() as u64;
            let before = frames;
            if let Some(port) = to.as_deref_mut() {
                let mut exit = Exit {
                    port,
                    cut,
                    cut_losses,
                    watch,
                    verdicts: Some(verdicts),
                    now,
                };
                frames += exit.send(ready, ready_losses);
            } else {
                ready_losses.lose_all(0..ready.len(), DropReason::Unplugged);
            }
            let tally = Tally {
                // A super-frame came in as one and leaves as its pieces.
                frames_in: frames - before,
                frames_out: frames - ready_losses.total(),
                ..Tally::default()
            };
            stats.add(&tally, ready_losses);
            ready.clear();
            ready_losses.clear();
            self.holds.iter_mut().for_each(Hold::reclaim);
        }
    }

    /// Moves what is due from the holds to a burst, in order.
    fn collect(&mut self, now: u64, ready: &mut Burst, verdicts: &mut super::Verdicts) {
        let settings = self.impairer.as_ref().map(Impairer::settings);
        while ready.has_room() {
            let due = |hold: &&mut Hold| hold.next_release().unwrap_or(u64::MAX);
            let Some(hold) = self.holds.iter_mut().min_by_key(due) else {
                return;
            };
            let index = ready.len();
            let Some(due) = hold.take(now, ready) else {
                return;
            };
            verdicts.0[index] = Verdict {
                delay: (due.release > due.arrival).then(|| now.saturating_sub(due.arrival)),
                ..due.verdict
            };
            let waited = due.release > due.arrival;
            self.promised[index] = if waited { due.release } else { 0 };
            if let Some(settings) = settings {
                let len = ready.frame_len(index) as u64;
                let queued = settings.was_queued(due.release - due.arrival, len as u32);
                if let (true, Some(since)) = (queued, self.busy_since) {
                    self.accuracy.busy_bytes += len;
                    self.accuracy.busy_frames += 1;
                    self.accuracy.busy_ns += now.saturating_sub(since);
                }
                self.busy_since = Some(now);
            }
        }
    }
}

/// One burst on its way through an impairment.
struct Passage<'a> {
    impaired: &'a mut Impaired,
    now: u64,
    watch: &'a mut Watch,
    to: Option<&'a mut Port>,
    ready_losses: &'a mut Losses,
    /// By index in the burst of those that are ready.
    verdicts: &'a mut super::Verdicts,
    cut: &'a mut Burst,
    cut_losses: &'a mut Losses,
    losses: &'a mut Losses,
    tally: Tally,
}

impl Passage<'_> {
    /// One frame as it came.
    fn frame(&mut self, received: &mut Burst, index: usize, ready: &mut Burst) {
        let settings = self.impaired.impairer.as_ref().map(Impairer::settings);
        let meant = settings.filter(|settings| match &settings.matches {
            Some(program) => program.run(&received.frame(index)) != 0,
            None => true,
        });
        let Some(settings) = meant else {
            self.tally.frames_in += 1;
            return self.goes_on(received, index, Verdict::default(), ready);
        };
        if !settings.acts_on_wire_frames() {
            return self.whole(received, index, ready);
        }
        // A wrong bit in a frame whose checksum is made later would go unnoticed.
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
            self.watch.entered(self.now, received, index, &verdict);
            return;
        };
        while pieces.len() > 0 {
            self.make_room(ready);
            pieces.add_next(ready);
            self.piece(ready);
        }
    }

    /// A frame that was not cut: it goes on, is kept to wait, or is lost.
    fn whole(&mut self, received: &mut Burst, index: usize, ready: &mut Burst) {
        let fate = self.decide(received, index);
        let mut verdict = self.verdict(&fate);
        if self.goes_at_once(&fate) {
            return self.goes_on(received, index, verdict, ready);
        }
        if fate.dropped.is_none() {
            let wait = self.wait(fate.release, verdict);
            let hold = self.impaired.holds.last_mut();
            if !hold.is_some_and(|hold| hold.take_over(received, index, wait)) {
                verdict.dropped = Some(DropReason::HoldFull);
            }
        }
        self.stays_behind(received, index, &verdict);
    }

    /// The last of the frames that are ready, which is a piece of one that was cut: it stays
    /// there, is copied to wait, or is lost.
    fn piece(&mut self, ready: &mut Burst) {
        let index = ready.len() - 1;
        let fate = self.decide(ready, index);
        let mut verdict = self.verdict(&fate);
        if self.goes_at_once(&fate) {
            self.verdicts.0[index] = verdict;
            return;
        }
        if fate.dropped.is_none() && !self.keep(ready, index, fate.release, verdict) {
            verdict.dropped = Some(DropReason::HoldFull);
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
        self.watch.entered(self.now, burst, index, verdict);
    }

    fn make_room(&mut self, ready: &mut Burst) {
        if !ready.has_room() {
            self.flush(ready);
        }
    }

    /// What becomes of a frame; of its second copy as well, if it gets one.
    fn decide(&mut self, burst: &Burst, index: usize) -> Fate {
        self.tally.frames_in += 1;
        let len = burst.frame_len(index) as u32;
        let Some(impairer) = &mut self.impaired.impairer else {
            return Fate::passes(self.now);
        };
        let hold = self.impaired.holds.last();
        let held = hold.map_or_else(Held::default, |hold| Held {
            frames: hold.frames(),
            bytes: hold.bytes(),
        });
        let mut head = [0; ECN_HEAD];
        let ect = impairer.settings().ecn && {
            let len = burst.copy_out(index, &mut head);
            ecn::ect(&head[..len])
        };
        let fate = impairer.judge(self.now, len, ect, held);
        let copy = fate
            .duplicate
            .then(|| impairer.judge_copy(&fate, self.now, len, ect, held));
        if let Some(copy) = copy {
            self.copy(burst, index, &copy);
        }
        self.account(&fate);
        fate
    }

    /// The second copy of a frame.
    fn copy(&mut self, burst: &Burst, index: usize, fate: &Fate) {
        self.tally.frames_in += 1;
        self.tally.done.duplicated += 1;
        self.impaired.accuracy.duplicated += 1;
        let verdict = Verdict {
            copy: true,
            ..self.verdict(fate)
        };
        let reason = match fate.dropped {
            None if !self.keep(burst, index, fate.release, verdict) => Some(DropReason::HoldFull),
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

    /// Whether a frame goes on from where it lies: now, unchanged, and past none that waits for
    /// this very moment.
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

    fn keep(&mut self, burst: &Burst, index: usize, release: u64, verdict: Verdict) -> bool {
        let wait = self.wait(release, verdict);
        let mend: Option<fn(&mut [u8])> = verdict.marked.then_some(ecn::mark);
        let hold = self.impaired.holds.last_mut();
        hold.is_some_and(|hold| hold.keep(burst, index, wait, mend))
    }

    fn account(&mut self, fate: &Fate) {
        let accuracy = &mut self.impaired.accuracy;
        accuracy.judged += 1;
        accuracy.lost += u64::from(fate.dropped == Some(DropReason::Loss));
        if fate.dropped.is_some() {
            return;
        }
        let done = &mut self.tally.done;
        let count = |happened: bool, done: &mut u64, seen: &mut u64| {
            *done += u64::from(happened);
            *seen += u64::from(happened);
        };
        count(
            fate.corrupt.is_some(),
            &mut done.corrupted,
            &mut accuracy.corrupted,
        );
        count(fate.reordered, &mut done.reordered, &mut accuracy.reordered);
        count(fate.mark, &mut done.marked, &mut accuracy.marked);
        done.delayed += u64::from(fate.release > self.now);
    }

    /// Sends the frames that are ready.
    fn flush(&mut self, ready: &mut Burst) {
        if ready.is_empty() {
            return;
        }
        if let Some(port) = self.to.as_deref_mut() {
            let mut exit = Exit {
                port,
                cut: self.cut,
                cut_losses: self.cut_losses,
                watch: self.watch,
                verdicts: Some(self.verdicts),
                now: self.now,
            };
            let more = exit.send(ready, self.ready_losses);
            self.tally.frames_in += more;
            self.tally.frames_out += more;
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
            self.watch.entered(self.now, ready, index, &verdict);
        }
        self.tally.frames_out += ready.len() as u64 - self.ready_losses.total();
        self.losses.absorb(self.ready_losses);
        self.ready_losses.clear();
        ready.clear();
    }
}
