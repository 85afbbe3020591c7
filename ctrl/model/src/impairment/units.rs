//! Numbers with units: `10ms`, `0.1%`, `1gbit`, `2MB`. This is the only parser of sizes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{ValueError, as_text};

/// The longest [`Time`].
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Splits `1.5ms` into 1.5 and `ms`; `None` if it does not begin with a number.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

/// Writes `value` in the largest unit of which there is at least one, without trailing zeros. Exact,
/// so that what is written parses to the same value.
fn write_scaled(out: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, size): &&(&str, u64)| value >= *size;
    let (unit, size) = units.iter().rev().find(fits).unwrap_or(&units[0]);
    let (whole, rest) = (value / size, value % size);
    write!(out, "{whole}")?;
    if rest > 0 {
        let digits = size.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        write!(out, ".{}", fraction.trim_end_matches('0'))?;
    }
    out.write_str(unit)
}

/// A time from 0 to 24 hours, exact to 1 ns: `10ms`, `1.5s`, `250us`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

const TIMES: [(&str, u64); 4] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
];

impl FromStr for Time {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (number, unit) = split(text).ok_or_else(|| not_a_time(text))?;
        let size = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "usec" => 1e-6,
            "ms" | "msec" => 1e-3,
            "s" | "sec" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            "" if number == 0.0 => 1.0,
            "" => {
                let text = text.trim();
                return Err(ValueError(format!(
                    "{text} has no unit: write {text}ms, {text}us or {text}s"
                )));
            }
            _ => return Err(not_a_time(text)),
        };
        let seconds = number * size;
        if seconds > LONGEST.as_secs_f64() {
            return Err(ValueError(format!("{text} is longer than 24h")));
        }
        let nanos = (seconds * 1e9).round() as u64;
        Ok(Time(Duration::from_nanos(nanos)))
    }
}

fn not_a_time(text: &str) -> ValueError {
    ValueError(format!(
        "\"{text}\" is not a time such as 10ms, 250us or 1.5s"
    ))
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_nanos() as u64 {
            0 => out.write_str("0"),
            nanos => write_scaled(out, nanos, &TIMES),
        }
    }
}

/// A share of 0 to 100 percent: `1%`, `0.1%`. Holds the number that was written, so that it is
/// displayed as it was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// 100%.
    pub const ALL: Self = Percent(100.0);

    /// From a share in 0..=1; others are clamped.
    pub fn of(share: f64) -> Self {
        Percent((share * 100.0).clamp(0.0, 100.0))
    }

    /// The share in 0..=1.
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Percent {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || ValueError(format!("\"{text}\" is not a share such as 1% or 0.1%"));
        match split(text).ok_or_else(refused)? {
            (number, "%") if number <= 100.0 => Ok(Percent(number)),
            (_, "%") => Err(ValueError(format!("{text} is more than 100%"))),
            (0.0, "") => Ok(Percent(0.0)),
            (_, "") => {
                let text = text.trim();
                Err(ValueError(format!("{text} has no unit: write {text}%")))
            }
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}%", self.0)
    }
}

/// A rate of 1 to 10^12 bits per second; 0, written `none`, means that there is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(pub u64);

const RATES: [(&str, u64); 4] = [
    ("bit", 1),
    ("kbit", 1_000),
    ("mbit", 1_000_000),
    ("gbit", 1_000_000_000),
];

impl FromStr for BitRate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || {
            ValueError(format!(
                "\"{text}\" is not a rate in bits per second such as 1gbit, 500kbit or 2.5mbit; \
                 \"none\" takes it away"
            ))
        };
        if text.trim() == "none" {
            return Ok(BitRate(0));
        }
        let (number, unit) = split(text).ok_or_else(refused)?;
        let unit = unit.to_ascii_lowercase();
        let size = match unit.strip_suffix("/s").unwrap_or(&unit) {
            "bit" => 1.0,
            "kbit" => 1e3,
            "mbit" => 1e6,
            "gbit" => 1e9,
            "tbit" => 1e12,
            "kibit" => 1024.0,
            "mibit" => 1_048_576.0,
            "gibit" => 1_073_741_824.0,
            "" if number == 0.0 => 1.0,
            "bps" | "kbps" | "mbps" | "gbps" => {
                return Err(ValueError(format!(
                    "\"{text}\" may mean bits or (to tc) bytes: write kbit, mbit or gbit"
                )));
            }
            _ => return Err(refused()),
        };
        let bits = (number * size).round();
        if bits > 1e12 {
            return Err(ValueError(format!("{text} is more than 1tbit")));
        }
        Ok(BitRate(bits as u64))
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => out.write_str("none"),
            bits => write_scaled(out, bits, &RATES),
        }
    }
}

/// A number of bytes up to 10^15: `64MiB`, `2MB`, `1500B`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const SIZES: [(&str, u64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

impl FromStr for Bytes {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let refused = || {
            ValueError(format!(
                "\"{text}\" is not a number of bytes such as 1500B, 2MB or 64MiB"
            ))
        };
        let (number, unit) = split(text).ok_or_else(refused)?;
        if unit.is_empty() && number > 0.0 {
            return Err(ValueError(format!(
                "{text} has no unit: write {text}B, {text}kB or {text}MB"
            )));
        }
        let known = |(name, _): &&(&str, u64)| name.eq_ignore_ascii_case(unit);
        let size = match SIZES.iter().find(known) {
            Some((_, size)) => *size,
            None if unit.is_empty() => 1,
            None => return Err(refused()),
        };
        let bytes = number * size as f64;
        if bytes > 1e15 {
            return Err(ValueError(format!("{text} is more than a machine has")));
        }
        Ok(Bytes(bytes.round() as u64))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, size): &&(&str, u64)| self.0 >= *size && self.0.is_multiple_of(*size);
        let (unit, size) = SIZES.iter().rev().find(whole).unwrap_or(&SIZES[0]);
        write!(out, "{}{unit}", self.0 / size)
    }
}

/// An amount of memory in MiB, as QEMU's `-m` takes it: `192`, `192M`, `1G`, `1GiB`, in any case.
/// As for QEMU, a number without a unit is in MiB, and M and G are powers of two even with a B.
pub fn mebibytes(text: &str) -> Option<u32> {
    let (number, unit) = split(text)?;
    let factor = match &*unit.to_ascii_lowercase() {
        "" | "m" | "mb" | "mib" => 1.0,
        "g" | "gb" | "gib" => 1024.0,
        _ => return None,
    };
    let mib = number * factor;
    (mib.fract() == 0.0 && mib <= u32::MAX.into()).then_some(mib as u32)
}

as_text!(Time, Percent, BitRate, Bytes);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown<T: FromStr<Err = ValueError> + ToString>(texts: &[&str]) -> Vec<String> {
        let parsed = texts.iter().map(|text| text.parse::<T>());
        parsed
            .map(|value| value.map_or_else(|error| error.to_string(), |value| value.to_string()))
            .collect()
    }

    #[test]
    fn as_people_write_them() {
        assert_eq!(
            shown::<Time>(&[
                "10ms", "1.5s", "250us", "0", "0.25 ms", "2min", "1500ms", "7ns"
            ]),
            ["10ms", "1.5s", "250us", "0", "250us", "120s", "1.5s", "7ns"]
        );
        assert_eq!(
            shown::<Percent>(&["1%", "0.1%", "100 %", "0", "0.07%"]),
            ["1%", "0.1%", "100%", "0%", "0.07%"]
        );
        assert_eq!(
            shown::<BitRate>(&["1gbit", "500kbit", "2.5Mbit/s", "none", "64kibit", "9bit"]),
            ["1gbit", "500kbit", "2.5mbit", "none", "65.536kbit", "9bit"]
        );
        assert_eq!(
            shown::<Bytes>(&["64MiB", "2MB", "1500B", "0", "1kb", "3GiB"]),
            ["64MiB", "2MB", "1500B", "0B", "1kB", "3GiB"]
        );
    }

    #[test]
    fn memory_is_in_mib() {
        let written = ["192", "192M", "1G", "64m", "2GiB", "192MB", "1.5G"];
        let mib = [192, 192, 1024, 64, 2048, 192, 1536];
        assert_eq!(written.map(mebibytes), mib.map(Some));
        let refused = ["", "G", "1T", "-1", "5000000G", "1.5M", "192B"];
        assert_eq!(refused.map(mebibytes), [None; 7]);
    }

    #[test]
    fn what_is_none_says_how_to_write_it() {
        let said = [
            shown::<Time>(&["10", "ten", "-1ms", "30h", "5 apples"]),
            shown::<Percent>(&["1", "101%", "-1%", "x"]),
            shown::<BitRate>(&["10mbps", "5", "2tbit", "fast"]),
            shown::<Bytes>(&["64", "many", "1XB"]),
        ];
        insta::assert_snapshot!(said.concat().join("\n"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(nanos in 0u64..86_400_000_000_000, bits in 0u64..1_000_000_000_000, bytes: u32) {
            let time = Time(Duration::from_nanos(nanos));
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
            let rate = BitRate(bits);
            prop_assert_eq!(rate.to_string().parse::<BitRate>().unwrap(), rate);
            let bytes = Bytes(bytes.into());
            prop_assert_eq!(bytes.to_string().parse::<Bytes>().unwrap(), bytes);
        }

        #[test]
        fn shares_too(share in 0.0f64..=1.0) {
            let percent = Percent::of(share);
            prop_assert_eq!(percent.to_string().parse::<Percent>().unwrap(), percent);
        }
    }
}
