//! How correlated numbers are distributed: [`Curve`].

use super::chance::WHOLE;
use super::normal;

const CELLS: usize = 2048;
/// The number of deviations beyond which the curve is flat.
const REACH: f64 = 8.0;

/// The cumulative distribution of `x = w x' + (1 - w) u`, where x' was the value before, u is uniform
/// in 0..1, and w is the weight. It maps correlated numbers back to uniform ones.
#[derive(Debug)]
pub(super) struct Curve {
    /// Where it begins to rise, of [`WHOLE`].
    from: u64,
    /// A cell is as wide as 2 to this power.
    width: u32,
    /// Its height at the cells' borders, of [`WHOLE`].
    heights: Box<[u64]>,
}

impl Curve {
    /// For a weight above 0, up to 1.
    pub(super) fn new(weight: f64) -> Self {
        if weight >= 1.0 {
            // With weight 1 the first number is repeated: any curve will do.
            return Curve::on_grid(0.0, 1.0, Clone::clone);
        }
        let deviation = ((1.0 - weight) / (1.0 + weight) / 12.0).sqrt();
        let from = (0.5 - REACH * deviation).max(0.0);
        let to = (0.5 + REACH * deviation).min(1.0);
        Curve::on_grid(from, to, |grid| {
            let normal = |x| normal::cumulative((x - 0.5) / deviation);
            let mut curve: Vec<f64> = grid.iter().map(|x| normal(*x)).collect();
            for _ in 0..rounds(weight) {
                curve = step(weight, grid, &curve);
            }
            curve
        })
    }

    fn on_grid(from: f64, to: f64, heights: impl FnOnce(&Vec<f64>) -> Vec<f64>) -> Self {
        let span = ((to - from) * WHOLE as f64) as u64;
        let width = (span / CELLS as u64).next_power_of_two().trailing_zeros();
        let from = (from * WHOLE as f64) as u64;
        let grid = (0..=CELLS as u64)
            .map(|cell| from + (cell << width))
            .take_while(|border| *border <= WHOLE)
            .map(|border| border as f64 / WHOLE as f64)
            .collect();
        let mut heights: Vec<u64> = heights(&grid)
            .into_iter()
            .map(|height| ((height.clamp(0.0, 1.0) * WHOLE as f64) as u64).min(WHOLE))
            .collect();
        // Rounding may have made it decrease by a tiny amount.
        for at in 1..heights.len() {
            heights[at] = heights[at].max(heights[at - 1]);
        }
        Curve {
            from,
            width,
            heights: heights.into(),
        }
    }

    /// Its height at `x`: 0..[`WHOLE`].
    #[inline]
    pub(super) fn of(&self, x: u64) -> u64 {
        let x = x.saturating_sub(self.from);
        let cell = (x >> self.width) as usize;
        let (Some(&low), Some(&high)) = (self.heights.get(cell), self.heights.get(cell + 1)) else {
            return WHOLE - 1;
        };
        let within = x & ((1 << self.width) - 1);
        let more = (u128::from(high - low) * u128::from(within)) >> self.width;
        (low + more as u64).min(WHOLE - 1)
    }

    /// The `x` at which it has this height.
    pub(super) fn inverse(&self, height: u64) -> u64 {
        let cell = self
            .heights
            .partition_point(|border| *border <= height)
            .clamp(1, self.heights.len() - 1)
            - 1;
        let (low, high) = (self.heights[cell], self.heights[cell + 1]);
        let above = u128::from(height.clamp(low, high) - low);
        let within = (above << self.width) / u128::from((high - low).max(1));
        (self.from + ((cell as u64) << self.width) + within as u64).min(WHOLE - 1)
    }
}

/// How many steps to take from a normal curve of the right mean and deviation. Its error is in the
/// fourth moment and higher ones, and every step reduces it by the weight's fourth power. For weights
/// that would need many steps, the error is small to begin with.
fn rounds(weight: f64) -> u32 {
    if weight > 0.99 {
        return 0;
    }
    let steps = 1e-9_f64.ln() / (4.0 * weight.ln());
    (steps.ceil() as u32).clamp(1, 64)
}

/// The curve of `w x + (1 - w) u` where that of x is `curve`.
fn step(weight: f64, grid: &[f64], curve: &[f64]) -> Vec<f64> {
    let (first, last) = (grid[0], grid[grid.len() - 1]);
    let cell = (last - first) / (grid.len() - 1) as f64;
    // The area under it up to each border.
    let areas: Vec<f64> = std::iter::once(0.0)
        .chain(curve.windows(2).scan(0.0, |area, heights| {
            *area += f64::midpoint(heights[0], heights[1]) * cell;
            Some(*area)
        }))
        .collect();
    let area = |x: f64| {
        if x <= first {
            return 0.0;
        }
        if x >= last {
            return areas[areas.len() - 1] + (x - last);
        }
        let at = (x - first) / cell;
        let border = (at as usize).min(curve.len() - 2);
        let within = at - border as f64;
        let rise = curve[border + 1] - curve[border];
        areas[border] + cell * within * (curve[border] + rise * within / 2.0)
    };
    grid.iter()
        .map(|x| {
            let under = area(x / weight) - area((x - (1.0 - weight)) / weight);
            under * weight / (1.0 - weight)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_its_inverse_leads_back() {
        for weight in [1e-6, 0.01, 0.3, 0.5, 0.9, 0.99, 0.995, 0.99999, 1.0] {
            let curve = Curve::new(weight);
            let mut last = 0;
            for step in 0..1000 {
                let height = curve.of(WHOLE / 1000 * step);
                assert!(height >= last && height < WHOLE, "{weight}");
                last = height;
                let height = WHOLE / 1000 * step;
                let again = curve.of(curve.inverse(height));
                assert!(again.abs_diff(height) < WHOLE >> 20, "{weight} {step}");
            }
            assert!(
                curve.of(WHOLE / 2).abs_diff(WHOLE / 2) < WHOLE >> 10,
                "{weight}"
            );
        }
    }
}
