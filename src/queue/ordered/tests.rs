//! The sets in lock step with a `BTreeSet`, at small nodes too, and the bound on their nodes.

use super::*;
use crate::prng::Prng;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Checks every invariant of `sets`, the only ones in `nodes`, and that no node is lost.
fn check<const L: usize, const F: usize>(nodes: &Nodes<L, F>, sets: &[OrderedSet]) {
    let (mut leaves, mut inners) = (Vec::new(), 0);
    for set in sets {
        if set.is_empty() {
            assert_eq!((set.root, set.first, set.last, set.height), (NONE, NONE, NONE, 0));
            continue;
        }
        let from = leaves.len();
        inners += check_under(nodes, set, set.root, set.height, None, None, &mut leaves);
        let mine = &leaves[from..];
        assert_eq!((set.first, set.last), (mine[0], mine[mine.len() - 1]));
        let mut prev = NONE;
        for (i, &at) in mine.iter().enumerate() {
            let leaf = &nodes.leaves[at as usize];
            assert_eq!(leaf.prev, prev);
            assert_eq!(leaf.next, mine.get(i + 1).copied().unwrap_or(NONE));
            prev = at;
        }
        let len: usize = mine.iter().map(|&at| nodes.leaves[at as usize].len()).sum();
        assert_eq!(set.len(), len);
    }
    assert_eq!(nodes.entries, sets.iter().map(OrderedSet::len).sum::<usize>());
    assert_eq!(nodes.sets, sets.iter().filter(|set| !set.is_empty()).count());
    let (leaves_free, inners_free) = unused(nodes);
    assert_eq!(leaves.len() + leaves_free, nodes.leaves.len());
    assert_eq!(inners + inners_free, nodes.inners.len());
}

/// Checks the subtree `node`, whose entries lie above `low` and not above `high`; counts its inner nodes.
fn check_under<const L: usize, const F: usize>(
    nodes: &Nodes<L, F>,
    set: &OrderedSet,
    node: u32,
    height: u32,
    low: Option<Entry>,
    high: Option<Entry>,
    leaves: &mut Vec<u32>,
) -> usize {
    if height == 0 {
        let leaf = &nodes.leaves[node as usize];
        let (used, unused) = leaf.entries.split_at(leaf.len());
        assert!(used.is_sorted_by(|a, b| a < b) && unused.iter().all(|&slot| slot == FILLER));
        assert!(low.is_none_or(|low| low < used[0]));
        assert!(high.is_none_or(|high| used[used.len() - 1] <= high));
        assert!(used.len() >= Nodes::<L, F>::LEAF_MIN || set.ends_at(node));
        leaves.push(node);
        return 0;
    }
    let inner = &nodes.inners[node as usize];
    let len = inner.len();
    assert!(len >= if node == set.root { 2 } else { Nodes::<L, F>::FAN_MIN });
    assert!(inner.uppers[len - 1..].iter().all(|&slot| slot == FILLER));
    let mut count = 1;
    for i in 0..len {
        let low = if i == 0 { low } else { Some(inner.uppers[i - 1]) };
        let high = if i == len - 1 { high } else { Some(inner.uppers[i]) };
        count += check_under(nodes, set, inner.children[i], height - 1, low, high, leaves);
    }
    count
}

fn unused<const L: usize, const F: usize>(nodes: &Nodes<L, F>) -> (usize, usize) {
    let step = |at: u32, next: &dyn Fn(usize) -> u32| (at != NONE).then(|| next(at as usize));
    let chain = |head: u32, next: &dyn Fn(usize) -> u32| {
        std::iter::successors(Some(head), |&at| step(at, next)).count() - 1
    };
    (
        chain(nodes.leaf_free, &|at| nodes.leaves[at].next),
        chain(nodes.inner_free, &|at| nodes.inners[at].children[0]),
    )
}

fn walk<const L: usize, const F: usize>(nodes: &Nodes<L, F>, set: &OrderedSet) -> Vec<Entry> {
    let places = std::iter::successors(Some(set.first_position()), |&at| Some(nodes.advance(at)));
    places.map_while(|at| nodes.get(at)).collect()
}

fn entry(rank: i64, id: u64) -> Entry {
    Entry { rank, id: RequestId(id) }
}

#[derive(Clone, Debug)]
enum Act {
    Insert(usize, Entry),
    Remove(usize, Entry),
    /// Removes the entry at this share of the set, so that removals often hit.
    RemoveAt(usize, u16),
    PopFirst(usize),
    Clear(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let edge = prop_oneof![Just(0), Just(u64::MAX), 0..8u64];
    let rank = prop_oneof![4 => -40..40i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    let drawn = (rank, edge).prop_map(|(rank, id)| entry(rank, id));
    let act = prop_oneof![
        60 => (0..3usize, drawn.clone()).prop_map(|(set, entry)| Act::Insert(set, entry)),
        8 => (0..3usize, drawn).prop_map(|(set, entry)| Act::Remove(set, entry)),
        30 => (0..3usize, any::<u16>()).prop_map(|(set, share)| Act::RemoveAt(set, share)),
        10 => (0..3usize).prop_map(Act::PopFirst),
        1 => (0..3usize).prop_map(Act::Clear),
    ];
    prop::collection::vec(act, 0..600)
}

fn lock_step<const L: usize, const F: usize>(acts: &[Act]) {
    const ENTRIES_MAX: usize = 150;
    let mut nodes = Nodes::<L, F>::new(ENTRIES_MAX, 3);
    let mut sets: [OrderedSet; 3] = Default::default();
    let mut models: [BTreeSet<Entry>; 3] = Default::default();
    for act in acts {
        let touched = match *act {
            Act::Insert(i, entry) => {
                if models.iter().map(BTreeSet::len).sum::<usize>() < ENTRIES_MAX && models[i].insert(entry) {
                    nodes.insert(&mut sets[i], entry);
                }
                i
            }
            Act::Remove(i, entry) => {
                assert_eq!(nodes.remove(&mut sets[i], entry), models[i].remove(&entry));
                let after = models[i].range(entry..).next().copied();
                assert_eq!(nodes.next_after(&sets[i], entry), after);
                i
            }
            Act::RemoveAt(i, share) => {
                let index = (models[i].len() * usize::from(share)) >> 16;
                if let Some(entry) = models[i].iter().nth(index).copied() {
                    assert!(models[i].remove(&entry) && nodes.remove(&mut sets[i], entry));
                }
                i
            }
            Act::PopFirst(i) => {
                let first = models[i].pop_first();
                assert_eq!(nodes.first(&sets[i]), first);
                assert!(first.is_none_or(|first| nodes.remove(&mut sets[i], first)));
                i
            }
            Act::Clear(i) => {
                nodes.clear(&mut sets[i]);
                models[i].clear();
                i
            }
        };
        check(&nodes, &sets);
        assert!(walk(&nodes, &sets[touched]).iter().eq(&models[touched]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn smallest_nodes_agree_with_a_btree_set(acts in acts()) {
        lock_step::<2, 4>(&acts);
    }

    #[test]
    fn small_odd_nodes_agree_with_a_btree_set(acts in acts()) {
        lock_step::<7, 5>(&acts);
    }

    #[test]
    fn searched_in_two_rounds_nodes_agree_with_a_btree_set(acts in acts()) {
        lock_step::<9, 17>(&acts);
    }

    #[test]
    fn default_nodes_agree_with_a_btree_set(acts in acts()) {
        lock_step::<31, 32>(&acts);
    }

    #[test]
    fn count_below_counts_what_is_below(ranks in prop::collection::btree_set(-50..50i64, 0..=31), rank in -51..51i64) {
        let mut sorted = [FILLER; 31];
        for (slot, &rank) in sorted.iter_mut().zip(&ranks) {
            *slot = entry(rank, 3);
        }
        assert_eq!(count_below(&sorted, entry(rank, 3)), ranks.range(..rank).count());
        assert_eq!(count_below(&sorted, entry(rank, 4)), ranks.range(..=rank).count());
        assert_eq!(count_below(&sorted, FILLER), ranks.len());
    }
}

/// Fills an arena to its limit and thins it out again and again, in the orders that leave nodes as
/// empty as they may be. The arena holds exactly as many nodes as its bound says.
fn wear<const L: usize, const F: usize>(entries_max: usize, sets_max: usize) {
    let mut prng = Prng::new(1);
    let mut nodes = Nodes::<L, F>::new(entries_max, sets_max);
    let mut sets: Vec<OrderedSet> = (0..sets_max).map(|_| OrderedSet::default()).collect();
    let mut alive: Vec<(usize, Entry)> = Vec::new();
    let mut next = 0;
    for round in 0..24 {
        while alive.len() < entries_max {
            next += 1;
            let set = if round % 3 == 0 { 0 } else { prng.below(sets_max as u64) as usize };
            let rank = match round % 4 {
                0 => next,
                1 => -next,
                2 => prng.below(1 << 40) as i64,
                _ => (prng.below(8) << 20) as i64 + next,
            };
            nodes.insert(&mut sets[set], entry(rank, next as u64));
            alive.push((set, entry(rank, next as u64)));
        }
        check(&nodes, &sets);
        alive.sort_unstable();
        let mut count = 0usize;
        alive.retain(|&(set, entry)| {
            count += 1;
            let keep = match round % 5 {
                0 => count.is_multiple_of(2),
                1 => count.is_multiple_of(L + 1),
                2 => count % (L / 2 + 1) < L / 3,
                3 => count > entries_max / 2,
                _ => prng.chance(1, 3),
            };
            assert!(keep || nodes.remove(&mut sets[set], entry));
            keep
        });
        check(&nodes, &sets);
    }
    for (set, entry) in alive {
        assert!(nodes.remove(&mut sets[set], entry));
    }
    check(&nodes, &sets);
    assert_eq!(unused(&nodes), (nodes.leaves.len(), nodes.inners.len()));
}

#[test]
fn the_arena_outlasts_ascending_descending_random_and_thinned_sets() {
    wear::<2, 4>(1_000, 1);
    wear::<3, 4>(1_000, 7);
    wear::<6, 4>(2_000, 300);
    wear::<31, 32>(50_000, 1);
    wear::<31, 32>(20_000, 9_000);
}

/// Thins every leaf to its minimum, lets new leaves split from few full ones, and repeats: the
/// pattern that the bound is made for.
#[test]
fn the_arena_outlasts_refilling_behind_a_thinned_front() {
    const ENTRIES_MAX: usize = 3_000;
    let mut nodes = Nodes::<6, 4>::new(ENTRIES_MAX, 1);
    let mut set = OrderedSet::default();
    let mut next = 0;
    for _ in 0..40 {
        while set.len() < ENTRIES_MAX {
            next += 1;
            nodes.insert(&mut set, entry(next, 0));
        }
        let mut at = set.first;
        let mut spare = Vec::new();
        while at != NONE {
            let leaf = &nodes.leaves[at as usize];
            spare.extend_from_slice(&leaf.entries[..leaf.len().saturating_sub(2)]);
            at = leaf.next;
        }
        for entry in spare {
            assert!(nodes.remove(&mut set, entry));
        }
        check(&nodes, std::slice::from_ref(&set));
    }
    let (used, bound) = (nodes.leaves.len() - unused(&nodes).0, nodes.leaves.capacity());
    assert!(used * 100 >= bound * 95, "the pattern reaches the bound, so the bound is needed");
}

#[test]
fn a_queue_fills_its_leaves() {
    let mut nodes: Nodes = Nodes::new(3_100, 1);
    let mut set = OrderedSet::default();
    for i in 0..3_100 {
        nodes.insert(&mut set, entry(i, 0));
    }
    assert_eq!(nodes.leaves.len() - unused(&nodes).0, 100);
}

#[test]
#[should_panic(expected = "stands here already")]
fn a_duplicate_panics() {
    let mut nodes: Nodes = Nodes::new(4, 1);
    let mut set = OrderedSet::default();
    nodes.insert(&mut set, FILLER);
    nodes.insert(&mut set, FILLER);
}

#[test]
#[should_panic(expected = "more than 1 sets")]
fn a_set_too_many_panics() {
    let mut nodes: Nodes = Nodes::new(4, 1);
    let (mut one, mut two) = (OrderedSet::default(), OrderedSet::default());
    nodes.insert(&mut one, entry(1, 1));
    nodes.insert(&mut two, entry(1, 1));
}

#[test]
#[should_panic(expected = "more than 1 entries")]
fn an_entry_too_many_panics() {
    let mut nodes: Nodes = Nodes::new(1, 1);
    let mut set = OrderedSet::default();
    nodes.insert(&mut set, entry(1, 1));
    nodes.insert(&mut set, entry(2, 1));
}
