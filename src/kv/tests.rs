//! The real thing in lock step with a naive model, and claims about sharing.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const SLOTS: u32 = 4;

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

/// Obviously right: content is a number, blocks are counted, the cache is an ordered list.
#[derive(Default)]
struct Naive {
    rows: BTreeMap<u32, Vec<(BlockId, Option<u32>)>>,
    published: BTreeMap<u32, BlockId>,
    lru: Vec<u32>,
    limbo: Vec<(u64, BlockId)>,
    swapped: Vec<(usize, HostSpan)>,
}

impl Naive {
    fn held(&self) -> BTreeSet<BlockId> {
        let rows = self.rows.values().flatten().map(|(b, _)| *b);
        rows.chain(self.limbo.iter().map(|(_, b)| *b)).collect()
    }

    /// What the cache holds of blocks that nobody holds, given all that happened.
    fn refresh(&mut self) {
        let held = self.held();
        let idle = |c: &u32| !held.contains(&self.published[c]);
        let lru: Vec<u32> = self.lru.iter().copied().filter(idle).collect();
        self.lru = lru;
    }

    fn free(&self, total: u32) -> u32 {
        total - self.held().len() as u32
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
        3 => (slot(), 0..12u32).prop_map(|(s, c)| Act::Seal(s, c)),
        2 => (slot(), 0..12u32).prop_map(|(s, c)| Act::Attach(s, c)),
        2 => (slot(), any::<bool>()).prop_map(|(s, f)| Act::Release(s, f)),
        1 => (slot(), slot()).prop_map(|(a, b)| Act::Fork(a, b)),
        1 => slot().prop_map(Act::SwapOut),
        1 => slot().prop_map(Act::SwapIn),
        1 => Just(Act::Settle),
    ]
}

fn run(acts: &[Act], total: u32, caching: bool) {
    let mut kv = Kv::new(&config(total, caching));
    let mut model = Naive::default();
    for (step, act) in acts.iter().enumerate() {
        let step = step as u64;
        apply(act, step, &mut kv, &mut model, total, caching);
        kv.check();
        model.refresh();
        assert_eq!(kv.free().0, model.free(total), "free blocks after {act:?}");
        assert_eq!(kv.limbo().0 as usize, model.limbo.len());
        for slot in 0..SLOTS {
            let row: Vec<BlockId> = model.rows.get(&slot).into_iter().flatten().map(|(b, _)| *b).collect();
            assert_eq!(kv.table(Slot(slot)), row, "row {slot} after {act:?}");
        }
    }
}

fn apply(act: &Act, step: u64, kv: &mut Kv, model: &mut Naive, total: u32, caching: bool) {
    match *act {
        Act::Grow(slot, n) => {
            let fits = n <= model.free(total);
            assert_eq!(kv.grow(Slot(slot), Blocks(n)).is_ok(), fits);
            if fits {
                adopt(kv, model, slot);
            }
        }
        Act::Seal(slot, content) => {
            let Some(row) = model.rows.get_mut(&slot) else { return };
            let Some(at) = row.iter().position(|(_, c)| c.is_none()) else { return };
            if caching && !model.published.values().any(|b| *b == row[at].0) {
                model.published.entry(content).or_insert(row[at].0);
            }
            row[at].1 = Some(content);
            kv.seal(Slot(slot), at as u32, hash(content));
        }
        Act::Attach(slot, content) => {
            if !kv.table(Slot(slot)).is_empty() {
                return;
            }
            let wanted = [content, (content + 1) % 12];
            let run = if caching {
                wanted.iter().map_while(|c| model.published.get(c)).copied().collect::<Vec<_>>()
            } else {
                Vec::new()
            };
            let (found, free) = kv.lookup(wanted.map(hash));
            let idle = run.iter().filter(|b| !model.held().contains(b)).collect::<BTreeSet<_>>();
            assert_eq!((found.0 as usize, free.0 as usize), (run.len(), idle.len()));
            assert_eq!(kv.attach(Slot(slot), wanted.map(hash)).0 as usize, run.len());
            model.rows.insert(slot, run.iter().map(|b| (*b, Some(0))).collect());
        }
        Act::Release(slot, fenced) => {
            kv.release(Slot(slot), fenced.then_some(step));
            let row = model.rows.remove(&slot).unwrap_or_default();
            if fenced {
                model.limbo.extend(row.iter().rev().map(|(b, _)| (step, *b)));
            }
            forget_evicted(kv, model);
        }
        Act::Fork(from, to) => {
            let row = model.rows.get(&from).cloned().unwrap_or_default();
            if from == to || row.is_empty() || !kv.table(Slot(to)).is_empty() {
                return;
            }
            let mut copies = Vec::new();
            let tokens = Tokens(row.len() as u32 * 16 - 3);
            let fits = model.free(total) > 0;
            assert_eq!(kv.fork(Slot(from), Slot(to), tokens, &mut copies).is_ok(), fits);
            assert_eq!(copies.len(), usize::from(fits));
            if fits {
                assert_eq!(kv.table(Slot(to))[..row.len() - 1], kv.table(Slot(from))[..row.len() - 1]);
                assert_eq!(copies[0].from, row[row.len() - 1].0);
                adopt(kv, model, to);
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
            model.rows.remove(&slot);
            model.swapped.push((copies.len(), span));
        }
        Act::SwapIn(slot) => {
            if !kv.table(Slot(slot)).is_empty() || model.swapped.is_empty() {
                return;
            }
            let (len, span) = model.swapped.remove(0);
            let mut copies = Vec::new();
            if kv.swap_in(Slot(slot), &span, &mut copies).is_err() {
                assert!(len as u32 > model.free(total));
                return model.swapped.push((len, span));
            }
            assert_eq!(copies.len(), len);
            kv.free_host(span, Some(step));
            adopt(kv, model, slot);
        }
        Act::Settle => {
            kv.settled(step);
            model.limbo.clear();
        }
    }
}

/// Takes over the real row: which free block comes next is the pool's own affair, but it must be one
/// that nobody holds, and a cached one is forgotten.
fn adopt(kv: &Kv, model: &mut Naive, slot: u32) {
    let known: Vec<_> = model.rows.get(&slot).cloned().unwrap_or_default();
    let shared: BTreeSet<BlockId> = model.held();
    let table = kv.table(Slot(slot));
    let fresh = &table[known.len()..];
    let forks = model.rows.values().any(|row| row.iter().any(|(b, _)| fresh.contains(b)));
    assert!(forks || fresh.iter().all(|b| !shared.contains(b)), "a new block is nobody else's");
    let row = known.into_iter().chain(fresh.iter().map(|b| (*b, None))).collect();
    model.rows.insert(slot, row);
    forget_evicted(kv, model);
}

fn forget_evicted(kv: &Kv, model: &mut Naive) {
    model.published.retain(|content, _| kv.lookup([hash(*content)]).0 == Blocks(1));
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
