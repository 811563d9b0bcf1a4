//! Files of tensors in the safetensors format: a header of JSON with every tensor's type, shape and place, then their
//! bytes. A tensor is read when it is asked for, straight to where it stays.
//!
//! The format: <https://github.com/huggingface/safetensors#format>, version of 2024.

use super::ModelError;
use super::weights::rounder;
use crate::number::{Dtype, from_bf16, from_f16};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// The largest header: the format's own limit.
const HEADER_MAX: u64 = 100_000_000;

/// One open file.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: String,
    file: File,
    /// Where the tensors' bytes begin.
    data: u64,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

impl TensorFile {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let name = path.display().to_string();
        let io = |source| ModelError::Io { path: name.clone(), source };
        let format = |what: String| ModelError::Format { path: name.clone(), what };
        let mut file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_MAX.min(bytes - 8) {
            return Err(format(format!("a header of {length} bytes in a file of {bytes}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&header).map_err(|error| format(error.to_string()))?;
        let mut entries = BTreeMap::new();
        for (tensor, value) in header {
            if tensor != "__metadata__" {
                let entry =
                    Entry::deserialize(value).map_err(|error| format(format!("{tensor}: {error}")))?;
                entry.check(bytes - 8 - length).map_err(|what| format(format!("{tensor}: {what}")))?;
                entries.insert(tensor, entry);
            }
        }
        Ok(Self { path: name, file, data: 8 + length, entries })
    }

    /// Its tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// What a tensor is stored as, by the format's names.
    pub fn dtype(&self, name: &str) -> Result<&str, ModelError> {
        self.entry(name).map(|entry| entry.dtype.as_str())
    }

    /// Whether it has a tensor of this name and shape, where lengths of 1 do not count.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let long = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        if long(&entry.shape) != long(shape) {
            let (shape, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(ModelError::Shape { name: name.into(), shape, expected });
        }
        Ok(())
    }

    /// Appends a tensor to `into`, as `dtype`.
    pub fn read(&self, name: &str, dtype: Dtype, into: &mut Vec<u16>) -> Result<(), ModelError> {
        let entry = self.entry(name)?;
        let [begin, end] = entry.data_offsets;
        let mut bytes = vec![0; (end - begin) as usize];
        let io = |source| ModelError::Io { path: self.path.clone(), source };
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.data + begin)).map_err(io)?;
        file.read_exact(&mut bytes).map_err(io)?;
        let round = rounder(dtype);
        let halves = bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
        match (entry.dtype.as_str(), dtype) {
            ("BF16", Dtype::Bf16) | ("F16", Dtype::F16) => into.extend(halves),
            ("BF16", _) => into.extend(halves.map(|bits| round(from_bf16(bits)))),
            ("F16", _) => into.extend(halves.map(|bits| round(from_f16(bits)))),
            _ => into.extend(bytes.as_chunks::<4>().0.iter().map(|b| round(f32::from_le_bytes(*b)))),
        }
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<&Entry, ModelError> {
        self.entries.get(name).ok_or_else(|| ModelError::Missing(name.into()))
    }
}

impl Entry {
    fn check(&self, bytes: u64) -> Result<(), String> {
        let size = match self.dtype.as_str() {
            "BF16" | "F16" => 2,
            "F32" => 4,
            other => return Err(format!("type {other}; BF16, F16 and F32 are known")),
        };
        let [begin, end] = self.data_offsets;
        let elements = self.shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n as u64));
        let wanted = elements.and_then(|n| n.checked_mul(size));
        if begin > end || end > bytes || Some(end - begin) != wanted {
            let (shape, dtype) = (&self.shape, &self.dtype);
            return Err(format!("bytes {begin} to {end} of {bytes} for {shape:?} of {dtype}"));
        }
        Ok(())
    }
}
