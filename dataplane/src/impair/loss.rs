//! Which frames are lost: [`LossModel`].

use super::chance::{Source, Sources, threshold};
use super::settings::Loss;

/// Decides for one frame after the other.
#[derive(Debug)]
pub(super) struct LossModel {
    model: Model,
    source: Source,
}

#[derive(Debug)]
enum Model {
    /// A frame is lost when its random number is below this. 0: none is lost, and no number drawn.
    Random(u64),
    State(FourStates),
    Gemodel(GilbertElliott),
}

impl LossModel {
    pub(super) fn new(loss: Loss, sources: &mut Sources) -> Self {
        let (model, correlation) = match loss {
            Loss::None => (Model::Random(0), 0.0),
            Loss::Random {
                probability,
                correlation,
            } => (Model::Random(threshold(probability)), correlation),
            Loss::State {
                p13,
                p31,
                p32,
                p23,
                p14,
            } => {
                let chain = FourStates {
                    state: State::ReceivedInGap,
                    alone: threshold(p14),
                    burst: threshold(p14 + p13),
                    lost_again: threshold(p23),
                    received: threshold(p32),
                    over: threshold(p32 + p31),
                };
                (Model::State(chain), 0.0)
            }
            Loss::Gemodel { p, r, h, k } => {
                let chain = GilbertElliott {
                    bad: false,
                    turns_bad: threshold(p),
                    turns_good: threshold(r),
                    lost_in_bad: threshold(1.0 - h),
                    lost_in_good: threshold(1.0 - k),
                };
                (Model::Gemodel(chain), 0.0)
            }
        };
        LossModel {
            model,
            source: sources.next(correlation),
        }
    }

    /// Whether the next frame is lost.
    #[inline]
    pub(super) fn next(&mut self) -> bool {
        match &mut self.model {
            Model::Random(0) => false,
            Model::Random(below) => self.source.next() < *below,
            Model::State(chain) => chain.next(&mut self.source),
            Model::Gemodel(chain) => chain.next(&mut self.source),
        }
    }

    /// Continues a burst of losses that has begun, under other probabilities of the same model.
    pub(super) fn follow(&mut self, before: &LossModel) {
        self.source.follow(&before.source);
        match (&mut self.model, &before.model) {
            (Model::State(chain), Model::State(before)) => chain.state = before.state,
            (Model::Gemodel(chain), Model::Gemodel(before)) => chain.bad = before.bad,
            _ => {}
        }
    }
}

/// A Markov chain whose state says what became of the last frame.
#[derive(Debug)]
struct FourStates {
    state: State,
    /// From `ReceivedInGap`: below this to `LostInGap`, ...
    alone: u64,
    /// ... below this to `LostInBurst`.
    burst: u64,
    /// From `ReceivedInBurst` back to `LostInBurst`.
    lost_again: u64,
    /// From `LostInBurst`: below this to `ReceivedInBurst`, ...
    received: u64,
    /// ... below this to `ReceivedInGap`.
    over: u64,
}

/// Numbered 1, 4, 3, 2 in tc-netem(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ReceivedInGap,
    LostInGap,
    LostInBurst,
    ReceivedInBurst,
}

impl FourStates {
    fn next(&mut self, source: &mut Source) -> bool {
        let number = source.plain();
        self.state = match self.state {
            State::ReceivedInGap if number < self.alone => State::LostInGap,
            State::ReceivedInGap if number < self.burst => State::LostInBurst,
            State::ReceivedInBurst if number < self.lost_again => State::LostInBurst,
            State::ReceivedInBurst => State::ReceivedInBurst,
            State::LostInBurst if number < self.received => State::ReceivedInBurst,
            State::LostInBurst if number >= self.over => State::LostInBurst,
            State::ReceivedInGap | State::LostInBurst | State::LostInGap => State::ReceivedInGap,
        };
        matches!(self.state, State::LostInGap | State::LostInBurst)
    }
}

/// Two states, each with a probability of its own to lose a frame.
#[derive(Debug)]
struct GilbertElliott {
    bad: bool,
    turns_bad: u64,
    turns_good: u64,
    lost_in_bad: u64,
    lost_in_good: u64,
}

impl GilbertElliott {
    /// Judges this frame by the state as it is, and then changes the state for the next one.
    fn next(&mut self, source: &mut Source) -> bool {
        let (turns, lost) = if self.bad {
            (self.turns_good, self.lost_in_bad)
        } else {
            (self.turns_bad, self.lost_in_good)
        };
        self.bad ^= source.plain() < turns;
        source.plain() < lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(loss: Loss) -> LossModel {
        LossModel::new(loss, &mut Sources::new(5))
    }

    /// How many bursts of each length were lost: `[n - 1]` of n in a row.
    fn bursts(losses: &mut LossModel, count: usize) -> Vec<u64> {
        let mut bursts = vec![0; 64];
        let mut length = 0;
        for _ in 0..count {
            if losses.next() {
                length += 1;
            } else if length > 0 {
                bursts[(length - 1).min(63)] += 1;
                length = 0;
            }
        }
        bursts
    }

    fn lost(bursts: &[u64]) -> f64 {
        (1..).zip(bursts).map(|(n, count)| n * count).sum::<u64>() as f64
    }

    #[test]
    fn nothing_is_lost_of_ten_million_at_0_percent() {
        let none = [
            Loss::Random {
                probability: 0.0,
                correlation: 0.5,
            },
            Loss::gemodel(0.0, Some(0.5), Some(1.0), Some(0.0)),
            Loss::state(0.0, Some(0.5), Some(0.1), Some(0.5), Some(0.0)),
        ];
        for (loss, count) in none.into_iter().zip([10_000_000, 1_000_000, 1_000_000]) {
            let mut losses = losses(loss);
            assert!((0..count).all(|_| !losses.next()), "{loss:?}");
        }
    }

    #[test]
    fn everything_is_lost_at_100_percent() {
        let all = [
            Loss::Random {
                probability: 1.0,
                correlation: 0.0,
            },
            Loss::gemodel(1.0, None, None, Some(1.0)),
            Loss::gemodel(0.0, None, None, Some(1.0)),
            Loss::state(1.0, Some(0.0), None, None, None),
        ];
        for loss in all {
            let mut losses = losses(loss);
            assert!((0..100_000).all(|_| losses.next()), "{loss:?}");
        }
    }

    /// In the bad state all is lost, so a burst lasts until it turns: a geometric distribution.
    #[test]
    fn bursts_of_gilbert_and_elliott_have_their_lengths() {
        let (p, r) = (0.02, 0.25);
        let count = 400_000;
        let bursts = bursts(&mut losses(Loss::gemodel(p, Some(r), None, None)), count);
        let all = bursts.iter().sum::<u64>() as f64;
        let chi_squared: f64 = (0..12)
            .map(|n| {
                let expected = all * r * (1.0 - r).powi(n);
                (bursts[n as usize] as f64 - expected).powi(2) / expected
            })
            .sum();
        // 12 degrees of freedom: one in a thousand is above.
        assert!(chi_squared < 32.9, "{chi_squared}: {bursts:?}");
        let share = lost(&bursts) / count as f64;
        assert!((share - p / (p + r)).abs() < 0.003, "{share}");
    }

    #[test]
    fn both_states_of_gilbert_and_elliott_lose_their_share() {
        let (p, r, bad, good) = (0.1, 0.3, 0.6, 0.05);
        let count = 400_000;
        let loss = Loss::gemodel(p, Some(r), Some(bad), Some(good));
        let share = lost(&bursts(&mut losses(loss), count)) / count as f64;
        let expected = (p * bad + r * good) / (p + r);
        assert!((share - expected).abs() < 0.003, "{share} of {expected}");
    }

    #[test]
    fn one_probability_alone_is_bernoulli() {
        for loss in [
            Loss::state(0.1, None, None, None, None),
            Loss::gemodel(0.1, None, None, None),
        ] {
            let count = 200_000;
            let bursts = bursts(&mut losses(loss), count);
            let share = lost(&bursts) / count as f64;
            assert!((share - 0.1).abs() < 0.003, "{loss:?}: {share}");
            let alone = bursts[0] as f64 / bursts.iter().sum::<u64>() as f64;
            assert!((alone - 0.9).abs() < 0.01, "{loss:?}: {alone}");
        }
    }

    /// From the stationary distribution of the chain.
    #[test]
    fn four_states_lose_their_share() {
        let (p13, p31, p32, p23, p14) = (0.02, 0.2, 0.1, 0.4, 0.03);
        let loss = Loss::state(p13, Some(p31), Some(p32), Some(p23), Some(p14));
        let count = 400_000;
        let share = lost(&bursts(&mut losses(loss), count)) / count as f64;
        // Relative to state 1; what enters states 2, 3 and 4 leaves them.
        let (s3, s4) = (p13 / p31, p14);
        let s2 = s3 * p32 / p23;
        let expected = (s3 + s4) / (1.0 + s2 + s3 + s4);
        assert!((share - expected).abs() < 0.004, "{share} of {expected}");
    }

    #[test]
    fn a_burst_goes_on_when_the_probabilities_change() {
        let mut losses = losses(Loss::gemodel(1.0, Some(0.0), None, None));
        losses.next();
        assert!(losses.next());
        let mut other = super::LossModel::new(
            Loss::gemodel(0.0, Some(0.0), None, None),
            &mut Sources::new(5),
        );
        other.follow(&losses);
        assert!((0..100).all(|_| other.next()));
    }
}
