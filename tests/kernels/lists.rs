//! Lengths and sizes of batches at which something is cut, and how many of them are tried: a moderate list in every
//! run, all of it with `FLYBALL_KERNELS_LIST=long`.

use std::env;

/// Whether the long list is wanted.
///
/// # Panics
/// If the variable says neither.
pub fn long() -> bool {
    match env::var("FLYBALL_KERNELS_LIST").as_deref() {
        Err(_) | Ok("usual") => false,
        Ok("long") => true,
        Ok(other) => panic!("FLYBALL_KERNELS_LIST is {other:?}; it may be usual or long"),
    }
}

/// `usual`, and `more` on the long list.
pub fn listed<T: Clone>(usual: &[T], more: &[T]) -> Vec<T> {
    [usual, if long() { more } else { &[] }].concat()
}

/// None, one, and what lies around each of `cuts`: short and long ones are neighbours.
pub fn edges(cuts: &[usize]) -> Vec<usize> {
    let around = cuts.iter().flat_map(|cut| [cut - 1, *cut, cut + 1]);
    let mut edges: Vec<usize> = [0, 1].into_iter().chain(around).collect();
    edges.sort_unstable();
    edges.dedup();
    let half = edges.split_off(edges.len().div_ceil(2));
    let mut pairs = half.into_iter();
    edges.into_iter().flat_map(|short| [Some(short), pairs.next()]).flatten().collect()
}

/// Sizes of batches: `usual`; on the long list all small ones, and those around warps, ctas, multiprocessors, and what
/// a cta plans or takes at once.
pub fn batches(usual: &[usize]) -> Vec<usize> {
    let around = [128, 132, 256, 512, 768, 992, 1024, 2048, 4096].into_iter().flat_map(|n| [n - 1, n, n + 1]);
    if long() { (1..=66).chain(around).collect() } else { usual.to_vec() }
}
