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
    const ENOUGH: u16 = 32;
    /// After a burst of this many a smaller one may grow.
    const LARGE: u16 = 16;
    /// Polls that it is given.
    const POLLS: u8 = 16;

    /// Whether to take what waits now.
    #[inline(always)]
    pub(super) fn is_enough(&mut self, waiting: u16) -> bool {
        if waiting >= Self::ENOUGH || (waiting > 0 && self.last < Self::LARGE) {
            self.polls = 0;
            self.last = waiting;
            return true;
        }
        self.polls += 1;
        if self.polls < Self::POLLS {
            return false;
        }
        self.polls = 0;
        self.last = waiting;
        waiting > 0
    }

    /// The next frame is the first after a pause.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_frame_goes_at_once() {
        let mut gather = Gather::default();
        assert!(!gather.is_enough(0));
        for _ in 0..100 {
            assert!(gather.is_enough(1));
        }
    }

    #[test]
    fn after_a_large_burst_a_small_one_grows_for_a_while() {
        let mut gather = Gather::default();
        assert!(gather.is_enough(64));
        let polls = (1..).find(|_| gather.is_enough(5)).unwrap();
        assert_eq!(polls, Gather::POLLS.into());
        assert!(gather.is_enough(5), "small bursts have become the rule");
    }

    #[test]
    fn after_a_pause_nothing_is_made_to_wait() {
        let mut gather = Gather::default();
        assert!(gather.is_enough(64));
        for _ in 0..Gather::POLLS {
            assert!(!gather.is_enough(0));
        }
        assert!(gather.is_enough(1));
    }
}
