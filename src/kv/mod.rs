//! KV memory: blocks, the tables that name them, the prefix cache and the host tier.
//!
//! Every block of the device is in exactly one place:
//!
//! ```text
//!            grow                    release, published
//!   free ------------> held (n rows) ------------------> cached (LRU)
//!    ^  <------------    |    ^ <----------------------     |
//!    |      release      |              attach              |
//!    |                   v release behind a fence           |
//!    +--- settled --- limbo (some plan in flight names it)  |
//!    +------------------------ evicted ---------------------+
//! ```
//!
//! All acts are all or nothing. This module knows no requests and no time; a row is a slot.

mod host;
mod pool;
mod prefix;

#[cfg(test)]
mod tests;

pub use host::{HostBlockId, HostSpan};
pub use pool::BlockId;
pub use prefix::BlockHash;

use crate::config::Config;
use crate::error::KvFull;
use crate::ids::Slot;
use crate::units::{Blocks, Tokens};
use host::HostTier;
use pool::BlockPool;
use prefix::PrefixCache;
use std::collections::VecDeque;

/// An entry of a block table that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDelta {
    /// The row.
    pub slot: Slot,
    /// Which block of the sequence.
    pub index: u32,
    /// Where it is now.
    pub block: BlockId,
}

/// A copy on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyBlocks {
    /// Source.
    pub from: BlockId,
    /// Target.
    pub to: BlockId,
}

/// A copy between device and host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapBlock {
    /// The block of the device.
    pub device: BlockId,
    /// The block of the host.
    pub host: HostBlockId,
}

/// Above this many blocks the debug checks compare sums only.
const CHECKED_BLOCKS_MAX: u32 = 1024;

/// All KV memory of one engine.
#[derive(Debug)]
pub struct Kv {
    pool: BlockPool,
    prefix: PrefixCache,
    host: HostTier,
    block_size: Tokens,
    /// Block tables by slot, each `row_max` long, of which `lens` are used.
    tables: Vec<BlockId>,
    lens: Vec<u32>,
    row_max: usize,
    /// Blocks and spans that a plan in flight may still name, with the step that ends this.
    limbo: VecDeque<(u64, BlockId)>,
    limbo_host: VecDeque<(u64, HostSpan)>,
    deltas: Vec<TableDelta>,
}

/// Free blocks that were promised and not yet taken: nothing has changed until [`Reservation::append`].
#[derive(Debug)]
#[must_use = "a reservation that is dropped gives everything back"]
pub struct Reservation<'kv> {
    kv: &'kv mut Kv,
    blocks: Blocks,
}

impl Reservation<'_> {
    /// Appends the reserved blocks to a row.
    pub fn append(self, slot: Slot) {
        // One block, as decodes come to lack, needs no loop.
        let at_once = if self.blocks.0 > 1 { self.blocks.0.min(self.kv.pool.free()) } else { 0 };
        self.kv.append_many(slot, at_once);
        for _ in at_once..self.blocks.0 {
            self.kv.append_free(slot);
        }
        self.kv.debug_check();
    }
}

impl Kv {
    /// The memory that `config` describes, all of it free.
    pub fn new(config: &Config) -> Self {
        let (total, slots) = (config.kv_blocks.0, config.max_resident as usize);
        let row_max = config.blocks_per_seq_max().0 as usize;
        Self {
            pool: BlockPool::new(total),
            prefix: PrefixCache::new(if config.prefix_cache { total } else { 0 }),
            host: HostTier::new(config.host_blocks.0),
            block_size: config.block_size,
            // Zeroed pages that nobody has touched cost nothing.
            tables: vec![0; slots * row_max].into_iter().map(BlockId).collect(),
            lens: vec![0; slots],
            row_max,
            limbo: VecDeque::with_capacity(total as usize),
            limbo_host: VecDeque::with_capacity(slots),
            deltas: Vec::with_capacity(total as usize),
        }
    }

    /// All blocks of the device.
    pub fn total(&self) -> Blocks {
        Blocks(self.pool.total())
    }

    /// Blocks that can be taken: free, or cached and held by nobody.
    #[inline]
    pub fn free(&self) -> Blocks {
        Blocks(self.pool.free() + self.prefix.listed())
    }

    /// Blocks that are cached and held by nobody.
    pub fn cached(&self) -> Blocks {
        Blocks(self.prefix.listed())
    }

    /// Blocks that a plan in flight may still name.
    pub fn limbo(&self) -> Blocks {
        Blocks(self.limbo.len() as u32)
    }

    /// Free blocks of the host tier.
    pub fn host_free(&self) -> Blocks {
        Blocks(self.host.free())
    }

    /// Changes whenever [`Kv::lookup`] may give another answer.
    pub fn epoch(&self) -> u64 {
        self.prefix.epoch
    }

    /// Blocks in a row.
    #[inline]
    pub fn blocks(&self, slot: Slot) -> Blocks {
        Blocks(self.lens[slot.index()])
    }

    /// The row itself.
    pub fn table(&self, slot: Slot) -> &[BlockId] {
        let start = slot.index() * self.row_max;
        &self.tables[start..start + self.lens[slot.index()] as usize]
    }

    /// Blocks of a row that nobody else holds: what its release would free.
    pub fn sole(&self, slot: Slot) -> Blocks {
        if !self.prefix.enabled() {
            return self.blocks(slot);
        }
        Blocks(self.table(slot).iter().filter(|b| self.pool.refs(**b) == 1).count() as u32)
    }

    /// Promises `blocks` free blocks.
    ///
    /// # Errors
    /// [`KvFull`] if fewer are free; nothing has changed.
    pub fn reserve(&mut self, blocks: Blocks) -> Result<Reservation<'_>, KvFull> {
        let free = self.free();
        if blocks > free {
            Err(KvFull { needed: blocks, free })
        } else {
            Ok(Reservation { kv: self, blocks })
        }
    }

    /// Appends `blocks` free blocks to a row: all of them or none.
    ///
    /// # Errors
    /// [`KvFull`] if fewer are free; nothing has changed.
    #[inline]
    pub fn grow(&mut self, slot: Slot, blocks: Blocks) -> Result<(), KvFull> {
        self.reserve(blocks).map(|reservation| reservation.append(slot))
    }

    /// Finds the longest leading run of hashes that are cached, and how many of its blocks nobody holds
    /// (pinning those takes them out of the free ones). Stops at the first that is not there.
    pub fn lookup(&self, hashes: impl IntoIterator<Item = BlockHash>) -> (Blocks, Blocks) {
        let found = hashes.into_iter().map_while(|hash| self.prefix.find(hash));
        found.fold((Blocks::ZERO, Blocks::ZERO), |(run, free), block| {
            (run + Blocks(1), free + Blocks(u32::from(self.pool.refs(block) == 0)))
        })
    }

    /// Pins the longest leading run of cached hashes into an empty row; returns its length.
    pub fn attach(&mut self, slot: Slot, hashes: impl IntoIterator<Item = BlockHash>) -> Blocks {
        assert_eq!(self.lens[slot.index()], 0, "a prefix comes before everything else");
        let mut run = 0;
        for hash in hashes {
            let Some(block) = self.prefix.find(hash) else { break };
            if self.pool.hold(block) == 0 {
                self.prefix.unlist(block);
            }
            self.append(slot, block);
            run += 1;
        }
        self.debug_check();
        Blocks(run)
    }

    /// Publishes a block of a row that became full. Where its content is published already, that block
    /// stays the published one.
    pub fn seal(&mut self, slot: Slot, index: u32, hash: BlockHash) {
        if self.prefix.enabled() {
            self.prefix.publish(self.table(slot)[index as usize], hash);
            self.debug_check();
        }
    }

    /// Gives back all blocks of a row, the last first, so that the cache gives up the end of a prefix
    /// before its beginning. With a fence, they stay in limbo until that step has settled.
    pub fn release(&mut self, slot: Slot, fence: Option<u64>) {
        let len = std::mem::take(&mut self.lens[slot.index()]) as usize;
        let row = &self.tables[slot.index() * self.row_max..][..len];
        let blocks = row.iter().rev();
        match fence {
            Some(step) => self.limbo.extend(blocks.map(|block| (step, *block))),
            None if self.prefix.enabled() => {
                blocks.for_each(|block| give(&mut self.pool, &mut self.prefix, *block));
            }
            None => self.pool.give_all(row),
        }
        self.debug_check();
    }

    /// Shares the full blocks of `tokens` with an empty row and copies the partial one.
    ///
    /// # Errors
    /// [`KvFull`] if there is no block for the copy; nothing has changed.
    pub fn fork(
        &mut self,
        from: Slot,
        to: Slot,
        tokens: Tokens,
        copies: &mut Vec<CopyBlocks>,
    ) -> Result<(), KvFull> {
        assert_eq!(self.lens[to.index()], 0, "a fork starts from an empty row");
        let full = tokens.0 / self.block_size.0;
        let partial = !tokens.0.is_multiple_of(self.block_size.0);
        if partial && self.free() == Blocks::ZERO {
            return Err(KvFull { needed: Blocks(1), free: Blocks::ZERO });
        }
        for index in 0..full as usize {
            let block = self.table(from)[index];
            self.pool.hold(block);
            self.append(to, block);
        }
        if partial {
            let source = self.table(from)[full as usize];
            let target = self.append_free(to);
            copies.push(CopyBlocks { from: source, to: target });
        }
        self.debug_check();
        Ok(())
    }

    /// Moves a row to the host tier: lists the copies and releases the row.
    ///
    /// # Errors
    /// [`KvFull`] if the host tier has too few blocks; nothing has changed.
    pub fn swap_out(
        &mut self,
        slot: Slot,
        fence: Option<u64>,
        copies: &mut Vec<SwapBlock>,
    ) -> Result<HostSpan, KvFull> {
        let (needed, free) = (self.blocks(slot), self.host_free());
        if needed > free {
            return Err(KvFull { needed, free });
        }
        let span = self.host.take(needed.0);
        let pairs = self.table(slot).iter().zip(self.host.blocks(&span));
        copies.extend(pairs.map(|(device, host)| SwapBlock { device: *device, host }));
        self.release(slot, fence);
        Ok(span)
    }

    /// Brings a span back into an empty row: lists the copies. The host blocks stay taken until
    /// [`Kv::free_host`].
    ///
    /// # Errors
    /// [`KvFull`] if too few blocks are free; nothing has changed.
    pub fn swap_in(
        &mut self,
        slot: Slot,
        span: &HostSpan,
        copies: &mut Vec<SwapBlock>,
    ) -> Result<(), KvFull> {
        assert_eq!(self.lens[slot.index()], 0, "a sequence comes back into an empty row");
        self.grow(slot, span.blocks())?;
        let pairs = self.table(slot).iter().zip(self.host.blocks(span));
        copies.extend(pairs.map(|(device, host)| SwapBlock { device: *device, host }));
        Ok(())
    }

    /// Gives back host blocks, once the step that reads them has settled.
    pub fn free_host(&mut self, span: HostSpan, fence: Option<u64>) {
        match fence {
            Some(step) => self.limbo_host.push_back((step, span)),
            None => self.host.give(span),
        }
        self.debug_check();
    }

    /// Frees everything that waited for steps up to `step`.
    #[inline]
    pub fn settled(&mut self, step: u64) {
        if self.limbo.is_empty() && self.limbo_host.is_empty() {
            return;
        }
        while let Some((_, block)) = self.limbo.pop_front_if(|(fence, _)| *fence <= step) {
            give(&mut self.pool, &mut self.prefix, block);
        }
        while let Some((_, span)) = self.limbo_host.pop_front_if(|(fence, _)| *fence <= step) {
            self.host.give(span);
        }
        self.debug_check();
    }

    /// Swaps the table entries that changed since the last call for the old ones in `into`. There is room for
    /// all blocks once; only rows that share blocks name one more than once in a step, and make it grow.
    pub fn take_deltas(&mut self, into: &mut Vec<TableDelta>) {
        into.clear();
        std::mem::swap(into, &mut self.deltas);
    }

    /// Appends free blocks to a row at once, as nearly all blocks come; the cache keeps its own.
    fn append_many(&mut self, slot: Slot, count: u32) {
        if count == 0 {
            return;
        }
        let len = self.lens[slot.index()];
        self.lens[slot.index()] = len + count;
        let start = slot.index() * self.row_max + len as usize;
        let entries = &mut self.tables[start..start + count as usize];
        self.pool.take_all(entries);
        let deltas = (len..).zip(&*entries).map(|(index, &block)| TableDelta { slot, index, block });
        self.deltas.extend(deltas);
    }

    fn append_free(&mut self, slot: Slot) -> BlockId {
        let block = self.pool.take().or_else(|| {
            let block = self.prefix.evict()?;
            self.pool.hold(block);
            Some(block)
        });
        let block = block.expect("the caller has checked that blocks are free");
        self.append(slot, block);
        block
    }

    fn append(&mut self, slot: Slot, block: BlockId) {
        let index = self.lens[slot.index()];
        self.tables[slot.index() * self.row_max + index as usize] = block;
        self.lens[slot.index()] = index + 1;
        self.deltas.push(TableDelta { slot, index, block });
    }

    fn debug_check(&self) {
        if cfg!(debug_assertions) && self.pool.total() <= CHECKED_BLOCKS_MAX {
            self.check();
        }
    }

    /// Proves that every block is in exactly one place and that all counts agree.
    ///
    /// # Panics
    /// If one does not: a defect of this module.
    pub fn check(&self) {
        let mut held = vec![0u32; self.pool.total() as usize];
        for slot in 0..self.lens.len() {
            self.table(Slot(slot as u32)).iter().for_each(|b| held[b.index()] += 1);
        }
        self.limbo.iter().for_each(|(_, b)| held[b.index()] += 1);
        for (block, count) in held.iter().enumerate() {
            assert_eq!(
                self.pool.refs(BlockId(block as u32)),
                *count,
                "block {block}: held as often as named"
            );
        }
        let mut unheld = held.iter().map(|h| u32::from(*h > 0)).collect::<Vec<_>>();
        let idle = self.pool.free_blocks().iter().copied().chain(self.prefix.walk());
        idle.for_each(|b| unheld[b.index()] += 1);
        assert!(unheld.iter().all(|places| *places == 1), "every block is in exactly one place: {unheld:?}");
        assert!(self.prefix.map_agrees(), "every published hash leads to its block");
        assert_eq!(self.host.walk_free(), self.host.free() as usize, "free host blocks are chained");
        assert!(self.host.free() <= self.host.total());
    }
}

/// Takes one hold off a block; the last one makes it free or, if it is published, cached.
#[inline(always)]
fn give(pool: &mut BlockPool, prefix: &mut PrefixCache, block: BlockId) {
    if pool.unhold(block) > 0 {
        return;
    }
    if prefix.is_published(block) { prefix.list(block) } else { pool.give(block) }
}
