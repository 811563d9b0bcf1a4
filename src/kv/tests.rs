//! The real thing in lock step with a naive model, and claims about sharing.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SLOTS: u32 = 4;
/// Contents that blocks may have.
const CONTENTS: u32 = 12;

fn config(blocks: u32, prefix_cache: bool) -> Config {
    Config {
        kv_blocks: Blocks(blocks),
        host_blocks: Blocks(blocks),
        max_num_seqs: SLOTS,
        max_resident: SLOTS,
        prefix_cache,
        ..Config::default()
    }
}

fn hash(content: u32) -> BlockHash {
    BlockHash::of_content(u64::from(content), 0)
}

/// Obviously right: content is a number, a block is held while a row or limbo names it, the cache is a list.
#[derive(Default)]
struct Naive {
    total: u32,
    rows: BTreeMap<u32, Row>,
    published: BTreeMap<u32, BlockId>,
    /// Published blocks that nobody holds, the least recently used first.
    lru: Vec<BlockId>,
    limbo: Vec<BlockId>,
    swapped: Vec<(u32, HostSpan)>,
}

#[derive(Clone, Default)]
struct Row {
    blocks: Vec<BlockId>,
    /// How many of them are full.
    sealed: usize,
}

impl Naive {
    fn row(&self, slot: u32) -> &[BlockId] {
        self.rows.get(&slot).map_or(&[], |row| &row.blocks)
    }

    fn held(&self) -> BTreeSet<BlockId> {
        self.rows.values().flat_map(|row| &row.blocks).chain(&self.limbo).copied().collect()
    }

    fn free(&self) -> u32 {
        self.total - self.held().len() as u32
    }

    fn is_published(&self, block: BlockId) -> bool {
        self.published.values().any(|published| *published == block)
    }

    /// Takes over the blocks that were appended to a row. Which free one comes next is the pool's own affair; after
    /// all of them the cache gives up and forgets its own, the least recently used first.
    fn take(&mut self, slot: u32, taken: &[BlockId]) {
        let free = self.free() as usize - self.lru.len();
        let (fresh, evicted) = taken.split_at(taken.len().min(free));
        let known = |block: &BlockId| self.held().contains(block) || self.is_published(*block);
        assert!(!fresh.iter().any(known), "a new block is nobody else's, and has no content");
        assert_eq!(
            evicted,
            self.lru.drain(..evicted.len()).collect::<Vec<_>>(),
            "the least recently used go"
        );
        self.published.retain(|_, block| !evicted.contains(block));
        self.rows.entry(slot).or_default().blocks.extend(taken);
    }

    /// Gives back a row, the last block first.
    fn release(&mut self, slot: u32) {
        let row = self.rows.remove(&slot).unwrap_or_default();
        row.blocks.into_iter().rev().for_each(|block| self.give(block));
    }

    /// A row or limbo names a block once less.
    fn give(&mut self, block: BlockId) {
        if self.is_published(block) && !self.held().contains(&block) {
            self.lru.push(block);
        }
    }

    fn settle(&mut self) {
        while !self.limbo.is_empty() {
            let block = self.limbo.remove(0);
            self.give(block);
        }
    }

    fn seal(&mut self, slot: u32, content: u32) {
        let row = self.rows.get_mut(&slot).expect("a row of full blocks is there");
        let block = row.blocks[row.sealed];
        row.sealed += 1;
        if !self.is_published(block) {
            self.published.entry(content).or_insert(block);
        }
    }

    /// The published blocks of a leading run of contents.
    fn run(&self, contents: &[u32]) -> Vec<BlockId> {
        contents.iter().map_while(|content| self.published.get(content)).copied().collect()
    }

    fn attach(&mut self, slot: u32, run: Vec<BlockId>) {
        self.lru.retain(|block| !run.contains(block));
        self.rows.insert(slot, Row { sealed: run.len(), blocks: run });
    }
}

#[derive(Clone, Debug)]
enum Act {
    Grow(u32, u32),
    Seal(u32, u32),
    Attach(u32, u32),
    Release(u32, bool),
    Fork(u32, u32),
    SwapOut(u32),
    SwapIn(u32),
    Settle,
}

fn act() -> impl Strategy<Value = Act> {
    let slot = || 0..SLOTS;
    prop_oneof![
        3 => (slot(), 1..6u32).prop_map(|(s, n)| Act::Grow(s, n)),
        3 => (slot(), 0..CONTENTS).prop_map(|(s, c)| Act::Seal(s, c)),
        2 => (slot(), 0..CONTENTS).prop_map(|(s, c)| Act::Attach(s, c)),
        2 => (slot(), any::<bool>()).prop_map(|(s, f)| Act::Release(s, f)),
        1 => (slot(), slot()).prop_map(|(a, b)| Act::Fork(a, b)),
        1 => slot().prop_map(Act::SwapOut),
        1 => slot().prop_map(Act::SwapIn),
        1 => Just(Act::Settle),
    ]
}

fn run(acts: &[Act], total: u32, caching: bool) {
    let mut kv = Kv::new(&config(total, caching));
    let mut model = Naive { total, ..Naive::default() };
    for (step, act) in acts.iter().enumerate() {
        apply(act, step as u64, &mut kv, &mut model, caching);
        kv.check();
        compare(&kv, &model, act);
    }
}

fn compare(kv: &Kv, model: &Naive, act: &Act) {
    assert_eq!(kv.free().0, model.free(), "free blocks after {act:?}");
    assert_eq!(kv.cached().0 as usize, model.lru.len(), "cached blocks after {act:?}");
    assert_eq!(kv.limbo().0 as usize, model.limbo.len());
    for slot in 0..SLOTS {
        assert_eq!(kv.table(Slot(slot)), model.row(slot), "row {slot} after {act:?}");
    }
    for content in 0..CONTENTS {
        let found = model.published.get(&content);
        let idle = found.is_some_and(|block| model.lru.contains(block));
        let wanted = (Blocks(found.is_some().into()), Blocks(idle.into()));
        assert_eq!(kv.lookup([hash(content)]), wanted, "content {content} after {act:?}");
    }
}

fn apply(act: &Act, step: u64, kv: &mut Kv, model: &mut Naive, caching: bool) {
    match *act {
        Act::Grow(slot, n) => {
            let fits = n <= model.free();
            assert_eq!(kv.grow(Slot(slot), Blocks(n)).is_ok(), fits);
            if fits {
                model.take(slot, &kv.table(Slot(slot))[model.row(slot).len()..]);
            }
        }
        Act::Seal(slot, content) => {
            let Some(row) = model.rows.get(&slot) else { return };
            if row.sealed == row.blocks.len() {
                return;
            }
            kv.seal(Slot(slot), row.sealed as u32, hash(content));
            if caching {
                model.seal(slot, content);
            }
        }
        Act::Attach(slot, content) => {
            if !kv.table(Slot(slot)).is_empty() {
                return;
            }
            let wanted = [content, (content + 1) % CONTENTS];
            let run = model.run(&wanted);
            let idle = run.iter().filter(|block| model.lru.contains(block)).count();
            let (found, free) = kv.lookup(wanted.map(hash));
            assert_eq!((found.0 as usize, free.0 as usize), (run.len(), idle));
            assert_eq!(kv.attach(Slot(slot), wanted.map(hash)).0 as usize, run.len());
            model.attach(slot, run);
        }
        Act::Release(slot, fenced) => {
            kv.release(Slot(slot), fenced.then_some(step));
            if fenced {
                let row = model.rows.remove(&slot).unwrap_or_default();
                model.limbo.extend(row.blocks.iter().rev());
            } else {
                model.release(slot);
            }
        }
        Act::Fork(from, to) => {
            let row = model.row(from).to_vec();
            if from == to || row.is_empty() || !kv.table(Slot(to)).is_empty() {
                return;
            }
            let mut copies = Vec::new();
            let tokens = Tokens(row.len() as u32 * 16 - 3);
            let fits = model.free() > 0;
            assert_eq!(kv.fork(Slot(from), Slot(to), tokens, &mut copies).is_ok(), fits);
            assert_eq!(copies.len(), usize::from(fits));
            if fits {
                let (last, shared) = row.split_last().expect("it is not empty");
                model.rows.insert(to, Row { blocks: shared.to_vec(), sealed: 0 });
                model.take(to, &[copies[0].to]);
                assert_eq!(copies[0].from, *last);
            }
        }
        Act::SwapOut(slot) => {
            let len = kv.blocks(Slot(slot));
            if len == Blocks::ZERO || len > kv.host_free() {
                return;
            }
            let mut copies = Vec::new();
            let span = kv.swap_out(Slot(slot), None, &mut copies).unwrap();
            assert_eq!(copies.len(), len.0 as usize);
            assert_eq!(copies.iter().map(|c| c.host).collect::<BTreeSet<_>>().len(), copies.len());
            model.release(slot);
            model.swapped.push((len.0, span));
        }
        Act::SwapIn(slot) => {
            if !kv.table(Slot(slot)).is_empty() || model.swapped.is_empty() {
                return;
            }
            let (len, span) = model.swapped.remove(0);
            let mut copies = Vec::new();
            if kv.swap_in(Slot(slot), &span, &mut copies).is_err() {
                assert!(len > model.free());
                return model.swapped.push((len, span));
            }
            assert_eq!(copies.len(), len as usize);
            kv.free_host(span, Some(step));
            model.take(slot, kv.table(Slot(slot)));
        }
        Act::Settle => {
            kv.settled(step);
            model.settle();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn real_pool_agrees_with_the_naive_model(
        acts in prop::collection::vec(act(), 1..80),
        total in 2..24u32,
        caching in any::<bool>(),
    ) {
        run(&acts, total, caching);
    }
}

#[test]
fn dropped_reservation_leaves_the_pool_as_it_was() {
    let mut kv = Kv::new(&config(8, true));
    drop(kv.reserve(Blocks(8)).unwrap());
    assert_eq!((kv.free(), kv.blocks(Slot(0))), (Blocks(8), Blocks(0)));
    assert_eq!(kv.reserve(Blocks(9)).unwrap_err(), KvFull { needed: Blocks(9), free: Blocks(8) });
    kv.reserve(Blocks(3)).unwrap().append(Slot(0));
    assert_eq!((kv.free(), kv.blocks(Slot(0))), (Blocks(5), Blocks(3)));
}

#[test]
fn shared_blocks_survive_the_release_of_one_owner() {
    let mut kv = Kv::new(&config(8, true));
    kv.grow(Slot(0), Blocks(2)).unwrap();
    kv.seal(Slot(0), 0, hash(1));
    kv.seal(Slot(0), 1, hash(2));
    assert_eq!(kv.attach(Slot(1), [hash(1), hash(2), hash(3)]), Blocks(2));
    assert_eq!(kv.sole(Slot(0)), Blocks(0));
    kv.release(Slot(0), None);
    assert_eq!((kv.free(), kv.sole(Slot(1))), (Blocks(6), Blocks(2)));
    kv.release(Slot(1), None);
    assert_eq!((kv.free(), kv.cached()), (Blocks(8), Blocks(2)));
}

#[test]
fn cache_gives_up_the_least_recently_used_and_never_a_held_block() {
    let mut kv = Kv::new(&config(4, true));
    for (slot, content) in [(0, 10), (1, 11), (2, 12)] {
        kv.grow(Slot(slot), Blocks(1)).unwrap();
        kv.seal(Slot(slot), 0, hash(content));
    }
    kv.release(Slot(1), None);
    kv.release(Slot(0), None);
    kv.grow(Slot(3), Blocks(2)).unwrap();
    assert_eq!(kv.lookup([hash(11)]).0, Blocks(0), "the oldest went");
    assert_eq!(kv.lookup([hash(10)]).0, Blocks(1), "the newer stayed");
    kv.grow(Slot(3), Blocks(1)).unwrap();
    assert!(kv.grow(Slot(3), Blocks(1)).is_err(), "the last one is held");
    assert_eq!(kv.lookup([hash(12)]).0, Blocks(1));
}
