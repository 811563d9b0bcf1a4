//! Ordered sets of ranked requests: B+-trees that share one preallocated arena of nodes.
//!
//! A set is a small header; its entries lie in linked leaves of [`Nodes`], 31 of 16 bytes in eight
//! cache lines, under inner nodes of up to 32 children. A look-up in a million entries passes four
//! inner nodes, of which all but the last stay in the near caches; the lines of the leaf are fetched
//! side by side. Both ends of a set are reached without a descent, so that a queue in order of arrival
//! costs little more than a ring.
//!
//! Life cycle: [`Nodes::new`] takes all memory; [`OrderedSet::default`] is empty; [`Nodes::insert`] and
//! [`Nodes::remove`] change a set; a [`Position`] walks it until the next change.
//!
//! The order is that of [`Entry`] and of nothing else: equal sets walk equally, whatever their history.

use crate::request::RequestId;
use std::cmp::Ordering;

/// A request and the rank at which it stands. Ordered by rank, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Smaller comes first.
    pub rank: i64,
    /// Breaks ties: who was submitted first comes first.
    pub id: RequestId,
}

/// One ordered set of the entries in a [`Nodes`]. Empty by default.
///
/// Neither `Clone` nor `Copy`: two headers of one tree would soon disagree. Give every call the arena
/// that the set was filled in.
#[derive(Debug)]
pub struct OrderedSet {
    /// The only leaf if `height` is 0, else the top inner node; [`NONE`] if empty, as the next two.
    root: u32,
    /// The leaf of the smallest entry.
    first: u32,
    /// The leaf of the largest entry.
    last: u32,
    len: u32,
    /// Levels of inner nodes.
    height: u32,
}

/// A place in a set, valid until that set is modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    leaf: u32,
    index: u32,
}

/// The memory of many ordered sets, all of it taken at construction and not touched before it is used.
///
/// `LEAF` entries fit in a leaf (at least 2), `FAN` children in an inner node (at least 4). The
/// defaults make a leaf 512 bytes; tests take tiny ones to reach every split and merge.
///
/// # Bound
/// Let `S` sets hold `E` entries in all. Every leaf but the first and the last of its set holds
/// at least `LEAF_MIN = LEAF / 3` entries, and no leaf is empty, so a set of `L` leaves has `L - 2`
/// of the former kind:
///
/// ```text
/// leaves <= min(S, E)         first leaves: one for each set that is not empty
///         + min(S, E / 2)     last leaves, where a set has two leaves and hence two entries
///         + E / LEAF_MIN      all others
/// ```
///
/// A root has at least 2 children, every other inner node at least `FAN_MIN = FAN / 3`. Counting the
/// edges of a tree with `I > 0` inner nodes from above and from below,
/// `2 + (I - 1) * FAN_MIN <= edges = L + I - 1`, so `I <= 1 + (L - 2) / (FAN_MIN - 1)`:
///
/// ```text
/// inner  <= min(S, E / 2)                        roots: only sets with two leaves have one
///         + E / LEAF_MIN / (FAN_MIN - 1)         all others
/// ```
///
/// These hold after every operation, and an operation takes nodes only for the tree that it leaves
/// behind, so the arena never runs out. A million entries in one set: 100,002 leaves of 512 bytes and
/// 11,112 inner nodes of 704, 59 MB.
#[derive(Debug)]
pub struct Nodes<const LEAF: usize = 31, const FAN: usize = 32> {
    leaves: Vec<Leaf<LEAF>>,
    inners: Vec<Inner<FAN>>,
    /// Heads of the chains of nodes given back, through `next` and `children[0]`.
    leaf_free: u32,
    inner_free: u32,
    entries: usize,
    entries_max: usize,
    sets: usize,
    sets_max: usize,
}

/// No node.
const NONE: u32 = u32::MAX;

/// Fills unused slots: not less than any entry, so that a search need not know how many are used.
const FILLER: Entry = Entry { rank: i64::MAX, id: RequestId(u64::MAX) };

/// `entries[..len]` ascend strictly, the rest is [`FILLER`].
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Leaf<const LEAF: usize> {
    entries: [Entry; LEAF],
    len: u32,
    prev: u32,
    next: u32,
}

/// `uppers[i]` bounds the entries of `children[i]` from above and is less than all of `children[i + 1]`.
/// The last child has no bound here but its parent's: [`FILLER`], like the unused slots behind it.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
struct Inner<const FAN: usize> {
    uppers: [Entry; FAN],
    children: [u32; FAN],
    len: u32,
}

/// The inner nodes from the root to the parent of a leaf, each with the index of the child taken.
struct Path {
    steps: [(u32, usize); HEIGHT_MAX],
    len: usize,
}

/// An inner level at least doubles the leaves below it, of which there are fewer than 2^32.
const HEIGHT_MAX: usize = 32;

impl Entry {
    /// Both fields as one number in the same order: its comparison is two instructions and no branch.
    const fn key(self) -> i128 {
        (self.rank as i128) << 64 | self.id.0 as i128
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Default for OrderedSet {
    fn default() -> Self {
        Self { root: NONE, first: NONE, last: NONE, len: 0, height: 0 }
    }
}

impl OrderedSet {
    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The place of the smallest entry, or behind the end of an empty set.
    pub fn first_position(&self) -> Position {
        Position { leaf: self.first, index: 0 }
    }

    fn ends_at(&self, leaf: u32) -> bool {
        leaf == self.first || leaf == self.last
    }
}

impl<const LEAF: usize, const FAN: usize> Nodes<LEAF, FAN> {
    const LEAF_MIN: usize = if LEAF / 3 > 1 { LEAF / 3 } else { 1 };
    const FAN_MIN: usize = if FAN / 3 > 2 { FAN / 3 } else { 2 };

    /// Takes the memory for `entries_max` entries in at most `sets_max` sets that are not empty.
    ///
    /// # Panics
    /// If that needs 2^32 leaves or more.
    pub fn new(entries_max: usize, sets_max: usize) -> Self {
        const { assert!(LEAF >= 2 && FAN >= 4) };
        let sets_split = sets_max.min(entries_max / 2);
        let leaves_between = entries_max / Self::LEAF_MIN;
        let leaves_max = sets_max.min(entries_max) + sets_split + leaves_between;
        let inners_max = sets_split + leaves_between / (Self::FAN_MIN - 1);
        assert!(leaves_max < NONE as usize, "{leaves_max} leaves cannot be numbered");

        Self {
            leaves: Vec::with_capacity(leaves_max),
            inners: Vec::with_capacity(inners_max),
            leaf_free: NONE,
            inner_free: NONE,
            entries: 0,
            entries_max,
            sets: 0,
            sets_max,
        }
    }

    /// Adds `entry` to `set`. O(log entries), O(1) at either end; takes nothing from the heap.
    ///
    /// # Panics
    /// If `set` has it already, or at `entries_max` entries or `sets_max` sets.
    pub fn insert(&mut self, set: &mut OrderedSet, entry: Entry) {
        assert!(self.entries < self.entries_max, "more than {} entries", self.entries_max);
        if set.is_empty() {
            self.start(set);
        }
        let at = self.leaf_of(set, entry);
        let leaf = &mut self.leaves[at as usize];
        let index = leaf.search(entry);
        assert!(
            leaf.entries.get(index) != Some(&entry) || index == leaf.len(),
            "{entry:?} stands here already"
        );
        if leaf.len() < LEAF {
            leaf.insert(index, entry);
        } else {
            self.split(set, at, index, entry);
        }
        set.len += 1;
        self.entries += 1;
    }

    /// Takes `entry` out of `set`; false if it is not there. O(log entries), O(1) at either end.
    pub fn remove(&mut self, set: &mut OrderedSet, entry: Entry) -> bool {
        if set.is_empty() {
            return false;
        }
        let at = self.leaf_of(set, entry);
        let leaf = &mut self.leaves[at as usize];
        let index = leaf.search(entry);
        if index == leaf.len() || leaf.entries[index] != entry {
            return false;
        }
        leaf.remove(index);
        let left = leaf.len();
        set.len -= 1;
        self.entries -= 1;
        if left == 0 {
            self.drop_leaf(set, at, entry);
        } else if left < Self::LEAF_MIN && !set.ends_at(at) {
            self.refill_leaf(set, entry);
        }
        true
    }

    /// The smallest entry of `set`.
    pub fn first(&self, set: &OrderedSet) -> Option<Entry> {
        self.get(set.first_position())
    }

    /// The smallest entry of `set` that is larger than `entry`, which need not be there itself.
    pub fn next_after(&self, set: &OrderedSet, entry: Entry) -> Option<Entry> {
        if set.is_empty() {
            return None;
        }
        let at = self.leaf_of(set, entry);
        let leaf = &self.leaves[at as usize];
        let mut index = leaf.search(entry);
        if index < leaf.len() && leaf.entries[index] == entry {
            index += 1;
        }
        self.get(self.normal(Position { leaf: at, index: index as u32 }))
    }

    /// The entry at `position`; none behind the end.
    pub fn get(&self, position: Position) -> Option<Entry> {
        if position.leaf == NONE {
            return None;
        }
        Some(self.leaves[position.leaf as usize].entries[position.index as usize])
    }

    /// The place behind `position`, in order. O(1); behind the end it stays there.
    pub fn advance(&self, position: Position) -> Position {
        if position.leaf == NONE {
            return position;
        }
        self.normal(Position { index: position.index + 1, ..position })
    }

    /// Takes every entry out of `set`. O(inner nodes): the leaves go as one chain.
    pub fn clear(&mut self, set: &mut OrderedSet) {
        if set.is_empty() {
            return;
        }
        self.give_inners_under(set.root, set.height);
        self.leaves[set.last as usize].next = self.leaf_free;
        self.leaf_free = set.first;
        self.entries -= set.len();
        self.sets -= 1;
        *set = OrderedSet::default();
    }

    /// The place itself, or the start of the next leaf if it is behind the last entry of its own.
    fn normal(&self, position: Position) -> Position {
        let leaf = &self.leaves[position.leaf as usize];
        if position.index < leaf.len { position } else { Position { leaf: leaf.next, index: 0 } }
    }

    /// The only leaf that `entry` can be in. The ends first: they are near, and most often meant.
    fn leaf_of(&self, set: &OrderedSet, entry: Entry) -> u32 {
        if set.height == 0 {
            return set.root;
        }
        let key = entry.key();
        let last = &self.leaves[set.last as usize];
        if key >= last.entries[0].key() {
            return set.last;
        }
        let first = &self.leaves[set.first as usize];
        if key <= first.entries[first.len() - 1].key() {
            return set.first;
        }
        let mut node = set.root;
        for _ in 0..set.height {
            let inner = &self.inners[node as usize];
            node = inner.children[inner.search(entry)];
        }
        node
    }

    /// The way from the root to the leaf that `entry` belongs in.
    fn path_to(&self, set: &OrderedSet, entry: Entry) -> Path {
        let mut path = Path { steps: [(NONE, 0); HEIGHT_MAX], len: set.height as usize };
        let mut node = set.root;
        for step in &mut path.steps[..path.len] {
            let inner = &self.inners[node as usize];
            let index = inner.search(entry);
            *step = (node, index);
            node = inner.children[index];
        }
        path
    }

    /// Gives an empty set its first leaf.
    #[cold]
    fn start(&mut self, set: &mut OrderedSet) {
        assert!(self.sets < self.sets_max, "more than {} sets", self.sets_max);
        self.sets += 1;
        let leaf = self.leaf_take();
        *set = OrderedSet { root: leaf, first: leaf, last: leaf, len: 0, height: 0 };
    }

    /// Inserts `entry` at `index` of the full leaf `at` and splits it in two.
    ///
    /// At either end of the set the full leaf stays full, so that a queue fills its leaves.
    #[cold]
    fn split(&mut self, set: &mut OrderedSet, at: u32, index: usize, entry: Entry) {
        let path = self.path_to(set, entry);
        let keep = if at == set.last && index == LEAF {
            LEAF
        } else if at == set.first && index == 0 {
            0
        } else {
            LEAF / 2
        };
        let new = self.leaf_take();
        let (left, right) = two(&mut self.leaves, at, new);
        left.move_tail(keep, right);
        if index < keep || keep == 0 {
            left.insert(index, entry);
        } else {
            right.insert(index - keep, entry);
        }
        let upper = left.entries[left.len() - 1];
        (right.prev, right.next, left.next) = (at, left.next, new);
        match self.leaves[new as usize].next {
            NONE => set.last = new,
            next => self.leaves[next as usize].prev = new,
        }
        self.adopt(set, path, upper, new);
    }

    /// Puts `child` behind the child that `path` took, whose new bound is `upper`; splits full nodes.
    fn adopt(&mut self, set: &mut OrderedSet, path: Path, mut upper: Entry, mut child: u32) {
        for &(node, index) in path.steps[..path.len].iter().rev() {
            if self.inners[node as usize].len() < FAN {
                self.inners[node as usize].insert(index, upper, child);
                return;
            }
            let new = self.inner_take();
            let (left, right) = two(&mut self.inners, node, new);
            left.move_tail(FAN / 2, right);
            let middle = left.unbound();
            if index < FAN / 2 {
                left.insert(index, upper, child);
            } else {
                right.insert(index - FAN / 2, upper, child);
            }
            (upper, child) = (middle, new);
        }
        let root = self.inner_take();
        let inner = &mut self.inners[root as usize];
        inner.children[0] = set.root;
        inner.len = 1;
        inner.insert(0, upper, child);
        set.root = root;
        set.height += 1;
    }

    /// Takes out the leaf `at`, which `entry` left empty. Only the first or the last gets that far, or
    /// a leaf between them if `LEAF_MIN` is 1.
    #[cold]
    fn drop_leaf(&mut self, set: &mut OrderedSet, at: u32, entry: Entry) {
        if set.is_empty() {
            self.leaf_give(at);
            self.sets -= 1;
            *set = OrderedSet::default();
            return;
        }
        let path = self.path_to(set, entry);
        self.unlink(set, at);
        self.abandon(set, path, 0);
    }

    /// Merges the leaf that `entry` was taken from with a sibling, or shares their entries evenly.
    #[cold]
    fn refill_leaf(&mut self, set: &mut OrderedSet, entry: Entry) {
        let path = self.path_to(set, entry);
        let (parent, index) = path.steps[path.len - 1];
        let inner = &mut self.inners[parent as usize];
        let at_left = index.saturating_sub(1);
        let (left_id, right_id) = (inner.children[at_left], inner.children[at_left + 1]);
        let (left, right) = two(&mut self.leaves, left_id, right_id);
        let total = left.len() + right.len();
        if total <= LEAF {
            right.move_head(right.len(), left);
            self.unlink(set, right_id);
            self.abandon(set, path, at_left + 1 - index);
            return;
        }
        if left.len() < right.len() {
            right.move_head(total / 2 - left.len(), left);
        } else {
            left.move_tail(total / 2, right);
        }
        inner.uppers[at_left] = left.entries[left.len() - 1];
    }

    /// Forgets the child `offset` (0 or 1) behind the one that `path` took; merges or refills nodes
    /// that are left with too few.
    fn abandon(&mut self, set: &mut OrderedSet, path: Path, offset: usize) {
        let mut steps = path.steps[..path.len].iter().rev();
        let &(mut node, index) = steps.next().expect("a leaf without a parent is its set's last");
        let mut gone = index + offset;
        for &(parent, index) in steps {
            self.inners[node as usize].remove(gone);
            if self.inners[node as usize].len() >= Self::FAN_MIN {
                return;
            }
            let at_left = index.saturating_sub(1);
            let inner = &self.inners[parent as usize];
            let (left_id, right_id) = (inner.children[at_left], inner.children[at_left + 1]);
            let middle = inner.uppers[at_left];
            let (left, right) = two(&mut self.inners, left_id, right_id);
            let total = left.len() + right.len();
            left.bind(middle);
            if total > FAN {
                if left.len() < right.len() {
                    right.move_head(total / 2 - left.len(), left);
                } else {
                    left.move_tail(total / 2, right);
                }
                let middle = left.unbound();
                self.inners[parent as usize].uppers[at_left] = middle;
                return;
            }
            right.move_head(right.len(), left);
            self.inner_give(right_id);
            (node, gone) = (parent, at_left + 1);
        }
        let root = &mut self.inners[node as usize];
        root.remove(gone);
        if root.len() == 1 {
            set.root = root.children[0];
            set.height -= 1;
            self.inner_give(node);
        }
    }

    fn unlink(&mut self, set: &mut OrderedSet, at: u32) {
        let Leaf { prev, next, .. } = self.leaves[at as usize];
        match prev {
            NONE => set.first = next,
            prev => self.leaves[prev as usize].next = next,
        }
        match next {
            NONE => set.last = prev,
            next => self.leaves[next as usize].prev = prev,
        }
        self.leaf_give(at);
    }

    fn leaf_take(&mut self) -> u32 {
        let at = self.leaf_free;
        if at == NONE {
            assert!(self.leaves.len() < self.leaves.capacity(), "the bound counts every leaf");
            self.leaves.push(Leaf::EMPTY);
            return self.leaves.len() as u32 - 1;
        }
        let leaf = &mut self.leaves[at as usize];
        self.leaf_free = leaf.next;
        *leaf = Leaf::EMPTY;
        at
    }

    fn leaf_give(&mut self, at: u32) {
        self.leaves[at as usize].next = self.leaf_free;
        self.leaf_free = at;
    }

    fn inner_take(&mut self) -> u32 {
        let at = self.inner_free;
        if at == NONE {
            assert!(self.inners.len() < self.inners.capacity(), "the bound counts every inner node");
            self.inners.push(Inner::EMPTY);
            return self.inners.len() as u32 - 1;
        }
        let inner = &mut self.inners[at as usize];
        self.inner_free = inner.children[0];
        *inner = Inner::EMPTY;
        at
    }

    fn inner_give(&mut self, at: u32) {
        self.inners[at as usize].children[0] = self.inner_free;
        self.inner_free = at;
    }

    fn give_inners_under(&mut self, node: u32, height: u32) {
        if height == 0 {
            return;
        }
        for index in 0..self.inners[node as usize].len() {
            self.give_inners_under(self.inners[node as usize].children[index], height - 1);
        }
        self.inner_give(node);
    }
}

impl<const LEAF: usize> Leaf<LEAF> {
    const EMPTY: Self = Self { entries: [FILLER; LEAF], len: 0, prev: NONE, next: NONE };

    fn len(&self) -> usize {
        self.len as usize
    }

    fn search(&self, entry: Entry) -> usize {
        count_below(&self.entries, entry)
    }

    fn insert(&mut self, index: usize, entry: Entry) {
        shift_up(&mut self.entries[index..=self.len as usize], entry);
        self.len += 1;
    }

    fn remove(&mut self, index: usize) {
        shift_down(&mut self.entries[index..self.len as usize], FILLER);
        self.len -= 1;
    }

    /// Moves all behind the first `keep` to the front of `right`.
    fn move_tail(&mut self, keep: usize, right: &mut Self) {
        let (len, right_len) = (self.len(), right.len());
        move_tail(&mut self.entries[..len], keep, &mut right.entries, right_len, FILLER);
        right.len += self.len - keep as u32;
        self.len = keep as u32;
    }

    /// Moves the first `count` to the end of `left`.
    fn move_head(&mut self, count: usize, left: &mut Self) {
        let (len, left_len) = (self.len(), left.len());
        move_head(&mut self.entries[..len], count, &mut left.entries[left_len..], FILLER);
        left.len += count as u32;
        self.len -= count as u32;
    }
}

impl<const FAN: usize> Inner<FAN> {
    const EMPTY: Self = Self { uppers: [FILLER; FAN], children: [NONE; FAN], len: 0 };

    fn len(&self) -> usize {
        self.len as usize
    }

    /// The child that `entry` belongs in: the last one's bound is never below it.
    fn search(&self, entry: Entry) -> usize {
        count_below(&self.uppers, entry)
    }

    /// Bounds child `index` by `upper` and puts `child` behind it, under the bound that it had.
    fn insert(&mut self, index: usize, upper: Entry, child: u32) {
        let len = self.len();
        shift_up(&mut self.uppers[index..=len], upper);
        shift_up(&mut self.children[index + 1..=len], child);
        self.len += 1;
    }

    /// Forgets child `index`; the one before it takes over its range, or the one behind if it is the first.
    fn remove(&mut self, index: usize) {
        let len = self.len();
        shift_down(&mut self.uppers[index.saturating_sub(1)..len], FILLER);
        shift_down(&mut self.children[index..len], NONE);
        self.len -= 1;
    }

    /// Gives the last child the bound `upper`, so that another can follow it.
    fn bind(&mut self, upper: Entry) {
        self.uppers[self.len as usize - 1] = upper;
    }

    /// Takes the bound of the last child away: it becomes the node's own.
    fn unbound(&mut self) -> Entry {
        std::mem::replace(&mut self.uppers[self.len as usize - 1], FILLER)
    }

    /// Moves all behind the first `keep` to the front of `right`; the last one kept is bound.
    fn move_tail(&mut self, keep: usize, right: &mut Self) {
        let (len, right_len) = (self.len(), right.len());
        move_tail(&mut self.uppers[..len], keep, &mut right.uppers, right_len, FILLER);
        move_tail(&mut self.children[..len], keep, &mut right.children, right_len, NONE);
        right.len += (len - keep) as u32;
        self.len = keep as u32;
    }

    /// Moves the first `count` to the end of `left`, whose last child must be bound.
    fn move_head(&mut self, count: usize, left: &mut Self) {
        let (len, left_len) = (self.len(), left.len());
        move_head(&mut self.uppers[..len], count, &mut left.uppers[left_len..], FILLER);
        move_head(&mut self.children[..len], count, &mut left.children[left_len..], NONE);
        left.len += count as u32;
        self.len -= count as u32;
    }
}

/// How many of the ascending `sorted` are less than `entry`.
///
/// Compares the last entry of each cache line, then those of one line. No comparison waits for another
/// of its round: a binary search would take its cache misses one by one, these overlap.
fn count_below<const N: usize>(sorted: &[Entry; N], entry: Entry) -> usize {
    const STRIDE: usize = 64 / size_of::<Entry>();
    let width = STRIDE.min(N);
    let key = entry.key();
    let mut lines = 0;
    for line in 0..N / STRIDE {
        lines += usize::from(sorted[(line + 1) * STRIDE - 1].key() < key);
    }
    let start = (lines * STRIDE).min(N - width);
    let mut below = start;
    for item in &sorted[start..start + width] {
        below += usize::from(item.key() < key);
    }
    below
}

/// Drops the last of `slots`, moves the others one up and puts `value` first.
fn shift_up<T: Copy>(slots: &mut [T], value: T) {
    slots.copy_within(..slots.len() - 1, 1);
    slots[0] = value;
}

/// Drops the first of `slots`, moves the others one down and puts `value` last.
fn shift_down<T: Copy>(slots: &mut [T], value: T) {
    slots.copy_within(1.., 0);
    slots[slots.len() - 1] = value;
}

/// Moves `left[keep..]` before `right[..right_len]`; `filler` takes the place.
fn move_tail<T: Copy>(left: &mut [T], keep: usize, right: &mut [T], right_len: usize, filler: T) {
    let tail = &mut left[keep..];
    right.copy_within(..right_len, tail.len());
    right[..tail.len()].copy_from_slice(tail);
    tail.fill(filler);
}

/// Moves `right[..count]` to `free`, the slots behind all on the left; `filler` ends what stays.
fn move_head<T: Copy>(right: &mut [T], count: usize, free: &mut [T], filler: T) {
    free[..count].copy_from_slice(&right[..count]);
    right.copy_within(count.., 0);
    let left = right.len() - count;
    right[left..].fill(filler);
}

/// Two different nodes at once.
fn two<T>(nodes: &mut [T], a: u32, b: u32) -> (&mut T, &mut T) {
    let [a, b] = nodes.get_disjoint_mut([a as usize, b as usize]).expect("two nodes of one tree differ");
    (a, b)
}

#[cfg(test)]
mod tests;
