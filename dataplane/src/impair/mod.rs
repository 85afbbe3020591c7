//! Impairments of a lane.

mod distribution;
mod settings;

pub use distribution::{Distribution, MAX_TABLE};
pub use settings::{
    Chance, ImpairError, Impairment, Limit, Loss, MAX_CELL, MAX_CELL_OVERHEAD, MAX_OVERHEAD,
    MAX_TIME, Rate, Slot, SlotWait,
};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::stats::DropReason;

/// What waits at this moment, on this lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// It is not sent. The rest of the fate then means nothing, but for `duplicate`.
    pub(crate) dropped: Option<DropReason>,
    /// When it is to be sent, ns; never before now. Now: at once.
    pub(crate) release: u64,
    /// It goes out a second time: ask [`Impairer::judge_copy`] for that one's own fate. The copy
    /// counts as a frame that entered, whatever becomes of it.
    pub(crate) duplicate: bool,
    /// `frame[bit / 8] ^= 1 << (bit % 8)`
    pub(crate) corrupt: Option<u32>,
    /// It gets a congestion mark ([`ecn::mark`]) instead of being lost.
    pub(crate) mark: bool,
    /// It overtakes those that wait.
    pub(crate) reordered: bool,
}

/// Judges the frames of one lane.
#[derive(Debug)]
pub(crate) struct Impairer {
    settings: Impairment,
    random: Xoshiro256PlusPlus,
}

impl Impairer {
    /// May compute tables: not for the frame path.
    pub(crate) fn new(settings: Impairment) -> Self {
        Impairer {
            random: Xoshiro256PlusPlus::seed_from_u64(settings.seed),
            settings,
        }
    }

    pub(crate) fn settings(&self) -> &Impairment {
        &self.settings
    }

    /// Goes on where `before` stopped, which had this lane's other settings: the same chances,
    /// the same queue. Costs little, allocates nothing.
    pub(crate) fn follow(&mut self, before: &Impairer) {
        if self.settings.seed == before.settings.seed {
            self.random = before.random.clone();
        }
    }

    /// `now` in ns never goes back; `len` is in bytes without FCS; `ect`: the frame can carry a
    /// congestion mark ([`ecn::ect`]; only asked for where [`Impairment::ecn`] is set).
    pub(crate) fn judge(&mut self, now: u64, len: u32, ect: bool, held: Held) -> Fate {
        let _ = ect;
        let lost = match self.settings.loss {
            Loss::Random { probability, .. } => {
                ((self.random.next_u64() >> 1) as f64) < probability * (1u64 << 63) as f64
            }
            _ => false,
        };
        let full = held.bytes + u64::from(len) > self.settings.hold_bytes();
        Fate {
            dropped: match (lost, full) {
                (true, _) => Some(DropReason::Loss),
                (_, true) => Some(DropReason::HoldFull),
                _ => None,
            },
            release: now + self.settings.delay.as_nanos() as u64,
            duplicate: false,
            corrupt: None,
            mark: false,
            reordered: false,
        }
    }

    /// The fate of the copy of a frame whose own is `first`: it passes everything again, but
    /// is not duplicated again.
    pub(crate) fn judge_copy(
        &mut self,
        first: &Fate,
        now: u64,
        len: u32,
        ect: bool,
        held: Held,
    ) -> Fate {
        let _ = first;
        self.judge(now, len, ect, held)
    }
}

pub(crate) mod ecn;
