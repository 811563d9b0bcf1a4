//! What attention reads and what it should yield: rows of made-up tokens, their pages, and a reference in `f64`.

use crate::device::params::Pool;
use crate::device::{Memory, tensor_map};
use crate::numbers::{Bounds, POISONED, Stored, close};
use flyball::exec::cuda::PageTensor;
use flyball::prng::Prng;

/// What Q and K look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    Normal,
    /// Every key alike: the output is the mean of V.
    EqualKeys,
    /// Queries so large that logits reach tens of thousands.
    HugeLogits,
    /// One key, the row's last, outweighs the others by far.
    LastKey,
    /// Keys whose sizes fall with the position: from the last to the first, every tile has a new maximum.
    Falling,
    Tiny,
    /// Subnormal numbers, where the type has any that small.
    Denormal,
    /// Multiples of 1/8, so that a shift of all keys is exact.
    Coarse,
}

/// A sequence, of which `new` tokens ask. What a token is follows from the seed and its position alone.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub length: usize,
    pub new: usize,
    pub seed: u64,
}

/// Rows of these lengths that ask with their last token, each with content of its own.
pub fn rows(lengths: &[usize]) -> Vec<Row> {
    let row = |(at, length): (usize, &usize)| Row { length: *length, new: 1, seed: 100 + at as u64 };
    lengths.iter().enumerate().map(row).collect()
}

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The type of Q and of the output.
    pub compute: Stored,
    pub stored: Stored,
    pub head_dim: usize,
    pub heads_kv: usize,
    pub group: usize,
    pub page_shift: u32,
    pub data: Data,
    /// Whether the cache has scales.
    pub scales: bool,
    /// Decides which page holds what.
    pub pages_seed: u64,
    /// Elements between the end of a page and the next, as where a page holds other layers too.
    pub page_gap: usize,
}

pub const SHAPE: Shape = Shape {
    compute: Stored::Bf16,
    stored: Stored::Bf16,
    head_dim: 128,
    heads_kv: 2,
    group: 4,
    page_shift: 4,
    data: Data::Normal,
    scales: false,
    pages_seed: 1,
    page_gap: 0,
};

/// A row's content: q \[new, heads_q, head_dim\], k and v \[length, heads_kv, head_dim\].
#[derive(Clone, Debug)]
pub struct Content {
    pub q: Vec<u16>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// The cache of some rows.
pub struct Cache {
    pub pool: Vec<u8>,
    pub tables: Vec<u32>,
    pub table_stride: usize,
    /// Of K, and of V.
    pub scales: [Vec<f32>; 2],
}

/// What one query head of one token should get: the output, the logarithm of the sum, the largest logit's size.
pub struct Expected {
    pub output: Vec<f64>,
    pub lse: f64,
    pub largest: f64,
}

impl Shape {
    pub fn heads_q(&self) -> usize {
        self.heads_kv * self.group
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The name of a family's kernel for these types.
    pub fn kernel(&self, family: &str) -> String {
        if self.stored == self.compute {
            format!("{family}_{}_d{}", self.compute.name(), self.head_dim)
        } else {
            format!("{family}_{}_{}_d{}", self.compute.name(), self.stored.name(), self.head_dim)
        }
    }

    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    fn page_elements(&self) -> usize {
        2 * self.heads_kv * self.page_size() * self.head_dim
    }

    fn page_stride(&self) -> usize {
        self.page_elements() + self.page_gap
    }

    /// Made up, and not yet rounded to what the cache stores.
    pub fn content(&self, row: Row) -> Content {
        let (q_scale, k_scale) = match self.data {
            Data::HugeLogits => (300.0, 30.0),
            Data::Tiny => (1e-20, 1e-20),
            Data::Denormal => (1e-39, 1e-39),
            _ => (1.0, 1.0),
        };
        let mut content = Content { q: vec![], k: vec![], v: vec![] };
        let cells = self.heads_kv * self.head_dim;
        for position in 0..row.length.max(row.new) {
            let mut prng = Prng::new(row.seed << 32 | position as u64);
            if position < row.length {
                let from = content.k.len();
                content.k.extend((0..cells).map(|_| (prng.normal() * k_scale) as f32));
                content.v.extend((0..cells).map(|_| prng.normal() as f32));
                let key = &mut content.k[from..];
                match self.data {
                    Data::LastKey if position + 1 == row.length => key.iter_mut().for_each(|x| *x *= 40.0),
                    Data::Coarse => {
                        key.iter_mut().for_each(|x| *x = (*x * 8.0).round().clamp(-16.0, 16.0) / 8.0)
                    }
                    Data::Falling => {
                        let factor = 1.0 + 12.0 * (row.length - position) as f32 / row.length as f32;
                        key.iter_mut().for_each(|x| *x *= factor);
                    }
                    Data::EqualKeys => content.k.copy_within(..cells, from),
                    _ => {}
                }
            }
            // The last tokens ask; where more ask than there are, the first ones see nothing.
            if position + row.new >= row.length.max(row.new) {
                let mut prng = Prng::new(row.seed << 32 | 1 << 31 | position as u64);
                content.q.extend(self.compute.normals(&mut prng, self.heads_q() * self.head_dim, q_scale));
            }
        }
        content
    }

    pub fn contents(&self, rows: &[Row]) -> Vec<Content> {
        rows.iter().map(|row| self.content(*row)).collect()
    }

    /// Lays rows of these lengths out in pages, in an order of its own, with NaN wherever nothing is; the rounded
    /// values of K and V go back into `contents`.
    pub fn lay_out(&self, lengths: &[usize], contents: &mut [Content]) -> Cache {
        let pages_of = |length: &usize| length.div_ceil(self.page_size());
        let total: usize = lengths.iter().map(pages_of).sum();
        let table_stride = lengths.iter().map(pages_of).max().unwrap_or(0) + 1;
        let mut free: Vec<u32> = (0..total as u32 + 2).collect();
        let mut prng = Prng::new(self.pages_seed);
        for at in (1..free.len()).rev() {
            free.swap(at, prng.below(at as u64 + 1) as usize);
        }
        // A gap may be so large that nothing must touch it.
        let mut pool = vec![0; free.len() * self.page_stride() * self.stored.bytes()];
        for page in pool.chunks_mut(self.page_stride() * self.stored.bytes()) {
            page[..self.page_elements() * self.stored.bytes()].fill(POISONED);
        }
        let mut tables = vec![u32::MAX; lengths.len() * table_stride];
        let scale = |base: f32| (0..self.heads_kv).map(|h| base + h as f32 * 0.25).collect::<Vec<f32>>();
        let scales = [scale(0.5), scale(1.5)];
        for (at, (length, content)) in lengths.iter().zip(contents).enumerate() {
            for token in 0..*length {
                let entry = &mut tables[at * table_stride + token / self.page_size()];
                if token % self.page_size() == 0 {
                    *entry = free.pop().expect("pages for all rows were counted");
                }
                for part in 0..2 * self.heads_kv {
                    let head = part % self.heads_kv;
                    let is_value = usize::from(part != head);
                    let values = if is_value == 1 { &mut content.v } else { &mut content.k };
                    let scale = if self.scales { scales[is_value][head] } else { 1.0 };
                    let from = (token * self.heads_kv + head) * self.head_dim;
                    let to = *entry as usize * self.page_stride()
                        + (part * self.page_size() + token % self.page_size()) * self.head_dim;
                    for i in 0..self.head_dim {
                        let value = &mut values[from + i];
                        *value = self.stored.put(&mut pool, to + i, *value / scale) as f32 * scale;
                    }
                }
            }
        }
        Cache { pool, tables, table_stride, scales }
    }

    /// The parameters that say where the cache is.
    pub fn pool<'a>(&self, cache: &'a Cache, memory: &mut Memory<'a>) -> Pool {
        let [k_scale, v_scale] = &cache.scales;
        Pool {
            pages: memory.read(&cache.pool),
            page_stride: self.page_stride() as i64,
            page_shift: self.page_shift,
            heads_kv: self.heads_kv as u32,
            k_scale: if self.scales { memory.read(k_scale) } else { 0 },
            v_scale: if self.scales { memory.read(v_scale) } else { 0 },
        }
    }

    /// The same as a tensor copy wants it.
    pub fn tensor(&self, cache: &Cache, pages: u64) -> [u64; 16] {
        let [dim, page_size, heads] = [self.head_dim, self.page_size(), self.heads_kv].map(|n| n as u32);
        let stride = self.page_stride() as u64;
        let PageTensor { dims, strides, tile } =
            PageTensor::new(dim, page_size, heads, stride, self.page_count(cache));
        tensor_map(pages, strides, dims, tile)
    }

    pub fn page_count(&self, cache: &Cache) -> u32 {
        (cache.pool.len() / self.stored.bytes() / self.page_stride()) as u32
    }

    /// Query head `head` of token `query` of `content`, which sees `keys` keys.
    pub fn reference(&self, content: &Content, query: usize, head: usize, keys: usize) -> Expected {
        let dim = self.head_dim;
        let q = self.compute.wide(&content.q[(query * self.heads_q() + head) * dim..][..dim]);
        let at = |token: usize| (token * self.heads_kv + head / self.group) * dim;
        let logit = |token: usize| {
            let k = &content.k[at(token)..][..dim];
            q.iter().zip(k).map(|(q, k)| q * f64::from(*k)).sum::<f64>() * f64::from(self.scale())
        };
        let logits: Vec<f64> = (0..keys).map(logit).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        let mut output = vec![0.0; dim];
        for (token, logit) in logits.iter().enumerate() {
            let weight = (logit - max).exp() / sum;
            let v = &content.v[at(token)..][..dim];
            output.iter_mut().zip(v).for_each(|(o, v)| *o += weight * f64::from(*v));
        }
        Expected { output, lse: max + sum.ln(), largest: logits.iter().fold(0.0, |a, x| a.max(x.abs())) }
    }

    /// How far an output may be from its reference, and a logarithm of a sum.
    pub fn bounds(&self) -> (Bounds, f64) {
        match (self.compute, self.stored) {
            (Stored::F16, _) => (Bounds { frobenius: 6e-4, largest: 3e-3 }, 5e-4),
            (_, Stored::E4m3) => (Bounds { frobenius: 3e-3, largest: 1.2e-2 }, 1e-3),
            _ => (Bounds { frobenius: 4e-3, largest: 1.6e-2 }, 1e-3),
        }
    }

    /// Whether one head of one token got what it should.
    pub fn check(&self, what: &str, output: &[u16], lse: f32, expected: &Expected) -> Result<(), String> {
        self.check_within(0.0, what, output, lse, expected)
    }

    /// The same, by bounds of an output that are larger by `slack`.
    pub fn check_within(
        &self,
        slack: f64,
        what: &str,
        output: &[u16],
        lse: f32,
        expected: &Expected,
    ) -> Result<(), String> {
        let (Bounds { frobenius, largest }, lse_bound) = self.bounds();
        // A logit's own error in f32 grows with it, and a weight's with that.
        let slack = slack + 1e-7 * expected.largest;
        let bounds = Bounds { frobenius: frobenius + slack, largest: largest + slack };
        close(what, &self.compute.wide(output), &expected.output, bounds)?;
        let got = f64::from(lse);
        if got == expected.lse || (got - expected.lse).abs() <= lse_bound + 1e-6 * expected.largest {
            return Ok(());
        }
        Err(format!("{what}: lse {got}, not {}", expected.lse))
    }
}

/// Head counts for every size of a group that models have.
pub const GROUPS: [(usize, usize); 10] =
    [(2, 1), (3, 2), (1, 3), (2, 4), (2, 5), (1, 6), (1, 7), (1, 8), (1, 12), (1, 16)];

/// The types of Q and of the cache.
pub const TYPES: [(Stored, Stored); 4] = [
    (Stored::Bf16, Stored::Bf16),
    (Stored::Bf16, Stored::E4m3),
    (Stored::F16, Stored::F16),
    (Stored::F16, Stored::E4m3),
];

pub const HEAD_DIMS: [usize; 5] = [64, 80, 96, 128, 256];

/// Contents that strain the arithmetic, as far as the types hold them.
pub fn hard_data(stored: Stored) -> Vec<Data> {
    let mut data = vec![Data::EqualKeys, Data::LastKey, Data::Tiny, Data::Denormal];
    if stored != Stored::E4m3 {
        data.push(Data::HugeLogits);
    }
    data
}
