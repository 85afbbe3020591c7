//! What becomes of one frame: [`Fate`].

use crate::stats::DropReason;

/// What waits at this moment, on this lane: with every frame of the burst that was judged before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
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
    /// It goes out a second time: ask [`Impairer::judge_copy`](super::Impairer::judge_copy) for that one's own fate. The copy
    /// counts as a frame that entered, whatever becomes of it.
    pub(crate) duplicate: bool,
    /// `frame[bit / 8] ^= 1 << (bit % 8)`
    pub(crate) corrupt: Option<u32>,
    /// It gets a congestion mark ([`ecn::mark`](super::ecn::mark)) instead of being lost.
    pub(crate) mark: bool,
    /// It overtakes those that wait.
    pub(crate) reordered: bool,
}

impl Fate {
    /// It is sent at once, as it is.
    pub(crate) fn passes(now: u64) -> Self {
        Fate {
            dropped: None,
            release: now,
            duplicate: false,
            corrupt: None,
            mark: false,
            reordered: false,
        }
    }

    pub(super) fn dropped(now: u64, reason: DropReason) -> Self {
        Fate {
            dropped: Some(reason),
            ..Fate::passes(now)
        }
    }
}
