//! The CUDA kernels, run from their own source on the CPU, or on a GPU (`device.rs`), against references in `f64`.
//!
//! Each family is a case that can be run in any variant and order, and a check of what came out. The real kernels
//! pass the check on every case; every seeded bug fails it on some. `FLYBALL_KERNELS_LIST=long` tries more lengths and
//! batches (`lists.rs`).

mod activation;
mod append;
mod attention;
mod copy;
mod core;
mod decode;
mod device;
mod emulator;
mod gather;
mod hopper;
mod lengths;
mod lists;
mod mutants;
mod norm;
mod numbers;
mod penalize;
mod prefill;
mod sample;
mod twins;
mod walls;

use device::Order;

/// Interleavings of threads: whoever relies on one of them fails in another.
const ORDERS: [Order; 4] = [Order::Forward, Order::Reverse, Order::Shuffled(1), Order::Shuffled(2)];
