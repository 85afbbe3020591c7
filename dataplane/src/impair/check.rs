//! The limits of an [`Impairment`]: [`Impairment::check`].

use std::time::Duration;

use thiserror::Error;

use super::distribution::{Distribution, MAX_TABLE};
use super::settings::{
    Chance, Impairment, Limit, Loss, MAX_CELL, MAX_CELL_OVERHEAD, MAX_OVERHEAD, MAX_RATE, MAX_TIME,
    Rate, Slot, SlotWait,
};

/// Why an [`Impairment`] is refused.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ImpairError {
    /// A value is out of its range.
    #[error("{key} {value} is out of range: it has to be {range}")]
    Range {
        /// The key, as the user writes it.
        key: &'static str,
        /// The value that was given.
        value: String,
        /// The range of its values.
        range: String,
    },
    /// Two values contradict each other, or one has no meaning without the other.
    #[error("{key} {problem}")]
    Without {
        /// The key, as the user writes it.
        key: &'static str,
        /// What is missing, and the way out.
        problem: &'static str,
    },
}

impl Impairment {
    /// Checks every key against its range and against the others.
    ///
    /// # Errors
    /// Names the first wrong key, and its range or the key that it needs.
    pub fn check(&self) -> Result<(), ImpairError> {
        time("delay", self.delay)?;
        time("jitter", self.jitter)?;
        share("delay correlation", self.delay_correlation)?;
        self.distribution.check("distribution")?;
        self.loss.check()?;
        self.duplicate.check("duplicate", "duplicate correlation")?;
        self.corrupt.check("corrupt", "corrupt correlation")?;
        self.reorder.check("reorder", "reorder correlation")?;
        if let Some(rate) = self.rate {
            rate.check()?;
        }
        if let Some(Limit::Bytes(0) | Limit::Frames(0)) = self.limit {
            return Err(range("limit", 0, "above 0".into()));
        }
        if let Some(slot) = &self.slot {
            slot.check()?;
        }
        if self.drop_nth.contains(&0) {
            return Err(range(
                "drop-nth",
                0,
                "1 for the first frame, or more".into(),
            ));
        }
        self.check_together()
    }

    /// As tc-netem(8), refuses a key that has no effect without another: the user meant it to have one.
    fn check_together(&self) -> Result<(), ImpairError> {
        let without = |key, problem| Err(ImpairError::Without { key, problem });
        if self.jitter.is_zero() && self.distribution != Distribution::Uniform {
            return without(
                "distribution",
                "does nothing without jitter: set jitter as well, or distribution uniform",
            );
        }
        if self.jitter.is_zero() && self.delay_correlation > 0.0 {
            return without(
                "delay correlation",
                "does nothing without jitter: set jitter as well, or the correlation to 0",
            );
        }
        if !self.reorder.is_never() && !self.holds() {
            return without(
                "reorder",
                "needs frames that wait and can be overtaken: set a delay as well",
            );
        }
        if self.gap > 0 && self.reorder.is_never() {
            return without(
                "gap",
                "does nothing without reorder: set reorder as well, or gap to 0",
            );
        }
        if self.ecn && self.loss == Loss::None {
            return without(
                "ecn",
                "marks frames that loss would drop: set loss as well, or ecn to false",
            );
        }
        Ok(())
    }
}

impl Distribution {
    fn check(&self, key: &'static str) -> Result<(), ImpairError> {
        match self {
            Distribution::Table(table) if table.is_empty() || table.len() > MAX_TABLE => {
                let bounds = format!("1..={MAX_TABLE} values long");
                Err(range(key, format!("of {} values", table.len()), bounds))
            }
            _ => Ok(()),
        }
    }
}

impl Chance {
    fn check(&self, key: &'static str, correlation: &'static str) -> Result<(), ImpairError> {
        share(key, self.probability)?;
        share(correlation, self.correlation)
    }
}

impl Loss {
    fn check(&self) -> Result<(), ImpairError> {
        let sum = |key, sum: f64| {
            // Decimal fractions that add up to 1 may differ from 1 in the last binary digit.
            if sum <= 1.0 + 1e-9 {
                Ok(())
            } else {
                Err(range(key, sum, "at most 1 (100 %)".into()))
            }
        };
        match *self {
            Loss::None => Ok(()),
            Loss::Random {
                probability,
                correlation,
            } => {
                share("loss", probability)?;
                share("loss correlation", correlation)
            }
            Loss::State {
                p13,
                p31,
                p32,
                p23,
                p14,
            } => {
                share("loss state p13", p13)?;
                share("loss state p31", p31)?;
                share("loss state p32", p32)?;
                share("loss state p23", p23)?;
                share("loss state p14", p14)?;
                sum("loss state p13 + p14", p13 + p14)?;
                sum("loss state p31 + p32", p31 + p32)
            }
            Loss::Gemodel { p, r, h, k } => {
                share("loss gemodel p", p)?;
                share("loss gemodel r", r)?;
                share("loss gemodel h", h)?;
                share("loss gemodel k", k)
            }
        }
    }
}

impl Rate {
    fn check(&self) -> Result<(), ImpairError> {
        if !(1..=MAX_RATE).contains(&self.bits_per_second) {
            let bounds = format!("1..={MAX_RATE} bit/s");
            return Err(range("rate", self.bits_per_second, bounds));
        }
        if !(-MAX_OVERHEAD..=MAX_OVERHEAD).contains(&self.overhead) {
            let bounds = format!("{}..={MAX_OVERHEAD} bytes", -MAX_OVERHEAD);
            return Err(range("rate overhead", self.overhead, bounds));
        }
        if self.cell > MAX_CELL {
            let bounds = format!("0..={MAX_CELL} bytes");
            return Err(range("rate cell", self.cell, bounds));
        }
        let least = -MAX_CELL_OVERHEAD.min(self.cell.cast_signed());
        if !(least..=MAX_CELL_OVERHEAD).contains(&self.cell_overhead) {
            let bounds = format!("{least}..={MAX_CELL_OVERHEAD} bytes with this cell");
            return Err(range("rate cell overhead", self.cell_overhead, bounds));
        }
        Ok(())
    }
}

impl Slot {
    fn check(&self) -> Result<(), ImpairError> {
        match &self.wait {
            SlotWait::Between { min, max } => {
                time("slot", *max)?;
                if min > max || max.is_zero() {
                    let bounds = format!("above 0 and at least the shortest, {min:?}");
                    return Err(range("slot", format!("{max:?}"), bounds));
                }
                Ok(())
            }
            SlotWait::Distributed {
                delay,
                jitter,
                distribution,
            } => {
                time("slot delay", *delay)?;
                time("slot jitter", *jitter)?;
                if jitter.is_zero() {
                    return Err(range("slot jitter", 0, "above 0".into()));
                }
                distribution.check("slot distribution")
            }
        }
    }
}

fn range(key: &'static str, value: impl ToString, range: String) -> ImpairError {
    ImpairError::Range {
        key,
        value: value.to_string(),
        range,
    }
}

fn time(key: &'static str, value: Duration) -> Result<(), ImpairError> {
    if value <= MAX_TIME {
        return Ok(());
    }
    Err(range(
        key,
        format!("{value:?}"),
        format!("0..={MAX_TIME:?}"),
    ))
}

fn share(key: &'static str, value: f64) -> Result<(), ImpairError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(range(key, value, "0..=1 (0 %..=100 %)".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Impairment)) -> String {
        let mut settings = Impairment {
            delay: Duration::from_millis(10),
            ..Impairment::default()
        };
        change(&mut settings);
        match settings.check() {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    fn chance(probability: f64) -> Chance {
        Chance {
            probability,
            correlation: 0.0,
        }
    }

    #[test]
    fn errors_name_the_key_and_the_way_out() {
        let errors = [
            check(|it| it.delay = Duration::from_secs(3601)),
            check(|it| it.duplicate = chance(1.5)),
            check(|it| it.corrupt.correlation = f64::NAN),
            check(|it| it.loss = Loss::state(0.7, None, None, None, Some(0.4))),
            check(|it| it.drop_nth = [0].into()),
            check(|it| it.limit = Some(Limit::Bytes(0))),
            check(|it| it.distribution = Distribution::Normal),
            check(|it| it.gap = 5),
            check(|it| it.ecn = true),
            check(|it| (it.delay, it.reorder) = (Duration::ZERO, chance(0.1))),
        ];
        assert_eq!(
            errors,
            [
                "delay 3601s is out of range: it has to be 0..=3600s",
                "duplicate 1.5 is out of range: it has to be 0..=1 (0 %..=100 %)",
                "corrupt correlation NaN is out of range: it has to be 0..=1 (0 %..=100 %)",
                "loss state p13 + p14 1.1 is out of range: it has to be at most 1 (100 %)",
                "drop-nth 0 is out of range: it has to be 1 for the first frame, or more",
                "limit 0 is out of range: it has to be above 0",
                "distribution does nothing without jitter: set jitter as well, or distribution \
                 uniform",
                "gap does nothing without reorder: set reorder as well, or gap to 0",
                "ecn marks frames that loss would drop: set loss as well, or ecn to false",
                "reorder needs frames that wait and can be overtaken: set a delay as well",
            ]
        );
    }

    #[test]
    fn rates_and_slots_have_their_ranges() {
        let rate = |bits_per_second, overhead, cell, cell_overhead| {
            check(|it| {
                it.rate = Some(Rate {
                    bits_per_second,
                    overhead,
                    cell,
                    cell_overhead,
                });
            })
            .is_empty()
        };
        assert!(rate(1, -MAX_OVERHEAD, 0, 0) && rate(MAX_RATE, MAX_OVERHEAD, 48, -48));
        assert!(!rate(0, 0, 0, 0) && !rate(MAX_RATE + 1, 0, 0, 0));
        assert!(!rate(1, i32::MIN, 0, 0) && !rate(1, i32::MAX, 0, 0));
        assert!(!rate(1, 0, MAX_CELL + 1, 0) && !rate(1, 0, 48, -49));
        assert!(!rate(1, 0, 48, i32::MIN) && !rate(1, 0, 48, MAX_CELL_OVERHEAD + 1));
        let slot = |min, max| {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            check(|it| {
                it.slot = Some(Slot {
                    wait: SlotWait::Between { min, max },
                    frames: 0,
                    bytes: 0,
                });
            })
            .is_empty()
        };
        assert!(slot(0, 5) && slot(5, 5));
        assert!(!slot(5, 4) && !slot(0, 0));
    }
}
