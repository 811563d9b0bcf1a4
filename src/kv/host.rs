//! The bounded host tier: blocks in host memory for sequences that were swapped out.

use crate::units::Blocks;
use serde::{Deserialize, Serialize};

/// A KV block in host memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostBlockId(pub u32);

const NONE: u32 = u32::MAX;

/// The host blocks of one swapped sequence: a chain inside the tier. Not clonable, because it is given
/// back exactly once.
#[derive(Debug, PartialEq, Eq)]
pub struct HostSpan {
    first: u32,
    len: u32,
}

impl HostSpan {
    /// How many blocks it has.
    pub fn blocks(&self) -> Blocks {
        Blocks(self.len)
    }
}

/// Free host blocks and the chains of the taken ones, in one array of links.
#[derive(Debug)]
pub(super) struct HostTier {
    next: Vec<u32>,
    free_first: u32,
    free: u32,
}

impl HostTier {
    pub fn new(total: u32) -> Self {
        let next = (1..total).chain([NONE]).take(total as usize).collect();
        Self { next, free_first: if total == 0 { NONE } else { 0 }, free: total }
    }

    pub fn total(&self) -> u32 {
        self.next.len() as u32
    }

    pub fn free(&self) -> u32 {
        self.free
    }

    /// Takes `len` blocks; the caller has checked that they are free.
    pub fn take(&mut self, len: u32) -> HostSpan {
        assert!(len > 0 && len <= self.free, "the caller has checked that they are free");
        let first = self.free_first;
        let mut last = first;
        for _ in 1..len {
            last = self.next[last as usize];
        }
        self.free_first = std::mem::replace(&mut self.next[last as usize], NONE);
        self.free -= len;
        HostSpan { first, len }
    }

    pub fn blocks<'a>(&'a self, span: &HostSpan) -> impl Iterator<Item = HostBlockId> + use<'a> {
        let first = (span.first != NONE).then_some(span.first);
        std::iter::successors(first, |b| Some(self.next[*b as usize]).filter(|n| *n != NONE)).map(HostBlockId)
    }

    pub fn give(&mut self, span: HostSpan) {
        let last = self.blocks(&span).last().expect("a span has blocks");
        self.next[last.0 as usize] = std::mem::replace(&mut self.free_first, span.first);
        self.free += span.len;
    }

    /// The length of the chain of free blocks. For checks.
    pub fn walk_free(&self) -> usize {
        self.blocks(&HostSpan { first: self.free_first, len: self.free }).count()
    }
}
