//! Random numbers, correlated or not: [`Source`], and events that they decide: [`Odds`].

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::curve::Curve;

/// Random numbers are uniform in 0..`WHOLE`. The value itself, which none reaches, means «always».
pub(super) const WHOLE: u64 = 1 << 63;

/// A probability as the bound that a random number has to stay below: 0 for 0, below which none is;
/// [`WHOLE`] for 1, below which all are.
pub(super) fn threshold(probability: f64) -> u64 {
    ((probability * WHOLE as f64) as u64).min(WHOLE)
}

/// `number` of [`WHOLE`] scaled to 0..`range`.
#[inline]
pub(super) fn scale(number: u64, range: u64) -> u64 {
    ((u128::from(number) * u128::from(range)) >> 63) as u64
}

/// Hands out a source for each key, far apart in one generator's sequence. So adding or changing a key
/// leaves the verdicts of the others as they were.
#[derive(Debug)]
pub(super) struct Sources(Xoshiro256PlusPlus);

impl Sources {
    pub(super) fn new(seed: u64) -> Self {
        Sources(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(super) fn next(&mut self, correlation: f64) -> Source {
        let random = self.0.clone();
        self.0.jump();
        Source::new(random, correlation)
    }
}

/// Random numbers for one key.
#[derive(Debug)]
pub(super) struct Source {
    random: Xoshiro256PlusPlus,
    correlated: Option<Correlated>,
}

/// netem's correlated numbers: each is the mean of the one before and a new one, by weight.
#[derive(Debug)]
struct Correlated {
    /// The weight of the number before, of [`WHOLE`].
    weight: u64,
    last: u64,
    /// Such means cluster around one half, so that netem with 1 % and a correlation of 50 % loses
    /// only a tenth of that. The curve makes them uniform again, so that the probability holds.
    curve: Curve,
}

impl Source {
    fn new(random: Xoshiro256PlusPlus, correlation: f64) -> Self {
        let mut source = Source {
            random,
            correlated: None,
        };
        if correlation > 0.0 {
            let curve = Curve::new(correlation);
            source.correlated = Some(Correlated {
                weight: threshold(correlation),
                last: curve.inverse(source.plain()),
                curve,
            });
        }
        source
    }

    /// The next number, 0..[`WHOLE`].
    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        let plain = self.plain();
        match &mut self.correlated {
            None => plain,
            Some(correlated) => correlated.next(plain),
        }
    }

    /// The next number, uncorrelated.
    #[inline]
    pub(super) fn plain(&mut self) -> u64 {
        self.random.next_u64() >> 1
    }

    pub(super) fn follow(&mut self, before: &Source) {
        self.random = before.random.clone();
        if let (Some(correlated), Some(before)) = (&mut self.correlated, &before.correlated)
            && correlated.weight == before.weight
        {
            correlated.last = before.last;
        }
    }
}

impl Correlated {
    fn next(&mut self, plain: u64) -> u64 {
        let new = u128::from(plain) * u128::from(WHOLE - self.weight);
        let old = u128::from(self.last) * u128::from(self.weight);
        self.last = ((new + old) >> 63) as u64;
        self.curve.of(self.last)
    }
}

/// An event that happens to some frames.
#[derive(Debug)]
pub(super) struct Odds {
    below: u64,
    source: Source,
}

impl Odds {
    pub(super) fn new(probability: f64, source: Source) -> Self {
        Odds {
            below: threshold(probability),
            source,
        }
    }

    /// Whether it happens to the next frame.
    #[inline]
    pub(super) fn hit(&mut self) -> bool {
        self.below > 0 && self.source.next() < self.below
    }

    pub(super) fn source(&mut self) -> &mut Source {
        &mut self.source
    }

    pub(super) fn follow(&mut self, before: &Odds) {
        self.source.follow(&before.source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(seed: u64, correlation: f64) -> Source {
        Sources::new(seed).next(correlation)
    }

    /// Numbers as 0..1.
    fn numbers(correlation: f64, count: usize) -> Vec<f64> {
        let mut source = source(7, correlation);
        (0..count)
            .map(|_| source.next() as f64 / WHOLE as f64)
            .collect()
    }

    #[test]
    fn never_is_never_and_always_is_always() {
        for correlation in [0.0, 0.3, 0.999, 1.0] {
            let mut never = Odds::new(0.0, source(1, correlation));
            let mut always = Odds::new(1.0, source(1, correlation));
            for _ in 0..100_000 {
                assert!(!never.hit() && always.hit());
            }
        }
    }

    #[test]
    fn correlation_is_what_was_asked_for() {
        for correlation in [0.0, 0.1, 0.25, 0.5, 0.75, 0.9] {
            let x = numbers(correlation, 100_000);
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
            let with_last: f64 = x.windows(2).map(|x| (x[0] - mean) * (x[1] - mean)).sum();
            let measured = with_last / variance;
            // Spreading the numbers out takes a little of it.
            let range = correlation - 0.035..=correlation + 0.01;
            assert!(range.contains(&measured), "{measured} of {correlation}");
        }
    }

    #[test]
    fn correlated_numbers_are_as_likely_as_others() {
        for correlation in [0.05, 0.25, 0.5, 0.75] {
            let count = 200_000;
            let x = numbers(correlation, count);
            for share in [0.001, 0.01, 0.1, 0.5, 0.9] {
                let below = x.iter().filter(|x| **x < share).count() as f64;
                let expected = share * count as f64;
                // Neighbours resemble each other, so the count scatters more than a binomial.
                let more = (1.0 + correlation) / (1.0 - correlation);
                let deviation = (expected * (1.0 - share) * more).sqrt();
                assert!(
                    (below - expected).abs() < 4.0 * deviation,
                    "{below} of {expected} below {share} at {correlation}"
                );
            }
        }
    }

    #[test]
    fn one_key_does_not_change_the_luck_of_another() {
        let mut plain = Sources::new(3);
        let mut other = Sources::new(3);
        plain.next(0.0);
        other.next(0.5).next();
        let (mut a, mut b) = (plain.next(0.0), other.next(0.0));
        assert!((0..100).all(|_| a.next() == b.next()));
    }
}
