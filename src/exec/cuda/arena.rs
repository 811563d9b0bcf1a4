//! Memory of a device, taken once; typed ranges of it; pinned memory of the host; copies between them.
//!
//! A wall: `unsafe` is here because a device's addresses are numbers to the driver. What makes it sound: a
//! [`Buffer`] is made by [`Arena::take`] alone and keeps its allocation alive, copies check lengths, and pinned
//! memory is lent to the host only while nothing that was started may still touch it.

#![allow(unsafe_code)]

use super::{CudaError, Device, Stream, Trying};
use cudarc::driver::{CudaContext, result, sys};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::size_of;
use std::sync::Arc;

/// Ranges begin at multiples of this: what tensor maps and wide loads want.
const ALIGNMENT: u64 = 256;

/// The types that buffers hold: any bits are a value.
pub trait Plain: sealed::Plain {}

mod sealed {
    /// Known here alone.
    pub trait Plain: Copy + Send + Sync + 'static {}
}

macro_rules! plain {
    ($($type:ty)*) => { $(impl sealed::Plain for $type {} impl Plain for $type {})* };
}
plain!(u8 u16 u32 u64 i32 i64 f32);

/// Device memory that is freed when the last range of it is gone.
#[derive(Debug)]
struct Allocation {
    context: Arc<CudaContext>,
    base: u64,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: `base` came from `malloc_sync` in this context and is freed once, here; every buffer
            // in it holds a reference to this. Freeing waits for what was started.
            let freed = unsafe { result::free_sync(self.base) };
            self.context.record_err(freed);
        }
    }
}

/// One allocation, from which ranges are taken until it is full; none goes back alone.
#[derive(Debug)]
pub struct Arena {
    allocation: Arc<Allocation>,
    bytes: u64,
    taken: u64,
}

impl Arena {
    /// Takes this many bytes of the device's memory.
    ///
    /// # Errors
    /// If so many are not free.
    pub fn new(device: &Device, what: &str, bytes: u64) -> Result<Self, CudaError> {
        let free = device.free_memory()?;
        let short = || CudaError::OutOfMemory { what: what.into(), asked: bytes, free };
        let size = usize::try_from(bytes.max(ALIGNMENT)).map_err(|_| short())?;
        // SAFETY: the context is current, since `free_memory` bound it; the result is kept in an
        // `Allocation`, which frees it.
        let base = match unsafe { result::malloc_sync(size) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(short()),
            other => other.trying(|| format!("allocating {bytes} bytes for {what}"))?,
        };
        let allocation = Arc::new(Allocation { context: device.context.clone(), base });
        Ok(Self { allocation, bytes: size as u64, taken: 0 })
    }

    /// Bytes that `len` elements take of an arena.
    pub fn bytes_of<T: Plain>(len: usize) -> u64 {
        ((len * size_of::<T>()) as u64).next_multiple_of(ALIGNMENT)
    }

    /// A range of `len` elements, with whatever was there.
    ///
    /// # Errors
    /// If the arena has no room left for it.
    pub fn take<T: Plain>(&mut self, what: &str, len: usize) -> Result<Buffer<T>, CudaError> {
        let (asked, free) = (Self::bytes_of::<T>(len), self.bytes - self.taken);
        if asked > free {
            return Err(CudaError::OutOfMemory { what: what.into(), asked, free });
        }
        let address = self.allocation.base + self.taken;
        self.taken += asked;
        Ok(Buffer { allocation: self.allocation.clone(), address, len, elements: PhantomData })
    }

    /// Bytes not taken yet.
    pub fn left(&self) -> u64 {
        self.bytes - self.taken
    }
}

/// A typed range of device memory, which parameter blocks name by its address.
#[derive(Clone, Debug)]
pub struct Buffer<T> {
    allocation: Arc<Allocation>,
    address: u64,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same range, as bytes.
    pub fn as_bytes(&self) -> Buffer<u8> {
        let len = self.len * size_of::<T>();
        Buffer { allocation: self.allocation.clone(), address: self.address, len, elements: PhantomData }
    }

    /// A part of it.
    ///
    /// # Panics
    /// If it is not within it.
    pub fn part(&self, from: usize, len: usize) -> Self {
        assert!(from + len <= self.len, "{from} + {len} elements of {}", self.len);
        let address = self.address + (from * size_of::<T>()) as u64;
        Self { allocation: self.allocation.clone(), address, len, elements: PhantomData }
    }
}

/// Memory of the host that copy engines reach at full speed.
#[derive(Debug)]
pub struct Pinned<T> {
    context: Arc<CudaContext>,
    base: *mut T,
    len: usize,
}

// SAFETY: it owns its memory as a boxed slice does, and `T: Plain` is both.
unsafe impl<T: Plain> Send for Pinned<T> {}
// SAFETY: a shared reference only reads.
unsafe impl<T: Plain> Sync for Pinned<T> {}

impl<T: Plain> Pinned<T> {
    /// Takes memory for `len` elements, all zero.
    ///
    /// # Errors
    /// If the host has too little.
    pub fn new(device: &Device, what: &str, len: usize) -> Result<Self, CudaError> {
        let what = || format!("pinning {} bytes of the host for {what}", len * size_of::<T>());
        device.context.bind_to_thread().trying(what)?;
        let bytes = (len * size_of::<T>()).max(1);
        // SAFETY: the context is current; the memory is page-aligned, kept here and freed once, by `drop`.
        let base = unsafe { result::malloc_host(bytes, 0) }.trying(what)?;
        // SAFETY: it has `bytes` bytes, and zeros are a value of every plain type.
        unsafe { base.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self { context: device.context.clone(), base: base.cast(), len })
    }

    /// What it holds. Copies into it that were started must have been waited for.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `base` points to `len` initialised elements that live as long as this. A device that still
        // writes them yields some value of a plain type; the caller waits to have the right one.
        unsafe { std::slice::from_raw_parts(self.base, self.len) }
    }

    /// The same, to be written. Copies out of it that were started must have been waited for.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and this is the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // What was started may still reach it.
        if self.context.bind_to_thread().is_ok() && result::ctx::synchronize().is_ok() {
            // SAFETY: it came from `malloc_host` in this context and is freed once, here, after everything
            // that was started is done.
            let freed = unsafe { result::free_host(self.base.cast::<c_void>()) };
            self.context.record_err(freed);
        }
    }
}

fn fits(what: &str, from: usize, to: usize) -> Result<(), CudaError> {
    if from == to {
        return Ok(());
    }
    Err(CudaError::Misfit(format!("{what} {from} elements into {to}")))
}

fn within(room: usize, at: usize, len: usize) -> Result<(), CudaError> {
    if at.checked_add(len).is_some_and(|end| end <= room) {
        return Ok(());
    }
    Err(CudaError::Misfit(format!("copying elements {at} + {len} of {room} pinned ones")))
}

impl Stream {
    /// Copies from the host, and waits for it.
    ///
    /// # Errors
    /// If the lengths differ, or the copy or what came before it failed.
    pub fn upload<T: Plain>(&self, from: &[T], to: &Buffer<T>) -> Result<(), CudaError> {
        fits("uploading", from.len(), to.len)?;
        let what = || format!("uploading {} bytes", size_of_val(from));
        self.raw.context().bind_to_thread().trying(what)?;
        // SAFETY: `to` is a live range of as many elements; `from` outlives the copy, which is waited for.
        unsafe { result::memcpy_htod_async(to.address, from, self.raw.cu_stream()) }.trying(what)?;
        self.synchronize()
    }

    /// Copies to the host, and waits for it.
    ///
    /// # Errors
    /// If the lengths differ, or the copy or what came before it failed.
    pub fn download<T: Plain>(&self, from: &Buffer<T>, to: &mut [T]) -> Result<(), CudaError> {
        fits("downloading", from.len, to.len())?;
        let what = || format!("downloading {} bytes", size_of_val(to));
        self.raw.context().bind_to_thread().trying(what)?;
        // SAFETY: `from` is a live range of as many elements; `to` outlives the copy, which is waited for.
        unsafe { result::memcpy_dtoh_async(to, from.address, self.raw.cu_stream()) }
            .trying(|| "downloading".into())?;
        self.synchronize()
    }

    /// Starts a copy of pinned memory from element `at` on, as many as `to` has; they must not change until it is
    /// done.
    ///
    /// # Errors
    /// If there are fewer, or the device is lost.
    pub fn upload_pinned<T: Plain>(
        &self,
        from: &Pinned<T>,
        at: usize,
        to: &Buffer<T>,
    ) -> Result<(), CudaError> {
        within(from.len, at, to.len)?;
        self.raw.context().bind_to_thread().trying(|| "uploading".into())?;
        // SAFETY: both have `to.len` elements; pinned memory is freed only after all that was started is done,
        // and device memory too.
        unsafe {
            result::memcpy_htod_async(to.address, &from.as_slice()[at..][..to.len], self.raw.cu_stream())
        }
        .trying(|| format!("uploading {} elements", to.len))
    }

    /// Starts a copy of `from` into pinned memory from element `at` on, which must not be read until it is done.
    ///
    /// # Errors
    /// If there is no room for it, or the device is lost.
    pub fn download_pinned<T: Plain>(
        &self,
        from: &Buffer<T>,
        to: &Pinned<T>,
        at: usize,
    ) -> Result<(), CudaError> {
        within(to.len, at, from.len)?;
        self.raw.context().bind_to_thread().trying(|| "downloading".into())?;
        // SAFETY: `to` has room for all of `from`, and is freed only after all that was started is done. The slice
        // only tells the driver where and how long; nothing reads or writes through it here.
        let to = unsafe { std::slice::from_raw_parts_mut(to.base.add(at), from.len) };
        // SAFETY: as above.
        unsafe { result::memcpy_dtoh_async(to, from.address, self.raw.cu_stream()) }
            .trying(|| format!("downloading {} elements", from.len))
    }

    /// Starts a copy on the device. The ranges must not overlap.
    ///
    /// # Errors
    /// If the lengths differ, or the device is lost.
    pub fn copy<T: Plain>(&self, from: &Buffer<T>, to: &Buffer<T>) -> Result<(), CudaError> {
        fits("copying", from.len, to.len)?;
        self.raw.context().bind_to_thread().trying(|| "copying".into())?;
        let bytes = from.len * size_of::<T>();
        // SAFETY: both are live ranges of `bytes` bytes.
        unsafe { result::memcpy_dtod_async(to.address, from.address, bytes, self.raw.cu_stream()) }
            .trying(|| format!("copying {bytes} bytes on the device"))
    }

    /// Starts to set every byte.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn fill<T: Plain>(&self, buffer: &Buffer<T>, byte: u8) -> Result<(), CudaError> {
        self.raw.context().bind_to_thread().trying(|| "filling".into())?;
        let bytes = buffer.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: it is a live range of `bytes` bytes.
        unsafe { result::memset_d8_async(buffer.address, byte, bytes, self.raw.cu_stream()) }
            .trying(|| format!("filling {bytes} bytes"))
    }
}
