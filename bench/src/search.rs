//! The highest rate without loss, by halving (RFC 2544, 26.1). Pure.

/// A search under way. Rates are frames per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    passed: f64,
    /// The lowest rate that failed; before there is one, the next to try.
    ceiling: f64,
    resolution: f64,
    ceiling_failed: bool,
    raises: u32,
}

/// How often a ceiling that passed is doubled.
const RAISES: u32 = 4;

impl Search {
    /// From 0 to about `ceiling`, which is doubled a few times if it passes, until the limit is
    /// known to within `resolution` (a share: 0.01 is 1 %).
    pub fn below(ceiling: f64, resolution: f64) -> Search {
        Search {
            passed: 0.0,
            ceiling,
            resolution,
            ceiling_failed: false,
            raises: 0,
        }
    }

    /// The next rate to try; `None` when the search is over.
    pub fn next(&self) -> Option<f64> {
        if !self.ceiling_failed {
            return (self.raises <= RAISES).then_some(self.ceiling);
        }
        // Below a frame a second there is nothing to find.
        let close = self.ceiling - self.passed <= self.ceiling * self.resolution;
        (!close && self.ceiling > 1.0).then(|| f64::midpoint(self.passed, self.ceiling))
    }

    /// What became of the trial at the rate that [`Search::next`] named.
    pub fn tried(&mut self, passed: bool) {
        let Some(rate) = self.next() else { return };
        match (passed, self.ceiling_failed) {
            (true, true) => self.passed = rate,
            (true, false) => {
                self.passed = rate;
                self.ceiling = rate * 2.0;
                self.raises += 1;
            }
            (false, _) => {
                self.ceiling = rate;
                self.ceiling_failed = true;
            }
        }
    }

    /// The highest rate that passed so far, 0 if none did.
    pub fn best(&self) -> f64 {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(limit: f64, ceiling: f64, resolution: f64) -> (f64, usize) {
        let mut search = Search::below(ceiling, resolution);
        let mut trials = 0;
        while let Some(rate) = search.next() {
            search.tried(rate <= limit);
            trials += 1;
        }
        (search.best(), trials)
    }

    #[test]
    fn a_ceiling_that_passes_is_raised() {
        let (best, _) = run(1700.0, 500.0, 0.01);
        assert!((1683.0..=1700.0).contains(&best), "{best}");
        assert_eq!(run(f64::MAX, 5.0, 0.01), (80.0, 5));
    }

    #[test]
    fn what_never_passes_ends() {
        let (best, trials) = run(-1.0, 1e7, 0.01);
        assert!(best <= 0.0);
        assert!(trials < 40, "{trials}");
    }

    proptest! {
        #[test]
        fn the_limit_is_found_within_the_resolution(
            share in 0.001_f64..1.0,
            resolution in 0.001_f64..0.1,
        ) {
            let limit = share * 1e7;
            let (best, trials) = run(limit, 1e7, resolution);
            prop_assert!(best <= limit && limit - best <= 1e7 * resolution.max(1e-6));
            prop_assert!(best >= limit * (1.0 - 1.01 * resolution) , "{best} {limit}");
            prop_assert!(trials <= 24);
        }
    }
}
