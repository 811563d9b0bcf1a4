//! A pool of KV pages as kernels that copy by a tensor map see it: `fb_prefill_tensor` of `csrc/params.h`.

use super::{CudaError, Swizzle, TensorMap, TensorType, Tiled};

/// The pages of one layer as a tensor of (dimension of a head, token of a page, head of K and then of V, page), and
/// the box that one copy takes: a page of one head, 64 of its dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTensor {
    /// Elements of each dimension, the innermost first.
    pub dims: [u64; 4],
    /// Bytes from one index to the next, of all dimensions but the innermost.
    pub strides: [u64; 3],
    /// Elements of the box.
    pub tile: [u32; 4],
}

impl PageTensor {
    /// Of `pages` pages of `page_size` tokens whose elements have 2 bytes; `page_stride` counts elements, as in
    /// [`Pool`](super::params::Pool).
    pub fn new(head_dim: u32, page_size: u32, heads_kv: u32, page_stride: u64, pages: u32) -> Self {
        let token = 2 * u64::from(head_dim);
        Self {
            dims: [head_dim, page_size, 2 * heads_kv, pages].map(u64::from),
            strides: [token, token * u64::from(page_size), 2 * page_stride],
            tile: [64, page_size, 1, 1],
        }
    }

    /// The map for the pool at `address`. It is stale once the pool moves.
    ///
    /// # Errors
    /// If there is no driver, or it does not take the shape.
    pub fn encode(&self, address: u64) -> Result<TensorMap, CudaError> {
        let Self { dims, strides, tile } = self;
        // The unit only moves what it copies; zeros are zeros in f16 too.
        let element = TensorType::Bf16;
        Tiled { element, address, dims, strides, tile, swizzle: Swizzle::B128 }.encode()
    }
}
