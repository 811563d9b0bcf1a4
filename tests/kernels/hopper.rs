//! Attention of new tokens as sm_90a runs it: plan and tiles, with the asynchronous units emulated.

use crate::ORDERS;
use crate::device::params::{Pool, Prefill, PrefillTensor};
use crate::device::{Faults, Kernel, Memory, Order, Variant, tensor_map};
use crate::numbers::{Bounds, POISON, close, poisoned};
use flyball::exec::cuda::PageTensor;
use flyball::prng::Prng;
use flyball_simt::core::{from_bf16, from_f16, to_bf16, to_f16};

/// Packed rows per tile.
const TILE: u32 = 128;

/// What Q, K and V look like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Data {
    Normal,
    /// Every key alike: the output is the mean of V.
    EqualKeys,
    /// Logits of tens of thousands.
    Huge,
    /// Logits that rise with the key by much, so that every tile brings a new maximum.
    Falling,
}

/// A sequence: its content follows from its seed.
#[derive(Clone, Copy, Debug)]
struct Row {
    new: usize,
    length: usize,
    seed: u64,
}

#[derive(Clone, Debug)]
pub struct Case {
    kernel: &'static str,
    head_dim: usize,
    heads_kv: usize,
    group: usize,
    page_shift: u32,
    rows: Vec<Row>,
    padding: usize,
    /// Elements between a token's queries and the next's, beyond the queries themselves.
    gap: usize,
    ctas: u32,
    data: Data,
    scales: bool,
    pages_seed: u64,
}

/// A row's content, rounded: q \[new, heads_q, head_dim\], k and v \[heads_kv, length, head_dim\].
struct Content {
    q: Vec<u16>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Content {
    /// Of the queries `from..to` over the first `to` tokens, where all tokens of `case` are new.
    fn part(&self, from: usize, to: usize, case: &Case) -> Self {
        let width = case.heads_q() * case.head_dim;
        let head = self.k.len() / case.heads_kv;
        let first =
            |values: &[f32]| values.chunks(head).flat_map(|v| v[..to * case.head_dim].to_vec()).collect();
        Self { q: self.q[from * width..to * width].to_vec(), k: first(&self.k), v: first(&self.v) }
    }
}

#[derive(Debug, PartialEq)]
pub struct Outputs {
    output: Vec<u16>,
    lse: Vec<u32>,
}

impl Case {
    fn is_f16(&self) -> bool {
        self.kernel.contains("_f16_")
    }

    fn bits(&self, value: f64) -> u16 {
        if self.is_f16() { to_f16(value as f32) } else { to_bf16(value as f32) }
    }

    fn value(&self, bits: u16) -> f64 {
        if self.is_f16() { from_f16(bits).into() } else { from_bf16(bits).into() }
    }

    fn wide(&self, bits: &[u16]) -> Vec<f64> {
        bits.iter().map(|b| self.value(*b)).collect()
    }

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

    fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.new).sum::<usize>() + self.padding
    }

    fn cache_scales(&self) -> [Vec<f32>; 2] {
        let scale = |base: f32| (0..self.heads_kv).map(|h| base + h as f32 * 0.25).collect();
        [scale(0.5), scale(1.5)]
    }

    fn content(&self, row: Row) -> Content {
        let mut prng = Prng::new(row.seed);
        let (q_scale, k_scale) = if self.data == Data::Huge { (300.0, 30.0) } else { (1.0, 1.0) };
        let queries = row.new * self.heads_q() * self.head_dim;
        let q = (0..queries).map(|_| self.bits(prng.normal() * q_scale)).collect();
        let cells = self.heads_kv * row.length * self.head_dim;
        let mut draw = |scale: f64| (0..cells).map(|_| (prng.normal() * scale) as f32).collect::<Vec<_>>();
        let (mut k, v) = (draw(k_scale), draw(1.0));
        for head in k.chunks_mut((row.length * self.head_dim).max(1)) {
            if self.data == Data::EqualKeys {
                let (first, rest) = head.split_at_mut(self.head_dim);
                rest.chunks_mut(self.head_dim).for_each(|key| key.copy_from_slice(first));
            }
            if self.data == Data::Falling {
                for (at, key) in head.chunks_mut(self.head_dim).enumerate() {
                    key.iter_mut()
                        .for_each(|x| *x *= 1.0 + 12.0 * (row.length - at) as f32 / row.length as f32);
                }
            }
        }
        Content { q, k, v }
    }

    /// Lays the rows out in pages, NaN wherever nothing is; the rounded values go back into `contents`.
    fn lay_out(&self, contents: &mut [Content]) -> (Vec<u8>, Vec<u32>, usize) {
        let pages_of = |row: &Row| row.length.div_ceil(self.page_size());
        let total: usize = self.rows.iter().map(pages_of).sum();
        let stride = self.rows.iter().map(pages_of).max().unwrap_or(0) + 1;
        let mut free: Vec<u32> = (0..total as u32 + 2).collect();
        let mut prng = Prng::new(self.pages_seed);
        for at in (1..free.len()).rev() {
            free.swap(at, prng.below(at as u64 + 1) as usize);
        }
        let mut pool = poisoned(free.len() * self.page_elements() * 2);
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
                        let bits = self.bits(f64::from(*value / scale));
                        pool[2 * (to + i)..][..2].copy_from_slice(&bits.to_ne_bytes());
                        *value = self.value(bits) as f32 * scale;
                    }
                }
            }
        }
        (pool, tables, stride)
    }

    /// The pool as `fb_prefill_tensor` describes it.
    fn map(&self, base: u64, pages: usize) -> [u64; 16] {
        let [dim, page_size, heads] = [self.head_dim, self.page_size(), self.heads_kv].map(|n| n as u32);
        let stride = self.page_elements() as u64;
        let PageTensor { dims, strides, tile } = PageTensor::new(dim, page_size, heads, stride, pages as u32);
        tensor_map(base, strides, dims, tile)
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Outputs, Faults> {
        self.run_with(variant, order, self.rows.iter().map(|row| self.content(*row)).collect())
    }

    fn run_with(
        &self,
        variant: Variant,
        order: Order,
        mut contents: Vec<Content>,
    ) -> Result<Outputs, Faults> {
        let (pool, tables, stride) = self.lay_out(&mut contents);
        let width = self.heads_q() * self.head_dim;
        let q_stride = width + self.gap;
        let mut q = vec![POISON; self.tokens() * q_stride];
        let rows = contents.iter().flat_map(|content| content.q.chunks(width));
        q.chunks_mut(q_stride).zip(rows).for_each(|(to, from)| to[..width].copy_from_slice(from));
        let mut q_from = vec![0_u32];
        self.rows.iter().for_each(|row| q_from.push(q_from.last().unwrap() + row.new as u32));
        let lengths: Vec<u32> = self.rows.iter().map(|row| row.length as u32).collect();
        let [k_scale, v_scale] = self.cache_scales();
        let heads = self.tokens() * self.heads_q();
        let (mut output, mut lse) = (vec![POISON; heads * self.head_dim], vec![f32::NAN; heads]);
        let tiles_max = (self.tokens() * self.group).div_ceil(TILE as usize) + self.rows.len() + 1;
        let mut tile_from = vec![u32::MAX; self.rows.len() + 2];
        let mut tiles = vec![u32::MAX; tiles_max * 4];
        let (mut tile_count, mut overflow) = ([u32::MAX], [u32::MAX]);
        let pages = pool.len() / 2 / self.page_elements();
        let mut memory = Memory::new();
        let prefill = Prefill {
            pool: Pool {
                pages: memory.read(&pool),
                page_stride: self.page_elements() as i64,
                page_shift: self.page_shift,
                heads_kv: self.heads_kv as u32,
                k_scale: if self.scales { memory.read(&k_scale) } else { 0 },
                v_scale: if self.scales { memory.read(&v_scale) } else { 0 },
            },
            q: memory.read(&q),
            output: memory.write(&mut output),
            lse: memory.write(&mut lse),
            q_from: memory.read(&q_from),
            lengths: memory.read(&lengths),
            tables: memory.read(&tables),
            tile_from: memory.write(&mut tile_from),
            tiles: memory.write(&mut tiles),
            tile_count: memory.write(&mut tile_count),
            overflow: memory.write(&mut overflow),
            q_stride: q_stride as i64,
            table_stride: stride as i64,
            rows: self.rows.len() as u32,
            tokens: self.tokens() as u32,
            heads_q: self.heads_q() as u32,
            tile: TILE,
            tiles_max: tiles_max as u32,
            scale: self.scale(),
        };
        let params = PrefillTensor {
            map: self.map(prefill.pool.pages, pages),
            prefill,
            page_count: pages as u32,
            reserved: [0; 7],
        };
        Kernel::find(Variant::Real, "prefill_plan").launch(1, &prefill, &memory, order)?;
        Kernel::find(variant, self.kernel).launch(self.ctas, &params, &memory, order)?;
        Ok(Outputs { output, lse: lse.iter().map(|x| x.to_bits()).collect() })
    }

    /// One head of one query, in `f64`: the output, the logarithm of the sum, and the largest logit's size.
    fn reference(&self, row: Row, content: &Content, query: usize, head: usize) -> (Vec<f64>, f64, f64) {
        let (dim, kv) = (self.head_dim, head / self.group);
        let q = self.wide(&content.q[(query * self.heads_q() + head) * dim..][..dim]);
        let seen = (row.length + query + 1).saturating_sub(row.new);
        let of = |values: &[f32], token: usize| -> Vec<f64> {
            values[(kv * row.length + token) * dim..][..dim].iter().map(|x| f64::from(*x)).collect()
        };
        let logit = |token| {
            q.iter().zip(&of(&content.k, token)).map(|(q, k)| q * k).sum::<f64>() * f64::from(self.scale())
        };
        let logits: Vec<f64> = (0..seen).map(logit).collect();
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
        let [frobenius, worst] = if self.is_f16() { [6e-4, 3e-3] } else { [4e-3, 1.6e-2] };
        let mut token = 0;
        for (at, (row, content)) in self.rows.iter().zip(&contents).enumerate() {
            for query in 0..row.new {
                for head in 0..self.heads_q() {
                    let what = format!("row {at} ({row:?}), query {query}, head {head}");
                    let index = token * self.heads_q() + head;
                    let got = self.wide(&outputs.output[index * self.head_dim..][..self.head_dim]);
                    let (want, lse, largest) = self.reference(*row, content, query, head);
                    // A logit's own error in f32 grows with it, and a weight's with that.
                    let slack = 1e-7 * largest;
                    let bounds = Bounds { frobenius: frobenius + slack, largest: worst + slack };
                    close(&what, &got, &want, bounds)?;
                    let got = f64::from(f32::from_bits(outputs.lse[index]));
                    let same = got == lse || (got - lse).abs() <= 1e-3 + 1e-6 * largest;
                    if !same {
                        return Err(format!("{what}: lse {got}, not {lse}"));
                    }
                }
                token += 1;
            }
        }
        let padding = &outputs.output[token * self.heads_q() * self.head_dim..];
        if padding.iter().any(|bits| *bits != 0) {
            return Err("padding is not zero".into());
        }
        Ok(())
    }

    fn passes(&self, order: Order) {
        let outputs =
            self.run(Variant::Real, order).unwrap_or_else(|faults| panic!("{self:?}, {order:?}: {faults}"));
        self.check(&outputs).unwrap_or_else(|wrong| panic!("{self:?}, {order:?}: {wrong}"));
    }
}

/// Rows of (new, cached) tokens, each with content of its own.
fn rows(list: &[(usize, usize)]) -> Vec<Row> {
    list.iter().enumerate().map(|(at, &(new, length))| Row { new, length, seed: 100 + at as u64 }).collect()
}

fn base() -> Case {
    Case {
        kernel: "prefill_hopper_bf16_d128",
        head_dim: 128,
        heads_kv: 2,
        group: 4,
        page_shift: 4,
        rows: rows(&[(5, 5), (0, 9), (40, 300), (1, 17), (3, 2)]),
        padding: 0,
        gap: 0,
        ctas: 3,
        data: Data::Normal,
        scales: false,
        pages_seed: 1,
    }
}

/// Few, but enough for each seeded bug to show.
pub fn faulty_cases() -> Vec<Case> {
    vec![base(), Case { heads_kv: 1, rows: rows(&[(20, 700)]), ctas: 1, ..base() }]
}

/// Every path of the kernels, on few tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case { rows: vec![], ..base() },
        Case { rows: vec![], padding: 5, ..base() },
        Case { rows: rows(&[(0, 0), (0, 33)]), ..base() },
        Case { padding: 70, gap: 8, ..base() },
        Case { scales: true, ..base() },
        Case { head_dim: 64, ..base() },
    ];
    for (heads_kv, group, page_shift) in
        [(1, 1, 4), (3, 2, 5), (1, 3, 6), (2, 5, 4), (1, 7, 5), (1, 8, 6), (1, 12, 4), (1, 16, 5)]
    {
        let rows = rows(&[(7, 129), (20, 20), (2, 260)]);
        cases.push(Case { heads_kv, group, page_shift, rows, ctas: 2, ..base() });
    }
    for new in [127, 128, 129] {
        cases.push(Case { heads_kv: 1, group: 1, page_shift: 6, rows: rows(&[(new, new + 1)]), ..base() });
    }
    for data in [Data::EqualKeys, Data::Huge, Data::Falling] {
        cases.push(Case { heads_kv: 1, data, rows: rows(&[(33, 333), (1, 128)]), ..base() });
    }
    cases
}

/// All that take this head dimension.
fn kernels(head_dim: usize) -> Vec<&'static str> {
    let kernels: Vec<_> = Kernel::all(Variant::Real).map(|kernel| kernel.name()).collect();
    let (own, of) = ("prefill_hopper_", format!("_d{head_dim}"));
    let found: Vec<_> =
        kernels.into_iter().filter(|name| name.starts_with(own) && name.contains(&of)).collect();
    assert!(!found.is_empty());
    found
}

#[test]
fn attention_is_within_its_bounds() {
    for (at, case) in cases().into_iter().enumerate() {
        for kernel in kernels(case.head_dim) {
            Case { kernel, ..case.clone() }.passes(ORDERS[at % ORDERS.len()]);
        }
    }
}

#[test]
fn every_order_of_threads_and_copies_yields_the_same_bits() {
    for head_dim in [64, 128] {
        for kernel in kernels(head_dim) {
            let case = Case { kernel, head_dim, heads_kv: 1, ..base() };
            let first = case.run(Variant::Real, Order::Forward).unwrap();
            case.check(&first).unwrap();
            for order in ORDERS {
                let again = case
                    .run(Variant::Real, order)
                    .unwrap_or_else(|faults| panic!("{case:?}, {order:?}: {faults}"));
                assert_eq!(again, first, "{case:?}, {order:?}");
            }
        }
    }
}

/// A chunk's queries get the bits that they get in a prompt at once, alone or among others.
#[test]
fn chunks_and_neighbours_change_no_bit() {
    let whole_row = Row { new: 200, length: 200, seed: 9 };
    for kernel in kernels(128) {
        let whole = Case { kernel, heads_kv: 1, group: 3, rows: vec![whole_row], ctas: 2, ..base() };
        let at_once = whole.run(Variant::Real, Order::Forward).unwrap();
        let width = whole.heads_q() * whole.head_dim;
        let content = whole.content(whole_row);
        for (from, to) in [(0, 37), (37, 130), (130, 200)] {
            let case = Case {
                rows: vec![Row { new: to - from, length: to, seed: 9 }],
                pages_seed: 5,
                ..whole.clone()
            };
            let part =
                case.run_with(Variant::Real, Order::Reverse, vec![content.part(from, to, &whole)]).unwrap();
            assert_eq!(part.output, at_once.output[from * width..to * width], "{kernel}: {from}..{to}");
        }
        let others = [Row { new: 30, length: 90, seed: 1 }, whole_row, Row { new: 5, length: 5, seed: 2 }];
        let batch = Case { rows: others.to_vec(), page_shift: 5, ..whole.clone() };
        let among = batch.run(Variant::Real, Order::Shuffled(3)).unwrap();
        assert_eq!(among.output[30 * width..230 * width], at_once.output, "{kernel}");
    }
}
