//! Rotary positions (Su et al., "RoFormer", 2021): pair `i` of a head turns by `position * frequency(i)`.
//!
//! A float cannot hold that product: at position 100,000 its last bit is worth half a degree. So a frequency is
//! kept in turns as a 64-bit fraction, and the product wraps by itself: what is lost is whole turns. The twin of
//! `csrc/core/rope.h`.

use super::ModelError;
use super::config::ensure;
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyle {
    /// Pairs are half a head apart: GPT-NeoX, and checkpoints of Llama and Qwen in the Hugging Face format.
    #[default]
    NeoX,
    /// Pairs are neighbours: GPT-J, and Meta's own checkpoints.
    Interleaved,
}

/// How Llama 3.1 stretches low frequencies beyond the context that the model was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RopeScaling {
    /// By how much, at least 1.
    pub factor: f64,
    /// Turns over the original context below which a frequency is stretched whole.
    pub low_frequency_factor: f64,
    /// Turns above which it is not stretched.
    pub high_frequency_factor: f64,
    /// The context that the model was trained with, in tokens.
    pub original_context: f64,
}

/// How positions turn queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rope {
    /// The base of the frequencies: `theta^(-2i / head_dim)` radians per position.
    pub theta: f64,
    /// Which elements are a pair.
    pub style: RopeStyle,
    /// Llama 3.1's scaling, if the model has it.
    pub scaling: Option<RopeScaling>,
}

impl Rope {
    /// Turns per position of each of the `head_dim / 2` pairs, in units of 2^-64.
    pub fn turns(&self, head_dim: u32) -> Vec<u64> {
        (0..head_dim / 2)
            .map(|pair| {
                let frequency = self.theta.powf(-2.0 * f64::from(pair) / f64::from(head_dim)) / TAU;
                let frequency = self.scaling.map_or(frequency, |s| s.stretch(frequency));
                (frequency * 2f64.powi(64)) as u64
            })
            .collect()
    }

    pub(super) fn check(&self) -> Result<(), ModelError> {
        let fine = self.theta > 1.0 && self.theta.is_finite();
        ensure(fine, "rope theta", self.theta, || "above 1".into())?;
        self.scaling.map_or(Ok(()), |scaling| scaling.check())
    }
}

impl RopeScaling {
    /// A frequency in turns per position, stretched: few turns over the original context are slowed by `factor`,
    /// many are not, between is a blend.
    fn stretch(&self, frequency: f64) -> f64 {
        let turns = self.original_context * frequency;
        let span = self.high_frequency_factor - self.low_frequency_factor;
        let blend = ((turns - self.low_frequency_factor) / span).clamp(0.0, 1.0);
        frequency * (blend + (1.0 - blend) / self.factor)
    }

    fn check(&self) -> Result<(), ModelError> {
        let above = |field, value: f64, low: f64| {
            ensure(value >= low && value.is_finite(), field, value, || format!("at least {low}"))
        };
        above("rope factor", self.factor, 1.0)?;
        above("rope low_freq_factor", self.low_frequency_factor, 0.0)?;
        above("rope original context", self.original_context, 1.0)?;
        let high = self.high_frequency_factor;
        ensure(high > self.low_frequency_factor && high.is_finite(), "rope high_freq_factor", high, || {
            format!("above low_freq_factor ({})", self.low_frequency_factor)
        })
    }
}

/// The cosine and sine of what `position` turns a pair of `turns` by.
#[inline]
pub fn rotation(turns: u64, position: u32) -> (f32, f32) {
    let phase = turns.wrapping_mul(position.into()) as i64; // in [-1/2, 1/2) turns
    let angle = f64::from(phase as f32) * 2f64.powi(-63) * std::f64::consts::PI;
    (angle.cos() as f32, angle.sin() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Rope = Rope { theta: 1e4, style: RopeStyle::NeoX, scaling: None };
    const LLAMA: RopeScaling = RopeScaling {
        factor: 8.0,
        low_frequency_factor: 1.0,
        high_frequency_factor: 4.0,
        original_context: 8192.0,
    };

    /// The angle by its definition, in `f64`.
    fn angle(rope: &Rope, pair: usize, head_dim: u32, position: u32) -> f64 {
        let frequency = rope.theta.powf(-(2.0 * pair as f64) / f64::from(head_dim));
        // As the model's authors wrote it: by wavelengths.
        let frequency = rope.scaling.map_or(frequency, |s| {
            let wavelength = TAU / frequency;
            let (long, short) =
                (s.original_context / s.low_frequency_factor, s.original_context / s.high_frequency_factor);
            if wavelength < short {
                frequency
            } else if wavelength > long {
                frequency / s.factor
            } else {
                let smooth = (s.original_context / wavelength - s.low_frequency_factor)
                    / (s.high_frequency_factor - s.low_frequency_factor);
                (1.0 - smooth) * frequency / s.factor + smooth * frequency
            }
        });
        frequency * f64::from(position)
    }

    #[test]
    fn rotations_are_those_of_the_definition() {
        let scaled = Rope { theta: 5e5, scaling: Some(LLAMA), ..PLAIN };
        for (rope, head_dim) in [(PLAIN, 64), (PLAIN, 80), (scaled, 128), (scaled, 256)] {
            let turns = rope.turns(head_dim);
            assert_eq!(turns.len(), head_dim as usize / 2);
            for position in [0, 1, 17, 4095, 131_071, 1 << 23] {
                for (pair, turns) in turns.iter().enumerate() {
                    let want = angle(&rope, pair, head_dim, position);
                    let (cosine, sine) = rotation(*turns, position);
                    // The definition's own angle loses 2^-53 of its size, which grows with the position.
                    let bound = 2e-7 + want * 4e-16;
                    let off =
                        (f64::from(cosine) - want.cos()).abs().max((f64::from(sine) - want.sin()).abs());
                    assert!(off < bound, "pair {pair} at {position}: off by {off:e}");
                }
            }
        }
    }

    #[test]
    fn scaling_slows_low_frequencies_alone() {
        let plain = Rope { theta: 5e5, ..PLAIN }.turns(128);
        let scaled = Rope { theta: 5e5, scaling: Some(LLAMA), ..PLAIN }.turns(128);
        assert_eq!(plain[0], scaled[0]);
        let ratio = plain[63] as f64 / scaled[63] as f64;
        assert!((ratio - 8.0).abs() < 1e-9, "{ratio}");
        assert!(plain.iter().zip(&scaled).all(|(plain, scaled)| scaled <= plain));
        let none = Rope { theta: 5e5, scaling: Some(RopeScaling { factor: 1.0, ..LLAMA }), ..PLAIN };
        assert_eq!(none.turns(128), plain);
    }

    #[test]
    fn bad_scalings_are_named() {
        let error = |scaling| Rope { scaling: Some(scaling), ..PLAIN }.check().unwrap_err().to_string();
        assert!(error(RopeScaling { factor: 0.5, ..LLAMA }).contains("rope factor is 0.5"));
        assert!(error(RopeScaling { high_frequency_factor: 1.0, ..LLAMA }).contains("high_freq_factor"));
        assert!(error(RopeScaling { original_context: f64::NAN, ..LLAMA }).contains("original context"));
    }
}
