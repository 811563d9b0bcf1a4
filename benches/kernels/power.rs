//! Holds the GPU in one kind of work after the other, for who reads the meter meanwhile.

use crate::attention::{Stored, decode, prefill};
use crate::gpu::{Gpu, Graph};
use crate::measure::Bench;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};

const HELD: Duration = Duration::from_millis(2500);
/// Enough that the host is never late, few enough that a phase ends in time.
const LAYERS: usize = 16;

pub fn run(bench: &mut Bench) -> Result<(), String> {
    phase(bench, "idle", |_| {
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    })?;

    bench.data.clear();
    let shape = decode::Shape { rows: 32, length: 4096, stored: Stored::Bf16, page_size: 16 };
    let work = decode::Prepared::new(&bench.gpu, &mut bench.data, shape, decode::Cut::of(shape.rows))?;
    let data = bench.data;
    let graph = bench.gpu.record(|gpu| (0..LAYERS).try_for_each(|set| work.layer(gpu, &data, set)))?;
    replayed(bench, "decode 32x4k bf16", &graph)?;

    bench.data.clear();
    let work = prefill::Prepared::best(&bench.gpu, &mut bench.data, 8192, 0)?;
    let data = bench.data;
    let graph = bench.gpu.record(|gpu| (0..LAYERS).try_for_each(|set| work.layer(gpu, &data, set)))?;
    replayed(bench, "prefill 8k", &graph)
}

fn replayed(bench: &mut Bench, shape: &str, graph: &Graph) -> Result<(), String> {
    phase(bench, shape, |gpu| gpu.replay(graph).map(|_| ()))
}

fn phase(bench: &mut Bench, shape: &str, step: impl Fn(&Gpu) -> Result<(), String>) -> Result<(), String> {
    let (begin, from) = (now(), Instant::now());
    while from.elapsed() < HELD {
        step(&bench.gpu)?;
    }
    bench.write(json!({"family": "power", "shape": shape, "begin": begin, "end": now()}))
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
