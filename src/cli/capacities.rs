//! Capacities, to which loads are relative: each is measured once per command, and kept on disk on request.

use super::CliError;
use crate::sim::SimError;
use crate::suite::cache::{self, Cache};
use clap::Args;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Where results are kept.
#[derive(Args, Clone, Debug)]
pub(super) struct CacheArgs {
    /// Keep results here, and go on from those that are there: a suite's runs, and the capacities that
    /// loads are relative to. A suite without it: target/flyball-suite.
    #[arg(long, value_name = "DIR", help_heading = "Results")]
    cache: Option<PathBuf>,
    /// Take results that another build has made.
    #[arg(long, help_heading = "Results")]
    reuse: bool,
}

impl CacheArgs {
    /// The folder that was named, if one was.
    pub fn open(&self) -> Result<Option<Cache>, CliError> {
        match &self.cache {
            Some(folder) => Ok(Some(self.open_at(folder)?)),
            None if self.reuse => {
                Err(CliError::Usage("--reuse: say where they are, with --cache DIR".into()))
            }
            None => Ok(None),
        }
    }

    /// The folder that was named, or else `default`.
    pub fn open_or(&self, default: &str) -> Result<Cache, CliError> {
        self.open_at(self.cache.as_deref().unwrap_or(Path::new(default)))
    }

    fn open_at(&self, folder: &Path) -> Result<Cache, CliError> {
        Ok(Cache::open(folder, cache::build()?, self.reuse)?)
    }
}

/// The capacities of a command, by everything that determines them.
#[derive(Debug, Default)]
pub(super) struct Capacities {
    cache: Option<Cache>,
    known: Mutex<BTreeMap<String, Slot>>,
}

/// A capacity, once it is known. Whoever needs it meanwhile waits.
type Slot = Arc<Mutex<Option<f64>>>;

impl Capacities {
    pub fn new(cache: Option<Cache>) -> Self {
        Self { cache, ..Self::default() }
    }

    /// The capacity of `key`: known, from disk, or measured.
    pub fn of(&self, key: &Value, measure: impl FnOnce() -> Result<f64, SimError>) -> Result<f64, CliError> {
        let mut known = self.known.lock().expect("no thread panics while it looks");
        let slot = Arc::clone(known.entry(key.to_string()).or_default());
        drop(known);
        let mut slot = slot.lock().expect("no thread panics while it measures");
        if let Some(rate) = *slot {
            return Ok(rate);
        }
        let rate = match &self.cache {
            Some(cache) => cache.get_or_make(key, measure)?.0,
            None => measure()?,
        };
        Ok(*slot.insert(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::cell::Cell;

    #[test]
    fn a_capacity_is_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Cache::open(folder.path(), "a".into(), false).unwrap();
        let (rate, measured) = (0.1 + 0.2, Cell::new(0));
        let take = |capacities: &Capacities, seed: u64| {
            let measure = || {
                measured.set(measured.get() + 1);
                Ok(rate)
            };
            assert_eq!(capacities.of(&json!({"seed": seed}), measure).unwrap().to_bits(), rate.to_bits());
            measured.get()
        };
        let none = Capacities::default();
        assert_eq!([1, 1, 2].map(|seed| take(&none, seed)), [1, 1, 2]);
        let first = Capacities::new(Some(open()));
        assert_eq!([1, 1, 2].map(|seed| take(&first, seed)), [3, 3, 4]);
        let second = Capacities::new(Some(open()));
        assert_eq!([1, 2].map(|seed| take(&second, seed)), [4, 4]);
        std::fs::write(open().path(&json!({"seed": 1})), b"{").unwrap();
        let third = Capacities::new(Some(open()));
        assert_eq!([1, 2].map(|seed| take(&third, seed)), [5, 5]);
    }
}
