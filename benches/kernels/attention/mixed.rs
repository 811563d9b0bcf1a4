//! A step of decodes and one prefill chunk: its two launches one after the other, and as two branches of the graph.

use super::{Stored, decode, prefill, short};
use crate::measure::{Bench, Stop, Work};

/// Decodes, tokens of each in the cache; tokens of the chunk, and of the prefix before it.
const SHAPES: &[(u32, u32, u32, u32)] = &[(128, 2048, 2048, 0), (32, 4096, 512, 16384)];

pub fn run(bench: &mut Bench) -> Result<(), Stop> {
    for &(rows, length, tokens, prefix) in SHAPES {
        bench.data.clear();
        let of = decode::Shape { rows, length, stored: Stored::Bf16, page_size: 16 };
        let (gpu, data) = (&bench.gpu, &mut bench.data);
        let decode = decode::Prepared::new(gpu, data, of, decode::Cut::of(of.rows))?;
        let prefill = prefill::Prepared::best(gpu, data, tokens, prefix)?;
        let shape = match prefix {
            0 => format!("{rows}x{} + {}", short(length), short(tokens)),
            _ => format!("{rows}x{} + {tokens}@{}", short(length), short(prefix)),
        };
        let bytes = of.bytes() + prefill::bytes(tokens, prefix);
        let guess_us = of.bytes() as f64 / 4e6 + prefill::flops(tokens, prefix) as f64 / 5e8;
        let work = Work { family: "mixed", shape: &shape, name: "flyball", bytes, flops: 0, guess_us };
        let data = bench.data;
        let sets = Bench::sets(bytes);
        bench.time(Work { name: "flyball serial", ..work }, sets, |gpu, set| {
            decode.layer(gpu, &data, set)?;
            prefill.layer(gpu, &data, set + 1)
        })?;
        bench.time(Work { name: "flyball branches", ..work }, sets, |gpu, set| {
            gpu.beside(|| prefill.layer(gpu, &data, set + 1), || decode.layer(gpu, &data, set))
        })?;
    }
    Ok(())
}
