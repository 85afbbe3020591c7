//! Frames that are dropped by their numbers: [`Chosen`].

/// The numbers of the frames to drop, and how many frames have passed.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Ascending, without repetition.
    numbers: Box<[u64]>,
    seen: u64,
    /// How many of the numbers have passed.
    past: usize,
}

impl Chosen {
    pub(super) fn new(numbers: &[u64]) -> Self {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        Chosen {
            numbers: numbers.into(),
            seen: 0,
            past: 0,
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> bool {
        let Some(number) = self.numbers.get(self.past) else {
            return false;
        };
        self.seen += 1;
        let chosen = self.seen == *number;
        self.past += usize::from(chosen);
        chosen
    }

    pub(super) fn follow(&mut self, before: &Chosen) {
        if self.numbers == before.numbers {
            (self.seen, self.past) = (before.seen, before.past);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(chosen: &mut Chosen, count: u64) -> Vec<u64> {
        (1..=count).filter(|_| chosen.next()).collect()
    }

    #[test]
    fn exactly_these_in_any_order() {
        let mut chosen = Chosen::new(&[7, 1, 3, 7, 4]);
        assert_eq!(dropped(&mut chosen, 100), [1, 3, 4, 7]);
        assert!(dropped(&mut Chosen::new(&[]), 100).is_empty());
    }

    #[test]
    fn counts_on_when_other_settings_change() {
        let mut chosen = Chosen::new(&[2, 5]);
        assert_eq!(dropped(&mut chosen, 3), [2]);
        let mut same = Chosen::new(&[2, 5]);
        same.follow(&chosen);
        assert_eq!(dropped(&mut same, 3), [2]);
        let mut other = Chosen::new(&[2]);
        other.follow(&chosen);
        assert_eq!(dropped(&mut other, 3), [2]);
    }
}
