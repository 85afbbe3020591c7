//! What a jack tells, and how much of it: [`JackEvent`], [`Allowance`].

use std::time::{Duration, Instant};

use crate::cable::Side;
use crate::command::CableId;

/// What happened at a jack. No front end can cause more than a few of them in a short time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JackEvent {
    /// A front end has started its rings: they are a port of the cable now.
    Plugged {
        /// The cable.
        cable: CableId,
        /// Its end.
        side: Side,
    },
    /// The front end has stopped its rings or is gone.
    Unplugged {
        /// The cable.
        cable: CableId,
        /// Its end.
        side: Side,
    },
    /// A front end or its guest broke a rule and was disconnected, or the jack cannot do its
    /// work.
    Fault {
        /// The cable.
        cable: CableId,
        /// Its end.
        side: Side,
        /// One sentence that names the jack and the rule.
        reason: String,
    },
    /// A front end was turned away. Told once until something changes at the jack.
    Refused {
        /// The cable.
        cable: CableId,
        /// Its end.
        side: Side,
        /// Why, in one sentence that names the jack.
        reason: String,
    },
}

/// So many at once, and then one every so often.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    left: u32,
    burst: u32,
    each: Duration,
    /// When the next one is earned, if not all are there.
    next: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(burst: u32, each: Duration) -> Self {
        Allowance {
            left: burst,
            burst,
            each,
            next: None,
        }
    }

    /// Takes one. `Err`: there is none before that time.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while let Some(next) = self.next.filter(|next| *next <= now) {
            self.left += 1;
            self.next = (self.left < self.burst).then_some(next + self.each);
        }
        let next = *self.next.get_or_insert(now + self.each);
        if self.left == 0 {
            return Err(next);
        }
        self.left -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_a_burst_and_then_a_rate() {
        let second = Duration::from_secs(1);
        let start = Instant::now();
        let mut allowance = Allowance::new(3, second);
        for _ in 0..3 {
            assert_eq!(allowance.take(start), Ok(()));
        }
        assert_eq!(allowance.take(start), Err(start + second));
        assert_eq!(allowance.take(start + second), Ok(()));
        assert_eq!(allowance.take(start + second), Err(start + 2 * second));
        for _ in 0..3 {
            assert_eq!(allowance.take(start + 100 * second), Ok(()));
        }
        assert!(allowance.take(start + 100 * second).is_err());
    }
}
