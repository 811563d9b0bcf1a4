//! The blocks of the device: which are free, and how many rows hold each of the others.

use serde::{Deserialize, Serialize};

/// A KV block of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockId(pub u32);

impl BlockId {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Free blocks as a stack, so that the block freed last, whose metadata is warm, is taken first.
#[derive(Debug)]
pub(super) struct BlockPool {
    free: Vec<BlockId>,
    refs: Vec<u32>,
}

impl BlockPool {
    pub fn new(total: u32) -> Self {
        Self { free: (0..total).rev().map(BlockId).collect(), refs: vec![0; total as usize] }
    }

    pub fn total(&self) -> u32 {
        self.refs.len() as u32
    }

    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }

    pub fn refs(&self, block: BlockId) -> u32 {
        self.refs[block.index()]
    }

    /// Takes a free block, held once.
    pub fn take(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        debug_assert_eq!(self.refs[block.index()], 0);
        self.refs[block.index()] = 1;
        Some(block)
    }

    /// Fills `into` with free blocks, each held once.
    pub fn take_all(&mut self, into: &mut [BlockId]) {
        let rest = self.free.len() - into.len();
        for (place, block) in into.iter_mut().zip(self.free[rest..].iter().rev()) {
            *place = *block;
            self.refs[block.index()] = 1;
        }
        self.free.truncate(rest);
    }

    /// Holds a block once more; returns how often it was held before.
    pub fn hold(&mut self, block: BlockId) -> u32 {
        let refs = &mut self.refs[block.index()];
        *refs += 1;
        *refs - 1
    }

    /// Holds a block once less; returns how often it is still held.
    pub fn unhold(&mut self, block: BlockId) -> u32 {
        let refs = &mut self.refs[block.index()];
        *refs = refs.checked_sub(1).expect("a block is given back as often as it was taken");
        *refs
    }

    /// Puts a block that nobody holds back on the stack.
    pub fn give(&mut self, block: BlockId) {
        debug_assert_eq!(self.refs[block.index()], 0);
        self.free.push(block);
    }

    /// Holds each of these blocks once less, and puts those that nobody holds any more back, the last first.
    pub fn give_all(&mut self, blocks: &[BlockId]) {
        let held: u32 = blocks.iter().map(|block| self.unhold(*block)).sum();
        let blocks = blocks.iter().rev().copied();
        match held {
            0 => self.free.extend(blocks),
            _ => self.free.extend(blocks.filter(|block| self.refs[block.index()] == 0)),
        }
    }

    pub fn free_blocks(&self) -> &[BlockId] {
        &self.free
    }
}
