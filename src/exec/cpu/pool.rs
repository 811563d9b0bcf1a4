//! Pages of keys and values, and where they lie: the twin of `csrc/core/paging.h` and `csrc/kv/copy.cuh`.

use crate::number::{Dtype, from_bf16, from_e4m3, from_f16, to_bf16, to_e4m3, to_f16};

/// How pages lie in a pool. The part of one layer is `[K|V][heads_kv][page_size][head_dim]`, so that the tokens of one
/// head are one straight read; all layers of a page are contiguous, so that a page moves in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Parts of a page.
    pub layers: usize,
    /// Key and value heads.
    pub heads_kv: usize,
    /// `log2` of the tokens of a page.
    pub page_shift: u32,
    /// Elements of a head.
    pub head_dim: usize,
}

impl Paging {
    /// Elements of one page.
    pub const fn page_elements(&self) -> usize {
        (self.layers * 2 * self.heads_kv * self.head_dim) << self.page_shift
    }

    /// The element where the key of `head` begins, for the token `offset` of `page`.
    #[inline]
    pub const fn key(&self, page: usize, layer: usize, head: usize, offset: usize) -> usize {
        let part = layer * 2 * self.heads_kv + head;
        page * self.page_elements() + ((part << self.page_shift) + offset) * self.head_dim
    }

    /// The element where its value begins.
    #[inline]
    pub const fn value(&self, page: usize, layer: usize, head: usize, offset: usize) -> usize {
        self.key(page, layer, self.heads_kv + head, offset)
    }
}

/// Pages in memory, of bf16, f16 or e4m3.
#[derive(Clone, Debug)]
pub struct Pool {
    paging: Paging,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl Pool {
    /// `pages` pages that nobody has written. Debug builds fill them with NaN, so that whoever reads one shows.
    pub fn new(paging: Paging, dtype: Dtype, pages: usize) -> Self {
        let unwritten = if cfg!(debug_assertions) { 0xff } else { 0 };
        let bytes = vec![unwritten; pages * paging.page_elements() * dtype.bytes()];
        Self { paging, dtype, bytes }
    }

    /// Pages with this content.
    ///
    /// # Panics
    /// If it is not whole pages.
    pub fn of(paging: Paging, dtype: Dtype, bytes: Vec<u8>) -> Self {
        assert!(bytes.len().is_multiple_of(paging.page_elements() * dtype.bytes()), "pages are whole");
        Self { paging, dtype, bytes }
    }

    /// How they lie.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    /// Their content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Rounds `values` into the elements from `at` on; e4m3 saturates.
    pub fn store(&mut self, at: usize, values: &[f32]) {
        match self.dtype {
            Dtype::E4m3 => {
                let into = self.bytes[at..][..values.len()].iter_mut();
                into.zip(values).for_each(|(byte, value)| *byte = to_e4m3(*value));
            }
            Dtype::Bf16 => self.store_halves(at, values, to_bf16),
            Dtype::F16 => self.store_halves(at, values, to_f16),
        }
    }

    fn store_halves(&mut self, at: usize, values: &[f32], round: impl Fn(f32) -> u16) {
        let (into, _) = self.bytes[2 * at..][..2 * values.len()].as_chunks_mut::<2>();
        into.iter_mut().zip(values).for_each(|(half, value)| *half = round(*value).to_ne_bytes());
    }

    /// Widens the elements from `at` on.
    #[inline(always)]
    pub fn load(&self, at: usize, into: &mut [f32]) {
        match self.dtype {
            Dtype::E4m3 => {
                let from = &self.bytes[at..][..into.len()];
                into.iter_mut().zip(from).for_each(|(value, byte)| *value = from_e4m3(*byte));
            }
            Dtype::Bf16 => self.load_halves(at, into, from_bf16),
            Dtype::F16 => self.load_halves(at, into, from_f16),
        }
    }

    #[inline(always)]
    fn load_halves(&self, at: usize, into: &mut [f32], widen: impl Fn(u16) -> f32) {
        let (from, _) = self.bytes[2 * at..][..2 * into.len()].as_chunks::<2>();
        into.iter_mut().zip(from).for_each(|(value, half)| *value = widen(u16::from_ne_bytes(*half)));
    }

    fn page(&self, page: u32) -> std::ops::Range<usize> {
        let bytes = self.paging.page_elements() * self.dtype.bytes();
        page as usize * bytes..(page as usize + 1) * bytes
    }
}

/// `target[to] = source[from]` for each pair of pages.
pub fn copy_pages(source: &Pool, target: &mut Pool, pairs: impl IntoIterator<Item = (u32, u32)>) {
    for (from, to) in pairs {
        let place = target.page(to);
        target.bytes[place].copy_from_slice(&source.bytes[source.page(from)]);
    }
}

/// The same inside one pool; no page is both read and written.
pub fn copy_pages_within(pool: &mut Pool, pairs: impl IntoIterator<Item = (u32, u32)>) {
    for (from, to) in pairs {
        let (from, to) = (pool.page(from), pool.page(to).start);
        pool.bytes.copy_within(from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGING: Paging = Paging { layers: 2, heads_kv: 3, page_shift: 2, head_dim: 5 };

    #[test]
    fn every_element_of_a_page_belongs_to_one_head_of_one_token() {
        let mut seen = vec![0; 2 * PAGING.page_elements()];
        for page in 0..2 {
            for layer in 0..PAGING.layers {
                for head in 0..PAGING.heads_kv {
                    for offset in 0..4 {
                        for start in
                            [PAGING.key(page, layer, head, offset), PAGING.value(page, layer, head, offset)]
                        {
                            seen[start..start + PAGING.head_dim].iter_mut().for_each(|s| *s += 1);
                        }
                    }
                }
            }
        }
        assert!(seen.iter().all(|s| *s == 1));
    }

    #[test]
    fn pages_keep_what_is_stored_and_move_whole() {
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::E4m3] {
            let mut pool = Pool::new(PAGING, dtype, 3);
            let values = [0.5, -2.0, 0.0, 448.0, 1.75];
            let at = PAGING.value(1, 1, 2, 3);
            pool.store(at, &values);
            let mut back = [0.0; 5];
            pool.load(at, &mut back);
            assert_eq!(back, values, "{dtype:?}");
            let mut host = Pool::new(PAGING, dtype, 1);
            copy_pages(&pool, &mut host, [(1, 0)]);
            copy_pages_within(&mut pool, [(1, 2)]);
            for (pool, page) in [(&host, 0), (&pool, 2)] {
                pool.load(PAGING.value(page, 1, 2, 3), &mut back);
                assert_eq!(back, values, "{dtype:?}");
            }
        }
    }
}
