//! The CUDA kernels, run on the CPU from their own source, against references in `f64`.
//!
//! Each family is a case that can be run in any variant and order, and a check of what came out. The real kernels
//! pass the check on every case; every seeded bug fails it on some.

mod append;
mod copy;
mod core;
mod decode;
mod emulator;
mod hopper;
mod mutants;
mod norm;
mod numbers;
mod prefill;
mod sample;
mod walls;

use flyball_simt::Order;

/// Interleavings of threads: whoever relies on one of them fails in another.
const ORDERS: [Order; 4] = [Order::Forward, Order::Reverse, Order::Shuffled(1), Order::Shuffled(2)];
