//! The values of single keys of an impairment, with the names of tc-netem(8).

use std::fmt;
use std::str::FromStr;

use super::{Percent, ValueError, as_text};

/// The value of a key.
pub trait Value {
    /// Whether the value switches the key off, such as `loss 0%` and `rate none`: a change with it
    /// removes the key.
    fn is_off(&self) -> bool;
}

/// Which frames are lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum LossModel {
    /// No frames are lost.
    #[default]
    None,
    /// `1%`, `random 1% 25%`: each frame with this probability, and the correlation with the loss of
    /// the frame before.
    Random(Percent, Percent),
    /// `state P13 P31 P32 P23 P14`: the transitions of Salsano's Markov chain of four states.
    State([Percent; 5]),
    /// `gemodel P R 1-H 1-K`: the transitions of Gilbert and Elliott's chain into the bad state and
    /// back, and the losses in the bad and in the good state.
    Gemodel([Percent; 4]),
}

impl FromStr for LossModel {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let words: Vec<&str> = words(text);
        let (model, shares) = match words.split_first() {
            Some((&"none", [])) => return Ok(LossModel::None),
            Some((model @ (&"random" | &"state" | &"gemodel"), rest)) => (*model, rest),
            _ => ("random", &words[..]),
        };
        let shares = shares
            .iter()
            .map(|word| word.parse::<Percent>())
            .collect::<Result<Vec<_>, _>>()?;
        let at = |index: usize| shares.get(index).copied();
        let rest_of = |share: Percent| Percent::of(1.0 - share.share());
        let zero = Percent::default();
        match (model, shares.as_slice()) {
            ("random", [share]) => Ok(LossModel::Random(*share, zero)),
            ("random", [share, correlation]) => Ok(LossModel::Random(*share, *correlation)),
            ("state", [p13, ..]) if shares.len() <= 5 => Ok(LossModel::State([
                *p13,
                at(1).unwrap_or(rest_of(*p13)),
                at(2).unwrap_or(zero),
                at(3).unwrap_or(Percent::ALL),
                at(4).unwrap_or(zero),
            ])),
            ("gemodel", [p, ..]) if shares.len() <= 4 => Ok(LossModel::Gemodel([
                *p,
                at(1).unwrap_or(rest_of(*p)),
                at(2).unwrap_or(Percent::ALL),
                at(3).unwrap_or(zero),
            ])),
            _ => Err(ValueError(format!(
                "\"{text}\" is not a loss: write \"1%\", \"1% 25%\" (with correlation), \
                 \"state P13 [P31 [P32 [P23 [P14]]]]\" or \"gemodel P [R [1-H [1-K]]]\", each in percent"
            ))),
        }
    }
}

impl fmt::Display for LossModel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossModel::None => out.write_str("none"),
            LossModel::Random(share, correlation) => chance(out, *share, *correlation),
            LossModel::State(shares) => write!(out, "state {}", joined(shares)),
            LossModel::Gemodel(shares) => write!(out, "gemodel {}", joined(shares)),
        }
    }
}

impl Value for LossModel {
    fn is_off(&self) -> bool {
        match self {
            LossModel::None => true,
            LossModel::Random(share, _) => share.is_off(),
            LossModel::State([p13, .., p14]) => p13.is_off() && p14.is_off(),
            LossModel::Gemodel([p, _, _, good]) => p.is_off() && good.is_off(),
        }
    }
}

/// How likely something happens to a frame: `1%`, `1% 25%`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Probability {
    /// The probability.
    pub share: Percent,
    /// The correlation with what happened to the frame before.
    pub correlation: Percent,
}

impl FromStr for Probability {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let zero = Percent::default();
        let (share, correlation) = match words(text)[..] {
            ["none"] => (zero, zero),
            [share] => (share.parse()?, zero),
            [share, correlation] => (share.parse()?, correlation.parse()?),
            _ => {
                return Err(ValueError(format!(
                    "\"{text}\" is not a probability: write \"1%\", or \"1% 25%\" with its correlation"
                )));
            }
        };
        Ok(Probability { share, correlation })
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        chance(out, self.share, self.correlation)
    }
}

fn chance(out: &mut fmt::Formatter<'_>, share: Percent, correlation: Percent) -> fmt::Result {
    write!(out, "{share}")?;
    if correlation.is_off() {
        return Ok(());
    }
    write!(out, " {correlation}")
}

impl Value for Probability {
    fn is_off(&self) -> bool {
        self.share.is_off()
    }
}

/// How much may wait in a lane: `2MB`, or `1000p` for frames; `none` for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum QueueLimit {
    /// What arrives within the longest delay at the rate, or at 40 Gbit/s if there is none, but at
    /// least 16 MiB and at most 1 GiB.
    #[default]
    Default,
    /// At most this many bytes.
    Bytes(super::Bytes),
    /// At most this many frames.
    Frames(u64),
}

impl FromStr for QueueLimit {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text == "none" {
            return Ok(QueueLimit::Default);
        }
        if let Some(frames) = text.strip_suffix('p') {
            return frames.trim().parse().map(QueueLimit::Frames).map_err(|_| {
                ValueError(format!(
                    "\"{text}\" is not a number of frames such as 1000p"
                ))
            });
        }
        if text.parse::<u64>().is_ok() {
            return Err(ValueError(format!(
                "{text} has no unit: write {text}p for frames, {text}B or {text}kB for bytes"
            )));
        }
        text.parse().map(QueueLimit::Bytes)
    }
}

impl fmt::Display for QueueLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueLimit::Default => out.write_str("none"),
            QueueLimit::Bytes(bytes) => bytes.fmt(out),
            QueueLimit::Frames(frames) => write!(out, "{frames}p"),
        }
    }
}

impl Value for QueueLimit {
    fn is_off(&self) -> bool {
        *self == QueueLimit::Default
    }
}

/// The most frames that a key may list.
const MOST_NUMBERED: u64 = 100_000;

/// Numbers of frames, from 1: `3,7,20-25`; `none`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameNumbers(Vec<(u64, u64)>);

impl FrameNumbers {
    /// The numbers, each once and ascending.
    pub fn numbers(&self) -> Vec<u64> {
        let ranges = self.0.iter();
        ranges.flat_map(|(first, last)| *first..=*last).collect()
    }
}

impl FromStr for FrameNumbers {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text == "none" {
            return Ok(FrameNumbers::default());
        }
        let mut ranges = Vec::new();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
                (Ok(first @ 1..), Ok(last)) if first <= last => ranges.push((first, last)),
                _ => {
                    return Err(ValueError(format!(
                        "\"{part}\" is not the number of a frame: write numbers from 1 and ranges, \
                         such as 3,7,20-25"
                    )));
                }
            }
        }
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        let count = merged.iter().fold(0u64, |count, (first, last)| {
            count.saturating_add(last - first).saturating_add(1)
        });
        if count > MOST_NUMBERED {
            return Err(ValueError(format!(
                "{count} frames are named; {MOST_NUMBERED} can be: use loss for more"
            )));
        }
        Ok(FrameNumbers(merged))
    }
}

impl fmt::Display for FrameNumbers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("none");
        }
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{first}")?;
            if first < last {
                write!(out, "-{last}")?;
            }
        }
        Ok(())
    }
}

impl Value for FrameNumbers {
    fn is_off(&self) -> bool {
        self.0.is_empty()
    }
}

/// `true` or `false`, also written on, off, yes or no.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

impl FromStr for Flag {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.trim() {
            "true" | "on" | "yes" => Ok(Flag(true)),
            "false" | "off" | "no" | "none" => Ok(Flag(false)),
            _ => Err(ValueError(format!("\"{text}\" is neither true nor false"))),
        }
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Value for Flag {
    fn is_off(&self) -> bool {
        !self.0
    }
}

/// A whole number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BoundedInt<const LEAST: i64, const MOST: i64>(pub i64);

impl<const LEAST: i64, const MOST: i64> FromStr for BoundedInt<LEAST, MOST> {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.trim().parse() {
            Ok(number) if (LEAST..=MOST).contains(&number) => Ok(BoundedInt(number)),
            _ => Err(ValueError(format!(
                "\"{text}\" is not a whole number from {LEAST} to {MOST}"
            ))),
        }
    }
}

impl<const LEAST: i64, const MOST: i64> fmt::Display for BoundedInt<LEAST, MOST> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl<const LEAST: i64, const MOST: i64> Value for BoundedInt<LEAST, MOST> {
    fn is_off(&self) -> bool {
        self.0 == 0
    }
}

impl Value for super::Time {
    fn is_off(&self) -> bool {
        self.0.is_zero()
    }
}

impl Value for Percent {
    fn is_off(&self) -> bool {
        *self == Percent::default()
    }
}

impl Value for super::BitRate {
    fn is_off(&self) -> bool {
        self.0 == 0
    }
}

/// Splits words at blanks, commas and colons: `gemodel 1% 10%` as well as `gemodel:1%,10%`.
pub(super) fn words(text: &str) -> Vec<&str> {
    text.split([' ', ',', ':', '\t'])
        .filter(|word| !word.is_empty())
        .collect()
}

fn joined(shares: &[Percent]) -> String {
    let shares: Vec<_> = shares.iter().map(ToString::to_string).collect();
    shares.join(" ")
}

as_text!(LossModel, Probability, QueueLimit, FrameNumbers, Flag);
as_text!(BoundedInt<LEAST, MOST>, const LEAST: i64, const MOST: i64);
