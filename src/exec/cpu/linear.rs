//! Projections: `output = weight * input`, by token.
//!
//! A product of a token and a weight row is summed in [`LANES`] lanes over the columns, then over the lanes, then the
//! rest: the same bits whichever tokens are computed beside it.

use super::parallel::each_part;
use super::simd::{Work, widest};
use crate::model::Tensor;
use crate::number::{Dtype, from_bf16, from_f16};
use std::marker::PhantomData;

/// Partial sums of a product.
const LANES: usize = 8;
/// Weight rows of one part of the work: as many as a level 2 cache holds of a usual width.
const TILE: usize = 32;

/// Partial sums side by side, which the compiler keeps in one register where it is wide enough.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Lanes([f32; LANES]);

impl Lanes {
    const ZERO: Self = Self([0.0; LANES]);

    /// Adds the product of each lane, in two roundings.
    #[inline(always)]
    fn plus_product(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] + a.0[lane] * b.0[lane]))
    }

    /// All lanes together, added up as a tree.
    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

/// The product of two vectors of the same length.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let lanes = a.iter().zip(b).fold(Lanes::ZERO, |sum, (a, b)| sum.plus_product(Lanes(*a), Lanes(*b)));
    a_rest.iter().zip(b_rest).fold(lanes.sum(), |sum, (a, b)| sum + a * b)
}

/// How small floats are widened, known when compiling.
trait Widen {
    fn widen(bits: u16) -> f32;
}

struct Bf16;
struct F16;

impl Widen for Bf16 {
    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        from_bf16(bits)
    }
}

impl Widen for F16 {
    #[inline(always)]
    fn widen(bits: u16) -> f32 {
        from_f16(bits)
    }
}

/// Projects tokens: `input` is `[tokens, weight.columns()]`, `output` becomes `[tokens, weight.rows()]`; `scratch` has
/// room for as much as `output`.
pub fn linear(input: &[f32], weight: &Tensor, dtype: Dtype, output: &mut [f32], scratch: &mut [f32]) {
    match dtype {
        Dtype::F16 => project::<F16>(input, weight, output, scratch),
        _ => project::<Bf16>(input, weight, output, scratch),
    }
}

fn project<W: Widen>(input: &[f32], weight: &Tensor, output: &mut [f32], scratch: &mut [f32]) {
    let (rows, columns) = (weight.rows(), weight.columns());
    let tokens = input.len() / columns;
    assert_eq!((input.len(), output.len()), (tokens * columns, tokens * rows), "{}", weight.name());
    if tokens == 0 {
        return;
    }
    // First as [tile][token][row of the tile], so that each tile's output is one part.
    let scratch = &mut scratch[..output.len()];
    each_part(scratch, TILE * tokens, tokens * rows * columns, |tile, part| {
        let first = tile * TILE;
        let weights = &weight.bits()[first * columns..][..part.len() / tokens * columns];
        widest(Tile::<W> { input, weights, columns, output: part, widen: PhantomData });
    });
    for (tile, part) in scratch.chunks(TILE * tokens).enumerate() {
        let width = part.len() / tokens;
        for (token, part) in part.chunks(width).enumerate() {
            output[token * rows + tile * TILE..][..width].copy_from_slice(part);
        }
    }
}

/// All tokens with a few weight rows: `output` is `[tokens, weight rows]`.
struct Tile<'a, W> {
    input: &'a [f32],
    weights: &'a [u16],
    columns: usize,
    output: &'a mut [f32],
    widen: PhantomData<W>,
}

impl<W: Widen> Work for Tile<'_, W> {
    #[inline(always)]
    fn run(self) {
        let Self { input, weights, columns, output, .. } = self;
        let width = weights.len() / columns;
        let mut inputs = input.chunks_exact(4 * columns);
        let mut outputs = output.chunks_exact_mut(4 * width);
        for (input, output) in (&mut inputs).zip(&mut outputs) {
            let tokens: [_; 4] = std::array::from_fn(|token| &input[token * columns..][..columns]);
            project_tokens::<W, 4>(tokens, weights, columns, output);
        }
        let rest = inputs.remainder().chunks_exact(columns);
        for (input, output) in rest.zip(outputs.into_remainder().chunks_exact_mut(width)) {
            project_tokens::<W, 1>([input], weights, columns, output);
        }
    }
}

/// `output` is `[T, weight rows]`. Weight rows go in pairs, so that what is loaded of a token serves twice.
#[inline(always)]
fn project_tokens<W: Widen, const T: usize>(
    tokens: [&[f32]; T],
    weights: &[u16],
    columns: usize,
    output: &mut [f32],
) {
    let width = weights.len() / columns;
    let mut pairs = weights.chunks_exact(2 * columns);
    let mut row = 0;
    for pair in &mut pairs {
        let (first, second) = pair.split_at(columns);
        let products = multiply::<W, 2, T>([first, second], tokens);
        for (at, products) in products.iter().enumerate() {
            for (token, product) in products.iter().enumerate() {
                output[token * width + row + at] = *product;
            }
        }
        row += 2;
    }
    if row < width {
        let [products] = multiply::<W, 1, T>([pairs.remainder()], tokens);
        for (token, product) in products.iter().enumerate() {
            output[token * width + row] = *product;
        }
    }
}

/// The products of `R` weight rows with `T` tokens.
#[inline(always)]
fn multiply<W: Widen, const R: usize, const T: usize>(
    weights: [&[u16]; R],
    tokens: [&[f32]; T],
) -> [[f32; T]; R] {
    let columns = tokens[0].len();
    let whole = columns / LANES;
    let weight_lanes = weights.map(|w| &w.as_chunks::<LANES>().0[..whole]);
    let token_lanes = tokens.map(|t| &t.as_chunks::<LANES>().0[..whole]);
    let mut sums = [[Lanes::ZERO; T]; R];
    for at in 0..whole {
        let inputs: [_; T] = std::array::from_fn(|t| Lanes(token_lanes[t][at]));
        for (sums, weights) in sums.iter_mut().zip(weight_lanes) {
            let wide = Lanes(weights[at].map(W::widen));
            for (sum, input) in sums.iter_mut().zip(inputs) {
                *sum = sum.plus_product(wide, input);
            }
        }
    }
    let rest = whole * LANES..columns;
    std::array::from_fn(|r| {
        std::array::from_fn(|t| {
            let pairs = weights[r][rest.clone()].iter().zip(&tokens[t][rest.clone()]);
            pairs.fold(sums[r][t].sum(), |sum, (w, x)| sum + W::widen(*w) * x)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::{to_bf16, to_f16};
    use crate::prng::Prng;

    #[test]
    fn products_are_those_of_the_reference_and_of_each_token_alone() {
        let mut p = Prng::new(5);
        for dtype in [Dtype::Bf16, Dtype::F16] {
            for (tokens, rows, columns) in [(1, 1, 3), (1, 70, 64), (4, 33, 40), (7, 65, 129), (9, 2, 8)] {
                let round = if dtype == Dtype::F16 { to_f16 } else { to_bf16 };
                let wide = if dtype == Dtype::F16 { from_f16 } else { from_bf16 };
                let bits: Vec<u16> = (0..rows * columns).map(|_| round(p.normal() as f32)).collect();
                let weight = Tensor::new("w", rows, columns, bits).unwrap();
                let input: Vec<f32> = (0..tokens * columns).map(|_| p.normal() as f32).collect();
                let (mut output, mut scratch) = (vec![f32::NAN; tokens * rows], vec![0.0; tokens * rows]);
                linear(&input, &weight, dtype, &mut output, &mut scratch);
                for token in 0..tokens {
                    let x = &input[token * columns..][..columns];
                    let mut alone = vec![f32::NAN; rows];
                    linear(x, &weight, dtype, &mut alone, &mut scratch);
                    assert_eq!(alone, output[token * rows..][..rows], "a token alone has the same bits");
                    for (row, alone) in alone.iter().enumerate() {
                        let want: f64 = weight
                            .row(row)
                            .iter()
                            .zip(x)
                            .map(|(w, x)| f64::from(wide(*w)) * f64::from(*x))
                            .sum();
                        let off = (f64::from(*alone) - want).abs();
                        assert!(off < 1e-5, "{dtype:?} {tokens}x{rows}x{columns}: off by {off:e}");
                    }
                }
            }
        }
    }
}
