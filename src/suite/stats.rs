//! The few statistics that the suites print.

/// Geometric mean, smallest and largest of ratios: infinite where one is, as when a request did not end, and zero
/// where the other's was infinite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Geometric mean.
    pub mean: f64,
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
}

impl Spread {
    /// Of ratios; `None` if they say nothing: if there is none, or one of two infinite values, or of values that
    /// do not exist, or if they are infinite both ways.
    pub fn of(ratios: &[f64]) -> Option<Self> {
        // Both are NaN then: a mean of nothing, and one with a ratio that is none.
        let mean = mean(&ratios.iter().map(|r| r.ln()).collect::<Vec<_>>()).exp();
        (!mean.is_nan()).then(|| Self {
            mean,
            low: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            high: ratios.iter().copied().fold(0.0, f64::max),
        })
    }
}

/// Arithmetic mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Slope of the least-squares line through points; zero if their `x` are all the same.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let (over, under) =
        points.iter().fold((0.0, 0.0), |(o, u), p| (o + (p.0 - x) * (p.1 - y), u + (p.0 - x) * (p.0 - x)));
    if under > 0.0 { over / under } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_geometric() {
        let spread = Spread::of(&[0.5, 2.0, 1.0]).unwrap();
        assert!((spread.mean - 1.0).abs() < 1e-12);
        assert_eq!((spread.low, spread.high), (0.5, 2.0));
    }

    #[test]
    fn a_spread_is_infinite_with_one_ratio_and_nothing_without_an_order() {
        let spread = Spread::of(&[1.0, f64::INFINITY]).unwrap();
        assert_eq!((spread.mean, spread.low, spread.high), (f64::INFINITY, 1.0, f64::INFINITY));
        assert_eq!(Spread::of(&[1.0, 0.0]).unwrap().mean, 0.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::INFINITY / f64::INFINITY]), None);
        assert_eq!(Spread::of(&[0.0, f64::INFINITY]), None);
    }

    #[test]
    fn slope_by_hand() {
        // Mean (2, 3); sums of products: (-1)(-2) + 0 + (1)(2) = 4 over 2.
        assert_eq!(slope(&[(1.0, 1.0), (2.0, 3.0), (3.0, 5.0)]), 2.0);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 9.0)]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }

    #[test]
    fn mean_by_hand() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    }
}
