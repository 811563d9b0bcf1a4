//! Norms, gates and look-ups: the twins of `csrc/norm` and of the other kernels that go by token alone.

use super::linear::dot;
use crate::model::{Tensor, widener};
use crate::number::Dtype;

/// Divides `x` by its root mean square and multiplies it by `weight` (Zhang and Sennrich, 2019).
#[inline(always)]
pub fn rms_norm(x: &mut [f32], weight: &[f32], epsilon: f32) {
    let mean = dot(x, x) / x.len() as f32;
    let inverse = 1.0 / (mean + epsilon).sqrt();
    x.iter_mut().zip(weight).for_each(|(x, w)| *x *= inverse * w);
}

/// `gate * sigmoid(gate) * up`, where a token's `gate_up` is its gate, then what is gated.
#[inline(always)]
pub fn silu_mul(gate_up: &[f32], output: &mut [f32]) {
    let (gate, up) = gate_up.split_at(output.len());
    for ((output, gate), up) in output.iter_mut().zip(gate).zip(up) {
        *output = gate / (1.0 + exp2(-std::f32::consts::LOG2_E * gate)) * up;
    }
}

/// The row of a token.
pub fn embedding(table: &Tensor, dtype: Dtype, token: u32, output: &mut [f32]) {
    let wide = widener(dtype);
    output.iter_mut().zip(table.row(token as usize)).for_each(|(output, bits)| *output = wide(*bits));
}

/// `2^x`, within 2 units in the last place; 0 below the smallest normal number, infinite where it overflows. Made of
/// operations that every machine does alike, and that vectors have, which a library's function is not.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    // The Taylor series of 2^r = e^(r ln 2) for |r| <= 1/2; what is left out is below 2^-27.
    const C: [f32; 8] = [
        1.525_273_4e-5,
        1.540_353e-4,
        1.333_355_8e-3,
        9.618_129e-3,
        5.550_411e-2,
        2.402_265e-1,
        6.931_472e-1,
        1.0,
    ];
    // Added to this, a number that is small beside it is rounded to an integer, which the low bits then are.
    const ROUNDER: f32 = 12_582_912.0; // 1.5 * 2^23
    let bounded = x.clamp(-150.0, 129.0);
    let shifted = bounded + ROUNDER;
    let rest = bounded - (shifted - ROUNDER);
    let series = C.iter().fold(0.0, |sum, c| sum * rest + c);
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32).clamp(-150, 129);
    // In two steps, since the whole power may be beyond what a float holds.
    let half = exponent >> 1;
    let power = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
    let value = series * power(half) * power(exponent - half);
    if x < -126.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_within_two_units() {
        let mut x = -127.5_f32;
        while x < 128.5 {
            let (got, want) = (f64::from(exp2(x)), f64::from(x).exp2());
            if x < -126.0 {
                assert_eq!(got, 0.0, "{x}");
            } else if want < f64::from(f32::MAX) {
                assert!((got / want - 1.0).abs() < 2.4e-7, "2^{x} is {got}, not {want}");
            } else {
                assert_eq!(got, f64::INFINITY, "{x}");
            }
            x += 0.003_71;
        }
        for whole in -126..=127 {
            assert_eq!(exp2(whole as f32), 2f32.powi(whole));
        }
        assert_eq!((exp2(f32::NEG_INFINITY), exp2(f32::INFINITY)), (0.0, f32::INFINITY));
        assert!(exp2(f32::NAN).is_nan());
    }

    #[test]
    fn gates_saturate_at_both_ends() {
        let mut output = [f32::NAN; 4];
        silu_mul(&[-200.0, 0.0, 1.0, 200.0, 3.0, 5.0, 2.0, 2.0], &mut output);
        let want = 2.0 / (1.0 + f64::exp(-1.0));
        assert_eq!((output[0].abs(), output[1], output[3]), (0.0, 0.0, 400.0));
        assert!((f64::from(output[2]) - want).abs() < 1e-6, "{output:?}");
    }

    #[test]
    fn a_normed_row_has_root_mean_square_one() {
        let mut x: Vec<f32> = (0..100).map(|i| i as f32 - 30.0).collect();
        rms_norm(&mut x, &[2.0; 100], 1e-9);
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 100.0;
        assert!((mean.sqrt() - 2.0).abs() < 1e-6, "{mean}");
    }
}
