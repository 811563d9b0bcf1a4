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
            // As they lie in memory: two loads.
            let (a, b) = (
                u64::from(quad[0]) | u64::from(quad[1]) << 32,
                u64::from(quad[2]) | u64::from(quad[3]) << 32,
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

    /// Zero marks a block that is not published.
    fn finish(low: u64, high: u64) -> Self {
        Self((u128::from(high) << 64 | u128::from(low)).max(2))
    }
}

const NONE: u32 = u32::MAX;

/// What the cache knows of one block, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Known {
    /// The hash under which it is published, or zero.
    hash: u128,
    /// Its neighbours in the list of unreferenced blocks.
    before: u32,
    after: u32,
}

/// A place of the map: a published block, and enough of its hash that other blocks are seldom looked at.
#[derive(Clone, Copy, Debug)]
struct Place {
    tag: u32,
    block: u32,
}

impl Place {
    const EMPTY: Self = Self { tag: 0, block: NONE };
}

/// Published blocks by hash, and the unreferenced ones from the least to the most recently used.
#[derive(Debug)]
pub(super) struct PrefixCache {
    /// Open addressing with linear probing; never more than a quarter full, so that nearly every search ends where it
    /// begins; never rehashed.
    map: Vec<Place>,
    mask: usize,
    blocks: Vec<Known>,
    oldest: u32,
    newest: u32,
    listed: u32,
    /// Changes whenever another answer to a look-up is possible.
    pub epoch: u64,
}

impl PrefixCache {
    /// For `total` blocks; with zero it takes no memory and knows nothing.
    pub fn new(total: u32) -> Self {
        let places = if total == 0 { 0 } else { (4 * total as usize).next_power_of_two() };
        Self {
            map: vec![Place::EMPTY; places],
            mask: places.wrapping_sub(1),
            blocks: vec![Known { hash: 0, before: NONE, after: NONE }; total as usize],
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
        self.blocks.get(block.index()).is_some_and(|known| known.hash != 0)
    }

    pub fn find(&self, hash: BlockHash) -> Option<BlockId> {
        if !self.enabled() {
            return None;
        }
        let block = self.map[self.place(hash.0)].block;
        (block != NONE).then_some(BlockId(block))
    }

    /// Publishes a held block; a hash that is published already stays with its block.
    pub fn publish(&mut self, block: BlockId, hash: BlockHash) {
        if !self.enabled() || self.is_published(block) {
            return;
        }
        let place = self.place(hash.0);
        if self.map[place].block == NONE {
            self.map[place] = Place { tag: hash.0 as u32, block: block.0 };
            self.blocks[block.index()].hash = hash.0;
            self.epoch += 1;
        }
    }

    /// Lists a published block that nobody holds any more, as the most recently used.
    pub fn list(&mut self, block: BlockId) {
        let known = &mut self.blocks[block.index()];
        (known.before, known.after) = (self.newest, NONE);
        match self.newest {
            NONE => self.oldest = block.0,
            newest => self.blocks[newest as usize].after = block.0,
        }
        self.newest = block.0;
        self.listed += 1;
        self.epoch += 1;
    }

    /// Takes a block off the list: somebody holds it again.
    pub fn unlist(&mut self, block: BlockId) {
        let Known { before, after, .. } = self.blocks[block.index()];
        match before {
            NONE => self.oldest = after,
            before => self.blocks[before as usize].after = after,
        }
        match after {
            NONE => self.newest = before,
            after => self.blocks[after as usize].before = before,
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
        self.remove(block);
        self.fetch_next();
        Some(block)
    }

    /// Reads what giving up the next block will touch, which has been cold for as long as that block was unused,
    /// so that it is on its way by then.
    fn fetch_next(&self) {
        if let Some(next) = self.blocks.get(self.oldest as usize) {
            std::hint::black_box(self.map[self.home(next.hash as u32)].block);
            std::hint::black_box(self.blocks.get(next.after as usize).map(|known| known.before));
        }
    }

    /// Where a hash is, or where it would go.
    fn place(&self, hash: u128) -> usize {
        let mut place = self.home(hash as u32);
        while !self.ends_at(place, hash) {
            place = (place + 1) & self.mask;
        }
        place
    }

    /// Where the hashes with a tag would go if nobody stood there.
    fn home(&self, tag: u32) -> usize {
        tag as usize & self.mask
    }

    /// Whether a search for a hash ends at a place: it is there, or nobody is.
    fn ends_at(&self, place: usize, hash: u128) -> bool {
        let Place { tag, block } = self.map[place];
        block == NONE || tag == hash as u32 && self.blocks[block as usize].hash == hash
    }

    /// Removes a published block and moves back what it had pushed on, so that no tombstone remains.
    fn remove(&mut self, block: BlockId) {
        let hash = std::mem::take(&mut self.blocks[block.index()].hash);
        let mut hole = self.home(hash as u32);
        while self.map[hole].block != block.0 {
            hole = (hole + 1) & self.mask;
        }
        let mut next = (hole + 1) & self.mask;
        while self.map[next].block != NONE {
            let home = self.home(self.map[next].tag);
            if next.wrapping_sub(home) & self.mask >= next.wrapping_sub(hole) & self.mask {
                self.map[hole] = self.map[next];
                hole = next;
            }
            next = (next + 1) & self.mask;
        }
        self.map[hole] = Place::EMPTY;
    }

    /// The unreferenced blocks, least recently used first. For checks.
    pub fn walk(&self) -> impl Iterator<Item = BlockId> + '_ {
        let first = (self.oldest != NONE).then_some(self.oldest);
        std::iter::successors(first, |b| Some(self.blocks[*b as usize].after).filter(|a| *a != NONE))
            .map(BlockId)
    }

    /// How many hashes the map holds, and whether each leads to its block. For checks.
    pub fn map_agrees(&self) -> bool {
        let entries = self.map.iter().filter(|place| place.block != NONE);
        let published = || self.blocks.iter().zip(0..).filter(|(known, _)| known.hash != 0);
        let leads = |hash: u128, block| self.map[self.place(hash)].block == block;
        published().all(|(known, block)| leads(known.hash, block)) && entries.count() == published().count()
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
