//! Random contents, drawn once: pages of the cache, activations, logits; and room that every row takes anew.

use crate::gpu::Gpu;
use flyball::number::to_bf16;
use flyball::prng::Prng;

/// Drawn on the host; the device repeats it.
const DRAWN_BYTES: usize = 16 << 20;
const HALVES_BYTES: u64 = 5 << 30;
const CODES_BYTES: u64 = 2 << 30;
const LOGITS_BYTES: u64 = 512 << 20;
const ROOM_BYTES: u64 = 5 << 30;

/// A part of the device's memory.
#[derive(Clone, Copy)]
pub struct Region {
    pub address: u64,
    pub bytes: u64,
}

impl Region {
    /// The address of the `set`-th of the sets of so many bytes that fit, in turn.
    pub fn cut(&self, bytes: u64, set: usize) -> Result<u64, String> {
        let fit = self.bytes / bytes.next_multiple_of(256);
        if fit == 0 {
            return Err(format!("{bytes} bytes do not fit into the {} that were drawn", self.bytes));
        }
        Ok(self.address + set as u64 % fit * bytes.next_multiple_of(256))
    }
}

/// The regions.
#[derive(Clone, Copy)]
pub struct Data {
    /// Normal bf16.
    pub halves: Region,
    /// e4m3 from 2^-2 to below 4, none of them NaN.
    pub codes: Region,
    /// Normal f32, of deviation 3.
    pub logits: Region,
    room: Region,
    taken: u64,
}

impl Data {
    pub fn new(gpu: &mut Gpu) -> Result<Self, String> {
        let mut prng = Prng::new(1);
        let halves: Vec<u16> = (0..DRAWN_BYTES / 2).map(|_| to_bf16(prng.normal() as f32)).collect();
        let codes: Vec<u8> = (0..DRAWN_BYTES).map(|_| e4m3(prng.bits())).collect();
        let logits: Vec<f32> = (0..DRAWN_BYTES / 4).map(|_| 3.0 * prng.normal() as f32).collect();
        Ok(Self {
            halves: filled(gpu, HALVES_BYTES, &halves)?,
            codes: filled(gpu, CODES_BYTES, &codes)?,
            logits: filled(gpu, LOGITS_BYTES, &logits)?,
            room: Region { address: gpu.take(ROOM_BYTES)?, bytes: ROOM_BYTES },
            taken: 0,
        })
    }

    /// Room for so many bytes, until [`clear`](Self::clear).
    pub fn room(&mut self, bytes: u64) -> Result<u64, String> {
        let at = self.taken.next_multiple_of(256);
        if at + bytes > self.room.bytes {
            return Err(format!("no room for {bytes} bytes"));
        }
        self.taken = at + bytes;
        Ok(self.room.address + at)
    }

    /// Room that holds this.
    pub fn hold<T: Value>(&mut self, gpu: &Gpu, values: &[T]) -> Result<u64, String> {
        let address = self.room(size_of_val(values) as u64)?;
        gpu.fill(address, &bytes_of(values))?;
        Ok(address)
    }

    /// All room is free again.
    pub fn clear(&mut self) {
        self.taken = 0;
    }
}

/// What a buffer's elements may be.
pub trait Value: Copy {
    /// As the device reads it.
    fn bytes(self) -> impl AsRef<[u8]>;
}

macro_rules! values {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn bytes(self) -> impl AsRef<[u8]> {
                self.to_le_bytes()
            }
        })*
    };
}
values!(u8 u16 u32 u64 i64 f32);

fn bytes_of<T: Value>(values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(values));
    values.iter().for_each(|value| bytes.extend_from_slice(value.bytes().as_ref()));
    bytes
}

fn filled<T: Value>(gpu: &mut Gpu, bytes: u64, values: &[T]) -> Result<Region, String> {
    let region = Region { address: gpu.take(bytes)?, bytes };
    gpu.fill(region.address, &bytes_of(values))?;
    let mut done = size_of_val(values) as u64;
    while done < bytes {
        let more = done.min(bytes - done);
        gpu.copy(region.address, region.address + done, more)?;
        done += more;
    }
    gpu.wait()?;
    Ok(region)
}

/// A sign, one of four exponents, a mantissa.
fn e4m3(bits: u64) -> u8 {
    (bits & 0x87) as u8 | (5 + (bits >> 8 & 3) as u8) << 3
}

/// A random order of the first `count` numbers.
pub fn shuffled(count: u32) -> Vec<u32> {
    let mut prng = Prng::new(2);
    let mut order: Vec<u32> = (0..count).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, prng.below(at as u64 + 1) as usize);
    }
    order
}
