//! The matrix products of a decoder, planned once for each of a few row counts, to which they are padded: other
//! kernels have as many rows as there are.

use super::gemm::{Blas, Element, Product, Shape};
use super::{CudaError, Device};
use crate::model::ModelConfig;
use crate::number::Dtype;

/// Rows of the algorithms that do not depend on the batch.
const PINNED_ROWS: usize = 128;

/// Elements from a row of logits to the next: `sample` reads 16 bytes at once.
pub fn logit_stride(config: &ModelConfig) -> usize {
    (config.vocab as usize).next_multiple_of(4)
}

/// The products of one row count.
#[derive(Debug)]
pub struct Products {
    /// Normed hidden states to queries, keys and values.
    pub qkv: Product,
    /// What attention yields, back to the hidden width.
    pub output: Product,
    /// To gate and up.
    pub gate_up: Product,
    /// And back.
    pub down: Product,
}

/// All of them.
#[derive(Debug)]
pub struct Planned {
    /// By rising row counts.
    layers: Vec<(usize, Products)>,
    /// To the logits.
    logits: Vec<(usize, Product)>,
}

/// The row counts that steps of up to `most` rows are padded to: fine where each row is a token of some decode, in
/// steps of 128 where a chunk fills the tensor cores. With `invariant` always the latter.
pub fn row_counts(most: usize, invariant: bool) -> Vec<usize> {
    let fine = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448];
    let fine = fine.into_iter().filter(|_| !invariant).take_while(|rows| *rows < most);
    let coarse = (if invariant { 1 } else { 4 }..=most.div_ceil(PINNED_ROWS).max(1)).map(|n| n * PINNED_ROWS);
    let mut counts: Vec<usize> = fine.chain(coarse).collect();
    if counts.last().is_none_or(|last| *last < most) {
        counts.push(most);
    }
    counts
}

impl Planned {
    /// Plans them all.
    ///
    /// # Errors
    /// If cuBLASLt is missing or knows no algorithm.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        tokens_max: usize,
        samples_max: usize,
        invariant: bool,
    ) -> Result<Self, CudaError> {
        let blas = Blas::open(device)?;
        let narrow = if config.dtype == Dtype::F16 { Element::F16 } else { Element::Bf16 };
        let shape = |n, k, output| Shape { m: 0, n, k, stride: n, input: narrow, output };
        let (hidden, mlp) = (config.hidden as usize, config.intermediate as usize);
        let shapes = [
            shape(config.qkv_width(), hidden, narrow),
            shape(hidden, config.q_width(), narrow),
            shape(2 * mlp, hidden, narrow),
            shape(hidden, mlp, narrow),
            Shape { stride: logit_stride(config), ..shape(config.vocab as usize, hidden, Element::F32) },
        ];
        let pinned = match invariant {
            true => {
                shapes.iter().map(|shape| blas.pinned(*shape).map(Some)).collect::<Result<Vec<_>, _>>()?
            }
            false => vec![None; shapes.len()],
        };
        let plan = |at: usize, m| match pinned[at] {
            Some(algorithm) => blas.plan_pinned(Shape { m, ..shapes[at] }, algorithm),
            None => blas.plan(Shape { m, ..shapes[at] }),
        };
        let layers = row_counts(tokens_max, invariant).into_iter().map(|m| {
            let products =
                Products { qkv: plan(0, m)?, output: plan(1, m)?, gate_up: plan(2, m)?, down: plan(3, m)? };
            Ok((m, products))
        });
        let layers = layers.collect::<Result<_, CudaError>>()?;
        let logits = row_counts(samples_max, invariant).into_iter().map(|m| Ok((m, plan(4, m)?)));
        Ok(Self { layers, logits: logits.collect::<Result<_, CudaError>>()? })
    }

    /// How many rows a step of `rows` tokens is padded to, and its products.
    ///
    /// # Panics
    /// If there are more than was planned for.
    pub fn layers(&self, rows: usize) -> (usize, &Products) {
        let (rows, products) = at_least(&self.layers, rows);
        (*rows, products)
    }

    /// How many rows `rows` logits are padded to, and their product.
    ///
    /// # Panics
    /// If there are more than was planned for.
    pub fn logits(&self, rows: usize) -> (usize, &Product) {
        let (rows, product) = at_least(&self.logits, rows);
        (*rows, product)
    }
}

fn at_least<T>(sorted: &[(usize, T)], rows: usize) -> &(usize, T) {
    &sorted[sorted.partition_point(|(planned, _)| *planned < rows)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_padded_to_a_planned_row_count() {
        for (most, invariant) in [(1, false), (7, false), (600, false), (8192, false), (1, true), (300, true)]
        {
            let counts = row_counts(most, invariant);
            assert!(counts.is_sorted_by(|a, b| a < b), "{counts:?}");
            assert!(*counts.last().unwrap() >= most, "{most}: {counts:?}");
            assert!(!invariant || counts.iter().all(|rows| rows % PINNED_ROWS == 0));
        }
    }
}
