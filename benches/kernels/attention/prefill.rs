//! Prefill: one request's new tokens, alone or after a cached prefix; each way of ours.

use super::{Cache, HEAD_DIM, HEADS_KV, HEADS_Q, SCALE, Stored, short};
use crate::data::Data;
use crate::gpu::Gpu;
use crate::gpu::params::{Prefill, PrefillTensor};
use crate::measure::{Bench, Stop, Work};

/// A kernel, how many packed rows a tile of its has, and whether it copies by tensor maps.
struct Way {
    name: &'static str,
    kernel: &'static str,
    tile: u32,
    tensor: bool,
}

const WAYS: &[Way] = &[
    Way { name: "flyball hopper", kernel: "prefill_hopper_bf16_d128", tile: 128, tensor: true },
    Way { name: "flyball mma", kernel: "prefill_bf16_d128", tile: 128, tensor: false },
];

fn shapes(quick: bool) -> Vec<(u32, u32)> {
    let k = 1024;
    if quick {
        return vec![(2 * k, 0), (8 * k, 0), (512, 16 * k), (2 * k, 16 * k)];
    }
    let alone = (0..5).map(|at| (k << at, 0));
    alone.chain([(512, 16 * k), (512, 32 * k), (2 * k, 16 * k), (2 * k, 32 * k)]).collect()
}

pub fn run(bench: &mut Bench) -> Result<(), Stop> {
    for (tokens, prefix) in shapes(bench.options.quick) {
        let shape = match prefix {
            0 => short(tokens),
            _ => format!("{tokens} on {}", short(prefix)),
        };
        let flops = flops(tokens, prefix);
        let guess_us = flops as f64 / 5e8;
        for way in WAYS {
            bench.data.clear();
            let work = Work {
                family: "prefill",
                shape: &shape,
                name: way.name,
                bytes: bytes(tokens, prefix),
                flops,
                guess_us,
            };
            match Prepared::new(&bench.gpu, &mut bench.data, tokens, prefix, way) {
                Ok(prepared) => {
                    let data = bench.data;
                    bench.time(work, Bench::sets(work.bytes), |gpu, set| prepared.layer(gpu, &data, set))?;
                }
                Err(why) => bench.fail(work, why)?,
            }
        }
    }
    Ok(())
}

/// What a causal mask leaves of the square, once for Q * K and once for P * V.
pub fn flops(tokens: u32, prefix: u32) -> u64 {
    let (tokens, prefix) = (u64::from(tokens), u64::from(prefix));
    4 * u64::from(HEADS_Q * HEAD_DIM) * (tokens * prefix + tokens * (tokens + 1) / 2)
}

/// Q and the output once, K and V once.
pub fn bytes(tokens: u32, prefix: u32) -> u64 {
    2 * u64::from(HEAD_DIM) * (2 * u64::from(tokens * HEADS_Q) + 2 * u64::from((tokens + prefix) * HEADS_KV))
}

/// The buffers of one shape and way.
pub struct Prepared<'a> {
    way: &'a Way,
    cache: Cache,
    params: Prefill,
}

impl<'a> Prepared<'a> {
    /// With the way that is meant for this GPU.
    pub fn best(gpu: &Gpu, data: &mut Data, tokens: u32, prefix: u32) -> Result<Self, String> {
        Self::new(gpu, data, tokens, prefix, &WAYS[0])
    }

    fn new(gpu: &Gpu, data: &mut Data, tokens: u32, prefix: u32, way: &'a Way) -> Result<Self, String> {
        let cache = Cache::new(gpu, data, Stored::Bf16, 16, 1, tokens + prefix)?;
        let tiles = (tokens * (HEADS_Q / HEADS_KV)).div_ceil(way.tile);
        let params = Prefill {
            pool: cache.pool(data, 0)?,
            output: data.room(u64::from(tokens * HEADS_Q * HEAD_DIM) * 2)?,
            q_from: data.hold(gpu, &[0, tokens])?,
            lengths: data.hold(gpu, &[tokens + prefix])?,
            tables: cache.tables,
            tile_from: data.room(12)?,
            tiles: data.room(u64::from(tiles) * 16)?,
            tile_count: data.room(4)?,
            overflow: data.room(4)?,
            q_stride: i64::from(HEADS_Q * HEAD_DIM),
            table_stride: i64::from(cache.table_stride),
            rows: 1,
            tokens,
            heads_q: HEADS_Q,
            tile: way.tile,
            tiles_max: tiles,
            scale: SCALE,
            ..Prefill::default()
        };
        let prepared = Self { way, cache, params };
        gpu.launch("prefill_plan", 1, &prepared.params)?;
        // A plan that lists nothing would make every launch very fast.
        match gpu.word(prepared.params.tile_count)? {
            listed if listed == tiles => Ok(prepared),
            listed => Err(format!("the plan lists {listed} of {tiles} tiles")),
        }
    }

    /// A layer's launch.
    pub fn layer(&self, gpu: &Gpu, data: &Data, set: usize) -> Result<(), String> {
        let queries = u64::from(self.params.tokens * HEADS_Q * HEAD_DIM) * 2;
        let pool = self.cache.pool(data, set)?;
        let params = Prefill { pool, q: data.halves.cut(queries, 7 * set + 3)?, ..self.params };
        let items = params.tiles_max * HEADS_KV;
        let ctas = gpu.ctas(self.way.kernel, items, None)?;
        if !self.way.tensor {
            return gpu.launch_early(self.way.kernel, ctas, &params);
        }
        let map = gpu.page_map(&pool, self.cache.page_size, HEAD_DIM, self.cache.pages)?;
        let params = PrefillTensor { map, prefill: params, page_count: self.cache.pages, reserved: [0; 7] };
        gpu.launch_early(self.way.kernel, ctas, &params)
    }
}
