//! The only source of randomness: seeded, splittable, the same on every machine.
//!
//! xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021), seeded
//! through SplitMix64. Draws of floating-point distributions use only `f64` arithmetic, `ln`, `exp`,
//! `sqrt` and `cos`.

/// A seeded generator. Cheap to make; [`Prng::split`] one for each independent purpose.
#[derive(Clone, Debug)]
pub struct Prng {
    state: [u64; 4],
}

/// Mixes 64 bits into 64 well-spread bits (SplitMix64's finaliser); a bijection.
pub const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Prng {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; 4];
        let mut word = seed;
        for slot in &mut state {
            word = mix(word);
            *slot = word;
        }
        Self { state }
    }

    /// An independent generator for `purpose`, without changing this one.
    pub fn split(&self, purpose: u64) -> Self {
        Self::new(self.state[0] ^ mix(purpose ^ self.state[3]))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..bound`, without bias beyond 2^-64.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range");
        low + self.below((high - low).saturating_add(1))
    }

    /// True with a chance of `numerator` in `denominator`.
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// Uniform in the open interval (0, 1).
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) * (1.0 / (1u64 << 52) as f64)
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Normal with mean 0 and variance 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma of the given shape and mean 1 (Marsaglia and Tsang, 2000).
    ///
    /// # Panics
    /// If `shape` is not positive.
    pub fn gamma(&mut self, shape: f64) -> f64 {
        assert!(shape > 0.0, "a gamma distribution needs a positive shape");
        if shape < 1.0 {
            let scale = self.unit().powf(1.0 / shape) * (shape + 1.0) / shape;
            return self.gamma(shape + 1.0) * scale;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v / shape;
            }
        }
    }

    /// Weibull of the given shape and scale 1.
    ///
    /// # Panics
    /// If `shape` is not positive.
    pub fn weibull(&mut self, shape: f64) -> f64 {
        assert!(shape > 0.0, "a Weibull distribution needs a positive shape");
        self.exponential().powf(1.0 / shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        (mean, var)
    }

    #[test]
    fn one_seed_gives_one_sequence_and_splits_differ() {
        let draw = |mut p: Prng| [p.bits(), p.bits(), p.bits()];
        assert_eq!(draw(Prng::new(7)), draw(Prng::new(7)));
        assert_ne!(draw(Prng::new(7)), draw(Prng::new(8)));
        assert_ne!(draw(Prng::new(7).split(1)), draw(Prng::new(7).split(2)));
    }

    #[test]
    fn below_stays_below_and_reaches_both_ends() {
        let mut prng = Prng::new(1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[prng.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut p = Prng::new(3);
        let (mean, var) = moments(|| p.exponential());
        assert!((mean - 1.0).abs() < 0.01 && (var - 1.0).abs() < 0.05, "{mean} {var}");
        let (mean, var) = moments(|| p.normal());
        assert!(mean.abs() < 0.01 && (var - 1.0).abs() < 0.02, "{mean} {var}");
        for shape in [0.11, 0.5, 1.0, 4.0] {
            let (mean, var) = moments(|| p.gamma(shape));
            assert!((mean - 1.0).abs() < 0.03, "shape {shape}: mean {mean}");
            assert!((var * shape - 1.0).abs() < 0.1, "shape {shape}: variance {var}");
        }
    }
}
