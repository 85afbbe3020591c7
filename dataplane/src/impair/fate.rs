//! What becomes of a frame: [`Fate`]; and what waits in front of it: [`Backlog`].

use crate::stats::DropReason;

/// The frames that wait in a lane, including those of the same burst that were judged before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Why it is not sent. Of the other fields only `duplicate` then has a meaning.
    pub(crate) dropped: Option<DropReason>,
    /// When it is to be sent, in ns; now or later.
    pub(crate) release: u64,
    /// It is duplicated: [`Impairer::judge_copy`](super::Impairer::judge_copy) decides the fate of the
    /// copy, which counts as a frame that entered even if it is lost.
    pub(crate) duplicate: bool,
    /// The bit to flip: `frame[bit / 8] ^= 1 << (bit % 8)`.
    pub(crate) corrupt: Option<u32>,
    /// It gets a congestion mark ([`ecn::mark`](super::ecn::mark)) instead of being lost.
    pub(crate) mark: bool,
    /// It overtakes the frames that wait.
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
