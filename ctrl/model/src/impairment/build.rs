//! Converts the keys to what the dataplane takes.

use std::time::Duration;

use dataplane::bpf::{Instruction, Program};
use dataplane::impair::{Chance, Distribution, Impairment, Limit, Loss, Rate, Slot, SlotWait};

use super::{
    BitRate, Flag, ImpairKeys, KeyError, LossModel, Match, Percent, Probability, QueueLimit,
    SlotInterval, Slots, Spread, Time, Value,
};

impl ImpairKeys {
    /// Converts the keys together. The seed is 0 if none is given.
    ///
    /// # Errors
    /// Keys that contradict each other or have no effect without another, values out of range, and
    /// filters or tables that the client has not completed with [`ImpairKeys::resolve`].
    pub fn settings(&self) -> Result<Impairment, KeyError> {
        let number = |value: Option<i64>| value.unwrap_or(0);
        let settings = Impairment {
            delay: time(self.delay),
            jitter: time(self.jitter),
            delay_correlation: self.correlation.map_or(0.0, Percent::share),
            distribution: distribution("distribution", self.distribution.as_ref())?,
            loss: self.loss.map_or(Loss::None, loss),
            ecn: self.ecn.is_some_and(|Flag(on)| on),
            duplicate: chance(self.duplicate),
            corrupt: chance(self.corrupt),
            reorder: chance(self.reorder),
            gap: number(self.gap.map(|gap| gap.0)) as u32,
            rate: self.rate()?,
            limit: match self.limit.unwrap_or_default() {
                QueueLimit::Default => None,
                QueueLimit::Bytes(bytes) => Some(Limit::Bytes(bytes.0)),
                QueueLimit::Frames(frames) => Some(Limit::Frames(frames)),
            },
            slot: self.slot.as_ref().map(slot).transpose()?.flatten(),
            seed: number(self.seed.map(|seed| seed.0)) as u64,
            drop_nth: self
                .drop_nth
                .as_ref()
                .map(|drop| drop.numbers().into())
                .unwrap_or_default(),
            matches: self.matches.as_ref().map(program).transpose()?.flatten(),
        };
        match settings.check() {
            Ok(()) => Ok(settings),
            Err(error) => Err(key_error(&error.to_string())),
        }
    }

    fn rate(&self) -> Result<Option<Rate>, KeyError> {
        let [overhead, cell, cell_overhead] = [
            self.overhead.map(|bytes| bytes.0),
            self.cell.map(|bytes| bytes.0),
            self.cell_overhead.map(|bytes| bytes.0),
        ];
        let without = |key, other: &str| {
            Err(KeyError {
                key,
                what: format!("it means nothing without {other}: set {other} as well"),
            })
        };
        let Some(BitRate(bits_per_second @ 1..)) = self.rate else {
            return match (overhead, cell, cell_overhead) {
                (Some(_), ..) => without("overhead", "rate"),
                (_, Some(_), _) => without("cell", "rate"),
                (.., Some(_)) => without("cell_overhead", "rate"),
                _ => Ok(None),
            };
        };
        if cell.is_none() && cell_overhead.is_some() {
            return without("cell_overhead", "cell");
        }
        Ok(Some(Rate {
            bits_per_second,
            overhead: overhead.unwrap_or(0) as i32,
            cell: cell.unwrap_or(0) as u32,
            cell_overhead: cell_overhead.unwrap_or(0) as i32,
        }))
    }
}

/// Splits the dataplane's sentence into the key and what is wrong with it. The dataplane has the
/// names of our keys for all but the correlation of the jitter.
fn key_error(error: &str) -> KeyError {
    let error = error.replace("delay correlation", "correlation");
    let known = super::KEYS.iter().map(|key| key.name);
    let key = known.filter(|key| error.starts_with(key));
    let key = key.max_by_key(|key| key.len()).unwrap_or("delay");
    let what = error.strip_prefix(key).unwrap_or(&error).trim_start();
    KeyError {
        key,
        what: what.into(),
    }
}

fn time(time: Option<Time>) -> Duration {
    time.unwrap_or_default().0
}

fn chance(likely: Option<Probability>) -> Chance {
    let Probability { share, correlation } = likely.unwrap_or_default();
    Chance {
        probability: share.share(),
        correlation: correlation.share(),
    }
}

fn loss(model: LossModel) -> Loss {
    match model {
        LossModel::None => Loss::None,
        LossModel::Random(share, correlation) => Loss::Random {
            probability: share.share(),
            correlation: correlation.share(),
        },
        LossModel::State(shares) => {
            let [p13, p31, p32, p23, p14] = shares.map(Percent::share);
            Loss::State {
                p13,
                p31,
                p32,
                p23,
                p14,
            }
        }
        LossModel::Gemodel(shares) => {
            let [p, r, in_bad, in_good] = shares.map(Percent::share);
            Loss::gemodel(p, Some(r), Some(in_bad), Some(in_good))
        }
    }
}

fn distribution(key: &'static str, spread: Option<&Spread>) -> Result<Distribution, KeyError> {
    Ok(match spread {
        None | Some(Spread::Uniform) => Distribution::Uniform,
        Some(Spread::Normal) => Distribution::Normal,
        Some(Spread::Pareto) => Distribution::Pareto,
        Some(Spread::ParetoNormal) => Distribution::ParetoNormal,
        Some(Spread::Table { values, .. }) => Distribution::Table(values.as_slice().into()),
        Some(Spread::File(name)) => {
            return Err(KeyError {
                key,
                what: format!(
                    "\"{name}\" is neither uniform, normal, pareto nor paretonormal; a file's \
                     table is sent with its numbers, by `ikv-fabric impair`"
                ),
            });
        }
    })
}

fn slot(slots: &Slots) -> Result<Option<Slot>, KeyError> {
    if slots.is_off() {
        return Ok(None);
    }
    let wait = match &slots.interval {
        SlotInterval::Between(min, max) => SlotWait::Between {
            min: min.0,
            max: max.0,
        },
        SlotInterval::By(spread, delay, jitter) => SlotWait::Distributed {
            delay: delay.0,
            jitter: jitter.0,
            distribution: distribution("slot", Some(spread))?,
        },
    };
    Ok(Some(Slot {
        wait,
        frames: slots.packets.into(),
        bytes: slots.bytes.into(),
    }))
}

fn program(filter: &Match) -> Result<Option<Program>, KeyError> {
    if filter.is_off() {
        return Ok(None);
    }
    let refused = |what: String| KeyError { key: "match", what };
    if filter.program.is_empty() {
        return Err(refused(format!(
            "\"{}\" is not compiled: `ikv-fabric impair` does that and sends the instructions",
            filter.expression
        )));
    }
    let instructions = filter.program.iter();
    let instructions = instructions.map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k });
    Program::new(instructions.collect())
        .map(Some)
        .map_err(|error| refused(error.to_string()))
}
