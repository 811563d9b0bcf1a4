//! Small floats, made-up data, and how far from a reference a result may be.

use flyball::prng::Prng;
use flyball_simt::core::{from_bf16, from_e4m3, from_f16, to_bf16, to_e4m3, to_f16};

/// A bf16 or half that was never written: NaN in both.
pub const POISON: u16 = 0x7fc1;

/// The small types: how many bytes an element has, and its conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Bf16,
    F16,
    E4m3,
}

impl Stored {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::E4m3 => "e4m3",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::E4m3 => 1,
        }
    }

    /// The bits of `value`, rounded.
    pub fn bits(self, value: f32) -> u16 {
        match self {
            Self::Bf16 => to_bf16(value),
            Self::F16 => to_f16(value),
            Self::E4m3 => to_e4m3(value).into(),
        }
    }

    /// What bits mean.
    pub fn value(self, bits: u16) -> f64 {
        match self {
            Self::Bf16 => from_bf16(bits).into(),
            Self::F16 => from_f16(bits).into(),
            Self::E4m3 => from_e4m3(bits as u8).into(),
        }
    }

    /// What they mean, each.
    pub fn wide(self, bits: &[u16]) -> Vec<f64> {
        bits.iter().map(|b| self.value(*b)).collect()
    }

    /// `count` normal values times `scale`.
    pub fn normals(self, prng: &mut Prng, count: usize, scale: f64) -> Vec<u16> {
        (0..count).map(|_| self.bits((prng.normal() * scale) as f32)).collect()
    }

    /// Puts `value`, rounded, at element `index`; what it became.
    pub fn put(self, pool: &mut [u8], index: usize, value: f32) -> f64 {
        match self {
            Self::Bf16 | Self::F16 => {
                let bits = self.bits(value);
                pool[2 * index..2 * index + 2].copy_from_slice(&bits.to_ne_bytes());
                self.value(bits)
            }
            Self::E4m3 => {
                pool[index] = to_e4m3(value);
                from_e4m3(pool[index]).into()
            }
        }
    }

    pub fn get(self, pool: &[u8], index: usize) -> f64 {
        match self {
            Self::Bf16 | Self::F16 => self.value(u16::from_ne_bytes([pool[2 * index], pool[2 * index + 1]])),
            Self::E4m3 => from_e4m3(pool[index]).into(),
        }
    }

    /// Half a step, as a share of the value, and the smallest half step.
    pub fn half_step(self) -> (f64, f64) {
        match self {
            Self::Bf16 => (2f64.powi(-8), 2f64.powi(-134)),
            Self::F16 => (2f64.powi(-11), 2f64.powi(-25)),
            Self::E4m3 => (2f64.powi(-4), 2f64.powi(-10)),
        }
    }
}

/// Bytes of all ones are NaN in every type.
pub const POISONED: u8 = 0xff;

pub fn poisoned(bytes: usize) -> Vec<u8> {
    vec![POISONED; bytes]
}

/// Whether each value is its reference, rounded once to `stored`, give or take `slack` from sums in `f32`.
pub fn rounded(what: &str, stored: Stored, got: &[f64], want: &[f64], slack: f64) -> Result<(), String> {
    assert_eq!(got.len(), want.len(), "{what}");
    let (relative, smallest) = stored.half_step();
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let bound = 1.01 * relative * want.abs() + smallest + slack;
        let off = (got - want).abs();
        if off.is_nan() || off > bound {
            return Err(format!("{what}[{at}] is {got}, not {want} ± {bound}"));
        }
    }
    Ok(())
}

/// Whether two that were rounded to `stored`, each from nearly the same value, are one step apart at most.
pub fn one_step(what: &str, stored: Stored, got: &[f64], want: &[f64], slack: f64) -> Result<(), String> {
    assert_eq!(got.len(), want.len(), "{what}");
    let (relative, smallest) = stored.half_step();
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let bound = 2.0 * (relative * got.abs().max(want.abs()) + smallest) + slack;
        let same = got == want || (got.is_nan() && want.is_nan());
        let off = (got - want).abs();
        if !same && (off.is_nan() || off > bound) {
            return Err(format!("{what}[{at}] is {got}, not {want} ± {bound}"));
        }
    }
    Ok(())
}

/// Bounds of a vector: its relative error in the Frobenius norm, and its largest over its largest element.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub frobenius: f64,
    pub largest: f64,
}

pub fn close(what: &str, got: &[f64], want: &[f64], bounds: Bounds) -> Result<(), String> {
    assert_eq!(got.len(), want.len(), "{what}");
    let (mut error, mut norm, mut worst, mut largest) = (0.0, 0.0, 0f64, 0f64);
    for (got, want) in got.iter().zip(want) {
        let off = (got - want).abs();
        if off.is_nan() {
            return Err(format!("{what} holds {got}, not {want}"));
        }
        error += off * off;
        norm += want * want;
        worst = worst.max(off);
        largest = largest.max(want.abs());
    }
    let (error, norm): (f64, f64) = (f64::sqrt(error), f64::sqrt(norm));
    if error > bounds.frobenius * norm || worst > bounds.largest * largest {
        return Err(format!("{what}: {error:.3e} of {norm:.3e}, worst {worst:.3e} of {largest:.3e}"));
    }
    Ok(())
}
