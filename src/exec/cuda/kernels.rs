//! The kernels that the build compiled, by name; their launches; tensor maps.
//!
//! A wall: `unsafe` is here because a kernel is code that the compiler cannot see. What makes it sound: only
//! kernels of `csrc/table.h` are launched, each with a block of the size that it reads, in the shape that its
//! type states. What the addresses in a block name is up to the caller, who has them from
//! [`Buffer::address`](super::Buffer::address); a wrong one can fault on the device, which ends its context.

#![allow(unsafe_code)]

use super::params::Params;
use super::{CudaError, Device, Stream, Trying};
use cudarc::driver::{CudaContext, CudaGraph, result, sys};
use std::ffi::{CString, c_void};
use std::mem::{MaybeUninit, size_of};
use std::sync::Arc;

/// Compiled code, aligned as the driver wants it.
#[repr(align(16))]
#[allow(dead_code)] // a build without kernels has none
struct Image<T: ?Sized>(T);

/// A kernel for one architecture.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    arch: &'static str,
    threads: u32,
    shared_bytes: u32,
    params_bytes: u32,
    ctas_per_sm: u32,
    registers: u32,
    image: usize,
    bytes: &'static [u8],
}

#[allow(unused_imports)] // a build without kernels has no images
mod list {
    use super::{Entry, Image};
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// The kernels of this build: name, architecture, registers of a thread.
pub fn built() -> impl Iterator<Item = (&'static str, &'static str, u32)> {
    list::ENTRIES.iter().map(|entry| (entry.name, entry.arch, entry.registers))
}

/// Whether the driver's library can be loaded. To be asked first: other calls panic without it.
pub(super) fn driver_present() -> bool {
    // SAFETY: it tries to load the driver's library, whose initialisation is the driver's own.
    unsafe { sys::is_culib_present() }
}

/// The CUDA version of the driver, as in 13000 for 13.0.
pub(super) fn driver_version() -> Result<u32, CudaError> {
    let mut version = 0;
    // SAFETY: it writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .trying(|| "asking for the driver's version".into())?;
    Ok(version.unsigned_abs())
}

/// Loaded code, unloaded when its last kernel is gone.
#[derive(Debug)]
struct Module {
    context: Arc<CudaContext>,
    raw: sys::CUmodule,
}

// SAFETY: a module is a handle that the driver guards; it is not changed after it was loaded.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Drop for Module {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: it was loaded in this context and is unloaded once; its kernels hold it.
            let unloaded = unsafe { result::module::unload(self.raw) };
            self.context.record_err(unloaded);
        }
    }
}

/// All kernels that the build has for a device.
#[derive(Debug)]
pub struct Kernels {
    device: Device,
    all: Vec<Kernel>,
}

/// A kernel that can be launched. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Kernel {
    entry: &'static Entry,
    module: Arc<Module>,
    raw: sys::CUfunction,
    ctas_per_sm: u32,
}

// SAFETY: a function is a handle into its module, which it holds; it is not changed after it was loaded.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernels {
    /// Loads those that the device can run: sm_90a on 9.0, sm_80 on 8.x, but for those that want more shared memory
    /// than it gives a cta.
    ///
    /// # Errors
    /// If the build has none, or the driver does not take them.
    pub fn load(device: &Device) -> Result<Self, CudaError> {
        if list::ENTRIES.is_empty() {
            return Err(CudaError::NoKernels(list::ABSENT));
        }
        device.context.bind_to_thread().trying(|| "loading kernels".into())?;
        let mut modules: Vec<(usize, Arc<Module>)> = Vec::new();
        let mut all = Vec::new();
        for entry in compiled_for(device).filter(|entry| entry.shared_bytes <= device.info().shared_max) {
            let loaded =
                modules.iter().find(|(image, _)| *image == entry.image).map(|(_, module)| module.clone());
            let module = match loaded {
                Some(module) => module,
                None => {
                    let module = Arc::new(load(device, entry)?);
                    modules.push((entry.image, module.clone()));
                    module
                }
            };
            all.push(Kernel::find(entry, module)?);
        }
        if all.is_empty() {
            return Err(no_kernel(device, "at all"));
        }
        Ok(Self { device: device.clone(), all })
    }

    /// The kernel of this name in `csrc/table.h`.
    ///
    /// # Errors
    /// If the build does not have it for this device, or it wants more shared memory than there is.
    pub fn get(&self, name: &str) -> Result<Kernel, CudaError> {
        let found = self.all.iter().find(|kernel| kernel.name() == name);
        found.cloned().ok_or_else(|| no_kernel(&self.device, name))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Kernel> {
        self.all.iter()
    }
}

/// The kernels of the build that a device has the instructions for.
fn compiled_for(device: &Device) -> impl Iterator<Item = &'static Entry> {
    let arch = match device.info().capability {
        90 => "sm_90a",
        80..=89 => "sm_80",
        _ => "",
    };
    list::ENTRIES.iter().filter(move |entry| entry.arch == arch)
}

/// Why there is no kernel of this name.
fn no_kernel(device: &Device, name: &str) -> CudaError {
    let info = device.info();
    if let Some(entry) = compiled_for(device).find(|entry| entry.name == name) {
        let (asked, most) = (entry.shared_bytes, info.shared_max);
        return CudaError::NoShared { name: name.into(), device: info.name.clone(), asked, most };
    }
    let mut archs: Vec<&str> = list::ENTRIES.iter().map(|entry| entry.arch).collect();
    archs.sort_unstable();
    archs.dedup();
    let known = format!("{} kernels for {}", list::ENTRIES.len(), archs.join(" and "));
    CudaError::NoKernel { name: name.into(), device: info.name.clone(), capability: info.capability, known }
}

fn load(device: &Device, entry: &'static Entry) -> Result<Module, CudaError> {
    // SAFETY: the image is a whole cubin that nvcc wrote, and an ELF file knows its own length; the context is
    // current.
    let raw = unsafe { result::module::load_data(entry.bytes.as_ptr().cast::<c_void>()) };
    let raw = raw.trying(|| format!("loading the code of {} for {}", entry.name, entry.arch))?;
    Ok(Module { context: device.context.clone(), raw })
}

impl Kernel {
    fn find(entry: &'static Entry, module: Arc<Module>) -> Result<Self, CudaError> {
        let what = || format!("finding {}", entry.name);
        let name = CString::new(entry.name).expect("names have no zeros");
        // SAFETY: the module is loaded.
        let raw = unsafe { result::module::get_function(module.raw, name) }.trying(what)?;
        let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is the module's; the attribute bounds what a launch may ask for.
        unsafe { result::function::set_function_attribute(raw, most, entry.shared_bytes as i32) }
            .trying(|| format!("giving {} {} bytes of shared memory", entry.name, entry.shared_bytes))?;
        // SAFETY: the function is the module's; it only computes.
        let ctas = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(
                raw,
                entry.threads as i32,
                entry.shared_bytes as usize,
            )
        };
        let ctas_per_sm = u32::try_from(ctas.trying(what)?).unwrap_or(0);
        Ok(Self { entry, module, raw, ctas_per_sm })
    }

    /// Its name in `csrc/table.h`.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// What it was compiled for.
    pub fn arch(&self) -> &'static str {
        self.entry.arch
    }

    /// Threads of a cta.
    pub fn threads(&self) -> u32 {
        self.entry.threads
    }

    /// Bytes of dynamic shared memory of a cta.
    pub fn shared_bytes(&self) -> u32 {
        self.entry.shared_bytes
    }

    /// Registers of a thread.
    pub fn registers(&self) -> u32 {
        self.entry.registers
    }

    /// How many of its ctas run on a multiprocessor at once.
    pub fn ctas_per_sm(&self) -> u32 {
        self.ctas_per_sm
    }

    /// How many of its ctas must fit, as its type promises.
    pub fn ctas_promised(&self) -> u32 {
        self.entry.ctas_per_sm
    }
}

impl Stream {
    /// Starts a kernel on `ctas` ctas. With `after_trigger` it may begin once the kernel before it in the stream
    /// lets it (programmatic dependent launch), and must wait for that one's results itself.
    ///
    /// # Errors
    /// If the block is not the kernel's, or the launch is refused.
    fn launch_bytes(
        &self,
        kernel: &Kernel,
        ctas: u32,
        block: &[u8],
        after_trigger: bool,
    ) -> Result<(), CudaError> {
        let entry = kernel.entry;
        if block.len() != entry.params_bytes as usize {
            let (name, want, got) = (entry.name, entry.params_bytes, block.len());
            return Err(CudaError::Misfit(format!("{name} takes parameters of {want} bytes, not of {got}")));
        }
        if ctas == 0 {
            return Ok(());
        }
        let what = || format!("launching {} on {ctas} ctas", entry.name);
        let context = &kernel.module.context;
        context.bind_to_thread().trying(what)?;
        // SAFETY: zeros are a value of it: plain numbers and a union of such.
        let mut attribute: sys::CUlaunchAttribute = unsafe { MaybeUninit::zeroed().assume_init() };
        attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attribute.value.programmaticStreamSerializationAllowed = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: ctas,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: entry.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: entry.shared_bytes,
            hStream: self.raw.cu_stream(),
            attrs: &raw mut attribute,
            // Those of sm_80 have no instruction to wait with.
            numAttrs: (after_trigger && entry.arch == "sm_90a").into(),
        };
        let mut arguments = [block.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel and the stream are alive; the kernel has one parameter, of as many bytes as the
        // block, which the driver copies before it returns. What the kernel does with the addresses in it is
        // the contract that stands at the head of this file.
        let code = unsafe {
            sys::cuLaunchKernelEx(&raw const config, kernel.raw, arguments.as_mut_ptr(), std::ptr::null_mut())
        };
        code.result().trying(what)
    }

    /// Starts a kernel on `ctas` ctas of its own shape; none if that is 0.
    ///
    /// # Errors
    /// If `params` is not the kernel's block, or the launch is refused.
    pub fn launch<P: Params>(&self, kernel: &Kernel, ctas: u32, params: &P) -> Result<(), CudaError> {
        self.launch_bytes(kernel, ctas, bytes_of(params), false)
    }

    /// The same, but on sm_90a it may begin before the kernel ahead of it has ended, whose results it awaits itself.
    ///
    /// # Errors
    /// As for [`Self::launch`].
    pub fn launch_early<P: Params>(&self, kernel: &Kernel, ctas: u32, params: &P) -> Result<(), CudaError> {
        self.launch_bytes(kernel, ctas, bytes_of(params), true)
    }

    /// The same with a block as bytes, from a copy of the parameters elsewhere.
    ///
    /// # Errors
    /// As for [`Self::launch`].
    pub fn launch_block(&self, kernel: &Kernel, ctas: u32, block: &[u8]) -> Result<(), CudaError> {
        self.launch_bytes(kernel, ctas, block, false)
    }
}

fn bytes_of<P: Params>(params: &P) -> &[u8] {
    // SAFETY: a parameter block is plain data without padding, as `params.rs` proves; it is borrowed as long.
    unsafe { std::slice::from_raw_parts((&raw const *params).cast::<u8>(), size_of::<P>()) }
}

/// What [`Stream::capture`] recorded: runs as one launch, on the stream of its capture.
pub struct Graph {
    raw: CudaGraph,
}

// SAFETY: a graph may move to another thread, as long as one at a time uses it: it is not `Sync`.
unsafe impl Send for Graph {}

impl Graph {
    pub(super) fn new(raw: CudaGraph) -> Self {
        Self { raw }
    }

    /// Starts it.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn launch(&self) -> Result<(), CudaError> {
        self.raw.launch().trying(|| "launching a graph".into())
    }
}

/// What the elements of a tiled tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    /// A byte; e4m3 too, which TMA only moves.
    U8,
    /// bf16.
    Bf16,
    /// f16.
    F16,
    /// f32.
    F32,
}

/// How TMA permutes the 16-byte pieces of a box in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// Not at all.
    None,
    /// Within 32 bytes.
    B32,
    /// Within 64 bytes.
    B64,
    /// Within 128 bytes.
    B128,
}

/// A tensor in device memory and the box that one TMA copy moves; the innermost dimension first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiled<'a> {
    /// Of its elements.
    pub element: TensorType,
    /// Where it begins, at a multiple of 16.
    pub address: u64,
    /// Elements of each dimension, 1 to 5 of them.
    pub dims: &'a [u64],
    /// Bytes from one index to the next of every dimension but the innermost, multiples of 16.
    pub strides: &'a [u64],
    /// Elements of the box in each dimension, at most 256.
    pub tile: &'a [u32],
    /// Of the box.
    pub swizzle: Swizzle,
}

/// 128 bytes that tell TMA about a tensor; part of a parameter block that is `__grid_constant__`.
pub type TensorMap = [u64; 16];

impl Tiled<'_> {
    /// The map. Outside of the tensor it yields zeros.
    ///
    /// # Errors
    /// If the shape is none that TMA takes.
    pub fn encode(&self) -> Result<TensorMap, CudaError> {
        let rank = self.dims.len();
        if !(1..=5).contains(&rank) || self.strides.len() + 1 != rank || self.tile.len() != rank {
            return Err(CudaError::Misfit(format!("{self:?} has not 1 to 5 dimensions")));
        }
        if !driver_present() {
            return Err(CudaError::NoDriver);
        }
        let element = match self.element {
            TensorType::U8 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_UINT8,
            TensorType::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            TensorType::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            TensorType::F32 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        };
        let swizzle = match self.swizzle {
            Swizzle::None => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
            Swizzle::B32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            Swizzle::B64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            Swizzle::B128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        };
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        let steps = [1_u32; 5];
        // SAFETY: the arrays have `rank` elements, the strides one less, as was checked; the map is written
        // whole, and the address is only put into it.
        let code = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                element,
                rank as u32,
                self.address as *mut c_void,
                self.dims.as_ptr(),
                self.strides.as_ptr(),
                self.tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        code.result().trying(|| format!("describing {self:?} to TMA"))?;
        Ok(map.opaque)
    }
}
