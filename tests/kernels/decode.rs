//! Attention of one query per row: plan, decode and merge, as an executor runs them.

use crate::ORDERS;
use crate::device::params::{Decode, Pool};
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::numbers::{Bounds, POISON, Stored, close, normals, poisoned, wide};
use flyball::prng::Prng;
use flyball_simt::core::chunk_count;

/// What a row's Q, K and V look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Data {
    Normal,
    /// Every key alike: the output is the mean of V.
    EqualKeys,
    /// Queries so large that logits reach tens of thousands.
    HugeLogits,
    /// One key, the last, outweighs the others by far.
    LastKey,
    Tiny,
}

/// A sequence: its content follows from its seed.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub length: usize,
    pub seed: u64,
}

#[derive(Clone, Debug)]
pub struct Case {
    pub stored: Stored,
    pub head_dim: usize,
    pub heads_kv: usize,
    pub group: usize,
    pub page_shift: u32,
    pub rows: Vec<Row>,
    pub chunk: u32,
    pub ctas: u32,
    pub data: Data,
    pub scales: bool,
    /// Decides which page holds what.
    pub pages_seed: u64,
}

/// A row's content, already rounded: q \[heads_q, head_dim\], k and v \[heads_kv, length, head_dim\].
struct Content {
    q: Vec<u16>,
    k: Vec<f32>,
    v: Vec<f32>,
}

#[derive(Debug, PartialEq)]
pub struct Outputs {
    output: Vec<u16>,
    lse: Vec<f32>,
}

impl Outputs {
    /// The same with -0 as it is: compared by bits, so that NaN equals itself.
    pub fn bits(&self, row: usize, case: &Case) -> (Vec<u16>, Vec<u32>) {
        let heads = case.heads_q();
        let lse = self.lse[row * heads..][..heads].iter().map(|x| x.to_bits()).collect();
        (self.output[row * heads * case.head_dim..][..heads * case.head_dim].to_vec(), lse)
    }
}

impl Case {
    fn heads_q(&self) -> usize {
        self.heads_kv * self.group
    }

    fn page_size(&self) -> usize {
        1 << self.page_shift
    }

    fn page_elements(&self) -> usize {
        2 * self.heads_kv * self.page_size() * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn cache_scales(&self) -> [Vec<f32>; 2] {
        let scale = |base: f32| (0..self.heads_kv).map(|h| base + h as f32 * 0.25).collect();
        [scale(0.5), scale(1.5)]
    }

    fn content(&self, row: Row) -> Content {
        let mut prng = Prng::new(row.seed);
        let cells = self.heads_kv * row.length * self.head_dim;
        let (q_scale, k_scale) = match self.data {
            Data::HugeLogits => (300.0, 30.0),
            Data::Tiny => (1e-20, 1e-20),
            _ => (1.0, 1.0),
        };
        let q = normals(&mut prng, self.heads_q() * self.head_dim, q_scale);
        let mut draw = |scale: f64| (0..cells).map(|_| (prng.normal() * scale) as f32).collect::<Vec<_>>();
        let (mut k, v) = (draw(k_scale), draw(1.0));
        for head in k.chunks_mut((row.length * self.head_dim).max(1)) {
            match self.data {
                Data::EqualKeys => {
                    let (first, rest) = head.split_at_mut(self.head_dim);
                    rest.chunks_mut(self.head_dim).for_each(|key| key.copy_from_slice(first));
                }
                Data::LastKey => {
                    let last = head.len() - self.head_dim;
                    head[last..].iter_mut().for_each(|x| *x *= 40.0);
                }
                _ => {}
            }
        }
        Content { q, k, v }
    }

    /// Lays the rows out in pages, in an order of its own, with NaN wherever nothing is; the rounded values of K
    /// and V go back into `contents`.
    fn lay_out(&self, contents: &mut [Content]) -> (Vec<u8>, Vec<u32>, usize) {
        let pages_of = |row: &Row| row.length.div_ceil(self.page_size());
        let total: usize = self.rows.iter().map(pages_of).sum();
        let stride = self.rows.iter().map(pages_of).max().unwrap_or(0) + 1;
        let mut free: Vec<u32> = (0..total as u32 + 2).collect();
        let mut prng = Prng::new(self.pages_seed);
        for at in (1..free.len()).rev() {
            free.swap(at, prng.below(at as u64 + 1) as usize);
        }
        let mut pool = poisoned(free.len() * self.page_elements() * self.stored.bytes());
        let mut tables = vec![u32::MAX; self.rows.len() * stride];
        let [k_scale, v_scale] = self.cache_scales();
        for (at, (row, content)) in self.rows.iter().zip(contents).enumerate() {
            for token in 0..row.length {
                let entry = &mut tables[at * stride + token / self.page_size()];
                if token % self.page_size() == 0 {
                    *entry = free.pop().expect("pages for all rows were counted");
                }
                for part in 0..2 * self.heads_kv {
                    let head = part % self.heads_kv;
                    let (values, scales) =
                        if part == head { (&mut content.k, &k_scale) } else { (&mut content.v, &v_scale) };
                    let scale = if self.scales { scales[head] } else { 1.0 };
                    let from = (head * row.length + token) * self.head_dim;
                    let to = *entry as usize * self.page_elements()
                        + (part * self.page_size() + token % self.page_size()) * self.head_dim;
                    for i in 0..self.head_dim {
                        let value = &mut values[from + i];
                        *value = self.stored.put(&mut pool, to + i, *value / scale) as f32 * scale;
                    }
                }
            }
        }
        (pool, tables, stride)
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Outputs, Faults> {
        let mut contents: Vec<_> = self.rows.iter().map(|row| self.content(*row)).collect();
        let (pool, tables, stride) = self.lay_out(&mut contents);
        let q: Vec<u16> = contents.iter().flat_map(|content| content.q.iter().copied()).collect();
        let lengths: Vec<u32> = self.rows.iter().map(|row| row.length as u32).collect();
        let [k_scale, v_scale] = self.cache_scales();
        let heads = self.rows.len() * self.heads_q();
        let mut outputs = Outputs { output: vec![POISON; heads * self.head_dim], lse: vec![f32::NAN; heads] };
        let chunks: u32 = lengths.iter().map(|length| chunk_count(*length, self.chunk)).sum();
        let mut chunk_from = vec![u32::MAX; self.rows.len() + 1];
        let mut listed = vec![u32::MAX; chunks as usize * 4];
        let mut overflow = [u32::MAX];
        let slots = chunks as usize * self.heads_q();
        let mut partial = vec![f32::NAN; slots * self.head_dim];
        let (mut partial_max, mut partial_sum) = (vec![f32::NAN; slots], vec![f32::NAN; slots]);
        let mut memory = Memory::new();
        let params = Decode {
            pool: Pool {
                pages: memory.read(&pool),
                page_stride: self.page_elements() as i64,
                page_shift: self.page_shift,
                heads_kv: self.heads_kv as u32,
                k_scale: if self.scales { memory.read(&k_scale) } else { 0 },
                v_scale: if self.scales { memory.read(&v_scale) } else { 0 },
            },
            q: memory.read(&q),
            output: memory.write(&mut outputs.output),
            lengths: memory.read(&lengths),
            tables: memory.read(&tables),
            chunk_from: memory.write(&mut chunk_from),
            chunks: memory.write(&mut listed),
            partial: memory.write(&mut partial),
            partial_max: memory.write(&mut partial_max),
            partial_sum: memory.write(&mut partial_sum),
            lse: memory.write(&mut outputs.lse),
            arrived: 0,
            overflow: memory.write(&mut overflow),
            q_stride: (self.heads_q() * self.head_dim) as i64,
            table_stride: stride as i64,
            rows: self.rows.len() as u32,
            heads_q: self.heads_q() as u32,
            scale: self.scale(),
            chunk: self.chunk,
            chunks_max: chunks,
            reserved: 0,
        };
        let decode = format!("decode_{}_d{}", self.stored.name(), self.head_dim);
        let merge = format!("decode_merge_d{}", self.head_dim);
        for (name, ctas) in [("decode_plan", 1), (&decode, self.ctas), (&merge, self.ctas)] {
            Kernel::find(variant, name).launch(ctas, &params, &memory, order)?;
        }
        assert_eq!((overflow[0], chunk_from.last()), (0, Some(&chunks)));
        Ok(outputs)
    }

    /// One head of one row, in `f64`: the output, the logarithm of the sum, and the largest logit's size.
    fn reference(&self, row: Row, content: &Content, head: usize) -> (Vec<f64>, f64, f64) {
        let (dim, kv) = (self.head_dim, head / self.group);
        let q = wide(&content.q[head * dim..][..dim]);
        let of = |values: &[f32], token: usize| -> Vec<f64> {
            values[(kv * row.length + token) * dim..][..dim].iter().map(|x| f64::from(*x)).collect()
        };
        let logit = |token| {
            let k = of(&content.k, token);
            q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() * f64::from(self.scale())
        };
        let logits: Vec<f64> = (0..row.length).map(logit).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        let mut output = vec![0.0; dim];
        for (token, logit) in logits.iter().enumerate() {
            let weight = (logit - max).exp() / sum;
            output.iter_mut().zip(of(&content.v, token)).for_each(|(o, v)| *o += weight * v);
        }
        (output, max + sum.ln(), logits.iter().fold(0.0, |a, x| a.max(x.abs())))
    }

    pub fn check(&self, outputs: &Outputs) -> Result<(), String> {
        let mut contents: Vec<_> = self.rows.iter().map(|row| self.content(*row)).collect();
        self.lay_out(&mut contents);
        let bounds = match self.stored {
            Stored::Bf16 => Bounds { frobenius: 4e-3, largest: 1.6e-2 },
            Stored::E4m3 => Bounds { frobenius: 3e-3, largest: 1.2e-2 },
        };
        for (at, (row, content)) in self.rows.iter().zip(&contents).enumerate() {
            for head in 0..self.heads_q() {
                let what = format!("row {at} ({} tokens), head {head}", row.length);
                let index = at * self.heads_q() + head;
                let got = wide(&outputs.output[index * self.head_dim..][..self.head_dim]);
                let (want, lse, largest) = self.reference(*row, content, head);
                close(&what, &got, &want, bounds)?;
                let got = f64::from(outputs.lse[index]);
                // A logit's own error in f32 grows with it.
                let close = got == lse || (got - lse).abs() <= 1e-3 + 1e-6 * largest;
                if !close {
                    return Err(format!("{what}: lse {got}, not {lse}"));
                }
            }
        }
        Ok(())
    }
}

/// Rows of these lengths, each with content of its own.
fn rows(lengths: &[usize]) -> Vec<Row> {
    lengths.iter().enumerate().map(|(at, length)| Row { length: *length, seed: 100 + at as u64 }).collect()
}

fn base() -> Case {
    Case {
        stored: Stored::Bf16,
        head_dim: 128,
        heads_kv: 2,
        group: 4,
        page_shift: 4,
        rows: rows(&[1, 0, 15, 16, 17, 63, 64, 65, 130]),
        chunk: 128,
        ctas: 5,
        data: Data::Normal,
        scales: false,
        pages_seed: 1,
    }
}

/// Every path of the kernel, on few tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case { rows: vec![], ..base() }, Case { rows: rows(&[0, 0, 0]), ..base() }];
    for stored in [Stored::Bf16, Stored::E4m3] {
        let scales = stored == Stored::E4m3;
        for head_dim in [64, 128] {
            for page_shift in [4, 5] {
                cases.push(Case { stored, head_dim, page_shift, scales, ..base() });
            }
        }
        for (heads_kv, group) in [(1, 1), (3, 2), (1, 3), (2, 5), (1, 7), (1, 8), (1, 12), (1, 16)] {
            let rows = rows(&[33, 70]);
            cases.push(Case { stored, head_dim: 64, heads_kv, group, chunk: 64, rows, ..base() });
        }
        for data in [Data::EqualKeys, Data::HugeLogits, Data::LastKey, Data::Tiny] {
            // What is this small or large does not fit in fp8.
            if stored == Stored::Bf16 || data != Data::HugeLogits {
                let rows = rows(&[1, 31, 129, 300]);
                cases.push(Case { stored, head_dim: 64, data, rows, heads_kv: 1, ..base() });
            }
        }
    }
    cases
}

#[test]
fn attention_is_within_its_bounds_and_the_same_in_every_order() {
    for case in cases() {
        let first = case.run(Variant::Real, Order::Forward).unwrap_or_else(|f| panic!("{case:?}: {f}"));
        case.check(&first).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        for order in ORDERS {
            let again = case.run(Variant::Real, order).unwrap_or_else(|f| panic!("{case:?}, {order:?}: {f}"));
            for row in 0..case.rows.len() {
                assert_eq!(again.bits(row, &case), first.bits(row, &case), "{case:?}, {order:?}");
            }
        }
    }
}

#[test]
fn a_long_row_beside_short_ones_is_within_its_bounds() {
    for (stored, length) in [(Stored::Bf16, 4097), (Stored::E4m3, 8191)] {
        let lengths = rows(&[1, length, 1]);
        let case = Case { stored, rows: lengths, head_dim: 64, heads_kv: 1, chunk: 512, ..base() };
        let outputs = case.run(Variant::Real, Order::Shuffled(3)).unwrap();
        case.check(&outputs).unwrap();
    }
}

/// The plan of many rows is the plain prefix sum, over several tiles of the cta.
#[test]
fn many_rows_are_planned_and_found() {
    for count in [255, 256, 257, 600] {
        let lengths: Vec<usize> = (0..count).map(|at| at * 7 % 3).collect();
        let case = Case { rows: rows(&lengths), head_dim: 64, heads_kv: 1, group: 1, ctas: 3, ..base() };
        case.check(&case.run(Variant::Real, Order::Shuffled(4)).unwrap()).unwrap();
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_batch() {
    for stored in [Stored::Bf16, Stored::E4m3] {
        let batch = Case { stored, rows: rows(&[5, 200, 0, 64, 129, 300]), chunk: 64, ..base() };
        let together = batch.run(Variant::Real, Order::Forward).unwrap();
        for (at, row) in batch.rows.iter().enumerate() {
            let case = Case { rows: vec![*row], ctas: 1, pages_seed: 77, ..batch.clone() };
            let alone = case.run(Variant::Real, Order::Reverse).unwrap();
            assert_eq!(alone.bits(0, &case), together.bits(at, &batch), "{stored:?}, row {at}");
        }
    }
}

#[test]
fn where_its_pages_lie_changes_no_bit() {
    let case = Case { rows: rows(&[100, 31, 260]), ..base() };
    let first = case.run(Variant::Real, Order::Forward).unwrap();
    for pages_seed in 2..5 {
        let moved = Case { pages_seed, ..case.clone() }.run(Variant::Real, Order::Forward).unwrap();
        assert_eq!(moved, first);
    }
    let larger = Case { page_shift: 5, ..case }.run(Variant::Real, Order::Forward).unwrap();
    assert_eq!(larger, first, "nor does the size of the pages");
}

#[test]
fn how_it_is_cut_changes_little() {
    let whole = Case { rows: rows(&[257, 500]), chunk: 512, ..base() };
    let first = whole.run(Variant::Real, Order::Forward).unwrap();
    for chunk in [64, 128, 256] {
        let cut = Case { chunk, ..whole.clone() }.run(Variant::Real, Order::Forward).unwrap();
        // Each is one rounding to bf16 away from nearly the same sum, under maxima of its own for P.
        let bounds = Bounds { frobenius: 4e-3, largest: 8e-3 };
        close("output", &wide(&cut.output), &wide(&first.output), bounds).unwrap();
        for (cut, whole) in cut.lse.iter().zip(&first.lse) {
            assert!((cut - whole).abs() <= 1e-5, "{cut} and {whole}");
        }
    }
}

#[test]
fn a_plan_that_does_not_fit_runs_nothing_and_says_so() {
    let lengths = [300_u32, 10, 700];
    let mut chunk_from = [7_u32; 4];
    let mut overflow = [7_u32];
    let mut memory = Memory::new();
    let params = Decode {
        lengths: memory.read(&lengths),
        chunk_from: memory.write(&mut chunk_from),
        overflow: memory.write(&mut overflow),
        rows: 3,
        chunk: 256,
        chunks_max: 5,
        ..Decode::default()
    };
    Kernel::find(Variant::Real, "decode_plan").launch(1, &params, &memory, Order::Forward).unwrap();
    assert_eq!((chunk_from, overflow), ([0; 4], [1]));
}
