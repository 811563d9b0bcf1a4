//! Attention of new tokens over the paged cache: plan and tiles, as an executor runs them.

use crate::ORDERS;
use crate::attention::{Content, Data, GROUPS, HEAD_DIMS, Row, SHAPE, Shape, TYPES, hard_data};
use crate::decode;
use crate::device::params::{Pool, Prefill, PrefillTensor};
use crate::device::{Faults, Kernel, Memory, Order, Variant};
use crate::numbers::{POISON, Stored, close};

/// Packed rows per tile of these kernels.
const TILE: u32 = 128;

#[derive(Clone, Debug)]
pub struct Case {
    pub shape: Shape,
    pub rows: Vec<Row>,
    /// Tokens of the batch that belong to no row.
    pub padding: usize,
    pub tile: u32,
    pub ctas: u32,
    /// Whether the kernel of sm_90a runs, which copies by a tensor map.
    pub hopper: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    output: Vec<u16>,
    lse: Vec<f32>,
}

impl Outputs {
    /// Those of some tokens, by bits.
    pub fn bits(&self, tokens: std::ops::Range<usize>, shape: &Shape) -> (Vec<u16>, Vec<u32>) {
        let (heads, width) = (shape.heads_q(), shape.heads_q() * shape.head_dim);
        let lse = self.lse[tokens.start * heads..tokens.end * heads].iter().map(|x| x.to_bits()).collect();
        (self.output[tokens.start * width..tokens.end * width].to_vec(), lse)
    }
}

impl Case {
    fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.length).collect()
    }

    /// New tokens before each row.
    fn q_from(&self) -> Vec<u32> {
        let mut from = vec![0];
        self.rows.iter().for_each(|row| from.push(from.last().unwrap() + row.new as u32));
        from
    }

    pub fn run(&self, variant: Variant, order: Order) -> Result<Outputs, Faults> {
        self.run_on(&mut self.shape.contents(&self.rows), variant, order)
    }

    /// On these contents, which are rounded.
    fn run_on(&self, contents: &mut [Content], variant: Variant, order: Order) -> Result<Outputs, Faults> {
        let shape = &self.shape;
        let width = shape.heads_q() * shape.head_dim;
        let cache = shape.lay_out(&self.lengths(), contents);
        // As a layer projects them, K and V behind a token's queries; at an address that 16 divides but not 32.
        let q_stride = width + 2 * shape.heads_kv * shape.head_dim;
        let tokens = self.rows.iter().map(|row| row.new).sum::<usize>() + self.padding;
        let mut q = vec![POISON; 16 + tokens * q_stride];
        let skew = 8 - q.as_ptr().addr() / 16 % 2 * 8;
        let queries = contents.iter().flat_map(|content| content.q.chunks(width));
        for (token, query) in queries.enumerate() {
            q[skew + token * q_stride..][..width].copy_from_slice(query);
        }
        let (q_from, lengths) = (self.q_from(), self.lengths().iter().map(|x| *x as u32).collect::<Vec<_>>());
        let mut outputs =
            Outputs { output: vec![POISON; tokens * width], lse: vec![f32::NAN; tokens * shape.heads_q()] };
        let tiles_max = self.rows.len() + 1 + tokens * shape.group / self.tile as usize;
        let mut tile_from = vec![u32::MAX; self.rows.len() + 2];
        let mut tiles = vec![u32::MAX; tiles_max * 4];
        let (mut tile_count, mut overflow) = ([u32::MAX], [u32::MAX]);
        let mut memory = Memory::new();
        let params = Prefill {
            pool: shape.pool(&cache, &mut memory),
            q: memory.read(&q) + (skew * 2) as u64,
            output: memory.write(&mut outputs.output),
            lse: memory.write(&mut outputs.lse),
            q_from: memory.read(&q_from),
            lengths: memory.read(&lengths),
            tables: memory.read(&cache.tables),
            tile_from: memory.write(&mut tile_from),
            tiles: memory.write(&mut tiles),
            tile_count: memory.write(&mut tile_count),
            overflow: memory.write(&mut overflow),
            q_stride: q_stride as i64,
            table_stride: cache.table_stride as i64,
            rows: self.rows.len() as u32,
            tokens: tokens as u32,
            heads_q: shape.heads_q() as u32,
            tile: self.tile,
            tiles_max: tiles_max as u32,
            scale: shape.scale(),
        };
        Kernel::find(Variant::Real, "prefill_plan").launch(1, &params, &memory, order)?;
        if self.hopper {
            let params = PrefillTensor {
                map: shape.tensor(&cache, params.pool.pages),
                prefill: params,
                page_count: shape.page_count(&cache),
                reserved: [0; 7],
            };
            let kernel = Kernel::find(variant, &shape.kernel("prefill_hopper"));
            kernel.launch(self.ctas, &params, &memory, order)?;
        } else {
            let kernel = Kernel::find(variant, &shape.kernel("prefill"));
            kernel.launch(self.ctas, &params, &memory, order)?;
        }
        assert_eq!(overflow[0], 0);
        Ok(outputs)
    }

    pub fn check(&self, outputs: &Outputs) -> Result<(), String> {
        let mut contents = self.shape.contents(&self.rows);
        self.shape.lay_out(&self.lengths(), &mut contents);
        let (heads, dim) = (self.shape.heads_q(), self.shape.head_dim);
        // On sm_90a a maximum may lag behind, and the largest weight, else 1, is rounded as the others are.
        let slack = if self.hopper { self.shape.compute.half_step().0 / 4.0 } else { 0.0 };
        let mut token = 0;
        for (at, (row, content)) in self.rows.iter().zip(&contents).enumerate() {
            for query in 0..row.new {
                let keys = (row.length + query + 1).saturating_sub(row.new);
                for head in 0..heads {
                    let what =
                        format!("row {at}, token {query} of {} sees {keys} keys, head {head}", row.new);
                    let expected = self.shape.reference(content, query, head, keys);
                    let index = token * heads + head;
                    let output = &outputs.output[index * dim..][..dim];
                    self.shape.check_within(slack, &what, output, outputs.lse[index], &expected)?;
                }
                token += 1;
            }
        }
        let rest = &outputs.output[token * heads * dim..];
        let empty = outputs.lse[token * heads..].iter().all(|lse| *lse == f32::NEG_INFINITY);
        if rest.len() != self.padding * heads * dim || rest.iter().any(|x| *x != 0) || !empty {
            return Err("padding is not zeros".into());
        }
        Ok(())
    }
}

pub fn row(new: usize, length: usize, seed: u64) -> Row {
    Row { length, new, seed }
}

pub fn base() -> Case {
    // Alone, after a prefix that ends inside a page, across tiles of keys, none, and more than the cache holds.
    let rows =
        vec![row(5, 5, 1), row(1, 40, 2), row(33, 100, 3), row(0, 20, 4), row(64, 64, 5), row(7, 3, 6)];
    Case { shape: SHAPE, rows, padding: 3, tile: TILE, ctas: 5, hopper: false }
}

/// Every path of the kernels that a build for seeded bugs has, on few tokens.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case { rows: vec![], padding: 0, ..base() },
        Case { rows: vec![], ..base() },
        Case { rows: vec![row(0, 0, 1), row(0, 9, 2)], ..base() },
        Case { tile: 64, ..base() },
    ];
    for stored in [Stored::Bf16, Stored::E4m3] {
        let typed = Shape { stored, scales: stored == Stored::E4m3, ..SHAPE };
        for head_dim in [64, 128] {
            for page_shift in [4, 5, 6] {
                cases.push(Case { shape: Shape { head_dim, page_shift, ..typed }, ..base() });
            }
        }
        for (heads_kv, group) in GROUPS {
            let shape = Shape { head_dim: 64, heads_kv, group, ..typed };
            cases.push(Case { shape, rows: vec![row(19, 70, 1), row(2, 2, 2)], ..base() });
        }
        for data in hard_data(stored) {
            let shape = Shape { head_dim: 64, heads_kv: 1, data, ..typed };
            cases.push(Case { shape, rows: vec![row(3, 130, 1), row(40, 40, 2)], ..base() });
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
            cases.push(Case { shape, rows: vec![row(40, 90, 1), row(3, 3, 2)], ..base() });
        }
    }
    cases
}

#[test]
fn attention_is_within_its_bounds_and_the_same_in_every_order() {
    for case in cases().into_iter().chain(all_types()) {
        let first = case.run(Variant::Real, Order::Forward).unwrap_or_else(|f| panic!("{case:?}: {f}"));
        case.check(&first).unwrap_or_else(|wrong| panic!("{case:?}: {wrong}"));
        for order in [Order::Reverse, Order::Shuffled(1)] {
            let again = case.run(Variant::Real, order).unwrap_or_else(|f| panic!("{case:?}, {order:?}: {f}"));
            let tokens = 0..again.lse.len() / case.shape.heads_q();
            assert_eq!(
                again.bits(tokens.clone(), &case.shape),
                first.bits(tokens, &case.shape),
                "{case:?}, {order:?}"
            );
        }
    }
}

#[test]
fn a_row_alone_has_the_bits_that_it_has_in_a_batch() {
    for (compute, stored) in TYPES {
        let shape = Shape { compute, stored, ..SHAPE };
        let batch = Case { shape, ..base() };
        let together = batch.run(Variant::Real, Order::Forward).unwrap();
        let q_from = batch.q_from();
        for (at, row) in batch.rows.iter().enumerate() {
            let shape = Shape { pages_seed: 77, page_shift: 5, ..shape };
            let case = Case { shape, rows: vec![*row], padding: 0, ctas: 1, ..batch.clone() };
            let alone = case.run(Variant::Real, Order::Reverse).unwrap();
            let tokens = q_from[at] as usize..q_from[at + 1] as usize;
            assert_eq!(alone.bits(0..row.new, &shape), together.bits(tokens, &shape), "{stored:?}, row {at}");
        }
    }
}

#[test]
fn a_pool_may_have_more_than_2_to_the_31_elements() {
    let near = Shape { stored: Stored::E4m3, head_dim: 64, ..SHAPE };
    let far = Shape { page_gap: 1 << 29, ..near };
    let case = Case { shape: near, rows: vec![row(20, 40, 1), row(3, 17, 2)], ..base() };
    let want = case.run(Variant::Real, Order::Forward).unwrap();
    assert_eq!(Case { shape: far, ..case }.run(Variant::Real, Order::Forward).unwrap(), want);
}

#[test]
fn a_prompt_in_chunks_has_the_bits_that_it_has_whole() {
    let whole = Case { rows: vec![row(150, 150, 9)], padding: 0, ..base() };
    let first = whole.run(Variant::Real, Order::Forward).unwrap();
    let mut from = 0;
    for chunk in [1, 40, 64, 45] {
        let case = Case { rows: vec![row(chunk, from + chunk, 9)], ..whole.clone() };
        let part = case.run(Variant::Real, Order::Forward).unwrap();
        assert_eq!(part.bits(0..chunk, &SHAPE), first.bits(from..from + chunk, &SHAPE), "from {from} on");
        from += chunk;
    }
    assert_eq!(from, 150);
}

#[test]
fn values_that_are_all_alike_come_out_as_they_are() {
    for (compute, stored) in TYPES {
        let shape = Shape { compute, stored, head_dim: 64, ..SHAPE };
        let case = Case { shape, rows: vec![row(9, 150, 1)], padding: 0, ..base() };
        let mut contents = shape.contents(&case.rows);
        contents.iter_mut().for_each(|content| content.v.fill(1.5));
        let outputs = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
        let worst =
            shape.compute.wide(&outputs.output).iter().fold(0f64, |worst, x| worst.max((x - 1.5).abs()));
        assert!(worst <= 1.5 * shape.bounds().0.frobenius, "{compute:?}, {stored:?}: off by {worst}");
    }
}

/// Every logit grows by the same: no weight changes.
#[test]
fn keys_shifted_by_a_constant_change_the_sum_alone() {
    let shape = Shape { data: Data::Coarse, ..SHAPE };
    let case = Case { shape, rows: vec![row(20, 90, 1)], padding: 0, ..base() };
    let mut contents = shape.contents(&case.rows);
    let first = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    contents[0].k.iter_mut().enumerate().for_each(|(i, x)| *x += (i % 8) as f32 * 0.25 - 1.0);
    let moved = case.run_on(&mut contents, Variant::Real, Order::Forward).unwrap();
    let [got, want] = [&moved, &first].map(|outputs| shape.compute.wide(&outputs.output));
    close("output", &got, &want, shape.bounds().0).unwrap();
    for (index, (moved, first)) in moved.lse.iter().zip(&first.lse).enumerate() {
        let q = shape.compute.wide(&contents[0].q[index * shape.head_dim..][..shape.head_dim]);
        let more: f64 = q.iter().enumerate().map(|(i, q)| q * ((i % 8) as f64 * 0.25 - 1.0)).sum();
        let off = f64::from(moved - first) - more * f64::from(shape.scale());
        assert!(off.abs() <= 1e-4, "token and head {index}: off by {off}");
    }
}

/// The next token's attention by decode, and as the last of a prefill: sums in another order, the same result.
#[test]
fn decode_gives_what_a_row_of_prefill_gives() {
    for (compute, stored) in TYPES {
        let shape = Shape { compute, stored, ..SHAPE };
        let prompt = Case { shape, rows: vec![row(90, 90, 7)], padding: 0, ..base() };
        let all = prompt.run(Variant::Real, Order::Forward).unwrap();
        let width = shape.heads_q() * shape.head_dim;
        for token in [0, 15, 16, 63, 64, 89] {
            let (output, lse) = decode::last_token(shape, Row { length: token + 1, new: 1, seed: 7 });
            let [got, want] =
                [&output[..], &all.output[token * width..][..width]].map(|x| shape.compute.wide(x));
            close(&format!("{compute:?}, {stored:?}, token {token}"), &got, &want, shape.bounds().0).unwrap();
            let of_row = &all.lse[token * shape.heads_q()..][..shape.heads_q()];
            for (decoded, prefilled) in lse.iter().zip(of_row) {
                assert!((decoded - prefilled).abs() <= 1e-4, "lse {decoded} and {prefilled}");
            }
        }
    }
}

/// What the plan makes of rows of (new tokens, cached tokens), with `padding` tokens behind them.
struct Planned {
    tile_from: Vec<u32>,
    /// Row, tile of the row, the row's first token and its tokens; `u32::MAX` where nothing was written.
    tiles: Vec<[u32; 4]>,
    count: u32,
    overflow: u32,
}

fn planned(rows: &[(u32, u32)], padding: u32, group: u32, tile: u32, tiles_max: u32) -> Vec<Planned> {
    let mut q_from = vec![0_u32];
    rows.iter().for_each(|(new, _)| q_from.push(q_from.last().unwrap() + new));
    let lengths: Vec<u32> = rows.iter().map(|(_, length)| *length).collect();
    let plan = |order| {
        let mut tile_from = vec![u32::MAX; rows.len() + 2];
        let mut tiles = vec![u32::MAX; tiles_max as usize * 4];
        let (mut tile_count, mut overflow) = ([u32::MAX], [u32::MAX]);
        let mut memory = Memory::new();
        let params = Prefill {
            pool: Pool { heads_kv: 2, ..Pool::default() },
            q_from: memory.read(&q_from),
            lengths: memory.read(&lengths),
            tile_from: memory.write(&mut tile_from),
            tiles: memory.write(&mut tiles),
            tile_count: memory.write(&mut tile_count),
            overflow: memory.write(&mut overflow),
            rows: rows.len() as u32,
            tokens: q_from.last().unwrap() + padding,
            heads_q: 2 * group,
            tile,
            tiles_max,
            ..Prefill::default()
        };
        Kernel::find(Variant::Real, "prefill_plan").launch(1, &params, &memory, order).unwrap();
        let tiles = tiles.chunks(4).map(|t| t.try_into().unwrap()).collect();
        Planned { tile_from, tiles, count: tile_count[0], overflow: overflow[0] }
    };
    ORDERS.map(plan).into()
}

/// How many keys the last token of a tile sees.
fn keys(rows: &[(u32, u32)], tile: [u32; 4], group: u32, packed: u32) -> u32 {
    let Some((new, length)) = rows.get(tile[0] as usize) else { return 0 };
    let last = ((tile[1] + 1) * packed).min(new * group) - 1;
    (length + last / group + 1).saturating_sub(*new)
}

#[test]
fn the_plan_lists_every_tile_once_and_the_longest_first() {
    let many: Vec<(u32, u32)> = (0..300).map(|at| (at % 3, at)).collect();
    let cases: [&[(u32, u32)]; 6] = [
        &[],
        &[(0, 0)],
        &[(1, 1)],
        &[(5, 5), (0, 700), (300, 4000), (64, 64), (40, 20)],
        &[(4096, 4096)],
        &many,
    ];
    for rows in cases {
        for (group, tile, padding) in [(1, 64, 0), (4, 128, 0), (7, 64, 1), (3, 128, 200)] {
            let tokens = |row: usize| rows.get(row).map_or(padding, |(new, _)| *new);
            let want: Vec<[u32; 4]> = (0..=rows.len())
                .flat_map(|row| {
                    let first = (0..row).map(tokens).sum();
                    let tiles = (tokens(row) * group).div_ceil(tile);
                    (0..tiles).map(move |at| [row as u32, at, first, tokens(row)])
                })
                .collect();
            for plan in planned(rows, padding, group, tile, want.len() as u32 + 3) {
                assert_eq!((plan.count, plan.overflow), (want.len() as u32, 0));
                let (listed, rest) = plan.tiles.split_at(want.len());
                assert!(rest.iter().all(|t| *t == [u32::MAX; 4]));
                let mut sorted = listed.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, want);
                for pair in listed.windows(2) {
                    let [before, after] = [pair[0], pair[1]].map(|t| keys(rows, t, group, tile));
                    assert!(f64::from(after) <= 1.125 * f64::from(before), "{after} keys after {before}");
                }
                for (row, from) in plan.tile_from.iter().enumerate() {
                    let before = want.iter().filter(|t| (t[0] as usize) < row).count();
                    assert_eq!(*from as usize, before, "before row {row}");
                }
            }
        }
    }
}

#[test]
fn a_plan_of_too_many_tiles_lists_none_and_says_so() {
    for plan in planned(&[(100, 100), (3, 50)], 9, 2, 64, 5) {
        assert_eq!((plan.count, plan.overflow), (0, 1), "4 + 1 + 1 tiles");
        assert_eq!(plan.tile_from, [0; 4]);
        assert!(plan.tiles.iter().all(|t| *t == [u32::MAX; 4]));
    }
}
