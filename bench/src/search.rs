//! The highest rate without loss, by halving (RFC 2544, 26.1). Pure.

/// A search under way. Rates are frames per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    passed: f64,
    failed: f64,
    resolution: f64,
    ceiling_tried: bool,
}

impl Search {
    /// Between 0 and `ceiling`, until the two are within `resolution` (a share: 0.01 is 1 %) of
    /// each other.
    pub fn below(ceiling: f64, resolution: f64) -> Search {
        Search {
            passed: 0.0,
            failed: ceiling,
            resolution,
            ceiling_tried: false,
        }
    }

    /// The next rate to try; `None` when the search is over.
    pub fn next(&self) -> Option<f64> {
        if !self.ceiling_tried {
            return Some(self.failed);
        }
        // Below a frame a second there is nothing to find.
        let close = self.failed - self.passed <= self.failed * self.resolution;
        (!close && self.failed > 1.0).then(|| f64::midpoint(self.passed, self.failed))
    }

    /// What became of the trial at the rate that [`Search::next`] named.
    pub fn tried(&mut self, passed: bool) {
        let Some(rate) = self.next() else { return };
        self.ceiling_tried = true;
        if passed {
            self.passed = rate;
        } else {
            self.failed = rate;
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
    fn the_ceiling_may_pass() {
        assert_eq!(run(10.0, 5.0, 0.01), (5.0, 1));
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
