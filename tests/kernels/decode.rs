//! Attention of one query per row: plan, decode and merge, as an executor runs them.

use crate::ORDERS;
use crate::attention::{Cache, Content, Data, GROUPS, HEAD_DIMS, Row, SHAPE, Shape, TYPES, hard_data, rows};
use crate::device::params::Decode;
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::numbers::{Bounds, POISON, Stored, close};
use flyball_simt::core::{chunk_count, chunk_tokens};

#[derive(Clone, Debug)]
pub struct Case {
    pub shape: Shape,
    pub rows: Vec<Row>,
    pub chunk: u32,
    /// Equal shares of all tokens, at most; 0: chunks that each row's length sets.
    pub lists_max: u32,
    /// Chunks of a row, at most; 0: any number.
    pub row_chunks_max: u32,
    /// Whether the last chunk of a row to be done merges them all, in place of a kernel of its own.
    pub in_place: bool,
    pub ctas: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    output: Vec<u16>,
    lse: Vec<f32>,
}

impl Outputs {
    /// A row's, by bits, so that NaN equals itself.
    pub fn bits(&self, row: usize, shape: &Shape) -> (Vec<u16>, Vec<u32>) {
        let (heads, dim) = (shape.heads_q(), shape.head_dim);
        let lse = self.lse[row * heads..][..heads].iter().map(|x| x.to_bits()).collect();
        (self.output[row * heads * dim..][..heads * dim].to_vec(), lse)
    }
}

impl Case {
    fn chunks(&self, length: u32) -> u32 {
        chunk_count(length, chunk_tokens(length, self.chunk, self.row_chunks_max))
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Outputs, Faults> {
        self.run_on(&mut self.shape.contents(&self.rows), variant, order)
    }

    /// On these contents, which are rounded.
    fn run_on(&self, contents: &mut [Content], variant: Variant, order: Order) -> Result<Outputs, Faults> {
        let lengths: Vec<usize> = self.rows.iter().map(|row| row.length).collect();
        let cache = self.shape.lay_out(&lengths, contents);
        self.run_cached(contents, &cache, variant, order)
    }

    fn run_cached(
        &self,
        contents: &[Content],
        cache: &Cache,
        variant: Variant,
        order: Order,
    ) -> Result<Outputs, Faults> {
        let shape = &self.shape;
        let (heads, dim) = (shape.heads_q(), shape.head_dim);
        // As a layer projects them, K and V behind a row's queries; at an address that 16 divides but not 32.
        let q_stride = heads * dim + 2 * shape.heads_kv * dim;
        let mut q = vec![POISON; 16 + self.rows.len() * q_stride];
        let skew = 8 - q.as_ptr().addr() / 16 % 2 * 8;
        for (row, content) in contents.iter().enumerate() {
            q[skew + row * q_stride..][..heads * dim].copy_from_slice(&content.q);
        }
        let lengths: Vec<u32> = self.rows.iter().map(|row| row.length as u32).collect();
        let heads = self.rows.len() * heads;
        let mut outputs = Outputs { output: vec![POISON; heads * dim], lse: vec![f32::NAN; heads] };
        let chunks: u32 = match self.lists_max {
            0 => lengths.iter().map(|length| self.chunks(*length)).sum(),
            lists => lengths.len() as u32 + lists,
        };
        let mut lists = vec![u32::MAX; self.lists_max as usize * 8];
        let mut chunk_from = vec![u32::MAX; self.rows.len() + 1];
        let mut listed = vec![u32::MAX; chunks as usize * 4];
        let mut arrived = vec![u32::MAX; self.rows.len() * shape.heads_kv];
        let mut overflow = [u32::MAX];
        let slots = chunks as usize * shape.heads_q();
        let (mut partial, mut partial_of) = (vec![f32::NAN; slots * dim], vec![f32::NAN; slots * 2]);
        let mut memory = Memory::new();
        let params = Decode {
            pool: shape.pool(cache, &mut memory),
            q: memory.read(&q) + (skew * 2) as u64,
            output: memory.write(&mut outputs.output),
            lengths: memory.read(&lengths),
            tables: memory.read(&cache.tables),
            chunk_from: memory.write(&mut chunk_from),
            chunks: memory.write(&mut listed),
            lists: memory.write(&mut lists),
            partial: memory.write(&mut partial),
            partial_of: memory.write(&mut partial_of),
            lse: memory.write(&mut outputs.lse),
            arrived: if self.in_place { memory.write(&mut arrived) } else { 0 },
            overflow: memory.write(&mut overflow),
            q_stride: q_stride as i64,
            table_stride: cache.table_stride as i64,
            rows: self.rows.len() as u32,
            heads_q: shape.heads_q() as u32,
            scale: shape.scale(),
            chunk: self.chunk,
            chunks_max: chunks,
            row_chunks_max: self.row_chunks_max,
            lists_max: self.lists_max,
            reserved: 0,
        };
        Kernel::find(variant, "decode_plan").launch(1, &params, &memory, order)?;
        Kernel::find(variant, &shape.kernel("decode")).launch(self.ctas, &params, &memory, order)?;
        if !self.in_place {
            let merge = format!("decode_merge_{}_d{dim}", shape.compute.name());
            Kernel::find(variant, &merge).launch(self.ctas, &params, &memory, order)?;
        }
        drop(memory);
        assert!(!self.in_place || arrived.iter().all(|count| *count == 0), "ready for the next layer");
        assert_eq!(overflow[0], 0);
        assert!(
            *chunk_from.last().unwrap() <= chunks
                && (self.lists_max > 0 || chunk_from.last() == Some(&chunks))
        );
        Ok(outputs)
    }

    pub fn check(&self, outputs: &Outputs) -> Result<(), String> {
        let mut contents = self.shape.contents(&self.rows);
        let lengths: Vec<usize> = self.rows.iter().map(|row| row.length).collect();
        self.shape.lay_out(&lengths, &mut contents);
        self.check_on(&contents, outputs)
    }

    fn check_on(&self, contents: &[Content], outputs: &Outputs) -> Result<(), String> {
        let (heads, dim) = (self.shape.heads_q(), self.shape.head_dim);
        for (at, (row, content)) in self.rows.iter().zip(contents).enumerate() {
            for head in 0..heads {
                let what = format!("row {at} ({} tokens), head {head}", row.length);
                let index = at * heads + head;
                let expected = self.shape.reference(content, 0, head, row.length);
                self.shape.check(
                    &what,
                    &outputs.output[index * dim..][..dim],
                    outputs.lse[index],
                    &expected,
                )?;
            }
        }
        Ok(())
    }
}

/// The output and the logarithms of the sums of one row.
pub fn last_token(shape: Shape, row: Row) -> (Vec<u16>, Vec<f32>) {
    let case = Case { shape, rows: vec![row], ..base() };
    let outputs = case.run(Variant::Real, Order::Forward).unwrap();
    (outputs.output, outputs.lse)
}

pub fn base() -> Case {
    Case {
        shape: SHAPE,
        rows: rows(&[1, 0, 15, 16, 17, 63, 64, 65, 130]),
        chunk: 128,
        lists_max: 0,
        row_chunks_max: 0,
        in_place: false,
        ctas: 5,
    }
}

/// Every path of the kernels that a build for seeded bugs has, on few tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![Case { rows: vec![], ..base() }, Case { rows: rows(&[0, 0, 0]), ..base() }];
    for stored in [Stored::Bf16, Stored::E4m3] {
        let typed = Shape { stored, scales: stored == Stored::E4m3, ..SHAPE };
        for head_dim in [64, 128] {
            for page_shift in [4, 5, 6] {
                cases.push(Case { shape: Shape { head_dim, page_shift, ..typed }, ..base() });
            }
        }
        for (heads_kv, group) in GROUPS {
            let shape = Shape { head_dim: 64, heads_kv, group, ..typed };
            cases.push(Case { shape, in_place: group > 3, chunk: 64, rows: rows(&[33, 70]), ..base() });
        }
        for data in hard_data(stored) {
            let shape = Shape { head_dim: 64, heads_kv: 1, data, ..typed };
            cases.push(Case { shape, rows: rows(&[1, 31, 129, 300]), ..base() });
        }
    }
    cases
}

/// Every kernel of the table.
fn all_types() -> Vec<Case> {
    let mut cases = vec![];
    for (compute, stored) in TYPES {
        for head_dim in HEAD_DIMS {
            let shape =
                Shape { compute, stored, head_dim, heads_kv: 1, scales: stored == Stored::E4m3, ..SHAPE };
            cases.push(Case { shape, rows: rows(&[1, 0, 47, 200]), ..base() });
            cases.push(Case { shape, rows: rows(&[1, 0, 47, 200]), in_place: true, chunk: 64, ..base() });
        }
    }
    cases
}

#[test]
fn attention_is_within_its_bounds_and_the_same_in_every_order() {
    for case in cases().into_iter().chain(all_types()) {
        let first = case.run(Variant::Real, Order::Forward).unwrap_or_else(|f| panic!("{case:?}: {f}"));
        case.check(&first).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        for order in ORDERS {
            let again = case.run(Variant::Real, order).unwrap_or_else(|f| panic!("{case:?}, {order:?}: {f}"));
            for row in 0..case.rows.len() {
                assert_eq!(again.bits(row, &case.shape), first.bits(row, &case.shape), "{case:?}, {order:?}");
            }
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_batch() {
    for (compute, stored) in TYPES {
        let shape = Shape { compute, stored, ..SHAPE };
        let batch = Case { shape, rows: rows(&[5, 200, 0, 64, 129, 300]), chunk: 64, ..base() };
        let together = batch.run(Variant::Real, Order::Forward).unwrap();
        for (at, row) in batch.rows.iter().enumerate() {
            let shape = Shape { pages_seed: 77, ..shape };
            let case = Case { shape, rows: vec![*row], ctas: 1, ..batch.clone() };
            let alone = case.run(Variant::Real, Order::Reverse).unwrap();
            assert_eq!(alone.bits(0, &shape), together.bits(at, &shape), "{stored:?}, row {at}");
        }
    }
}

#[test]
fn where_its_pages_lie_changes_no_bit() {
    let case = Case { rows: rows(&[100, 31, 260]), ..base() };
    let first = case.run(Variant::Real, Order::Forward).unwrap();
    for pages_seed in 2..5 {
        let shape = Shape { pages_seed, ..SHAPE };
        assert_eq!(Case { shape, ..case.clone() }.run(Variant::Real, Order::Forward).unwrap(), first);
    }
    for page_shift in [5, 6] {
        let shape = Shape { page_shift, ..SHAPE };
        let larger = Case { shape, ..case.clone() }.run(Variant::Real, Order::Forward).unwrap();
        assert_eq!(larger, first, "nor does the size of the pages");
    }
}

#[test]
fn rows_may_share_the_pages_of_a_prefix() {
    let [short, long] = [100, 130].map(|length| Row { length, new: 1, seed: 9 });
    let case = Case { rows: vec![short, long], ..base() };
    let mut contents = SHAPE.contents(&case.rows);
    let apart = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    let mut cache = SHAPE.lay_out(&[100, 130], &mut contents);
    // Six whole pages of 16 tokens.
    cache.tables.copy_within(..6, cache.table_stride);
    assert_eq!(case.run_cached(&contents, &cache, Variant::Real, Order::Reverse).unwrap(), apart);
}

#[test]
fn a_pool_may_have_more_than_2_to_the_31_elements() {
    let near = Shape { stored: Stored::E4m3, head_dim: 64, ..SHAPE };
    let far = Shape { page_gap: 1 << 29, ..near };
    let case = Case { shape: near, rows: rows(&[40, 17]), ..base() };
    let want = case.run(Variant::Real, Order::Forward).unwrap();
    assert_eq!(Case { shape: far, ..case }.run(Variant::Real, Order::Forward).unwrap(), want);
}

#[test]
fn the_last_chunk_to_be_done_merges_as_a_kernel_of_its_own_does() {
    for group in [1, 4, 7, 16] {
        let shape = Shape { group, head_dim: 64, ..SHAPE };
        let case = Case { shape, rows: rows(&[700, 0, 64, 130, 2300]), chunk: 64, ..base() };
        let apart = case.run(Variant::Real, Order::Forward).unwrap();
        for ctas in [1, 7, 200] {
            let case = Case { in_place: true, ctas, ..case.clone() };
            assert_eq!(case.run(Variant::Real, Order::Shuffled(1)).unwrap(), apart, "{group}, {ctas} ctas");
        }
    }
}

#[test]
fn equal_shares_of_all_tokens_are_within_their_bounds() {
    let batches: [&[usize]; 5] =
        [&[], &[0, 0], &[1000], &[0, 64, 0, 64, 1, 0], &[700, 0, 3, 64, 129, 400, 1, 0]];
    for lengths in batches {
        for (lists_max, chunk, ctas) in [(1, 64, 4), (3, 64, 6), (7, 128, 3), (16, 64, 32)] {
            for in_place in [false, true] {
                let shape = Shape { head_dim: 64, ..SHAPE };
                let case = Case { shape, rows: rows(lengths), chunk, lists_max, in_place, ctas, ..base() };
                let outputs =
                    case.run(Variant::Real, Order::Shuffled(2)).unwrap_or_else(|f| panic!("{case:?}: {f}"));
                case.check(&outputs).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
            }
        }
    }
}

#[test]
fn shares_are_as_equal_as_blocks_of_64_tokens_allow() {
    let lengths = [700_u32, 0, 3, 64, 129, 400, 1];
    let (lists_max, blocks) = (5, 11 + 1 + 1 + 1 + 3 + 7 + 1);
    let mut chunk_from = [u32::MAX; 8];
    let mut chunks = [u32::MAX; 4 * (7 + 5)];
    let mut lists = [u32::MAX; 8 * 5];
    let mut overflow = [u32::MAX];
    let mut memory = Memory::new();
    let params = Decode {
        lengths: memory.read(&lengths),
        chunk_from: memory.write(&mut chunk_from),
        chunks: memory.write(&mut chunks),
        lists: memory.write(&mut lists),
        overflow: memory.write(&mut overflow),
        rows: 7,
        chunk: 64,
        chunks_max: 12,
        lists_max,
        ..Decode::default()
    };
    Kernel::find(Variant::Real, "decode_plan").launch(1, &params, &memory, Order::Forward).unwrap();
    drop(memory);
    assert_eq!((overflow[0], chunk_from[0]), (0, 0));
    let mut next = 0;
    for (at, list) in lists.chunks(8).enumerate() {
        assert_eq!(list[0], next, "list {at} begins where the one before ends");
        assert_eq!(list[4..], chunks[list[0] as usize * 4..][..4], "and says what its first chunk is");
        let of_list = chunks[list[0] as usize * 4..list[1] as usize * 4].chunks(4);
        let size: u32 = of_list.map(|chunk| (chunk[2] - chunk[1]).div_ceil(64).max(1)).sum();
        assert_eq!(size, blocks / lists_max, "list {at}");
        next = list[1];
    }
    assert_eq!(next, chunk_from[7]);
    for (row, length) in lengths.iter().enumerate() {
        let of_row = chunks[chunk_from[row] as usize * 4..chunk_from[row + 1] as usize * 4].chunks(4);
        let mut end = 0;
        for chunk in of_row.clone() {
            assert_eq!((chunk[0], chunk[1], chunk[3]), (row as u32, end, of_row.len() as u32));
            end = chunk[2];
        }
        assert_eq!(end, *length);
    }
}

#[test]
fn a_row_of_many_chunks_has_longer_ones() {
    let case = Case { rows: rows(&[600, 64, 130, 129]), chunk: 64, row_chunks_max: 2, ..base() };
    assert_eq!([600, 64, 130, 129].map(|length| case.chunks(length)), [2, 1, 2, 2]);
    let long = case.run(Variant::Real, Order::Forward).unwrap();
    case.check(&long).unwrap();
    for (at, row) in case.rows.iter().enumerate() {
        let alone = Case { rows: vec![*row], ..case.clone() }.run(Variant::Real, Order::Reverse).unwrap();
        assert_eq!(alone.bits(0, &SHAPE), long.bits(at, &SHAPE));
    }
}

#[test]
fn how_it_is_cut_changes_little() {
    let whole = Case { rows: rows(&[257, 500]), chunk: 512, ..base() };
    let first = whole.run(Variant::Real, Order::Forward).unwrap();
    for chunk in [64, 128, 256] {
        let cut = Case { chunk, ..whole.clone() }.run(Variant::Real, Order::Forward).unwrap();
        // Each is one rounding to bf16 away from nearly the same sum, under maxima of its own for P.
        let bounds = Bounds { frobenius: 4e-3, largest: 8e-3 };
        close("output", &SHAPE.compute.wide(&cut.output), &SHAPE.compute.wide(&first.output), bounds)
            .unwrap();
        for (cut, whole) in cut.lse.iter().zip(&first.lse) {
            assert!((cut - whole).abs() <= 1e-5, "{cut} and {whole}");
        }
    }
}

/// Every logit grows by the same: no weight changes.
#[test]
fn keys_shifted_by_a_constant_change_the_sum_alone() {
    let shape = Shape { data: Data::Coarse, ..SHAPE };
    let case = Case { shape, rows: rows(&[70, 200]), ..base() };
    let mut contents = shape.contents(&case.rows);
    let first = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    let shift = |i: usize| (i % 9) as f32 * 0.25 - 1.0;
    for content in &mut contents {
        content
            .k
            .chunks_mut(shape.head_dim)
            .for_each(|k| k.iter_mut().enumerate().for_each(|(i, x)| *x += shift(i)));
    }
    let moved = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    let bounds = Bounds { frobenius: 4e-3, largest: 1.6e-2 };
    close("output", &shape.compute.wide(&moved.output), &shape.compute.wide(&first.output), bounds).unwrap();
    for (row, content) in contents.iter().enumerate() {
        for head in 0..shape.heads_q() {
            let q = shape.compute.wide(&content.q[head * shape.head_dim..][..shape.head_dim]);
            let more: f64 = q.iter().enumerate().map(|(i, q)| q * f64::from(shift(i))).sum();
            let at = row * shape.heads_q() + head;
            let off = f64::from(moved.lse[at] - first.lse[at]) - more * f64::from(shape.scale());
            assert!(off.abs() <= 1e-4, "row {row}, head {head}: off by {off}");
        }
    }
}

#[test]
fn values_that_are_all_alike_come_out_as_they_are() {
    for (compute, stored) in TYPES {
        let shape = Shape { compute, stored, head_dim: 64, ..SHAPE };
        let case = Case { shape, rows: rows(&[3, 90, 300]), ..base() };
        let mut contents = shape.contents(&case.rows);
        contents.iter_mut().for_each(|content| content.v.fill(1.5));
        let outputs = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
        let worst =
            shape.compute.wide(&outputs.output).iter().fold(0f64, |worst, x| worst.max((x - 1.5).abs()));
        assert!(worst <= 1.5 * shape.bounds().0.frobenius, "{compute:?}, {stored:?}: off by {worst}");
    }
}

#[test]
fn a_cache_twice_over_adds_ln_2_to_the_sum() {
    let case = Case { rows: rows(&[64, 128]), ..base() };
    let mut contents = SHAPE.contents(&case.rows);
    let first = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    for content in &mut contents {
        content.k.extend_from_within(..);
        content.v.extend_from_within(..);
    }
    let double = Case { rows: rows(&[128, 256]), ..case };
    let second = double.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    let bounds = Bounds { frobenius: 4e-3, largest: 1.6e-2 };
    close("output", &SHAPE.compute.wide(&second.output), &SHAPE.compute.wide(&first.output), bounds).unwrap();
    for (second, first) in second.lse.iter().zip(&first.lse) {
        assert!((second - first - std::f32::consts::LN_2).abs() <= 1e-5, "{second} after {first}");
    }
}

#[test]
fn a_plan_that_does_not_fit_runs_nothing_and_says_so() {
    let lengths = [300_u32, 10, 700];
    let mut chunk_from = [7_u32; 4];
    let mut chunks = [7_u32; 5 * 4];
    let mut overflow = [7_u32];
    let mut memory = Memory::new();
    let params = Decode {
        lengths: memory.read(&lengths),
        chunk_from: memory.write(&mut chunk_from),
        chunks: memory.write(&mut chunks),
        overflow: memory.write(&mut overflow),
        rows: 3,
        chunk: 256,
        chunks_max: 5,
        ..Decode::default()
    };
    Kernel::find(Variant::Real, "decode_plan").launch(1, &params, &memory, Order::Forward).unwrap();
    assert_eq!((chunk_from, overflow), ([0; 4], [1]));
}
