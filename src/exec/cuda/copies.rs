//! KV blocks on their way: to pinned memory of the host, back, and on the device, by the copy engines.
//!
//! They have a stream of their own. What comes before the kernels is waited for by them; what runs beside and after
//! them is waited for by the step that follows.

use super::{Buffer, CudaError, Device, Event, Pinned, Stream};
use crate::batch::Copies;

/// Moves blocks.
#[derive(Debug)]
pub struct Mover {
    stream: Stream,
    /// Host blocks.
    host: Pinned<u8>,
    block_bytes: usize,
    /// Where the main stream is when a step begins, or its kernels end.
    reached: Event,
    /// The blocks that the kernels need have come.
    ready: Event,
    /// All that was started has come.
    arrived: Event,
}

impl Mover {
    /// Takes pinned memory for `host_blocks`.
    ///
    /// # Errors
    /// If the host has too little.
    pub fn new(device: &Device, host_blocks: usize, block_bytes: usize) -> Result<Self, CudaError> {
        Ok(Self {
            stream: device.stream()?,
            host: Pinned::new(device, "swapped KV blocks", host_blocks * block_bytes)?,
            block_bytes,
            reached: device.event()?,
            ready: device.event()?,
            arrived: device.event()?,
        })
    }

    /// Starts what must come before the kernels of a step, and what runs beside them; `main` waits for the former,
    /// and for whatever earlier steps left.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn begin(
        &self,
        main: &Stream,
        pool: &Buffer<u8>,
        before: &Copies,
        beside: &Copies,
    ) -> Result<(), CudaError> {
        // Of the step before: its blocks may be read or written now.
        main.wait(&self.arrived)?;
        if before.is_empty() && beside.is_empty() {
            return Ok(());
        }
        // Kernels of earlier steps may still use them.
        main.record(&self.reached)?;
        self.stream.wait(&self.reached)?;
        self.copy(pool, before)?;
        self.stream.record(&self.ready)?;
        main.wait(&self.ready)?;
        self.copy(pool, beside)?;
        self.stream.record(&self.arrived)
    }

    /// Starts what comes after the kernels.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn end(&self, main: &Stream, pool: &Buffer<u8>, after: &Copies) -> Result<(), CudaError> {
        if after.is_empty() {
            return Ok(());
        }
        main.record(&self.reached)?;
        self.stream.wait(&self.reached)?;
        self.copy(pool, after)?;
        self.stream.record(&self.arrived)
    }

    fn copy(&self, pool: &Buffer<u8>, copies: &Copies) -> Result<(), CudaError> {
        let bytes = self.block_bytes;
        let block = |index: u32| pool.part(index as usize * bytes, bytes);
        for swap in &copies.swap_out {
            self.stream.download_pinned(&block(swap.device.0), &self.host, swap.host.0 as usize * bytes)?;
        }
        for swap in &copies.swap_in {
            self.stream.upload_pinned(&self.host, swap.host.0 as usize * bytes, &block(swap.device.0))?;
        }
        for copy in &copies.device {
            self.stream.copy(&block(copy.from.0), &block(copy.to.0))?;
        }
        Ok(())
    }
}
