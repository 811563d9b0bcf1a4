//! How latencies are distributed, with more weight on the newer ones.

const PER_OCTAVE: f64 = 32.0;
/// The first bin begins at a millisecond.
const FIRST_NS: f64 = 1e6;
const BINS: usize = 800;

/// Counts of latencies, 32 bins per doubling, that fade.
#[derive(Debug)]
pub(super) struct Tail {
    counts: Vec<f32>,
    pub total: f32,
    pub sum: f64,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { counts: vec![0.0; BINS], total: 0.0, sum: 0.0 }
    }

    pub(super) fn add(&mut self, ns: f64) {
        let bin = ((ns / FIRST_NS).max(1.0).log2() * PER_OCTAVE) as usize;
        self.counts[bin.min(BINS - 1)] += 1.0;
        self.total += 1.0;
        self.sum += ns;
    }

    /// Becomes the same as another.
    pub(super) fn copy(&mut self, other: &Self) {
        self.counts.copy_from_slice(&other.counts);
        (self.total, self.sum) = (other.total, other.sum);
    }

    pub(super) fn mean(&self) -> f64 {
        self.sum / f64::from(self.total)
    }

    pub(super) fn fade(&mut self) {
        self.counts.iter_mut().for_each(|c| *c *= 0.5);
        self.total *= 0.5;
        self.sum *= 0.5;
    }

    /// The latency that a share `above` of all exceeds, between bins by interpolation.
    pub(super) fn quantile(&self, above: f32) -> f64 {
        let mut left = above * self.total;
        for (bin, count) in self.counts.iter().enumerate().rev() {
            if *count >= left && *count > 0.0 {
                let inside = 1.0 - f64::from(left / count);
                return FIRST_NS * ((bin as f64 + inside) / PER_OCTAVE).exp2();
            }
            left -= count;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_good_to_a_per_cent_and_fading_keeps_them() {
        let mut tail = Tail::new();
        (1..=10_000).for_each(|i| tail.add(f64::from(i) * 1e6));
        let p95 = tail.quantile(0.05);
        assert!((p95 / 9.5e9 - 1.0).abs() < 0.01, "{p95}");
        let mean = tail.mean();
        tail.fade();
        assert_eq!((tail.total, tail.mean()), (5_000.0, mean));
        assert!((tail.quantile(0.05) / p95 - 1.0).abs() < 1e-6, "fading keeps the shape");
    }
}
