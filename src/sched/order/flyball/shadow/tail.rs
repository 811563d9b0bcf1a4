//! How latencies are distributed, with more weight on the newer ones.

/// Bits of the mantissa that tell bins apart: 32 bins per doubling.
const BITS: u32 = 5;
/// The first bin begins at a millisecond.
const FIRST_NS: f64 = 1e6;
const BINS: usize = 800;

/// Counts of latencies, 32 bins per doubling, that fade.
#[derive(Debug)]
pub(super) struct Tail {
    counts: Vec<f32>,
    /// All bins from this one on are empty.
    end: usize,
    pub total: f32,
    pub sum: f64,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { counts: vec![0.0; BINS], end: 0, total: 0.0, sum: 0.0 }
    }

    /// Adds `count` latencies of `ns`.
    pub(super) fn add(&mut self, ns: f64, count: f32) {
        let bin = bin(ns);
        self.counts[bin] += count;
        self.end = self.end.max(bin + 1);
        self.total += count;
        self.sum += ns * f64::from(count);
    }

    /// Becomes the same as another.
    pub(super) fn copy(&mut self, other: &Self) {
        // What was filled here and is not there is emptied.
        let end = self.end.max(other.end);
        self.counts[..end].copy_from_slice(&other.counts[..end]);
        (self.end, self.total, self.sum) = (other.end, other.total, other.sum);
    }

    pub(super) fn mean(&self) -> f64 {
        self.sum / f64::from(self.total)
    }

    pub(super) fn fade(&mut self) {
        self.counts[..self.end].iter_mut().for_each(|c| *c *= 0.5);
        self.total *= 0.5;
        self.sum *= 0.5;
    }

    /// The latency that a share `above` of all exceeds, between bins by interpolation.
    pub(super) fn quantile(&self, above: f32) -> f64 {
        let mut left = above * self.total;
        for (bin, count) in self.counts[..self.end].iter().enumerate().rev() {
            if *count >= left && *count > 0.0 {
                let inside = 1.0 - f64::from(left / count);
                return begin(bin) + inside * (begin(bin + 1) - begin(bin));
            }
            left -= count;
        }
        0.0
    }
}

/// The bin of a latency: the exponent and the first bits of the mantissa, without a logarithm.
fn bin(ns: f64) -> usize {
    let place = |ratio: f64| (ratio.to_bits() >> (f64::MANTISSA_DIGITS - 1 - BITS)) as usize;
    (place((ns / FIRST_NS).max(1.0)) - place(1.0)).min(BINS - 1)
}

/// Where a bin begins, in ns.
fn begin(bin: usize) -> f64 {
    let place = (bin as u64) << (f64::MANTISSA_DIGITS - 1 - BITS);
    FIRST_NS * f64::from_bits(1f64.to_bits() + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_lies_in_its_bin() {
        for ns in [1e3, 1e6, 1.03e6, 2e6, 3.7e8, 1e12, 3e13] {
            let bin = bin(ns);
            assert!(begin(bin) <= f64::max(ns, 1e6) && ns < begin(bin + 1), "{ns} in {bin}");
            assert!(begin(bin + 1) / begin(bin) < 1.04);
        }
    }

    #[test]
    fn quantiles_are_good_to_a_per_cent_and_fading_keeps_them() {
        let mut tail = Tail::new();
        (1..=10_000).for_each(|i| tail.add(f64::from(i) * 1e6, 1.0));
        let p95 = tail.quantile(0.05);
        assert!((p95 / 9.5e9 - 1.0).abs() < 0.01, "{p95}");
        let mean = tail.mean();
        tail.fade();
        assert_eq!((tail.total, tail.mean()), (5_000.0, mean));
        assert!((tail.quantile(0.05) / p95 - 1.0).abs() < 1e-6, "fading keeps the shape");
    }
}
