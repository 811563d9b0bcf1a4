//! What the card gives: copies of 4 GiB, in the same run as what they bound. By the driver, in a graph and without one
//! (the driver copies differently there), and by the kernel that copies pages: the fastest is the ceiling.

use crate::gpu::params::Copy as CopyPages;
use crate::measure::{Bench, Stop, Work};

const BYTES: u64 = 4 << 30;
const PAGE_BYTES: u64 = 2 << 20;

pub fn run(bench: &mut Bench) -> Result<(), Stop> {
    bench.data.clear();
    let (source, target) = (bench.data.halves.address, bench.data.room(BYTES)?);
    let work = Work {
        family: "copy",
        shape: "4 GiB",
        name: "driver, in a graph",
        bytes: 2 * BYTES,
        flops: 0,
        guess_us: 1000.0,
    };
    bench.time(work, 1, |gpu, _| gpu.copy(source, target, BYTES))?;
    bench.time_ungraphed(Work { name: "driver", ..work }, |gpu| gpu.copy(source, target, BYTES))?;

    let count = (BYTES / PAGE_BYTES) as u32;
    let pairs: Vec<u32> = (0..count).flat_map(|page| [page, page]).collect();
    let params = CopyPages {
        source,
        target,
        pairs: bench.data.hold(&bench.gpu, &pairs)?,
        page_bytes: PAGE_BYTES,
        count,
        ..CopyPages::default()
    };
    bench.time(Work { name: "kernel", ..work }, 1, |gpu, _| {
        gpu.launch("copy_pages", gpu.ctas("copy_pages", u32::MAX, None)?, &params)
    })?;
    Ok(())
}
