//! A step allocates nothing once the engine is warm, whatever the policy and the depth of the pipeline.
//!
//! The allocator counts on the measured thread alone, between `arm` and `disarm`. The first allocation of a
//! step is printed with its backtrace.

#![allow(unsafe_code, reason = "an allocator is unsafe by its signature")]

#[path = "../benches/bed/mod.rs"]
mod bed;

use bed::{Bed, Size};
use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;

/// Steps that are watched.
const STEPS: u32 = 2_000;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static SHOWN: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn count(size: usize) {
        if !ARMED.get() {
            return;
        }
        COUNT.set(COUNT.get() + 1);
        if !SHOWN.replace(true) {
            ARMED.set(false);
            eprintln!("{size} bytes at\n{}", Backtrace::force_capture());
            ARMED.set(true);
        }
    }
}

// SAFETY: Every call goes to the system's allocator as it came; counting touches only thread-locals that
// need neither memory nor a destructor, and disarms itself while it prints.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size());
        // SAFETY: The caller's promises are the system allocator's own.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from the system's allocator, since all of `self`'s memory does.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size);
        // SAFETY: As for `dealloc`, and the caller's promises about `size` are the system allocator's own.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    COUNT.set(0);
    ARMED.set(true);
    work();
    ARMED.set(false);
    COUNT.get()
}

fn check(policy: &str, size: Size) {
    SHOWN.set(false);
    let mut bed = Bed::named(policy, size).warm(1_500);
    let before = bed.engine.counters();
    let (mut in_steps, mut in_submits, mut submits, mut admitted) = (0, 0, 0, 0);
    for _ in 0..STEPS {
        in_steps += allocations(|| bed.step());
        admitted += bed.engine.last_report().decision.admit.len();
        submits += bed.engine.last_report().ended.len();
        let shown = SHOWN.replace(true);
        in_submits += allocations(|| bed.refill());
        SHOWN.set(shown);
    }
    let after = bed.engine.counters();
    let evictions = after.swaps + after.recomputes - before.swaps - before.recomputes;
    println!(
        "{policy} {size:?}: {in_steps} in {STEPS} steps with {submits} ends, {admitted} admissions, \
         {evictions} evictions; {in_submits} in {submits} submits"
    );
    assert!(submits > STEPS as usize / 2 && admitted > STEPS as usize / 2, "the state is steady");
    assert_eq!(in_steps, 0, "{policy} {size:?}: a step allocates nothing");
}

#[test]
fn step_allocates_nothing() {
    for policy in ["fcfs", "vllm", "las", "mlfq", "vtc", "edf:ttlt=2", "uniboost", "distboost", "flyball"] {
        for (waiting, depth) in [(1_000, 1), (1_000, 2), (10_000, 1), (10_000, 2)] {
            check(policy, Size { running: 256, waiting, depth });
        }
    }
}
