//! What is bound by memory: norm, activation, RoPE and append at 4,096 tokens, page copies, and swaps to and from the
//! host.

use crate::attention::{HEAD_DIM, HEADS_KV, HEADS_Q, Stored};
use crate::data::shuffled;
use crate::gpu::params::{Activation, Append, Copy as CopyPages, Norm, Pool};
use crate::measure::{Bench, Stop, Work};

const TOKENS: u32 = 4096;
const HIDDEN: u32 = 4096;
const INNER: u32 = 14336;
/// Of Llama-3-8B: 16 tokens of all 32 layers.
const PAGE_BYTES: u64 = 2 << 20;

pub fn run(bench: &mut Bench) -> Result<(), Stop> {
    norm(bench)?;
    silu(bench)?;
    append(bench, Stored::Bf16)?;
    append(bench, Stored::E4m3)?;
    copy(bench)?;
    swap(bench)
}

fn work<'a>(family: &'a str, shape: &'a str, bytes: u64) -> Work<'a> {
    Work { family, shape, name: "flyball", bytes, flops: 0, guess_us: bytes as f64 / 4e6 }
}

fn norm(bench: &mut Bench) -> Result<(), Stop> {
    bench.data.clear();
    let each = u64::from(TOKENS * HIDDEN) * 2;
    let work = work("norm", "4k x 4096", 4 * each);
    let sets = Bench::sets(work.bytes);
    // The residual is written: it may not be what was drawn for all.
    let residual = bench.data.room(sets as u64 * each)?;
    let halves = bench.data.halves;
    bench.gpu.copy(halves.address, residual, sets as u64 * each)?;
    let params = Norm {
        weight: halves.address,
        output: bench.data.room(each)?,
        rows: TOKENS,
        hidden: HIDDEN,
        epsilon: 1e-5,
        ..Norm::default()
    };
    bench.time(work, sets, |gpu, set| {
        let residual = residual + set as u64 * each;
        gpu.launch_early(
            "rms_norm_bf16_4k",
            TOKENS,
            &Norm { input: halves.cut(each, set)?, residual, ..params },
        )
    })?;
    Ok(())
}

fn silu(bench: &mut Bench) -> Result<(), Stop> {
    bench.data.clear();
    let each = u64::from(TOKENS * INNER) * 2;
    let params =
        Activation { output: bench.data.room(each)?, rows: TOKENS, width: INNER, ..Activation::default() };
    let halves = bench.data.halves;
    bench.time(work("silu", "4k x 14336", 3 * each), Bench::sets(3 * each), |gpu, set| {
        let ctas = gpu.ctas("silu_mul_bf16", u32::MAX, None)?;
        gpu.launch_early("silu_mul_bf16", ctas, &Activation { input: halves.cut(2 * each, set)?, ..params })
    })?;
    Ok(())
}

/// Turns Q and K and writes K and V into the cache; without norms of Q and K, whose weights are not given.
fn append(bench: &mut Bench, stored: Stored) -> Result<(), Stop> {
    bench.data.clear();
    let heads = HEADS_Q + 2 * HEADS_KV;
    let (gpu, data) = (&bench.gpu, &mut bench.data);
    let slots: Vec<i64> =
        shuffled(TOKENS / 16).iter().flat_map(|page| (0..16).map(|at| i64::from(*page) * 16 + at)).collect();
    // Llama-3's angles, in units of 2^-64 turns per position.
    let turn =
        |pair: u32| 500_000_f64.powf(-2.0 * f64::from(pair) / f64::from(HEAD_DIM)) / std::f64::consts::TAU;
    let turns: Vec<u64> = (0..HEAD_DIM / 2).map(|pair| (turn(pair) * 2_f64.powi(64)) as u64).collect();
    let cached = u64::from(TOKENS * 2 * HEADS_KV * HEAD_DIM) * stored.bytes();
    let queries = u64::from(TOKENS * HEADS_Q * HEAD_DIM) * 2;
    let projected = u64::from(TOKENS * heads * HEAD_DIM) * 2;
    let shape = format!("4k {}", stored.name());
    let work = work("append", &shape, projected + queries + cached);
    let sets = Bench::sets(work.bytes);
    let pages = data.room(sets as u64 * cached)?;
    let params = Append {
        q: data.room(queries)?,
        turns: data.hold(gpu, &turns)?,
        positions: data.hold(gpu, &(0..TOKENS).collect::<Vec<_>>())?,
        slots: data.hold(gpu, &slots)?,
        qkv_stride: i64::from(heads * HEAD_DIM),
        tokens: TOKENS,
        heads_q: HEADS_Q,
        epsilon: 1e-5,
        ..Append::default()
    };
    let halves = data.halves;
    let kernel = format!("append_{}_d{HEAD_DIM}", stored.kernel());
    bench.time(work, sets, |gpu, set| {
        let pool = Pool {
            pages: pages + set as u64 * cached,
            page_stride: i64::from(2 * HEADS_KV * 16 * HEAD_DIM),
            page_shift: 4,
            heads_kv: HEADS_KV,
            ..Pool::default()
        };
        gpu.launch_early(
            &kernel,
            gpu.ctas(&kernel, u32::MAX, None)?,
            &Append { pool, qkv: halves.cut(projected, set)?, ..params },
        )
    })?;
    Ok(())
}

fn copy(bench: &mut Bench) -> Result<(), Stop> {
    bench.data.clear();
    const PAGES: u32 = 512;
    let order = shuffled(PAGES);
    let pairs: Vec<u32> = order.iter().enumerate().flat_map(|(from, to)| [from as u32, *to]).collect();
    let bytes = u64::from(PAGES) * PAGE_BYTES;
    let params = CopyPages {
        source: bench.data.halves.address,
        target: bench.data.room(bytes)?,
        pairs: bench.data.hold(&bench.gpu, &pairs)?,
        page_bytes: PAGE_BYTES,
        count: PAGES,
        ..CopyPages::default()
    };
    bench.time(work("pages", "512 of 2 MiB", 2 * bytes), 1, |gpu, _| {
        gpu.launch("copy_pages", gpu.ctas("copy_pages", u32::MAX, None)?, &params)
    })?;
    Ok(())
}

/// By the copy engines, a page at a time, as the executor swaps.
fn swap(bench: &mut Bench) -> Result<(), Stop> {
    bench.data.clear();
    const PAGES: u64 = 64;
    let bytes = PAGES * PAGE_BYTES;
    let host = (0..PAGES).map(|_| bench.gpu.pinned(PAGE_BYTES)).collect::<Result<Vec<_>, _>>()?;
    let halves = bench.data.halves.address;
    let device = |at: usize| halves + at as u64 * PAGE_BYTES;
    let guess = |work: Work<'static>| Work { guess_us: bytes as f64 / 5e4, ..work };
    bench.time(guess(work("swap", "64 of 2 MiB, out", bytes)), 1, |gpu, _| {
        host.iter().enumerate().try_for_each(|(at, page)| gpu.copy_out(device(at), page))
    })?;
    bench.time(guess(work("swap", "64 of 2 MiB, in", bytes)), 1, |gpu, _| {
        host.iter().enumerate().try_for_each(|(at, page)| gpu.copy_in(page, device(at)))
    })?;
    Ok(())
}
