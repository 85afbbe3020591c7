//! What a lane does to its frames on purpose: loss, delay and the other keys of tc-netem(8).
//!
//! Pure: time is an argument and random numbers come from a seed, so the same frames at the same times
//! meet the same fate. An [`Impairment`] is the settings; the `Impairer` judges the frames of one lane,
//! one after the other, and the lane carries out its verdicts.
//!
//! # How the keys act together
//! A frame passes them in this order, which is netem's:
//!
//! 1. *drop_nth*: a chosen frame is dropped; no further key applies to it.
//! 2. *duplicate* is decided before the frame's own loss. The copy then passes the following keys by
//!    itself: it can be lost, corrupted or delayed alone, but not duplicated.
//! 3. *loss*, or the *ecn* mark instead. If a frame is lost and duplicated, its copy remains and is
//!    not lost as well. The copy of a marked frame is marked.
//! 4. *corrupt*: one bit, anywhere in the frame.
//! 5. *limit*: if frames can wait at all, one that comes when it is full is dropped.
//! 6. *reorder*: a chosen frame is sent at once. No delay, rate or slot holds it.
//! 7. *delay* and *jitter*. Jitter alone reorders, too, as soon as frames come closer together
//!    than it is wide.
//! 8. *rate*: the line sends a frame when it has finished the one before, so the order stays
//!    the same under any jitter. Delay that a frame spends in this queue counts: a frame leaves
//!    the queue when its delay is over and the line is free.
//! 9. *slot*: frames that are due wait for the next slot.
//!
//! *matches* comes before all of these: frames that do not match are neither judged nor counted for
//! *drop_nth*.
//!
//! Each key draws from a sequence of its own, so that changing one leaves the others' verdicts
//! as they were. When the settings change, the sequences continue, unless the seed changes.
//!
//! # Where this is not netem
//! - 0 % is never and 100 % always: netem compares so that one in 2^32 slips through.
//! - A correlation does not change how many frames are met: netem's 1 % with a correlation of
//!   50 % is far less than 1 %.
//! - The limit counts bytes by default, enough for the delay ([`Impairment::hold_bytes`]),
//!   not 1000 packets.
//! - A line's rate is exact: fractions of nanoseconds are carried over.
//! - Slots begin when frames are due, not when the queue happens to be looked at.

mod chance;
mod check;
mod chosen;
mod curve;
mod distribution;
pub(crate) mod ecn;
mod fate;
mod loss;
mod normal;
#[cfg(test)]
mod properties;
mod rate;
mod settings;
mod slot;
#[cfg(test)]
mod statistics;
#[cfg(test)]
mod tests;

pub use check::ImpairError;
pub use distribution::{Distribution, MAX_TABLE, TableError, parse_table};
pub use settings::{
    Chance, Impairment, Limit, Loss, MAX_CELL, MAX_CELL_OVERHEAD, MAX_OVERHEAD, MAX_RATE, MAX_TIME,
    Rate, Slot, SlotWait,
};

use crate::stats::DropReason;
use chance::{Odds, Source, Sources, scale};
use chosen::Chosen;
use distribution::Spread;
pub(crate) use fate::{Backlog, Fate};
use loss::LossModel;
use rate::Line;
use slot::Slots;

/// Judges the frames of one lane. [`Impairment::check`] has passed.
#[derive(Debug)]
pub(crate) struct Impairer {
    settings: Impairment,
    chosen: Chosen,
    duplicate: Odds,
    loss: LossModel,
    corrupt: Odds,
    holds: bool,
    limit: Backlog,
    reorder: Odds,
    /// The number of frames that have waited since the last one that was reordered.
    in_gap: u32,
    delay: Delay,
    line: Option<Line>,
    slots: Option<Slots>,
}

impl Impairer {
    /// May compute tables, and allocates: not for the frame path.
    pub(crate) fn new(settings: Impairment) -> Self {
        let mut sources = Sources::new(settings.seed);
        let sources = &mut sources;
        let odds = |sources: &mut Sources, chance: Chance| {
            Odds::new(chance.probability, sources.next(chance.correlation))
        };
        // Every key takes a source, used or not, so that the other keys' sources stay the same.
        Impairer {
            chosen: Chosen::new(&settings.drop_nth),
            duplicate: odds(sources, settings.duplicate),
            loss: LossModel::new(settings.loss, sources),
            corrupt: odds(sources, settings.corrupt),
            holds: settings.holds(),
            limit: Backlog {
                frames: match settings.limit {
                    Some(Limit::Frames(frames)) => frames,
                    _ => u64::MAX,
                },
                bytes: settings.hold_bytes(),
            },
            reorder: odds(sources, settings.reorder),
            in_gap: 0,
            delay: Delay::new(&settings, sources.next(settings.delay_correlation)),
            line: settings.rate.map(Line::new),
            slots: {
                let source = sources.next(0.0);
                settings.slot.as_ref().map(|slot| Slots::new(slot, source))
            },
            settings,
        }
    }

    pub(crate) fn settings(&self) -> &Impairment {
        &self.settings
    }

    /// Continues where `before` stopped, which had this lane's previous settings: with the same random
    /// sequences, and behind the frames that wait. `drop_nth` continues to count if it is the same.
    /// Costs little and does not allocate.
    pub(crate) fn follow(&mut self, before: &Impairer) {
        self.chosen.follow(&before.chosen);
        let same_seed = self.settings.seed == before.settings.seed;
        if same_seed {
            self.duplicate.follow(&before.duplicate);
            self.loss.follow(&before.loss);
            self.corrupt.follow(&before.corrupt);
            self.reorder.follow(&before.reorder);
            self.delay.source.follow(&before.delay.source);
        }
        self.in_gap = before.in_gap;
        if let (Some(line), Some(before)) = (&mut self.line, &before.line) {
            line.follow(before);
        }
        if let (Some(slots), Some(before)) = (&mut self.slots, &before.slots) {
            slots.follow(before, same_seed);
        }
    }

    /// The frames that waited were dropped: the next one does not queue behind them.
    pub(crate) fn emptied(&mut self) {
        if let Some(line) = &mut self.line {
            line.clear();
        }
        if let Some(slots) = &mut self.slots {
            slots.clear();
        }
    }

    /// The fate of the next frame. `now` in ns never goes back; `len` is in bytes without FCS;
    /// `ect`: the frame can carry a congestion mark ([`ecn::ect`]; only used where
    /// [`Impairment::ecn`] is set).
    #[inline]
    pub(crate) fn judge(&mut self, now: u64, len: u32, ect: bool, backlog: Backlog) -> Fate {
        if self.chosen.next() {
            return Fate::dropped(now, DropReason::Chosen);
        }
        let duplicate = self.duplicate.hit();
        let lost = self.loss.next();
        let mark = lost && ect && self.settings.ecn;
        let fate = if lost && !mark {
            Fate::dropped(now, DropReason::Loss)
        } else {
            self.admit(now, len, backlog)
        };
        Fate {
            duplicate,
            mark,
            ..fate
        }
    }

    /// The fate of the copy of a frame whose own fate is `first`. To be called right after
    /// [`Impairer::judge`], with the same arguments. If the original waits, the copy waits behind it.
    pub(crate) fn judge_copy(
        &mut self,
        first: &Fate,
        now: u64,
        len: u32,
        ect: bool,
        backlog: Backlog,
    ) -> Fate {
        let lost = first.dropped != Some(DropReason::Loss) && self.loss.next();
        let mark = lost && ect && self.settings.ecn;
        if lost && !mark {
            return Fate::dropped(now, DropReason::Loss);
        }
        let first_waits = first.dropped.is_none() && first.release > now;
        let backlog = Backlog {
            frames: backlog.frames + u64::from(first_waits),
            bytes: backlog.bytes + u64::from(first_waits) * u64::from(len),
        };
        Fate {
            mark: mark || first.mark,
            ..self.admit(now, len, backlog)
        }
    }

    /// The fate of a frame that is not lost.
    #[inline]
    fn admit(&mut self, now: u64, len: u32, backlog: Backlog) -> Fate {
        let mut fate = Fate::passes(now);
        if self.corrupt.hit() && len > 0 {
            let number = self.corrupt.source().plain();
            fate.corrupt = Some(scale(number, u64::from(len) * 8) as u32);
        }
        if !self.holds {
            return fate;
        }
        let bytes = backlog.bytes.saturating_add(u64::from(len));
        if backlog.frames >= self.limit.frames || bytes > self.limit.bytes {
            return Fate::dropped(now, DropReason::HoldFull);
        }
        if self.in_gap >= self.settings.gap.saturating_sub(1) && self.reorder.hit() {
            self.in_gap = 0;
            fate.reordered = true;
            return fate;
        }
        self.in_gap = self.in_gap.saturating_add(1);
        fate.release = now.saturating_add(self.delay.next());
        if let Some(line) = &mut self.line {
            fate.release = line.send(fate.release, len);
        }
        if let Some(slots) = &mut self.slots {
            fate.release = slots.enter(fate.release, len);
        }
        fate
    }
}

/// How long frames wait by `delay` and `jitter`.
#[derive(Debug)]
struct Delay {
    /// ns
    constant: u64,
    spread: Option<Spread>,
    source: Source,
}

impl Delay {
    fn new(settings: &Impairment, source: Source) -> Self {
        let Impairment {
            delay,
            jitter,
            distribution,
            ..
        } = settings;
        Delay {
            constant: delay.as_nanos() as u64,
            spread: (!jitter.is_zero()).then(|| Spread::new(*delay, *jitter, distribution)),
            source,
        }
    }

    #[inline]
    fn next(&mut self) -> u64 {
        match &self.spread {
            None => self.constant,
            Some(spread) => spread.draw(self.source.next()),
        }
    }
}
