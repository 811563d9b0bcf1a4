//! Where the kernels run: on the CPU, in the emulator; or, with `FLYBALL_TEST_DEVICE=cuda`, on a GPU.
//!
//! The tests are the same. On a GPU each buffer is an allocation of its own, filled before a launch and read back
//! after it; what only the emulator can see, such as races and accesses out of bounds, is not reported, and orders
//! of threads mean only another run. A CUDA call that fails is a failed test, never a skipped one.

pub use flyball_simt::{Faults, Order, Variant, params};

use flyball::exec::cuda::{Arena, Buffer, Device, Kernels, Stream, Swizzle, TensorType, Tiled};
use flyball_simt::params::{Address, Params, bytes_of};
use flyball_simt::{Plain, bytes, bytes_mut};
use std::cell::RefCell;
use std::env;
use std::io::Write as _;
use std::sync::OnceLock;

/// An open GPU.
struct Gpu {
    device: Device,
    stream: Stream,
    kernels: Kernels,
}

/// The GPU, if the tests are to run on one.
///
/// # Panics
/// If they are and it cannot be used.
fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let opened = GPU.get_or_init(|| {
        let gpu = match env::var("FLYBALL_TEST_DEVICE").as_deref() {
            Err(_) | Ok("cpu") => None,
            Ok("cuda") => {
                Some(Gpu::open().unwrap_or_else(|e| panic!("FLYBALL_TEST_DEVICE is cuda, but {e}")))
            }
            Ok(other) => panic!("FLYBALL_TEST_DEVICE is {other:?}; it may be cpu or cuda"),
        };
        let on = match &gpu {
            None => "on the CPU, in the emulator".into(),
            Some(gpu) => {
                let info = gpu.device.info();
                format!("on {} (sm_{}, {} SMs, driver {})", info.name, info.capability, info.sms, info.driver)
            }
        };
        // Not by a macro, whose output the test runner would keep to itself.
        writeln!(std::io::stdout(), "the kernels run {on}").expect("stdout takes it");
        gpu
    });
    opened.as_ref()
}

impl Gpu {
    fn open() -> Result<Self, flyball::exec::cuda::CudaError> {
        let device = Device::open(0)?;
        Ok(Self { stream: device.stream()?, kernels: Kernels::load(&device)?, device })
    }
}

/// Whether this is a GPU, where `what` a test looks for cannot be seen; says so.
pub fn only_emulated(what: &str) -> bool {
    let skipped = gpu().is_some();
    if skipped {
        writeln!(std::io::stdout(), "not run, for only the emulator can see it: {what}")
            .expect("stdout takes it");
    }
    skipped
}

/// The buffers that a launch may touch, which it borrows.
pub struct Memory<'a> {
    emulated: flyball_simt::Memory<'a>,
    on_gpu: RefCell<Vec<Copied<'a>>>,
}

/// A buffer's copy on the GPU.
struct Copied<'a> {
    copy: Buffer<u8>,
    /// Where it goes after a launch, unless it is only read.
    host: Option<&'a mut [u8]>,
}

impl Gpu {
    fn copy(&self, host: &[u8]) -> Buffer<u8> {
        let copied = Arena::new(&self.device, "a test's buffer", Arena::bytes_of::<u8>(host.len()))
            .and_then(|mut arena| arena.take("a test's buffer", host.len()))
            .and_then(|copy| self.stream.upload(host, &copy).map(|()| copy));
        copied.unwrap_or_else(|e| panic!("{e}"))
    }
}

impl<'a> Memory<'a> {
    /// None yet.
    pub fn new() -> Self {
        Self { emulated: flyball_simt::Memory::new(), on_gpu: RefCell::default() }
    }

    /// A buffer to be read; its address.
    pub fn read<T: Plain>(&mut self, buffer: &'a [T]) -> Address {
        match gpu() {
            None => self.emulated.read(buffer),
            Some(gpu) => self.keep(Copied { copy: gpu.copy(bytes(buffer)), host: None }),
        }
    }

    /// A buffer to be read and written; its address.
    pub fn write<T: Plain>(&mut self, buffer: &'a mut [T]) -> Address {
        match gpu() {
            None => self.emulated.write(buffer),
            Some(gpu) => {
                let host = bytes_mut(buffer);
                self.keep(Copied { copy: gpu.copy(host), host: Some(host) })
            }
        }
    }

    fn keep(&mut self, copied: Copied<'a>) -> Address {
        let address = copied.copy.address();
        self.on_gpu.get_mut().push(copied);
        address
    }

    /// Copies back what kernels may have written.
    fn fetch(&self, gpu: &Gpu) {
        for Copied { copy, host } in self.on_gpu.borrow_mut().iter_mut() {
            if let Some(host) = host {
                gpu.stream.download(copy, host).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

/// A map of a bf16 tensor of four dimensions, the innermost first, for tensor copies of boxes of 128-byte rows: the
/// driver's, or one in the emulator's own layout. Strides are in bytes, of all dimensions but the innermost.
pub fn tensor_map(address: u64, strides: [u64; 3], dims: [u64; 4], tile: [u32; 4]) -> [u64; 16] {
    if gpu().is_none() {
        let words = [&[address], &strides[..], &dims, &tile.map(u64::from), &[0; 4]].concat();
        return words.try_into().expect("it has 16 words");
    }
    let element = TensorType::Bf16;
    let tensor =
        Tiled { element, address, dims: &dims, strides: &strides, tile: &tile, swizzle: Swizzle::B128 };
    tensor.encode().unwrap_or_else(|e| panic!("{e}"))
}

/// A kernel that can be launched.
pub struct Kernel {
    variant: Variant,
    kernel: flyball_simt::Kernel,
}

impl Kernel {
    /// By its name in `csrc/table.h`.
    pub fn find(variant: Variant, name: &str) -> Self {
        Self { variant, kernel: flyball_simt::Kernel::find(variant, name) }
    }

    /// All of a variant.
    pub fn all(variant: Variant) -> impl Iterator<Item = Self> {
        flyball_simt::Kernel::all(variant).map(move |kernel| Self { variant, kernel })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Runs it on `ctas` ctas. On a GPU what it wrote is copied back at once.
    ///
    /// # Errors
    /// If the emulator saw it do anything that it must not.
    ///
    /// # Panics
    /// If there is no such kernel, it takes other parameters, or a CUDA call fails.
    pub fn launch<P: Params>(
        &self,
        ctas: u32,
        params: &P,
        memory: &Memory<'_>,
        order: Order,
    ) -> Result<(), Faults> {
        let Some(gpu) = gpu() else {
            return self.kernel.launch(ctas, params, &memory.emulated, order);
        };
        assert_eq!(self.variant, Variant::Real, "seeded bugs run in the emulator alone");
        let kernel = gpu.kernels.get(self.name()).unwrap_or_else(|e| panic!("{e}"));
        let launched = gpu.stream.launch_block(&kernel, ctas, bytes_of(params));
        launched.and_then(|()| gpu.stream.synchronize()).unwrap_or_else(|e| panic!("{}: {e}", self.name()));
        memory.fetch(gpu);
        Ok(())
    }
}
