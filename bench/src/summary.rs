//! Statistics of several runs of one measurement. Pure.

/// Median and range of the figures of several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The middle figure, or the mean of the two in the middle.
    pub median: f64,
    /// The lowest figure.
    pub min: f64,
    /// The highest figure.
    pub max: f64,
}

impl Summary {
    /// Summarises one figure per run; `None` without runs.
    pub(crate) fn of(runs: &[f64]) -> Option<Summary> {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Summary { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let median = |runs: &[f64]| Summary::of(runs).map(|summary| summary.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        let summary = Summary::of(&[3.0, 11.0, 2.0, 5.0, 4.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (4.0, 2.0, 11.0));
    }
}
