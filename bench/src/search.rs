//! The search for the highest rate without loss, by bisection (RFC 2544, 26.1). Pure.

/// The state of a search. Rates are frames per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RateSearch {
    /// The highest rate that passed so far.
    passed: f64,
    /// The lowest rate that failed; until one has failed, the next rate to try.
    ceiling: f64,
    resolution: f64,
    ceiling_failed: bool,
    raises: u32,
}

/// How often a ceiling that passes is doubled.
const MAX_RAISES: u32 = 4;

impl RateSearch {
    /// Searches from 0 to `ceiling`, which is doubled up to four times while it passes, until the
    /// limit is known to within `resolution` (a share: 0.01 is 1 %).
    pub(crate) fn below(ceiling: f64, resolution: f64) -> RateSearch {
        RateSearch {
            passed: 0.0,
            ceiling,
            resolution,
            ceiling_failed: false,
            raises: 0,
        }
    }

    /// The next rate to try; `None` when the search is over.
    pub(crate) fn next(&self) -> Option<f64> {
        if !self.ceiling_failed {
            return (self.raises <= MAX_RAISES).then_some(self.ceiling);
        }
        // A limit below one frame per second counts as 0.
        let close = self.ceiling - self.passed <= self.ceiling * self.resolution;
        (!close && self.ceiling > 1.0).then(|| f64::midpoint(self.passed, self.ceiling))
    }

    /// Records whether the rate that [`RateSearch::next`] returned passed.
    pub(crate) fn record(&mut self, passed: bool) {
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

    /// The highest rate that passed so far; 0 before one has.
    pub(crate) fn best(&self) -> f64 {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn search(limit: f64, ceiling: f64, resolution: f64) -> (f64, usize) {
        let mut search = RateSearch::below(ceiling, resolution);
        let mut runs = 0;
        while let Some(rate) = search.next() {
            search.record(rate <= limit);
            runs += 1;
        }
        (search.best(), runs)
    }

    #[test]
    fn a_ceiling_that_passes_is_raised() {
        let (best, _) = search(1700.0, 500.0, 0.01);
        assert!((1683.0..=1700.0).contains(&best), "{best}");
        assert_eq!(search(f64::MAX, 5.0, 0.01), (80.0, 5));
    }

    #[test]
    fn a_search_without_a_pass_ends() {
        let (best, runs) = search(-1.0, 1e7, 0.01);
        assert!(best <= 0.0);
        assert!(runs < 40, "{runs}");
    }

    proptest! {
        #[test]
        fn the_limit_is_found_within_the_resolution(
            share in 0.001_f64..1.0,
            resolution in 0.001_f64..0.1,
        ) {
            let limit = share * 1e7;
            let (best, runs) = search(limit, 1e7, resolution);
            prop_assert!(best <= limit && limit - best <= 1e7 * resolution.max(1e-6));
            prop_assert!(best >= limit * (1.0 - 1.01 * resolution) , "{best} {limit}");
            prop_assert!(runs <= 24);
        }
    }
}
