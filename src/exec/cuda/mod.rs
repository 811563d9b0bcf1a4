//! A CUDA device: streams, events and graphs over the driver, which is loaded when it is asked for.
//!
//! ```text
//! Device::open -> Arena::new -> Buffer          (arena.rs: memory)
//!              -> Kernels::load -> Kernel       (kernels.rs: launches, tensor maps)
//!              -> Stream: launch, copy, record, wait, capture -> Graph
//! ```
//!
//! Building needs neither a GPU nor a toolkit. Without nvcc the build has no kernels, and [`Kernels::load`] says
//! so; without a driver, [`Device::open`] does. A launch, a copy and a replay allocate nothing.

mod arena;
mod copies;
mod error;
mod executor;
mod forward;
pub mod gemm;
mod inputs;
mod kernels;
mod names;
mod pages;
pub mod params;
mod products;
mod stage;
mod weights;
mod work;

pub use arena::{Arena, Buffer, Pinned, Plain};
pub use error::CudaError;
pub use executor::{CudaExecutor, CudaOptions};
pub use kernels::{Graph, Kernel, Kernels, Swizzle, TensorMap, TensorType, Tiled, built};
pub use pages::PageTensor;
pub use work::DecodeCut;

use cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUevent_flags, CUgraphInstantiate_flags, CUstreamCaptureMode,
};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};
use error::Trying;
use std::sync::Arc;

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// As the driver names it.
    pub name: String,
    /// The CUDA version of the driver, as in 13000 for 13.0.
    pub driver: u32,
    /// Compute capability, as in 90 for 9.0.
    pub capability: u32,
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Bytes of L2 cache.
    pub l2: u64,
    /// The most bytes of shared memory of a cta.
    pub shared_max: u32,
}

/// A device, with its primary context. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    info: Arc<DeviceInfo>,
}

impl Device {
    /// How many devices the driver sees.
    ///
    /// # Errors
    /// Without a driver, or if it does not start.
    pub fn count() -> Result<usize, CudaError> {
        if !kernels::driver_present() {
            return Err(CudaError::NoDriver);
        }
        let count = CudaContext::device_count().trying(|| "starting the driver".into())?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Opens the device of this number.
    ///
    /// # Errors
    /// Without a driver or such a device, or if it cannot be used.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let what = || format!("opening CUDA device {ordinal}");
        let context = CudaContext::new(ordinal).trying(what)?;
        let attribute = |attribute| {
            let value = context.attribute(attribute).trying(what)?;
            Ok::<u32, CudaError>(u32::try_from(value).unwrap_or(0))
        };
        let info = DeviceInfo {
            name: context.name().trying(what)?,
            driver: kernels::driver_version()?,
            capability: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? * 10
                + attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            memory: context.total_mem().trying(what)? as u64,
            l2: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            shared_max: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        };
        Ok(Self { context, info: Arc::new(info) })
    }

    /// What is known of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Bytes of device memory that are free now.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        Ok(self.context.mem_get_info().trying(|| "asking for free memory".into())?.0 as u64)
    }

    /// A stream, which runs beside all others.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn stream(&self) -> Result<Stream, CudaError> {
        Ok(Stream { raw: self.context.new_stream().trying(|| "creating a stream".into())? })
    }

    /// An event that keeps the time.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn timer(&self) -> Result<Event, CudaError> {
        self.event_with(CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// An event that orders work, and keeps no time.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn event(&self) -> Result<Event, CudaError> {
        self.event_with(CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn event_with(&self, flags: CUevent_flags) -> Result<Event, CudaError> {
        Ok(Event { raw: self.context.new_event(Some(flags)).trying(|| "creating an event".into())? })
    }

    /// Waits for everything that was started.
    ///
    /// # Errors
    /// If some of it failed: a kernel's fault shows here at the latest.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.context.synchronize().trying(|| "waiting for the device".into())
    }
}

/// Work in order.
#[derive(Clone, Debug)]
pub struct Stream {
    raw: Arc<CudaStream>,
}

impl Stream {
    /// Marks what was started so far.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn record(&self, event: &Event) -> Result<(), CudaError> {
        event.raw.record(&self.raw).trying(|| "recording an event".into())
    }

    /// What is started from now on comes after what `event` marks.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn wait(&self, event: &Event) -> Result<(), CudaError> {
        self.raw.wait(&event.raw).trying(|| "waiting for an event".into())
    }

    /// Blocks until all is done.
    ///
    /// # Errors
    /// If some of it failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.raw.synchronize().trying(|| "waiting for a stream".into())
    }

    /// Records what `work` starts on this stream, and on those that wait for it meanwhile and are waited for,
    /// as a graph. Nothing of it runs yet.
    ///
    /// # Errors
    /// Those of `work`, or if it did what cannot be captured.
    pub fn capture(&self, work: impl FnOnce() -> Result<(), CudaError>) -> Result<Graph, CudaError> {
        let what = || "capturing a graph".to_owned();
        self.raw.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).trying(what)?;
        let worked = work();
        // In any case: else the stream would stay in capture.
        let graph = self.raw.end_capture(CUgraphInstantiate_flags(0)).trying(what);
        worked?;
        let raw = graph?.ok_or_else(|| CudaError::Misfit("a captured graph is empty".into()))?;
        raw.upload().trying(what)?;
        Ok(Graph::new(raw))
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    raw: CudaEvent,
}

impl Event {
    /// Blocks until what it marks is done.
    ///
    /// # Errors
    /// If some of that failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.raw.synchronize().trying(|| "waiting for an event".into())
    }

    /// Whether what it marks is done.
    ///
    /// # Errors
    /// If some of that failed.
    pub fn is_done(&self) -> Result<bool, CudaError> {
        self.raw.try_is_complete().trying(|| "asking for an event".into())
    }

    /// Microseconds of the device from this timer to a later one, once both are done; it waits for them.
    ///
    /// # Errors
    /// If either is no timer or was not recorded, or the work before failed.
    pub fn micros_until(&self, later: &Self) -> Result<f64, CudaError> {
        Ok(f64::from(self.raw.elapsed_ms(&later.raw).trying(|| "reading timers".into())?) * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;
    use crate::config::Config;
    use crate::model::{Model, tiny};
    use crate::number::Dtype;

    #[test]
    fn what_is_missing_is_named() {
        match Device::count() {
            Err(CudaError::NoDriver) => {
                let options =
                    CudaOptions { ordinal: 0, kv: Dtype::Bf16, batch_invariant: false, graphs: true };
                let model = Model::random(tiny(), 1).unwrap();
                let clock = Box::new(MonotonicClock::new());
                let error = CudaExecutor::new(&model, &Config::default(), options, clock).err().unwrap();
                assert!(error.to_string().contains("libcuda.so.1"), "{error}");
            }
            // A driver may be there without a device.
            Err(error) => assert!(error.to_string().contains("starting the driver"), "{error}"),
            Ok(count) => {
                let missing = Device::open(count).unwrap_err();
                assert_eq!(missing, CudaError::NoDevice { ordinal: count, count });
            }
        }
    }
}
