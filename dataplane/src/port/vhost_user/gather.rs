//! When to take what waits in a transmit queue: [`Gather`].

/// Under load, bursts of a few frames cost nearly as much as full ones: most of it is the cache
/// lines of the ring that go from the driver's core to ours and back. So when bursts have been
/// large, a small one is left to grow for a few polls, well below a microsecond. A frame after
/// a pause is taken at once.
#[derive(Debug, Default)]
pub(super) struct Gather {
    last: u16,
    polls: u8,
}

impl Gather {
    /// A burst of this many is taken at once.
    pub(super) const ENOUGH: u16 = 32;
    /// After a burst of this many a smaller one may grow.
    const LARGE: u16 = 16;
    /// Polls that it is given.
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
        let polls = (0..).find(|_| !gather.lets_grow()).unwrap();
        assert_eq!(polls, Gather::POLLS.into());
        gather.took(5);
        assert!(!gather.lets_grow(), "small bursts have become the rule");
    }
}
