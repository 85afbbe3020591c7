//! When to take the frames that wait in a transmit queue: [`Gather`].

/// Under load, a burst of few frames costs nearly as much as a full one: most of the cost is the
/// ring's cache lines that move between the driver's core and ours. So after large bursts, a small
/// one is left to grow for up to 16 polls, well below a microsecond. A frame after a pause is taken
/// at once.
#[derive(Debug, Default)]
pub(super) struct Gather {
    last: u16,
    polls: u8,
}

impl Gather {
    /// A burst of at least this many frames is taken at once.
    pub(super) const ENOUGH: u16 = 32;
    /// Only after a burst of at least this many frames may a smaller one grow.
    const LARGE: u16 = 16;
    /// For how many polls it may grow.
    const POLLS: u8 = 16;

    /// Whether to leave a burst that is not [`Gather::ENOUGH`] for another poll.
    #[inline(always)]
    pub(super) fn lets_grow(&mut self) -> bool {
        if self.last < Self::LARGE || self.polls == Self::POLLS {
            return false;
        }
        self.polls += 1;
        true
    }

    /// A burst of `count` is taken.
    #[inline(always)]
    pub(super) fn took(&mut self, count: u16) {
        self.last = count;
        self.polls = 0;
    }

    /// The next frame is the first after a pause.
    pub(super) fn forget(&mut self) {
        self.took(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_frame_goes_at_once() {
        let mut gather = Gather::default();
        for _ in 0..100 {
            assert!(!gather.lets_grow());
            gather.took(1);
        }
    }

    #[test]
    fn after_a_large_burst_a_small_one_grows_for_a_while() {
        let mut gather = Gather::default();
        gather.took(64);
        let polls = (0..100).find(|_| !gather.lets_grow()).unwrap();
        assert_eq!(polls, Gather::POLLS.into());
        gather.took(5);
        assert!(!gather.lets_grow(), "small bursts have become the rule");
    }
}
