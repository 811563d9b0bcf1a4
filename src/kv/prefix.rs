//! The prefix cache: full blocks by the hash of everything up to their end, and the order in which
//! those that nobody holds are given up.

use super::pool::BlockId;

/// Names the content of a full block and of everything before it. 128 bits: at a million blocks the
/// chance of a collision is below 10^-26.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockHash(pub u128);

const KEYS: [u64; 4] =
    [0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB, 0x8EBC_6AF0_9C88_C6E3, 0x5899_65CC_7537_4CC3];

/// 64 × 64 → 128 bits, folded (Wang Yi's wyhash).
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl BlockHash {
    /// What the first block of a sequence follows.
    pub const ROOT: Self = Self(1);

    /// The hash of a block behind this one, whose tokens are `head` and then `tail`.
    pub fn chain(self, head: &[u32], tail: &[u32]) -> Self {
        let (mut low, mut high) = (self.0 as u64, (self.0 >> 64) as u64);
        let mut mix = |quad: [u32; 4]| {
            let (a, b) = (
                u64::from(quad[0]) << 32 | u64::from(quad[1]),
                u64::from(quad[2]) << 32 | u64::from(quad[3]),
            );
            low = fold(low ^ a ^ KEYS[0], b ^ KEYS[1]).wrapping_add(high);
            high = fold(high ^ b ^ KEYS[2], a ^ KEYS[3]) ^ low.rotate_left(17);
        };
        if head.len().is_multiple_of(4) && tail.len().is_multiple_of(4) {
            let quads = head.as_chunks().0.iter().chain(tail.as_chunks().0);
            quads.for_each(|quad| mix(*quad));
        } else {
            let mut tokens = head.iter().chain(tail).copied();
            while let Some(first) = tokens.next() {
                mix([
                    first,
                    tokens.next().unwrap_or(u32::MAX),
                    tokens.next().unwrap_or(u32::MAX),
                    tokens.next().unwrap_or(u32::MAX),
                ]);
            }
        }
        Self::finish(low, high)
    }

    /// The hash of a block inside content that an id names with its whole prefix.
    pub fn of_content(id: u64, block: u32) -> Self {
        let low = fold(id ^ KEYS[0], u64::from(block) ^ KEYS[1]);
        Self::finish(low, fold(id ^ KEYS[2], (u64::from(block) << 32 | 1) ^ KEYS[3]))
    }

    /// Zero marks an empty place of the map.
    fn finish(low: u64, high: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).max(2))
    }
}

const NONE: u32 = u32::MAX;

/// Published blocks by hash, and the unreferenced ones from the least to the most recently used.
#[derive(Debug)]
pub(super) struct PrefixCache {
    /// Open addressing with linear probing; never more than half full, never rehashed.
    map: Vec<(u128, u32)>,
    mask: usize,
    /// The hash under which a block is published, or zero.
    published: Vec<u128>,
    /// The list of unreferenced blocks.
    before: Vec<u32>,
    after: Vec<u32>,
    oldest: u32,
    newest: u32,
    listed: u32,
    /// Changes whenever another answer to a look-up is possible.
    pub epoch: u64,
}

impl PrefixCache {
    /// For `total` blocks; with zero it takes no memory and knows nothing.
    pub fn new(total: u32) -> Self {
        let places = if total == 0 { 0 } else { (2 * total as usize).next_power_of_two() };
        Self {
            map: vec![(0, 0); places],
            mask: places.wrapping_sub(1),
            published: vec![0; total as usize],
            before: vec![NONE; total as usize],
            after: vec![NONE; total as usize],
            oldest: NONE,
            newest: NONE,
            listed: 0,
            epoch: 0,
        }
    }

    pub fn enabled(&self) -> bool {
        !self.map.is_empty()
    }

    /// How many published blocks nobody holds.
    pub fn listed(&self) -> u32 {
        self.listed
    }

    pub fn is_published(&self, block: BlockId) -> bool {
        self.published.get(block.index()).is_some_and(|hash| *hash != 0)
    }

    pub fn find(&self, hash: BlockHash) -> Option<BlockId> {
        if !self.enabled() {
            return None;
        }
        let place = self.place(hash.0);
        (self.map[place].0 == hash.0).then_some(BlockId(self.map[place].1))
    }

    /// Publishes a held block; a hash that is published already stays with its block.
    pub fn publish(&mut self, block: BlockId, hash: BlockHash) {
        if !self.enabled() || self.is_published(block) {
            return;
        }
        let place = self.place(hash.0);
        if self.map[place].0 == 0 {
            self.map[place] = (hash.0, block.0);
            self.published[block.index()] = hash.0;
            self.epoch += 1;
        }
    }

    /// Lists a published block that nobody holds any more, as the most recently used.
    pub fn list(&mut self, block: BlockId) {
        let at = block.index();
        (self.before[at], self.after[at]) = (self.newest, NONE);
        match self.newest {
            NONE => self.oldest = block.0,
            newest => self.after[newest as usize] = block.0,
        }
        self.newest = block.0;
        self.listed += 1;
        self.epoch += 1;
    }

    /// Takes a block off the list: somebody holds it again.
    pub fn unlist(&mut self, block: BlockId) {
        let (before, after) = (self.before[block.index()], self.after[block.index()]);
        match before {
            NONE => self.oldest = after,
            before => self.after[before as usize] = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.before[after as usize] = before,
        }
        self.listed -= 1;
        self.epoch += 1;
    }

    /// Gives up the least recently used block that nobody holds.
    pub fn evict(&mut self) -> Option<BlockId> {
        if self.oldest == NONE {
            return None;
        }
        let block = BlockId(self.oldest);
        self.unlist(block);
        let hash = std::mem::take(&mut self.published[block.index()]);
        self.remove(hash);
        Some(block)
    }

    /// Where a hash is, or where it would go.
    fn place(&self, hash: u128) -> usize {
        let mut place = hash as usize & self.mask;
        while self.map[place].0 != hash && self.map[place].0 != 0 {
            place = (place + 1) & self.mask;
        }
        place
    }

    /// Removes a hash and moves back what it had pushed on, so that no tombstone remains.
    fn remove(&mut self, hash: u128) {
        let mut hole = self.place(hash);
        debug_assert_eq!(self.map[hole].0, hash);
        let mut next = (hole + 1) & self.mask;
        while self.map[next].0 != 0 {
            let home = self.map[next].0 as usize & self.mask;
            if next.wrapping_sub(home) & self.mask >= next.wrapping_sub(hole) & self.mask {
                self.map[hole] = self.map[next];
                hole = next;
            }
            next = (next + 1) & self.mask;
        }
        self.map[hole] = (0, 0);
    }

    /// The unreferenced blocks, least recently used first. For checks.
    pub fn walk(&self) -> impl Iterator<Item = BlockId> + '_ {
        let first = (self.oldest != NONE).then_some(self.oldest);
        std::iter::successors(first, |b| Some(self.after[*b as usize]).filter(|a| *a != NONE)).map(BlockId)
    }

    /// How many hashes the map holds, and whether each leads to its block. For checks.
    pub fn map_agrees(&self) -> bool {
        let entries = self.map.iter().filter(|e| e.0 != 0);
        let published = self.published.iter().filter(|h| **h != 0).count();
        entries.clone().all(|e| self.published[e.1 as usize] == e.0) && entries.count() == published
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_depends_on_every_token_their_order_and_all_before() {
        let block: Vec<u32> = (0..16).collect();
        let base = BlockHash::ROOT.chain(&block, &[]);
        for i in 0..16 {
            let mut other = block.clone();
            other[i] ^= 1 << 20;
            assert_ne!(base, BlockHash::ROOT.chain(&other, &[]), "token {i}");
        }
        let mut swapped = block.clone();
        swapped.swap(0, 1);
        assert_ne!(base, BlockHash::ROOT.chain(&swapped, &[]));
        assert_ne!(base.chain(&block, &[]), base);
        for cut in 0..16 {
            assert_eq!(base, BlockHash::ROOT.chain(&block[..cut], &block[cut..]), "cut at {cut}");
        }
        assert_ne!(BlockHash::of_content(1, 0), BlockHash::of_content(0, 1));
    }

    #[test]
    fn removal_keeps_every_other_hash_findable() {
        let mut cache = PrefixCache::new(64);
        let hash = |i: u32| BlockHash(u128::from(i % 5 + 1) | u128::from(i) << 64 | 1 << 100);
        (0..64).for_each(|i| cache.publish(BlockId(i), hash(i)));
        (0..64).for_each(|i| cache.list(BlockId(i)));
        for evicted in 0..64 {
            assert_eq!(cache.evict(), Some(BlockId(evicted)));
            assert!((evicted + 1..64).all(|i| cache.find(hash(i)) == Some(BlockId(i))));
            assert!(cache.find(hash(evicted)).is_none() && cache.map_agrees());
        }
    }
}
