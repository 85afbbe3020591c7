//! Keys that only the client can complete. It compiles the filter and reads the table with the
//! rights of its user; the fabric, which may be root, opens no file that a client names.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::values::words;
use super::{BoundedInt, KeyError, Time, Value, ValueError, as_text};
use crate::bounded;

/// The most values of a distribution's table; tc's files have 4096.
const MOST_VALUES: usize = 16_384;

/// The longest file with a table, in bytes: one of tc's has 20 KiB.
const LONGEST_TABLE: u64 = 1 << 20;

/// How a random time is distributed around its mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "DistributionForm", into = "DistributionForm")]
pub enum Spread {
    /// All values up to the jitter are equally likely.
    #[default]
    Uniform,
    /// The normal distribution, with the jitter as its standard deviation.
    Normal,
    /// The Pareto distribution, which has a long tail.
    Pareto,
    /// A quarter of a normal and three quarters of a pareto distribution.
    ParetoNormal,
    /// The table in this file, which the client has not read yet.
    File(String),
    /// A table of the inverse distribution function, in units of 1/8192 of the jitter.
    Table {
        /// The name of the file that it was read from.
        name: String,
        /// The values at equal distances of probability.
        values: Vec<i16>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum DistributionForm {
    Name(String),
    Table { name: String, values: Vec<i16> },
}

impl From<DistributionForm> for Spread {
    fn from(form: DistributionForm) -> Self {
        match form {
            DistributionForm::Name(name) => Spread::named(&name),
            DistributionForm::Table { name, values } => Spread::Table { name, values },
        }
    }
}

impl From<Spread> for DistributionForm {
    fn from(spread: Spread) -> Self {
        match spread {
            Spread::Table { name, values } => DistributionForm::Table { name, values },
            other => DistributionForm::Name(other.to_string()),
        }
    }
}

impl Spread {
    fn named(name: &str) -> Self {
        match name.trim() {
            "uniform" | "none" => Spread::Uniform,
            "normal" => Spread::Normal,
            "pareto" => Spread::Pareto,
            "paretonormal" => Spread::ParetoNormal,
            file => Spread::File(file.into()),
        }
    }

    /// Reads the table if this names a file.
    fn read(self) -> Result<Self, String> {
        let Spread::File(name) = self else {
            return Ok(self);
        };
        let text = bounded::read_to_string(Path::new(&name), LONGEST_TABLE).map_err(|error| {
            format!(
                "\"{name}\" is neither uniform, normal, pareto nor paretonormal, and as a file it \
                 cannot be read: {error}"
            )
        })?;
        let values = table(&text).map_err(|what| format!("{name}: {what}"))?;
        Ok(Spread::Table { name, values })
    }

    /// The same without the values of the table.
    fn shown(self) -> Self {
        match self {
            Spread::Table { name, .. } => Spread::File(name),
            other => other,
        }
    }
}

/// Parses a table as tc has them: numbers between blanks, with comments from `#` to the line's end.
fn table(text: &str) -> Result<Vec<i16>, String> {
    let mut values = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_whitespace() {
            let value = word.parse::<i16>().map_err(|_| {
                format!(
                    "line {}: \"{word}\" is not a whole number from -32768 to 32767",
                    index + 1
                )
            })?;
            values.push(value);
        }
    }
    match values.len() {
        0 | 1 => Err("a table needs two numbers or more".into()),
        count if count > MOST_VALUES => Err(format!(
            "it has {count} numbers, the most are {MOST_VALUES}"
        )),
        _ => Ok(values),
    }
}

impl FromStr for Spread {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.trim().is_empty() {
            return Err(ValueError("name a distribution or a file".into()));
        }
        Ok(Spread::named(text))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Spread::Uniform => "uniform",
            Spread::Normal => "normal",
            Spread::Pareto => "pareto",
            Spread::ParetoNormal => "paretonormal",
            Spread::File(name) | Spread::Table { name, .. } => name,
        })
    }
}

impl Value for Spread {
    fn is_off(&self) -> bool {
        *self == Spread::Uniform
    }
}

/// Selects frames: an expression of tcpdump's, and the program that libpcap compiles it to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "MatchForm", into = "MatchForm")]
pub struct Match {
    /// Such as `tcp port 179`; empty: all frames.
    pub expression: String,
    /// The compiled expression; empty until the client has compiled it.
    pub program: Program,
}

/// A program of classic BPF: code, jt, jf and k of each instruction.
pub type Program = Vec<(u16, u8, u8, u32)>;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum MatchForm {
    Text(String),
    Compiled {
        expression: String,
        program: Program,
    },
}

impl From<MatchForm> for Match {
    fn from(form: MatchForm) -> Self {
        match form {
            MatchForm::Text(text) => Match {
                expression: if text.trim() == "none" {
                    String::new()
                } else {
                    text
                },
                program: Vec::new(),
            },
            MatchForm::Compiled {
                expression,
                program,
            } => Match {
                expression,
                program,
            },
        }
    }
}

impl From<Match> for MatchForm {
    fn from(found: Match) -> Self {
        if found.program.is_empty() {
            return MatchForm::Text(found.to_string());
        }
        MatchForm::Compiled {
            expression: found.expression,
            program: found.program,
        }
    }
}

impl FromStr for Match {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Ok(MatchForm::Text(text.to_owned()).into())
    }
}

impl fmt::Display for Match {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.expression.is_empty() {
            "none"
        } else {
            &self.expression
        })
    }
}

impl Value for Match {
    fn is_off(&self) -> bool {
        self.expression.trim().is_empty()
    }
}

/// When frames may leave: `MIN [MAX]` or `distribution NAME DELAY JITTER`, each with the limits
/// `packets N` and `bytes N` of a slot; `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The time from one slot to the next.
    pub interval: SlotInterval,
    /// The most frames that leave in a slot; 0: no limit.
    pub packets: u32,
    /// The most bytes that leave in a slot; 0: no limit.
    pub bytes: u32,
}

/// The time from one slot to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotInterval {
    /// Random, evenly distributed from the first to the second.
    Between(Time, Time),
    /// Random, with this distribution, mean and jitter.
    By(Spread, Time, Time),
}

impl Default for SlotInterval {
    fn default() -> Self {
        SlotInterval::Between(Time::default(), Time::default())
    }
}

impl FromStr for Slots {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || {
            ValueError(format!(
                "\"{text}\" is not a slot: write \"MIN [MAX] [packets N] [bytes N]\" or \
                 \"distribution NAME DELAY JITTER [packets N] [bytes N]\", such as \
                 \"10ms 20ms packets 5\""
            ))
        };
        let words = words(text);
        let (interval, mut rest) = match words[..] {
            ["none"] => return Ok(Slots::default()),
            ["distribution", name, delay, jitter, ref rest @ ..] => {
                let by = SlotInterval::By(Spread::named(name), delay.parse()?, jitter.parse()?);
                (by, rest)
            }
            [least, "packets" | "bytes", ..] => {
                let least = least.parse()?;
                (SlotInterval::Between(least, least), &words[1..])
            }
            [least] => {
                let least = least.parse()?;
                (SlotInterval::Between(least, least), &[][..])
            }
            [least, most, ref rest @ ..] => {
                let (least, most): (Time, Time) = (least.parse()?, most.parse()?);
                if least > most {
                    return Err(ValueError(format!("{least} is longer than {most}")));
                }
                (SlotInterval::Between(least, most), rest)
            }
            [] => return Err(refused()),
        };
        let mut slots = Slots {
            interval,
            ..Slots::default()
        };
        while let [name, number, after @ ..] = rest {
            let number = number.parse::<BoundedInt<1, { u32::MAX as i64 }>>()?.0 as u32;
            match *name {
                "packets" => slots.packets = number,
                "bytes" => slots.bytes = number,
                _ => return Err(refused()),
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(refused());
        }
        Ok(slots)
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_off() {
            return out.write_str("none");
        }
        match &self.interval {
            SlotInterval::Between(least, most) if least == most => least.fmt(out)?,
            SlotInterval::Between(least, most) => write!(out, "{least} {most}")?,
            SlotInterval::By(spread, delay, jitter) => {
                write!(out, "distribution {spread} {delay} {jitter}")?;
            }
        }
        if self.packets > 0 {
            write!(out, " packets {}", self.packets)?;
        }
        if self.bytes > 0 {
            write!(out, " bytes {}", self.bytes)?;
        }
        Ok(())
    }
}

impl Value for Slots {
    fn is_off(&self) -> bool {
        *self == Slots::default()
    }
}

impl super::ImpairKeys {
    /// Compiles the filter and reads the table, which only the client can do.
    ///
    /// # Errors
    /// What is wrong with the filter or the table.
    pub fn resolve(
        mut self,
        compile: impl FnOnce(&str) -> Result<Program, String>,
    ) -> Result<Self, KeyError> {
        if let Some(filter) = &mut self.matches
            && !filter.is_off()
            && filter.program.is_empty()
        {
            filter.program =
                compile(&filter.expression).map_err(|what| KeyError { key: "match", what })?;
        }
        if let Some(spread) = self.distribution.take() {
            let read = spread.read().map_err(|what| KeyError {
                key: "distribution",
                what,
            })?;
            self.distribution = Some(read);
        }
        Ok(self)
    }

    /// For display: the names of filter and table, without program and values.
    #[must_use]
    pub fn shown(&self) -> Self {
        let mut shown = self.clone();
        shown.distribution = shown.distribution.map(Spread::shown);
        if let Some(filter) = &mut shown.matches {
            filter.program.clear();
        }
        shown
    }
}

as_text!(Slots);
