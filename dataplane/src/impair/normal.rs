//! The normal distribution: `std` lacks it.

use std::f64::consts::TAU;

/// The number of deviations beyond which the rest is too small for a double to show beside 1.
const FAR: f64 = 8.0;

/// The probability that a normally distributed value is below `z`.
pub(super) fn cumulative(z: f64) -> f64 {
    if z.abs() >= FAR {
        return if z < 0.0 { 0.0 } else { 1.0 };
    }
    // Abramowitz and Stegun, 26.2.11
    let (mut term, mut sum, mut odd) = (z, z, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= z * z / odd;
        sum += term;
    }
    0.5 + density(z) * sum
}

/// The value below which a normally distributed one is with this probability, 0.5..1. The search starts
/// from a value that is not larger.
pub(super) fn quantile_from(mut z: f64, likelihood: f64) -> f64 {
    // Newton's method: the cumulative curve is concave here, so that no step overshoots.
    loop {
        let step = (likelihood - cumulative(z)) / density(z);
        z += step;
        if step.abs() < 1e-9 {
            return z;
        }
    }
}

fn density(z: f64) -> f64 {
    (-z * z / 2.0).exp() / TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        for (z, likelihood) in [
            (-9.0, 0.0),
            (-3.0, 0.001_349_898),
            (0.0, 0.5),
            (1.0, 0.841_344_746),
            (2.0, 0.977_249_868),
            (3.5, 0.999_767_371),
            (9.0, 1.0),
        ] {
            assert!((cumulative(z) - likelihood).abs() < 1e-9, "{z}");
            if (0.5..1.0).contains(&likelihood) {
                assert!((quantile_from(0.0, likelihood) - z).abs() < 1e-5, "{z}");
            }
        }
    }
}
