//! Small floats, made-up data, and how far from a reference a result may be.

use flyball::prng::Prng;
use flyball_simt::core::{from_bf16, from_e4m3, to_bf16, to_e4m3};

/// A bf16 that was never written.
pub const POISON: u16 = 0x7fc1;

/// `count` normal values times `scale`, as bf16.
pub fn normals(prng: &mut Prng, count: usize, scale: f64) -> Vec<u16> {
    (0..count).map(|_| to_bf16((prng.normal() * scale) as f32)).collect()
}

/// What bf16 bits mean.
pub fn wide(bits: &[u16]) -> Vec<f64> {
    bits.iter().map(|b| from_bf16(*b).into()).collect()
}

/// The cache's types: how many bytes an element has, and its conversions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Bf16,
    E4m3,
}

impl Stored {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::E4m3 => "e4m3",
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::E4m3 => 1,
        }
    }

    /// Puts `value`, rounded, at element `index`; what it became.
    pub fn put(self, pool: &mut [u8], index: usize, value: f32) -> f64 {
        match self {
            Self::Bf16 => {
                let bits = to_bf16(value);
                pool[2 * index..2 * index + 2].copy_from_slice(&bits.to_ne_bytes());
                from_bf16(bits).into()
            }
            Self::E4m3 => {
                pool[index] = to_e4m3(value);
                from_e4m3(pool[index]).into()
            }
        }
    }

    pub fn get(self, pool: &[u8], index: usize) -> f64 {
        match self {
            Self::Bf16 => from_bf16(u16::from_ne_bytes([pool[2 * index], pool[2 * index + 1]])).into(),
            Self::E4m3 => from_e4m3(pool[index]).into(),
        }
    }

    /// Half a step, as a share of the value, and the smallest half step.
    pub fn half_step(self) -> (f64, f64) {
        match self {
            Self::Bf16 => (2f64.powi(-8), 2f64.powi(-134)),
            Self::E4m3 => (2f64.powi(-4), 2f64.powi(-10)),
        }
    }
}

/// A pool of all-ones bytes: NaN in every type.
pub fn poisoned(bytes: usize) -> Vec<u8> {
    vec![0xff; bytes]
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
