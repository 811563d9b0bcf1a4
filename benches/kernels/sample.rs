//! Sampling: rows of 131,072 logits under each rule.

use crate::gpu::params::Sample;
use crate::measure::{Bench, Stop, Work};

const VOCAB: u32 = 131_072;

/// Temperature, top-k, top-p.
const RULES: &[(&str, f32, u32, f32)] =
    &[("greedy", 0.0, 0, 1.0), ("top-k", 1.0, 50, 1.0), ("top-p", 1.0, 0, 0.9), ("both", 1.0, 50, 0.9)];

pub fn run(bench: &mut Bench) -> Result<(), Stop> {
    let batches: &[u32] = if bench.options.quick { &[1, 64, 128] } else { &[1, 64, 128, 512] };
    for &rows in batches {
        for rule in RULES {
            time(bench, rows, rule)?;
        }
    }
    Ok(())
}

fn time(bench: &mut Bench, rows: u32, rule: &(&str, f32, u32, f32)) -> Result<(), Stop> {
    let (name, temperature, top_k, top_p) = *rule;
    bench.data.clear();
    let (gpu, data) = (&bench.gpu, &mut bench.data);
    let each = rows as usize;
    let params = Sample {
        temperature: data.hold(gpu, &vec![temperature; each])?,
        top_k: data.hold(gpu, &vec![top_k; each])?,
        top_p: data.hold(gpu, &vec![top_p; each])?,
        seeds: data.hold(gpu, &(0..u64::from(rows)).collect::<Vec<_>>())?,
        positions: data.hold(gpu, &(0..rows).collect::<Vec<_>>())?,
        tokens: data.room(u64::from(rows) * 4)?,
        failed: data.room(u64::from(rows) * 4)?,
        stride: i64::from(VOCAB),
        rows,
        vocab: VOCAB,
        ..Sample::default()
    };
    let bytes = u64::from(rows) * u64::from(VOCAB) * 4;
    let shape = format!("{rows} {name}");
    let guess_us = (bytes as f64 / 1e6).max(10.0);
    let work = Work { family: "sample", shape: &shape, name: "flyball", bytes, flops: 0, guess_us };
    let logits = bench.data.logits;
    bench.time(work, Bench::sets(bytes), |gpu, set| {
        gpu.launch_early("sample_tokens", rows, &Sample { logits: logits.cut(bytes, set)?, ..params })
    })?;
    Ok(())
}
