//! The executor's device as the benches use it: addresses within regions that were taken once, errors as text.

pub use flyball::exec::cuda::Graph;
pub use flyball::exec::cuda::params;

use flyball::exec::cuda::{
    Arena, Buffer, Device, Event, Kernel, Kernels, Pinned, Stream, Swizzle, TensorMap, TensorType, Tiled,
};
use params::{Params, Pool};
use std::cell::Cell;
use std::collections::BTreeMap;

/// A device, two streams of it, its kernels, and the memory that was taken.
pub struct Gpu {
    device: Device,
    streams: [Stream; 2],
    /// On which of the streams things are started.
    current: Cell<usize>,
    forked: Event,
    joined: Event,
    kernels: BTreeMap<&'static str, Kernel>,
    begun: Event,
    ended: Event,
    regions: Vec<Buffer<u8>>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Gpu {
    pub fn open() -> Result<Self, String> {
        let device = Device::open(0).map_err(text)?;
        let kernels = Kernels::load(&device).map_err(text)?;
        Ok(Self {
            streams: [device.stream().map_err(text)?, device.stream().map_err(text)?],
            current: Cell::new(0),
            forked: device.event().map_err(text)?,
            joined: device.event().map_err(text)?,
            kernels: kernels.iter().map(|kernel| (kernel.name(), kernel.clone())).collect(),
            begun: device.timer().map_err(text)?,
            ended: device.timer().map_err(text)?,
            regions: Vec::new(),
            device,
        })
    }

    fn stream(&self) -> &Stream {
        &self.streams[self.current.get()]
    }

    /// Starts both so that they may run at once; what comes after waits for both.
    pub fn beside(
        &self,
        first: impl FnOnce() -> Result<(), String>,
        second: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let [main, side] = &self.streams;
        main.record(&self.forked).and_then(|()| side.wait(&self.forked)).map_err(text)?;
        self.current.set(1);
        let started = second();
        self.current.set(0);
        started?;
        first()?;
        side.record(&self.joined).and_then(|()| main.wait(&self.joined)).map_err(text)
    }

    /// Device memory until the end; its address.
    pub fn take(&mut self, bytes: u64) -> Result<u64, String> {
        let mut arena = Arena::new(&self.device, "a bench", bytes).map_err(text)?;
        let region: Buffer<u8> = arena.take("a bench", bytes as usize).map_err(text)?;
        let address = region.address();
        self.regions.push(region);
        Ok(address)
    }

    fn part(&self, address: u64, bytes: u64) -> Result<Buffer<u8>, String> {
        let within = |region: &&Buffer<u8>| {
            address >= region.address() && address + bytes <= region.address() + region.len() as u64
        };
        let region = self.regions.iter().find(within).ok_or("these bytes were not taken")?;
        Ok(region.part((address - region.address()) as usize, bytes as usize))
    }

    /// Writes bytes of the host.
    pub fn fill(&self, address: u64, bytes: &[u8]) -> Result<(), String> {
        self.stream().upload(bytes, &self.part(address, bytes.len() as u64)?).map_err(text)
    }

    /// Reads a word, once all that was started is done.
    pub fn word(&self, address: u64) -> Result<u32, String> {
        let mut bytes = [0; 4];
        self.stream().download(&self.part(address, 4)?, &mut bytes).map_err(text)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Starts a copy on the device.
    pub fn copy(&self, from: u64, to: u64, bytes: u64) -> Result<(), String> {
        self.stream().copy(&self.part(from, bytes)?, &self.part(to, bytes)?).map_err(text)
    }

    /// Memory of the host that the copy engines reach.
    pub fn pinned(&self, bytes: u64) -> Result<Pinned<u8>, String> {
        Pinned::new(&self.device, "a bench", bytes as usize).map_err(text)
    }

    /// Starts a copy to the host of as many bytes as it has.
    pub fn copy_out(&self, from: u64, to: &Pinned<u8>) -> Result<(), String> {
        let from = self.part(from, to.as_slice().len() as u64)?;
        self.stream().download_pinned(&from, to, 0).map_err(text)
    }

    /// Starts a copy from the host of all its bytes.
    pub fn copy_in(&self, from: &Pinned<u8>, to: u64) -> Result<(), String> {
        let bytes = from.as_slice().len();
        self.stream().upload_pinned(from, 0, &self.part(to, bytes as u64)?).map_err(text)
    }

    fn kernel(&self, name: &str) -> Result<&Kernel, String> {
        self.kernels.get(name).ok_or_else(|| format!("this build has no kernel {name} for this device"))
    }

    /// As many ctas as run at once, or so many per multiprocessor, but no more than there are items.
    pub fn ctas(&self, name: &str, items: u32, per_sm: Option<u32>) -> Result<u32, String> {
        let per_sm = per_sm.map_or_else(|| self.ctas_per_sm(name), Ok)?;
        Ok((self.device.info().sms * per_sm).min(items))
    }

    /// How many ctas of a kernel run on a multiprocessor at once.
    pub fn ctas_per_sm(&self, name: &str) -> Result<u32, String> {
        Ok(self.kernel(name)?.ctas_per_sm())
    }

    /// Starts a kernel.
    pub fn launch<P: Params>(&self, name: &str, ctas: u32, params: &P) -> Result<(), String> {
        self.stream().launch(self.kernel(name)?, ctas, params).map_err(text)
    }

    /// Starts a kernel that may begin before the one ahead of it has ended, and awaits it by itself.
    pub fn launch_early<P: Params>(&self, name: &str, ctas: u32, params: &P) -> Result<(), String> {
        self.stream().launch_early(self.kernel(name)?, ctas, params).map_err(text)
    }

    /// What `work` starts, as a graph.
    pub fn record(&self, work: impl FnOnce(&Self) -> Result<(), String>) -> Result<Graph, String> {
        let mut worked = Ok(());
        let graph = self.stream().capture(|| {
            worked = work(self);
            Ok(())
        });
        worked?;
        graph.map_err(text)
    }

    /// Runs a graph; its microseconds.
    pub fn replay(&self, graph: &Graph) -> Result<f64, String> {
        self.timed(|| graph.launch().map_err(text))
    }

    /// Microseconds of what `work` starts.
    pub fn timed(&self, work: impl FnOnce() -> Result<(), String>) -> Result<f64, String> {
        self.stream().record(&self.begun).map_err(text)?;
        work()?;
        self.stream().record(&self.ended).map_err(text)?;
        self.ended.synchronize().map_err(text)?;
        self.begun.micros_until(&self.ended).map_err(text)
    }

    /// Waits for all that was started.
    pub fn wait(&self) -> Result<(), String> {
        self.stream().synchronize().map_err(text)
    }

    /// Whether the device still answers after something failed.
    pub fn healthy(&self) -> Result<(), String> {
        self.device.synchronize().map_err(text)
    }

    /// How a kernel that copies by boxes sees a pool of so many pages (`csrc/params.h`, `fb_prefill_tensor`).
    pub fn page_map(
        &self,
        pool: &Pool,
        page_size: u32,
        head_dim: u32,
        pages: u32,
    ) -> Result<TensorMap, String> {
        let row = u64::from(head_dim) * 2;
        let tiled = Tiled {
            element: TensorType::Bf16,
            address: pool.pages,
            dims: &[head_dim.into(), page_size.into(), u64::from(2 * pool.heads_kv), pages.into()],
            strides: &[row, row * u64::from(page_size), pool.page_stride as u64 * 2],
            tile: &[64, page_size, 1, 1],
            swizzle: Swizzle::B128,
        };
        tiled.encode().map_err(text)
    }
}
