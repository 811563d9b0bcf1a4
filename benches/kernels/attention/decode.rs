//! Decode: per layer the launches of a layer; the plan, which a step makes once, apart.

use super::{Cache, HEAD_DIM, HEADS_KV, HEADS_Q, SCALE, Stored, short};
use crate::data::Data;
use crate::gpu::Gpu;
use crate::gpu::params::Decode;
use crate::measure::{Bench, Stop, Work};
use flyball::exec::cuda::DecodeCut;

/// How rows are cut and launched.
#[derive(Clone, Copy)]
pub struct Cut {
    /// Tokens per chunk; of a share, at least.
    chunk: u32,
    /// Whether all rows are cut into equal shares, or each by its own length.
    shares: bool,
    /// If not as many as fit.
    ctas_per_sm: Option<u32>,
    /// By a kernel of its own, or by the last chunk of a row.
    merged_apart: bool,
}

impl Cut {
    /// What the executor does with so many rows.
    pub fn of(rows: u32) -> Self {
        let DecodeCut { share, merged_apart } = DecodeCut::of(rows);
        Self { chunk: share, shares: true, ctas_per_sm: None, merged_apart }
    }
}

/// As in batch-invariant mode: one chunk size for every batch.
const FIXED: Cut = Cut { chunk: 512, shares: false, ctas_per_sm: None, merged_apart: false };
const CHUNKS: &[u32] = &[128, 256, 512, 1024, 2048, 4096];
const SHARE_LEAST: &[u32] = &[64, 128, 256, 512];

fn shapes(quick: bool) -> Vec<(u32, u32)> {
    let k = 1024;
    if quick {
        return vec![(1, k), (1, 4 * k), (1, 16 * k), (8, 4 * k), (8, 16 * k), (32, 4 * k), (64, 8 * k)];
    }
    let few = [1, 8].into_iter().flat_map(|rows| [1, 4, 16, 32].map(|length| (rows, length * k)));
    few.chain([(32, 4 * k), (128, 2 * k), (64, 8 * k)]).collect()
}

pub fn run(bench: &mut Bench) -> Result<(), Stop> {
    for stored in [Stored::Bf16, Stored::E4m3] {
        for (rows, length) in shapes(bench.options.quick) {
            let shape = Shape { rows, length, stored, page_size: 16 };
            let ours = Cut::of(rows);
            let (name, other) = if ours.merged_apart {
                ("flyball last", Cut::of(u32::MAX))
            } else {
                ("flyball merge", Cut::of(1))
            };
            time(bench, "decode", "flyball", shape, ours)?;
            time(bench, "decode", name, shape, other)?;
            time(bench, "decode", "flyball fixed", shape, FIXED)?;
        }
    }
    for page_size in [32, 64] {
        let shape = Shape { rows: 32, length: 4096, stored: Stored::Bf16, page_size };
        time(bench, "decode", "flyball", shape, Cut::of(shape.rows))?;
    }
    if bench.options.sweep {
        sweep(bench)?;
    }
    Ok(())
}

fn sweep(bench: &mut Bench) -> Result<(), Stop> {
    let k = 1024;
    for (rows, length) in [
        (1, k),
        (1, 4 * k),
        (1, 16 * k),
        (1, 32 * k),
        (8, k),
        (8, 4 * k),
        (8, 16 * k),
        (32, 4 * k),
        (64, 8 * k),
    ] {
        for stored in [Stored::Bf16, Stored::E4m3] {
            let shape = Shape { rows, length, stored, page_size: 16 };
            let fit = bench.gpu.ctas_per_sm(&kernel(stored))?;
            for ctas in [fit - 1, fit].into_iter().filter(|ctas| *ctas > 0) {
                for &chunk in CHUNKS.iter().filter(|chunk| **chunk <= length && length / **chunk <= 128) {
                    let cut = Cut { chunk, ctas_per_sm: Some(ctas), ..FIXED };
                    time(bench, "sweep", &format!("flyball c{chunk}x{ctas}"), shape, cut)?;
                }
                for &chunk in SHARE_LEAST {
                    let cut = Cut { chunk, ctas_per_sm: Some(ctas), ..Cut::of(rows) };
                    time(bench, "sweep", &format!("flyball s{chunk}x{ctas}"), shape, cut)?;
                }
            }
        }
    }
    Ok(())
}

/// Rows of one length.
#[derive(Clone, Copy)]
pub struct Shape {
    pub rows: u32,
    pub length: u32,
    pub stored: Stored,
    pub page_size: u32,
}

impl Shape {
    /// K and V once, Q and the output once.
    pub fn bytes(self) -> u64 {
        let cached = 2 * u64::from(HEADS_KV * HEAD_DIM) * self.stored.bytes();
        u64::from(self.rows) * (u64::from(self.length) * cached + 2 * u64::from(HEADS_Q * HEAD_DIM) * 2)
    }
}

fn kernel(stored: Stored) -> String {
    format!("decode_{}_d{HEAD_DIM}", stored.kernel())
}

/// The buffers of a decode of one shape; only the pages and queries differ between sets.
pub struct Prepared {
    cache: Cache,
    params: Decode,
    kernel: String,
    ctas: u32,
    merge: bool,
}

impl Prepared {
    pub fn new(gpu: &Gpu, data: &mut Data, shape: Shape, cut: Cut) -> Result<Self, String> {
        let Shape { rows, length, stored, page_size } = shape;
        let kernel = kernel(stored);
        let cache = Cache::new(gpu, data, stored, page_size, rows, length)?;
        let lists = if cut.shares { gpu.ctas(&kernel, u32::MAX, cut.ctas_per_sm)? / HEADS_KV } else { 0 };
        let chunks = if cut.shares { rows + lists } else { rows * length.div_ceil(cut.chunk) };
        let (heads, slots) = (u64::from(rows * HEADS_Q), u64::from(chunks * HEADS_Q));
        let arrived = data.room(u64::from(rows * HEADS_KV) * 4)?;
        let params = Decode {
            pool: cache.pool(data, 0)?,
            output: data.room(heads * u64::from(HEAD_DIM) * 2)?,
            lengths: data.hold(gpu, &vec![length; rows as usize])?,
            tables: cache.tables,
            chunk_from: data.room(u64::from(rows + 1) * 4)?,
            chunks: data.room(u64::from(chunks) * 16)?,
            partial: data.room(slots * u64::from(HEAD_DIM) * 4)?,
            partial_of: data.room(slots * 8)?,
            arrived: if cut.merged_apart { 0 } else { arrived },
            lists: data.room(u64::from(lists) * 32)?,
            overflow: data.room(4)?,
            q_stride: i64::from(HEADS_Q * HEAD_DIM),
            table_stride: i64::from(cache.table_stride),
            rows,
            heads_q: HEADS_Q,
            scale: SCALE,
            chunk: cut.chunk,
            chunks_max: chunks,
            lists_max: lists,
            ..Decode::default()
        };
        let items = if cut.shares { lists * HEADS_KV } else { chunks * HEADS_KV };
        let ctas = gpu.ctas(&kernel, items, cut.ctas_per_sm)?;
        let prepared = Self { cache, params, kernel, ctas, merge: cut.merged_apart };
        prepared.plan(gpu)?;
        // One that lists nothing would make every launch very fast.
        match gpu.word(params.chunk_from + u64::from(rows) * 4)? {
            listed if (rows..=chunks).contains(&listed) => Ok(prepared),
            listed => Err(format!("the plan lists {listed} chunks for {rows} rows, of at most {chunks}")),
        }
    }

    /// Starts the plan.
    pub fn plan(&self, gpu: &Gpu) -> Result<(), String> {
        gpu.launch("decode_plan", 1, &self.params)
    }

    /// A layer's launches.
    pub fn layer(&self, gpu: &Gpu, data: &Data, set: usize) -> Result<(), String> {
        let queries = u64::from(self.params.rows * HEADS_Q * HEAD_DIM) * 2;
        let params = Decode {
            pool: self.cache.pool(data, set)?,
            q: data.halves.cut(queries, 7 * set + 3)?,
            ..self.params
        };
        gpu.launch_early(&self.kernel, self.ctas, &params)?;
        if self.merge {
            let heads = self.params.rows * HEADS_Q;
            gpu.launch_early(&format!("decode_merge_bf16_d{HEAD_DIM}"), heads, &params)?;
        }
        Ok(())
    }
}

fn time(bench: &mut Bench, family: &str, name: &str, of: Shape, cut: Cut) -> Result<(), Stop> {
    bench.data.clear();
    let Shape { rows, length, stored, page_size } = of;
    let shape = format!("{rows}x{} {} p{page_size}", short(length), stored.name());
    let bytes = of.bytes();
    let guess_us = (bytes as f64 / 4e6).max(6.0);
    let work = Work { family, shape: &shape, name, bytes, flops: 0, guess_us };
    let prepared = match Prepared::new(&bench.gpu, &mut bench.data, of, cut) {
        Ok(prepared) => prepared,
        Err(why) => return bench.fail(work, why),
    };
    let data = bench.data;
    bench.time(work, Bench::sets(bytes), |gpu, set| prepared.layer(gpu, &data, set))?;
    if name == "flyball" && stored == Stored::Bf16 && page_size == 16 {
        let work =
            Work { family: "plan", name: "flyball", bytes: u64::from(rows) * 8, guess_us: 4.0, ..work };
        bench.time(work, 1, |gpu, _| prepared.plan(gpu))?;
    }
    Ok(())
}
