//! Files of tensors in the safetensors format: a header of JSON with every tensor's type, shape and place, then their
//! bytes: every byte behind the header belongs to one tensor. A tensor is read when it is asked for, through a buffer
//! of its size; a type that is not known matters then only.
//!
//! The format: <https://github.com/huggingface/safetensors#format>, version of 2024.

use super::ModelError;
use super::weights::rounder;
use crate::number::{Dtype, from_bf16, from_f16};
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt::{self, Formatter};
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
        let mut file = super::open(path)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        // Some files of the system have content, and a length of 0.
        if length > HEADER_MAX.min(bytes.saturating_sub(8)) {
            return Err(format(format!("a header of {length} bytes in a file of {bytes}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Header = serde_json::from_slice(&header).map_err(|error| format(error.to_string()))?;
        header.check(bytes - 8 - length).map_err(format)?;
        Ok(Self { path: name, file, data: 8 + length, entries: header.0 })
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
        if entry.size().is_none() {
            let what = format!("{name}: type {}; BF16, F16 and F32 are known", entry.dtype);
            return Err(ModelError::Format { path: self.path.clone(), what });
        }
        let long = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
        if long(&entry.shape) != long(shape) {
            let (shape, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(ModelError::Shape { name: name.into(), shape, expected });
        }
        Ok(())
    }

    /// Appends a tensor that is checked to `into`, as `dtype`.
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

/// The tensors of a file, each there once.
#[derive(Debug)]
struct Header(BTreeMap<String, Entry>);

impl Header {
    /// Whether these tensors fill `bytes` without holes, and none is in another.
    fn check(&self, bytes: u64) -> Result<(), String> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_unstable_by_key(|(_, entry)| entry.data_offsets);
        let mut done = 0;
        for (name, entry) in entries {
            entry.check(bytes).map_err(|what| format!("{name}: {what}"))?;
            let [begin, end] = entry.data_offsets;
            if begin != done {
                return Err(format!("{name}: bytes {begin} to {end}, where those before end at {done}"));
            }
            done = end;
        }
        if done == bytes { Ok(()) } else { Err(format!("{bytes} bytes, and tensors in {done} of them")) }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("tensors by their names")
    }

    /// By hand: the maps of serde let the last of two equal names stand.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry: Entry =
                map.next_value().map_err(|error| A::Error::custom(format!("{name}: {error}")))?;
            if entries.contains_key(&name) {
                return Err(A::Error::custom(format!("{name} is there twice")));
            }
            entries.insert(name, entry);
        }
        Ok(Header(entries))
    }
}

impl Entry {
    /// Bytes of an element, if its type is known.
    fn size(&self) -> Option<u64> {
        match self.dtype.as_str() {
            "BF16" | "F16" => Some(2),
            "F32" => Some(4),
            _ => None,
        }
    }

    fn check(&self, bytes: u64) -> Result<(), String> {
        let [begin, end] = self.data_offsets;
        let elements = self.shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n as u64));
        let fits = |size| elements.and_then(|n| n.checked_mul(size)) == end.checked_sub(begin);
        if begin > end || end > bytes || !self.size().is_none_or(fits) {
            let (shape, dtype) = (&self.shape, &self.dtype);
            return Err(format!("bytes {begin} to {end} of {bytes} for {shape:?} of {dtype}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file with this header and as many bytes behind it.
    fn open(header: &str, bytes: usize) -> Result<TensorFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length[..], header.as_bytes(), &vec![0; bytes]].concat()).unwrap();
        TensorFile::open(&path).map_err(|error| error.to_string())
    }

    /// An entry of a header: halves in these bytes.
    fn halves(name: &str, [begin, end]: [u64; 2]) -> String {
        let count = (end - begin) / 2;
        format!(r#""{name}":{{"dtype":"F16","shape":[{count}],"data_offsets":[{begin},{end}]}}"#)
    }

    #[test]
    fn every_byte_belongs_to_one_tensor() {
        let error = |a, b, bytes| {
            let header = format!("{{{},{}}}", halves("a", a), halves("b", b));
            open(&header, bytes).err()
        };
        let contains = |error: Option<String>, reason: &str| {
            let error = error.expect(reason);
            assert!(error.ends_with(reason), "{error}");
        };
        assert_eq!(error([0, 8], [8, 12], 12), None);
        assert_eq!(error([4, 12], [0, 4], 12), None);
        assert_eq!(error([0, 0], [0, 12], 12), None);
        contains(error([0, 8], [6, 12], 12), "b: bytes 6 to 12, where those before end at 8");
        contains(error([0, 8], [0, 8], 8), "b: bytes 0 to 8, where those before end at 8");
        contains(error([0, 8], [10, 12], 12), "b: bytes 10 to 12, where those before end at 8");
        contains(error([2, 8], [8, 12], 12), "a: bytes 2 to 8, where those before end at 0");
        contains(error([0, 8], [8, 12], 13), "13 bytes, and tensors in 12 of them");
        contains(error([0, 8], [8, 12], 10), "b: bytes 8 to 12 of 10 for [2] of F16");
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused() {
        let header = format!("{{{},{}}}", halves("a", [0, 8]), halves("a", [0, 8]));
        let error = open(&header, 8).unwrap_err();
        assert!(error.contains("a is there twice"), "{error}");
    }

    /// Quantised files have scales and tables of types that no decoder of ours asks for.
    #[test]
    fn a_type_that_is_not_known_matters_to_who_asks_for_it() {
        let table = r#""t":{"dtype":"I4","shape":[3,2],"data_offsets":[8,11]}"#;
        let file = open(&format!("{{{},{table}}}", halves("a", [0, 8])), 11).unwrap();
        file.check("a", &[4]).unwrap();
        let error = file.check("t", &[3, 2]).unwrap_err().to_string();
        assert!(error.ends_with("model.safetensors: t: type I4; BF16, F16 and F32 are known"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_unopened() {
        // The first never ends, and has a length of 0.
        for path in ["/dev/zero", "/dev"] {
            let error = TensorFile::open(Path::new(path)).unwrap_err().to_string();
            assert_eq!(error, format!("model file {path}: it is no regular file"));
        }
    }
}
