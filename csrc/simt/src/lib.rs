//! Runs flyball's CUDA kernels, from the source that the GPU runs, on the CPU: for tests, never for users.
//!
//! ```text
//! Memory::read, ::write -> addresses -> a parameter block -> Kernel::launch -> Ok, or what was wrong
//! ```
//!
//! A launch may touch the buffers of its [`Memory`] and nothing else: the emulator (`csrc/simt`) checks every
//! access that a kernel makes before it makes it, so a wrong kernel yields [`Faults`], not harm. This crate is
//! the only place of the repository's tests with `unsafe` in it.

pub mod core;
pub mod driver;
pub mod params;

use params::{Address, Params};
use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::mem::{size_of, size_of_val};

/// In what order the threads of a cta run while nothing makes them wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Anew in every round, from a seed.
    Shuffled(u64),
}

/// What a launch found wrong: races, accesses out of bounds, threads that wait for ever.
#[derive(Debug)]
pub struct Faults {
    /// How many.
    pub count: u64,
    /// The first ones, a line each.
    pub text: String,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults\n{}", self.count, self.text)
    }
}

/// The types that buffers hold: any bits are a value.
pub trait Plain: sealed::Plain {}

mod sealed {
    pub trait Plain {}
}

macro_rules! plain {
    ($($type:ty)*) => { $(impl sealed::Plain for $type {} impl Plain for $type {})* };
}
plain!(u8 u16 u32 u64 i64 f32);

/// What a buffer holds, as bytes.
pub fn bytes<T: Plain>(buffer: &[T]) -> &[u8] {
    // SAFETY: plain types have no padding; the bytes are borrowed as long as the buffer.
    unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), size_of_val(buffer)) }
}

/// The same, to be written: any bits are a value of a plain type.
pub fn bytes_mut<T: Plain>(buffer: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and whatever is written is a value.
    unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), size_of_val(buffer)) }
}

/// `simt::Region`.
#[repr(C)]
struct Region {
    base: *mut u8,
    bytes: u64,
    writable: u32,
    reserved: u32,
}

/// The buffers that a launch may touch, which it borrows.
#[derive(Default)]
pub struct Memory<'a> {
    regions: Vec<Region>,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> Memory<'a> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer to be read; its address.
    pub fn read<T: Plain>(&mut self, buffer: &'a [T]) -> Address {
        self.add(buffer.as_ptr().cast_mut().cast(), size_of_val(buffer), false)
    }

    /// A buffer to be read and written; its address.
    pub fn write<T: Plain>(&mut self, buffer: &'a mut [T]) -> Address {
        let bytes = size_of_val(buffer);
        self.add(buffer.as_mut_ptr().cast(), bytes, true)
    }

    fn add(&mut self, base: *mut u8, bytes: usize, writable: bool) -> Address {
        self.regions.push(Region { base, bytes: bytes as u64, writable: writable.into(), reserved: 0 });
        base.addr() as Address
    }
}

/// `simt::Kernel`.
#[repr(C)]
#[derive(Debug)]
struct RawKernel {
    name: *const c_char,
    threads: u32,
    shared_bytes: u32,
    params_bytes: u64,
    body: unsafe extern "C" fn(*const c_void),
}

/// `simt::Kernels`.
#[repr(C)]
struct RawKernels {
    first: *const RawKernel,
    count: usize,
}

/// `simt::Launch`.
#[repr(C)]
struct RawLaunch {
    kernel: *const c_char,
    ctas: u32,
    threads: u32,
    shared_bytes: u32,
    order: u32,
    races: u32,
    seed: u64,
    regions: *const Region,
    region_count: usize,
    faults: *mut c_char,
    faults_bytes: usize,
    /// Of the grid ahead and this one: null, for here a launch ends before the next begins.
    writes: [*mut c_void; 2],
}

macro_rules! variants {
    ($($(#[$doc:meta])* $name:ident: $($list:ident)*,)*) => {
        // SAFETY: `kernels.cpp` and `probes.cpp` define these without arguments; each returns a constant list.
        unsafe extern "C" {
            $($(safe fn $list() -> RawKernels;)*)*
        }

        /// Which build of the kernels: the real one, or one with a seeded bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Variant { $($(#[$doc])* $name,)* }

        impl Variant {
            fn lists(self) -> Vec<RawKernels> {
                match self { $(Self::$name => vec![$($list()),*],)* }
            }
        }
    };
}

variants! {
    /// What the GPU runs.
    Real: simt_kernels_none_norm simt_kernels_none_append simt_kernels_none_copy simt_kernels_none_decode
        simt_kernels_none_prefill simt_kernels_none_hopper simt_kernels_none_sample simt_kernels_none_activation
        simt_kernels_none_gather,
    /// Not ours: small kernels that misbehave.
    Probes: simt_kernels_probes,
    /// Attention reads the page of 16 tokens further on.
    PageOffByOne: simt_kernels_page_off_by_one_decode simt_kernels_page_off_by_one_prefill,
    /// Attention sees one key past the end.
    MaskEdge: simt_kernels_mask_edge_decode simt_kernels_mask_edge_prefill,
    /// Attention and append read a stage while its copy may still be in flight.
    CopyNotAwaited: simt_kernels_copy_not_awaited_decode simt_kernels_copy_not_awaited_prefill
        simt_kernels_copy_not_awaited_append,
    /// Prefill copies what lies behind the last token.
    TailUnzeroed: simt_kernels_tail_unzeroed_prefill,
    /// Prefill reads what other warps copied without a barrier.
    StageUnsynced: simt_kernels_stage_unsynced_prefill,
    /// Decode reads what other lanes copied without a barrier.
    WarpUnsynced: simt_kernels_warp_unsynced_decode,
    /// Decode merges its warps without a barrier.
    MergeUnsynced: simt_kernels_merge_unsynced_decode,
    /// A chunk's partial is merged without rescaling what came before.
    StaleMax: simt_kernels_stale_max_decode,
    /// Norm adds the warps' sums without a barrier.
    SumUnsynced: simt_kernels_sum_unsynced_norm,
    /// Append rotates with the sign of the other half.
    WrongPair: simt_kernels_wrong_pair_append,
    /// Append lets fp8 overflow into the NaN code.
    Unsaturated: simt_kernels_unsaturated_append,
    /// Append writes K and V of a token without a slot.
    PaddingWritten: simt_kernels_padding_written_append,
    /// Copy drops the last pieces of a page.
    TailUncopied: simt_kernels_tail_uncopied_copy,
    /// Sample reads a histogram that is still being filled.
    HistogramUnsynced: simt_kernels_histogram_unsynced_sample,
    /// Prefill multiplies queries that the proxy of the products may not see.
    QueryUnfenced: simt_kernels_query_unfenced_hopper,
    /// Prefill frees keys whose products are still under way.
    KeyFreedEarly: simt_kernels_key_freed_early_hopper,
    /// Prefill weighs with 0 what lies behind the end, NaN included.
    TailUncleared: simt_kernels_tail_uncleared_hopper,
    /// Prefill sees one key past the query.
    CausalEdge: simt_kernels_causal_edge_hopper,
    /// Prefill does not hand the tensor cores on.
    TurnForgotten: simt_kernels_turn_forgotten_hopper,
    /// Sample draws by the row's place in the batch.
    KeyedByRow: simt_kernels_keyed_by_row_sample,
    /// Sample reads the list of candidates while it is being filled.
    ListUnsynced: simt_kernels_list_unsynced_sample,
    /// Sample draws from a list that misses some of the mass.
    ShortList: simt_kernels_short_list_sample,
    /// Sample reads the queue of a warp while it is being filled.
    QueueUnsynced: simt_kernels_queue_unsynced_sample,
    /// Sample takes all of the bin in which the nucleus ends for a part of it.
    EdgeUnchecked: simt_kernels_edge_unchecked_sample,
    /// Penalize takes presence off for tokens of the prompt alone.
    PromptCounted: simt_kernels_prompt_counted_sample,
    /// Append leaves out the last heads of a token.
    HeadSkipped: simt_kernels_head_skipped_append,
    /// Activation takes up from where the next row begins.
    GateFromNext: simt_kernels_gate_from_next_activation,
    /// Gather reads past the last row.
    IdUnchecked: simt_kernels_id_unchecked_gather,
}

// SAFETY: `abi.cpp` and `simt.h` define it so.
unsafe extern "C" {
    fn simt_launch(
        launch: *const RawLaunch,
        body: unsafe extern "C" fn(*const c_void),
        params: *const c_void,
    ) -> u64;
}

/// A kernel that can be launched.
#[derive(Clone, Copy, Debug)]
pub struct Kernel(&'static RawKernel);

impl Kernel {
    /// All of a variant.
    pub fn all(variant: Variant) -> impl Iterator<Item = Self> {
        let lists = variant.lists().into_iter();
        // SAFETY: a list is a constant array of `count` kernels.
        lists.flat_map(|list| unsafe { std::slice::from_raw_parts(list.first, list.count) }).map(Self)
    }

    /// By its name in `csrc/table.h`.
    ///
    /// # Panics
    /// If there is none.
    pub fn find(variant: Variant, name: &str) -> Self {
        Self::all(variant).find(|k| k.name() == name).unwrap_or_else(|| panic!("no kernel {name}"))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        // SAFETY: the name is a string literal.
        unsafe { CStr::from_ptr(self.0.name) }.to_str().expect("names are ASCII")
    }

    /// Runs it on `ctas` ctas, one after the other.
    ///
    /// # Errors
    /// If it did anything that it must not; outputs are then worth nothing.
    ///
    /// # Panics
    /// If `params` is not its parameter block.
    pub fn launch<P: Params>(
        &self,
        ctas: u32,
        params: &P,
        memory: &Memory<'_>,
        order: Order,
    ) -> Result<(), Faults> {
        assert_eq!(self.0.params_bytes as usize, size_of::<P>(), "{} takes other parameters", self.name());
        let mut text = vec![0_u8; 4096];
        let (code, seed) = match order {
            Order::Forward => (0, 0),
            Order::Reverse => (1, 0),
            Order::Shuffled(seed) => (2, seed),
        };
        let launch = RawLaunch {
            kernel: self.0.name,
            ctas,
            threads: self.0.threads,
            shared_bytes: self.0.shared_bytes,
            order: code,
            races: 1,
            seed,
            regions: memory.regions.as_ptr(),
            region_count: memory.regions.len(),
            faults: text.as_mut_ptr().cast(),
            faults_bytes: text.len(),
            writes: [std::ptr::null_mut(); 2],
        };
        // SAFETY: the regions are live buffers that `memory` borrows, those to be written mutably, and the
        // kernel's accesses are checked against them; the parameters are plain data of the size that the body
        // reads; the text has the length that is named; nothing is kept after the call.
        let count = unsafe { simt_launch(&raw const launch, self.0.body, (&raw const *params).cast()) };
        if count == 0 {
            return Ok(());
        }
        let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        Err(Faults { count, text: String::from_utf8_lossy(&text[..end]).into_owned() })
    }
}
