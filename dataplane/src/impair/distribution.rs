//! How jitter is distributed: [`Distribution`], and drawing from it: [`Spread`].

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use thiserror::Error;

use super::chance::scale;
use super::normal;

/// One deviation in units of a table's values (`NETEM_DIST_SCALE`).
const SCALE: i64 = 8192;
/// Most values of a table (`NETEM_DIST_MAX`).
pub const MAX_TABLE: usize = 16384;
/// The number of values in the built-in tables, the same as in those of iproute2.
const MADE: usize = 4096;

/// How jitter is distributed around the delay. All but the first reach at most four times the jitter,
/// which is the largest value that a table can hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Distribution {
    /// Uniform within the jitter either way. It is the kernel's default, although tc-netem(8) says
    /// otherwise.
    #[default]
    Uniform,
    /// Bell-shaped; the jitter is the standard deviation.
    Normal,
    /// Many frames a little early, few very late, with shape 3 as in iproute2. Because it is cut off at
    /// four times the jitter, its mean is 0.033 jitters early and its deviation 0.82 of the jitter.
    Pareto,
    /// A quarter [`Distribution::Normal`], three quarters [`Distribution::Pareto`].
    ParetoNormal,
    /// The inverse of a cumulative distribution in equal steps, in 1/8192 of the jitter: what
    /// a `.dist` file of iproute2 holds ([`parse_table`]). 1..=[`MAX_TABLE`] values.
    Table(Arc<[i16]>),
}

/// Why a text is not a table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TableError {
    /// A word is not a value.
    #[error(
        "line {line}: «{found}» is not a whole number of {}..={}; comments begin their line with #",
        i16::MIN,
        i16::MAX
    )]
    Value {
        /// The line, counted from 1.
        line: usize,
        /// The word, at most 32 characters of it.
        found: String,
    },
    /// The table is empty or too long.
    #[error("the table has {found} values: it has to have 1..={MAX_TABLE}")]
    Length {
        /// The number of values.
        found: usize,
    },
}

/// Reads the text of a `.dist` file of iproute2: whole numbers between blanks, lines that begin
/// with # are comments.
///
/// # Errors
/// Names the line, or the length.
pub fn parse_table(text: &str) -> Result<Vec<i16>, TableError> {
    let mut table = Vec::new();
    for (line, content) in text.lines().enumerate() {
        if content.trim_start().starts_with('#') {
            continue;
        }
        for word in content.split_whitespace() {
            table.push(word.parse().map_err(|_| TableError::Value {
                line: line + 1,
                found: word.chars().take(32).collect(),
            })?);
        }
    }
    match table.len() {
        1..=MAX_TABLE => Ok(table),
        found => Err(TableError::Length { found }),
    }
}

impl Distribution {
    /// The largest distance of a value from the mean, in jitters.
    pub(super) fn reach(&self) -> u32 {
        match self {
            Distribution::Uniform => 1,
            _ => 4,
        }
    }

    /// The table; `None` for [`Distribution::Uniform`]. Built-in tables are computed when first used.
    fn table(&self) -> Option<Arc<[i16]>> {
        static NORMAL: LazyLock<Arc<[i16]>> = LazyLock::new(|| rounded(&normal_values()));
        static PARETO: LazyLock<Arc<[i16]>> = LazyLock::new(|| rounded(&pareto_values()));
        static MIXED: LazyLock<Arc<[i16]>> = LazyLock::new(|| {
            let both = normal_values().into_iter().zip(pareto_values());
            rounded(&both.map(|(n, p)| n / 4.0 + p * 0.75).collect::<Vec<_>>())
        });
        match self {
            Distribution::Uniform => None,
            Distribution::Normal => Some(NORMAL.clone()),
            Distribution::Pareto => Some(PARETO.clone()),
            Distribution::ParetoNormal => Some(MIXED.clone()),
            Distribution::Table(table) => Some(table.clone()),
        }
    }
}

/// The values in the middle of each of [`MADE`] equal steps of probability, in deviations.
fn normal_values() -> Vec<f64> {
    let mut above = Vec::with_capacity(MADE / 2);
    let mut last = 0.0;
    for step in MADE / 2..MADE {
        last = normal::quantile_from(last, (step as f64 + 0.5) / MADE as f64);
        above.push(last);
    }
    above
        .iter()
        .rev()
        .map(|z| -z)
        .chain(above.clone())
        .collect()
}

/// Shape 3 and least value 1 have the mean 3/2; the factor 4/3 is iproute2's.
fn pareto_values() -> Vec<f64> {
    let most = f64::from(i16::MAX) / SCALE as f64;
    (0..MADE)
        .map(|step| {
            let beyond = 1.0 - (step as f64 + 0.5) / MADE as f64;
            ((beyond.cbrt().recip() - 1.5) * 4.0 / 3.0).min(most)
        })
        .collect()
}

fn rounded(values: &[f64]) -> Arc<[i16]> {
    values
        .iter()
        .map(|value| (value * SCALE as f64).round() as i16)
        .collect()
}

/// Draws times around a mean.
#[derive(Debug)]
pub(super) struct Spread {
    mean: i64,
    jitter: i64,
    table: Option<Arc<[i16]>>,
}

impl Spread {
    pub(super) fn new(mean: Duration, jitter: Duration, distribution: &Distribution) -> Self {
        Spread {
            mean: mean.as_nanos() as i64,
            jitter: jitter.as_nanos() as i64,
            table: distribution.table(),
        }
    }

    /// A time, ns, from a number of a [`Source`](super::chance::Source); not below 0.
    #[inline]
    pub(super) fn draw(&self, number: u64) -> u64 {
        let off = match &self.table {
            None => scale(number, 2 * self.jitter as u64).cast_signed() - self.jitter,
            Some(table) => {
                let value = table[scale(number, table.len() as u64) as usize];
                // An hour of jitter times a table's largest value is a fourteenth of what fits.
                (self.jitter * i64::from(value) + SCALE / 2) >> SCALE.ilog2()
            }
        };
        (self.mean + off).max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::Sources;
    use super::*;

    const MS: f64 = 1e6;

    /// Mean and deviation of what is drawn around 50 ms with a jitter of 10 ms, in ms.
    fn drawn(distribution: &Distribution) -> (f64, f64) {
        let mut source = Sources::new(2).next(0.0);
        let ms = Duration::from_millis;
        let spread = Spread::new(ms(50), ms(10), distribution);
        let x: Vec<f64> = (0..100_000)
            .map(|_| spread.draw(source.next()) as f64 / MS)
            .collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn means_and_deviations() {
        // The last two from integrals of the formulas, cut off at four jitters.
        for (distribution, mean, deviation) in [
            (Distribution::Uniform, 50.0, 10.0 / 3.0_f64.sqrt()),
            (Distribution::Normal, 50.0, 10.0),
            (Distribution::Pareto, 49.67, 8.21),
            (Distribution::ParetoNormal, 49.75, 8.35),
        ] {
            let (m, d) = drawn(&distribution);
            assert!(
                (m - mean).abs() < 0.1,
                "{distribution:?}: mean {m} of {mean}"
            );
            assert!(
                (d - deviation).abs() < 0.1,
                "{distribution:?}: deviation {d} of {deviation}"
            );
        }
    }

    #[test]
    fn tables_are_those_of_iproute2() {
        for (distribution, quartiles) in [
            // What the formulas of its generators give; they stand at a step's border rather
            // than in its middle.
            (Distribution::Normal, [-5525, 1, 5526]),
            (Distribution::Pareto, [-4362, -2622, 955]),
            (Distribution::ParetoNormal, [-4652, -1966, 2097]),
        ] {
            let table = distribution.table().expect("it is not uniform");
            assert_eq!(table.len(), MADE);
            assert!(table.is_sorted());
            for (quarter, value) in (1..).zip(quartiles) {
                let found = i32::from(table[quarter * MADE / 4]);
                assert!(
                    (found - value).abs() <= 4,
                    "{distribution:?} at {quarter}/4: {found} of {value}"
                );
            }
        }
    }

    #[test]
    fn the_values_of_a_table_are_what_comes_out() {
        let table = Distribution::Table([-8192, 0, 16384].into());
        let ms = Duration::from_millis;
        let spread = Spread::new(ms(5), ms(10), &table);
        let mut source = Sources::new(9).next(0.0);
        for _ in 0..1000 {
            let drawn = spread.draw(source.next());
            assert!([0, 5_000_000, 25_000_000].contains(&drawn), "{drawn}");
        }
    }

    #[test]
    fn a_table_file_is_read() {
        let text = "# a comment\n-3 7\t12\n\n  # another\n 32767 -32768";
        assert_eq!(parse_table(text), Ok(vec![-3, 7, 12, 32767, -32768]));
        let error = parse_table("1 2\n3 x").unwrap_err();
        assert!(error.to_string().starts_with("line 2: «x»"), "{error}");
        assert!(parse_table("40000").is_err());
        assert_eq!(parse_table("# no\n"), Err(TableError::Length { found: 0 }));
        let long = "1 ".repeat(MAX_TABLE + 1);
        assert!(matches!(parse_table(&long), Err(TableError::Length { .. })));
    }
}
