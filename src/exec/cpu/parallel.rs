//! Loops over parts of a buffer, on all cores with feature `parallel`. Each part is computed by itself, so how they
//! are spread changes no result.

/// Below this many multiplications a loop is not worth waking other threads.
#[cfg(feature = "parallel")]
const WORTH_SPREADING: usize = 1 << 18;

/// Calls `work` with each part of `size` elements (the last may be shorter) and its number. `cost` is about how many
/// multiplications all of them take.
pub fn each_part<T: Send>(
    data: &mut [T],
    size: usize,
    cost: usize,
    work: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    #[cfg(feature = "parallel")]
    if cost >= WORTH_SPREADING {
        use rayon::prelude::*;
        data.par_chunks_mut(size).enumerate().for_each(|(at, part)| work(at, part));
        return;
    }
    let _ = cost;
    data.chunks_mut(size).enumerate().for_each(|(at, part)| work(at, part));
}
