//! The small floats of weights and caches as bits, and their conversions: round to nearest, ties to even,
//! the same on every machine. The twin of `csrc/core/number.h`.

use serde::{Deserialize, Serialize};

/// A type of small floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 8 exponent and 7 mantissa bits: the upper half of an `f32`.
    Bf16,
    /// 5 exponent and 10 mantissa bits: IEEE 754 binary16.
    F16,
    /// 4 exponent and 3 mantissa bits, no infinity, NaN is 0x7f and 0xff, the largest value 448
    /// (Micikevicius et al., "FP8 formats for deep learning", 2022).
    E4m3,
}

impl Dtype {
    /// As in the names of the kernels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::E4m3 => "e4m3",
        }
    }

    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::E4m3 => 1,
        }
    }
}

/// The largest value of e4m3; what is larger saturates to it.
pub const E4M3_MAX: f32 = 448.0;

/// What bf16 bits mean.
#[inline(always)]
pub const fn from_bf16(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// What f16 bits mean.
#[inline(always)]
pub const fn from_f16(bits: u16) -> f32 {
    let (sign, magnitude) = ((bits as u32 & 0x8000) << 16, bits as u32 & 0x7fff);
    // The bits of a half, taken as those of a float, are too small by 2^112: exact for subnormals too.
    let finite = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    let special = 0x7f80_0000 | (magnitude & 0x3ff) << 13;
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

/// What e4m3 bits mean.
#[inline(always)]
pub const fn from_e4m3(bits: u8) -> f32 {
    let (sign, magnitude) = ((bits as u32 & 0x80) << 24, bits as u32 & 0x7f);
    // As for f16, by 2^120.
    let finite = (f32::from_bits(magnitude << 20) * f32::from_bits(0x7b80_0000)).to_bits();
    f32::from_bits(sign | if magnitude == 0x7f { 0x7fc0_0000 } else { finite })
}

/// Rounds to bf16; what is too large is infinite.
#[inline(always)]
pub const fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    // The carry of the rounding walks into the exponent, and from the largest value to infinity.
    ((bits as u64 + 0x7fff + (bits >> 16 & 1) as u64) >> 16) as u16
}

/// Rounds to f16; what is too large is infinite.
pub const fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    if value.is_nan() {
        return sign | 0x7e00;
    }
    let half = round_magnitude(bits & 0x7fff_ffff, 10, -14);
    sign | if half > 0x7c00 { 0x7c00 } else { half as u16 }
}

/// Rounds to e4m3 and saturates: what is larger than [`E4M3_MAX`], infinity included, becomes it; NaN stays
/// NaN.
pub const fn to_e4m3(value: f32) -> u8 {
    let bits = value.to_bits();
    let sign = (bits >> 24) as u8 & 0x80;
    if value.is_nan() {
        return sign | 0x7f;
    }
    let small = round_magnitude(bits & 0x7fff_ffff, 3, -6);
    sign | if small > 0x7e { 0x7e } else { small as u8 }
}

/// Rounds a magnitude to a format with `mantissa` bits whose smallest normal exponent is `exponent_min`;
/// the result is in that format's bits and may exceed its largest value.
const fn round_magnitude(magnitude: u32, mantissa: u32, exponent_min: i32) -> u32 {
    let exponent = (magnitude >> 23) as i32 - 127;
    if exponent >= exponent_min {
        let rebased = magnitude - (((exponent_min - 1 + 127) as u32) << 23);
        return shift_right_rounded(rebased, 23 - mantissa);
    }
    // A subnormal there: the significand in units of 2^(exponent_min - mantissa).
    let shift = 23 - mantissa as i32 + exponent_min - exponent;
    if exponent == -127 || shift > 24 {
        return 0;
    }
    shift_right_rounded((magnitude & 0x7f_ffff) | 0x80_0000, shift as u32)
}

/// `value >> shift`, rounded to nearest, ties to even. `shift` is in `1..=31`.
const fn shift_right_rounded(value: u32, shift: u32) -> u32 {
    let odd = value >> shift & 1;
    (value + (1 << (shift - 1)) - 1 + odd) >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_float_survives_a_round_trip() {
        for bits in 0..=u16::MAX {
            for (wide, back) in
                [(from_bf16(bits), to_bf16(from_bf16(bits))), (from_f16(bits), to_f16(from_f16(bits)))]
            {
                assert!(wide.is_nan() || back == bits, "{bits:#06x} is {wide} and becomes {back:#06x}");
            }
        }
        for bits in 0..=u8::MAX {
            let wide = from_e4m3(bits);
            assert_eq!(wide.is_nan(), bits & 0x7f == 0x7f, "{bits:#04x}");
            assert!(wide.is_nan() || to_e4m3(wide) == bits, "{bits:#04x} is {wide}");
        }
    }

    /// What bits mean, by the definition of the format.
    fn meaning(bits: u32, exponent_bits: u32, mantissa_bits: u32) -> f64 {
        let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
        let exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
        let bias = (1 << (exponent_bits - 1)) - 1;
        match exponent {
            0 => mantissa * 2f64.powi(1 - bias),
            _ => (1.0 + mantissa) * 2f64.powi(exponent as i32 - bias),
        }
    }

    #[test]
    fn small_floats_mean_what_their_format_says() {
        for bits in 0..0x7f80_u16 {
            assert_eq!(f64::from(from_bf16(bits)), meaning(bits.into(), 8, 7), "{bits:#06x}");
        }
        for bits in 0..0x7c00_u16 {
            assert_eq!(f64::from(from_f16(bits)), meaning(bits.into(), 5, 10), "{bits:#06x}");
            assert_eq!(f64::from(from_f16(bits | 0x8000)), -meaning(bits.into(), 5, 10));
        }
        assert_eq!((from_f16(0x7c00), from_f16(0xfc00)), (f32::INFINITY, f32::NEG_INFINITY));
        for bits in 0..0x7f_u8 {
            assert_eq!(f64::from(from_e4m3(bits)), meaning(bits.into(), 4, 3), "{bits:#04x}");
            assert_eq!(f64::from(from_e4m3(bits | 0x80)), -meaning(bits.into(), 4, 3));
        }
    }

    /// Between two neighbours the nearer one is taken, and at the middle the even one.
    fn rounds_to_nearest_even(low: f32, high: f32, low_bits: u32, round: impl Fn(f32) -> u32) {
        let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
        assert_eq!(round(middle), low_bits + (low_bits & 1), "the middle of {low} and {high}");
        assert_eq!(round(middle.next_down()), low_bits, "below the middle of {low} and {high}");
        assert_eq!(round(middle.next_up()), low_bits + 1, "above the middle of {low} and {high}");
    }

    #[test]
    fn conversions_round_to_nearest_even() {
        for bits in 0..0x7f7f_u16 {
            rounds_to_nearest_even(from_bf16(bits), from_bf16(bits + 1), bits.into(), |x| to_bf16(x).into());
        }
        for bits in 0..0x7bff_u16 {
            rounds_to_nearest_even(from_f16(bits), from_f16(bits + 1), bits.into(), |x| to_f16(x).into());
        }
        for bits in 0..0x7e_u8 {
            rounds_to_nearest_even(from_e4m3(bits), from_e4m3(bits + 1), bits.into(), |x| to_e4m3(x).into());
        }
    }

    #[test]
    fn what_is_too_large_is_infinite_or_saturates() {
        assert_eq!((to_bf16(f32::MAX), to_f16(65520.0), to_f16(65519.0)), (0x7f80, 0x7c00, 0x7bff));
        for large in [449.0, 464.0, 480.0, 1e30, f32::INFINITY] {
            assert_eq!((to_e4m3(large), to_e4m3(-large)), (0x7e, 0xfe), "{large}");
        }
        assert!(from_bf16(to_bf16(f32::NAN)).is_nan() && from_f16(to_f16(-f32::NAN)).is_nan());
        assert!(from_e4m3(to_e4m3(f32::NAN)).is_nan());
        assert_eq!((to_e4m3(-0.0), to_f16(-0.0), to_f16(1e-10), to_e4m3(1e-10)), (0x80, 0x8000, 0, 0));
        assert_eq!((from_e4m3(0x7e), from_e4m3(0xfe)), (E4M3_MAX, -E4M3_MAX));
    }
}
