//! Results on disk: one small file each, named by a hash of everything that determines the result.
//!
//! A file also says which executable made it. A result of another build is taken only on request, since a
//! change of the code may change it; whoever takes it says so.

use super::SuiteError;
use crate::prng::mix;
use crate::trace::write::replace;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The layout of the files: a file of another layout is made anew.
const SCHEMA: &str = "flyball.suite-run/1";

/// A folder of results.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Digest of the executable that runs.
    build: String,
    /// Whether results of other builds count.
    reuse: bool,
}

/// A result, and where it comes from.
#[derive(Serialize, Deserialize)]
struct Entry<T> {
    schema: String,
    build: String,
    /// What determines the result, for people.
    key: serde_json::Value,
    result: T,
}

/// Where a result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made now.
    Fresh,
    /// It was there, made by this build or by another.
    Kept {
        /// Whether this build made it.
        own: bool,
    },
}

/// A result that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<T> {
    /// The result.
    pub result: T,
    /// Whether this build made it.
    pub own: bool,
}

impl Cache {
    /// The results in `folder`, which is made if need be, for the build with digest `build`; those of
    /// other builds are taken if `reuse`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path, build: String, reuse: bool) -> Result<Self, SuiteError> {
        fs::create_dir_all(folder).map_err(|source| SuiteError::Io { path: folder.into(), source })?;
        Ok(Self { folder: folder.into(), build, reuse })
    }

    /// The result of `key`, if it is here and counts. A file that cannot be read does not.
    pub fn get<T: DeserializeOwned>(&self, key: &serde_json::Value) -> Option<Found<T>> {
        let text = fs::read(self.path(key)).ok()?;
        let entry: Entry<T> = serde_json::from_slice(&text).ok()?;
        let own = entry.build == self.build;
        let counts = entry.schema == SCHEMA && entry.key == *key && (own || self.reuse);
        counts.then_some(Found { result: entry.result, own })
    }

    /// Keeps a result, whole or not at all.
    ///
    /// # Errors
    /// Of the file system.
    pub fn put<T: Serialize>(&self, key: &serde_json::Value, result: &T) -> Result<(), SuiteError> {
        let (schema, build) = (SCHEMA.into(), self.build.clone());
        let entry = Entry { schema, build, key: key.clone(), result };
        let text = serde_json::to_vec(&entry).expect("a result is plain data");
        Ok(replace(&self.path(key), |file| file.write_all(&text))?)
    }

    /// The result of `key` that is here and counts, or else the one that `make` makes, which is kept.
    ///
    /// # Errors
    /// Of `make`, or of the file system.
    pub fn get_or_make<T, E>(
        &self,
        key: &serde_json::Value,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<(T, Origin), SuiteError>
    where
        T: Serialize + DeserializeOwned,
        SuiteError: From<E>,
    {
        if let Some(found) = self.get(key) {
            return Ok((found.result, Origin::Kept { own: found.own }));
        }
        let result = make()?;
        self.put(key, &result)?;
        Ok((result, Origin::Fresh))
    }

    /// Where the result of `key` is.
    pub fn path(&self, key: &serde_json::Value) -> PathBuf {
        self.folder.join(format!("{}.json", digest(key.to_string().as_bytes())))
    }
}

/// Digest of the executable that runs: of its bytes, so that a build of the same bytes is the same build.
///
/// # Errors
/// If it cannot be read.
pub fn build() -> Result<String, SuiteError> {
    let path = std::env::current_exe().unwrap_or_default();
    let bytes = fs::read(&path).map_err(|source| SuiteError::Io { path, source })?;
    Ok(digest(&bytes))
}

/// 128 bits of `bytes` in hexadecimal; against accidents, not against an enemy.
pub fn digest(bytes: &[u8]) -> String {
    let mut lanes = [mix(bytes.len() as u64), mix(!(bytes.len() as u64))];
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u64::from_le_bytes(word);
        lanes = [mix(lanes[0] ^ word), mix(lanes[1].rotate_left(23) ^ word)];
    }
    format!("{:016x}{:016x}", lanes[0], lanes[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_of_another_build_counts_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let cache = |build: &str, reuse| Cache::open(folder.path(), build.into(), reuse).unwrap();
        let key = json!({"policy": "fcfs"});
        cache("one", false).put(&key, &7_u32).unwrap();
        assert_eq!(cache("one", false).get(&key), Some(Found { result: 7_u32, own: true }));
        assert_eq!(cache("two", false).get::<u32>(&key), None);
        assert_eq!(cache("two", true).get(&key), Some(Found { result: 7_u32, own: false }));
    }

    #[test]
    fn half_a_file_is_no_result() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), "one".into(), true).unwrap();
        let key = json!({"policy": "fcfs"});
        cache.put(&key, &vec![1.5_f32, 2.5]).unwrap();
        let text = fs::read(cache.path(&key)).unwrap();
        fs::write(cache.path(&key), &text[..text.len() / 2]).unwrap();
        assert_eq!(cache.get::<Vec<f32>>(&key), None);
        assert_eq!(cache.get::<u32>(&json!({"policy": "las"})), None);
    }

    #[test]
    fn digests_differ() {
        let texts: [&[u8]; 6] = [b"", b"\0", b"a", b"b", b"abcdefgh", b"abcdefgh\0"];
        let all: std::collections::BTreeSet<String> = texts.iter().map(|text| digest(text)).collect();
        assert_eq!(all.len(), texts.len());
        // Pinned: a change here makes every file of every cache anew.
        assert_eq!(digest(b"flyball").len(), 32);
    }
}
