//! The widest vectors of this machine, chosen when the program runs. The only unsafe code of the CPU executor.
//!
//! Nothing here changes a result: sums are kept in a fixed number of lanes, and products are not fused with them,
//! so that every width computes the same bits.

#![allow(unsafe_code, reason = "code for vectors that the compiler may not assume")]

/// Something to be compiled twice. Large work says `#[inline(always)]` at its `run`, since a closure cannot.
pub trait Work {
    /// Does it.
    fn run(self);
}

impl<F: FnOnce()> Work for F {
    #[inline(always)]
    fn run(self) {
        self();
    }
}

/// Does `work`, compiled for AVX2 where the machine has it.
#[inline(always)]
pub fn widest(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: `with_avx2` needs nothing but a processor with AVX2, which this one has just said to be.
        return unsafe { with_avx2(work) };
    }
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(work: impl Work) {
    work.run();
}
