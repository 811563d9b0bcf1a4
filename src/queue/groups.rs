//! The groups that waiting requests stand in, and the next of all heads.
//!
//! Each group is an ordered set with an offset, a gate and a headroom. A tournament tree over the groups
//! holds the smallest `offset + rank` of the open ones, so that moving a whole group costs as much as
//! moving one request. The tree reaches over the groups that were ever in use: most policies use few.
//!
//! A pass reads beyond the heads and changes nothing: [`Groups::head`], then [`Groups::advance`] or
//! [`Groups::close`], again and again, then [`Groups::rewind`]. Outside a pass the groups change by
//! [`Groups::insert`], [`Groups::remove`] and [`Groups::set`].

use crate::ids::{GroupId, Place};
use crate::queue::ordered::{Entry, Nodes, OrderedSet, Position};
use crate::request::RequestId;
use crate::units::Blocks;

/// The request that a group offers next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its group.
    pub group: GroupId,
    /// The group's offset plus its rank, saturating: what groups are compared by.
    pub key: i64,
    /// The request.
    pub id: RequestId,
    /// The group's headroom.
    pub headroom: Blocks,
}

/// All waiting requests, in groups.
#[derive(Debug)]
pub struct Groups {
    nodes: Nodes,
    groups: Vec<Group>,
    /// A winner tree: entry 1 is the root, 2i and 2i + 1 are the children of i, the second half are the
    /// groups. Siblings share a cache line.
    winners: Vec<Contender>,
    /// The groups that the pass has touched, each once.
    touched: Vec<GroupId>,
}

#[derive(Debug)]
struct Group {
    set: OrderedSet,
    offset: i64,
    headroom: Blocks,
    open: bool,
    /// What the pass did to it, if anything.
    pass: Option<Cursor>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    at: Position,
    closed: bool,
}

/// What a group puts up: the smallest wins, ties go to the smaller group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Contender {
    /// Its head's key, then its id; [`Contender::NOBODY`] if it offers none.
    key: i128,
    group: u16,
}

impl Contender {
    /// Loses against every head: no request has the last of all ids.
    const NOBODY: i128 = i128::MAX;
}

impl Groups {
    /// Takes the memory for `groups_max` groups, empty and open, and `entries_max` entries over all of them.
    ///
    /// # Panics
    /// If there is no group, or more entries than [`Nodes::new`] takes.
    pub fn new(groups_max: u16, entries_max: usize) -> Self {
        assert!(groups_max > 0, "a request needs a group to wait in");
        let group = |_| Group {
            set: OrderedSet::default(),
            offset: 0,
            headroom: Blocks::ZERO,
            open: true,
            pass: None,
        };
        let mut winners = Vec::with_capacity(2 * usize::from(groups_max).next_power_of_two());
        winners.resize(2, Contender { key: Contender::NOBODY, group: 0 });
        Self {
            nodes: Nodes::new(entries_max, usize::from(groups_max)),
            groups: (0..groups_max).map(group).collect(),
            winners,
            touched: Vec::with_capacity(usize::from(groups_max)),
        }
    }

    /// Lets `id` wait at `place`. O(log entries + log groups).
    ///
    /// # Panics
    /// If it stands there already, at `entries_max` entries, or in a pass.
    pub fn insert(&mut self, place: Place, id: RequestId) {
        self.assert_no_pass();
        assert!(id != RequestId(u64::MAX), "the last id names no request");
        let set = &mut self.groups[usize::from(place.group.0)].set;
        self.nodes.insert(set, Entry { rank: place.rank, id });
        self.refresh(place.group);
    }

    /// Takes `id` away from `place`. O(log entries + log groups).
    ///
    /// # Panics
    /// If it does not stand there, or in a pass.
    pub fn remove(&mut self, place: Place, id: RequestId) {
        self.assert_no_pass();
        let set = &mut self.groups[usize::from(place.group.0)].set;
        assert!(self.nodes.remove(set, Entry { rank: place.rank, id }), "{id} does not stand at {place:?}");
        self.refresh(place.group);
    }

    /// Sets what a policy may change about `group`. O(log groups); O(1) if nothing changes.
    ///
    /// # Panics
    /// In a pass.
    pub fn set(&mut self, group: GroupId, offset: i64, open: bool, headroom: Blocks) {
        self.assert_no_pass();
        let it = &mut self.groups[usize::from(group.0)];
        it.headroom = headroom;
        if (it.offset, it.open) != (offset, open) {
            (it.offset, it.open) = (offset, open);
            self.refresh(group);
        }
    }

    /// How many requests wait in `group`.
    pub fn len(&self, group: GroupId) -> usize {
        self.groups[usize::from(group.0)].set.len()
    }

    /// The headroom that the policy gave `group`.
    pub fn headroom(&self, group: GroupId) -> Blocks {
        self.groups[usize::from(group.0)].headroom
    }

    /// The smallest head of all open groups, in the pass if there is one: by key, then id, then group. O(1).
    pub fn head(&self) -> Option<Head> {
        let Contender { key, group } = self.winners[1];
        (key != Contender::NOBODY).then(|| Head {
            group: GroupId(group),
            key: (key >> 64) as i64,
            id: RequestId(key as u64),
            headroom: self.groups[usize::from(group)].headroom,
        })
    }

    /// The head of `group`, in the pass if there is one, whether the policy holds it open or not. O(1).
    pub fn head_of(&self, group: GroupId) -> Option<Head> {
        let it = &self.groups[usize::from(group.0)];
        if it.pass.is_some_and(|cursor| cursor.closed) {
            return None;
        }
        let Entry { rank, id } = self.nodes.get(it.position())?;
        Some(Head { group, key: it.offset.saturating_add(rank), id, headroom: it.headroom })
    }

    /// Goes on behind the head of `group` for the rest of the pass. O(log groups).
    ///
    /// # Panics
    /// If [`Groups::head_of`] has nothing to go on behind.
    pub fn advance(&mut self, group: GroupId) {
        assert!(self.head_of(group).is_some(), "{group:?} has no head to go on behind");
        let at = self.nodes.advance(self.groups[usize::from(group.0)].position());
        self.touch(group, Cursor { at, closed: false });
    }

    /// Ends `group` for the rest of the pass. O(log groups).
    pub fn close(&mut self, group: GroupId) {
        let at = self.groups[usize::from(group.0)].position();
        self.touch(group, Cursor { at, closed: true });
    }

    /// Ends the pass: every group is back at its first request. O(groups touched · log groups).
    pub fn rewind(&mut self) {
        while let Some(group) = self.touched.pop() {
            self.groups[usize::from(group.0)].pass = None;
            self.refresh(group);
        }
    }

    fn assert_no_pass(&self) {
        assert!(self.touched.is_empty(), "groups change outside a pass only; rewind first");
    }

    fn touch(&mut self, group: GroupId, cursor: Cursor) {
        let it = &mut self.groups[usize::from(group.0)];
        if it.pass.replace(cursor).is_none() {
            self.touched.push(group);
        }
        self.refresh(group);
    }

    /// How many groups the tree reaches over.
    fn reach(&self) -> usize {
        self.winners.len() / 2
    }

    /// Widens the tree so that it reaches over `group`, whose leaf the caller fills. O(groups), and only when the
    /// policy first uses a group so far out.
    #[cold]
    fn widen(&mut self, group: GroupId) {
        let (old, new) = (self.reach(), (usize::from(group.0) + 1).next_power_of_two());
        self.winners.resize(2 * new, Contender { key: Contender::NOBODY, group: 0 });
        self.winners.copy_within(old..2 * old, new);
        for leaf in old..new {
            self.winners[new + leaf] = Contender { key: Contender::NOBODY, group: leaf as u16 };
        }
        for node in (1..new).rev() {
            self.winners[node] = self.winners[2 * node].min(self.winners[2 * node + 1]);
        }
    }

    /// Plays the matches of `group` again, up to the first that ends as before.
    fn refresh(&mut self, group: GroupId) {
        let open = self.groups[usize::from(group.0)].open;
        let head = if open { self.head_of(group) } else { None };
        let key = head.map_or(Contender::NOBODY, |head| i128::from(head.key) << 64 | i128::from(head.id.0));
        let mut winner = Contender { key, group: group.0 };
        if usize::from(group.0) >= self.reach() {
            if key == Contender::NOBODY {
                return;
            }
            self.widen(group);
        }
        let mut node = self.reach() + usize::from(group.0);
        while self.winners[node] != winner {
            self.winners[node] = winner;
            if node == 1 {
                return;
            }
            winner = winner.min(self.winners[node ^ 1]);
            node /= 2;
        }
    }
}

impl Group {
    fn position(&self) -> Position {
        self.pass.map_or(self.set.first_position(), |cursor| cursor.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The same, with nothing remembered: every head is looked for among all groups.
    struct Naive {
        groups: Vec<NaiveGroup>,
    }

    #[derive(Clone)]
    struct NaiveGroup {
        entries: BTreeSet<(i64, RequestId)>,
        offset: i64,
        open: bool,
        headroom: Blocks,
        skipped: usize,
        closed: bool,
    }

    impl Naive {
        fn new(groups: u16) -> Self {
            let group = NaiveGroup {
                entries: BTreeSet::new(),
                offset: 0,
                open: true,
                headroom: Blocks::ZERO,
                skipped: 0,
                closed: false,
            };
            Self { groups: vec![group; usize::from(groups)] }
        }

        fn head_of(&self, group: u16) -> Option<Head> {
            let it = &self.groups[usize::from(group)];
            let &(rank, id) = it.entries.iter().nth(it.skipped).filter(|_| !it.closed)?;
            let key = it.offset.saturating_add(rank);
            Some(Head { group: GroupId(group), key, id, headroom: it.headroom })
        }

        fn head(&self) -> Option<Head> {
            let open = (0..self.groups.len() as u16).filter(|&group| self.groups[usize::from(group)].open);
            open.filter_map(|group| self.head_of(group)).min_by_key(|head| (head.key, head.id, head.group))
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(u16, i64, u64),
        RemoveAt(u16, u16),
        Set(u16, i64, bool, u32),
        /// Per step: whether the winner's group is closed or goes on; then one group that is not the winner.
        Pass(Vec<bool>, u16),
    }

    fn acts(groups: u16) -> impl Strategy<Value = Vec<Act>> {
        let number = || prop_oneof![6 => -9..9i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
        let act = prop_oneof![
            8 => (0..groups, number(), 0..20u64).prop_map(|(group, rank, id)| Act::Insert(group, rank, id)),
            4 => (0..groups, any::<u16>()).prop_map(|(group, share)| Act::RemoveAt(group, share)),
            4 => (0..groups, number(), prop::bool::weighted(0.8), 0..3u32)
                .prop_map(|(group, offset, open, headroom)| Act::Set(group, offset, open, headroom)),
            1 => (prop::collection::vec(prop::bool::weighted(0.1), 0..60), 0..groups)
                .prop_map(|(closes, other)| Act::Pass(closes, other)),
        ];
        prop::collection::vec(act, 0..400)
    }

    fn lock_step(groups_max: u16, acts: &[Act]) {
        const ENTRIES_MAX: usize = 300;
        let mut groups = Groups::new(groups_max, ENTRIES_MAX);
        let mut naive = Naive::new(groups_max);
        let agree = |groups: &Groups, naive: &Naive| {
            assert_eq!(groups.head(), naive.head());
            for group in 0..groups_max {
                assert_eq!(groups.head_of(GroupId(group)), naive.head_of(group));
                assert_eq!(groups.len(GroupId(group)), naive.groups[usize::from(group)].entries.len());
                assert_eq!(groups.headroom(GroupId(group)), naive.groups[usize::from(group)].headroom);
            }
        };
        for act in acts {
            match *act {
                Act::Insert(group, rank, id) => {
                    let full = naive.groups.iter().map(|it| it.entries.len()).sum::<usize>() == ENTRIES_MAX;
                    let it = &mut naive.groups[usize::from(group)];
                    if !full && it.entries.insert((rank, RequestId(id))) {
                        groups.insert(Place { group: GroupId(group), rank }, RequestId(id));
                    }
                }
                Act::RemoveAt(group, share) => {
                    let it = &mut naive.groups[usize::from(group)];
                    let index = (it.entries.len() * usize::from(share)) >> 16;
                    if let Some((rank, id)) = it.entries.iter().nth(index).copied() {
                        it.entries.remove(&(rank, id));
                        groups.remove(Place { group: GroupId(group), rank }, id);
                    }
                }
                Act::Set(group, offset, open, headroom) => {
                    let it = &mut naive.groups[usize::from(group)];
                    (it.offset, it.open, it.headroom) = (offset, open, Blocks(headroom));
                    groups.set(GroupId(group), offset, open, Blocks(headroom));
                }
                Act::Pass(ref closes, other) => {
                    for &close in closes {
                        let Some(head) = groups.head() else { break };
                        let it = &mut naive.groups[usize::from(head.group.0)];
                        if close {
                            groups.close(head.group);
                            it.closed = true;
                        } else {
                            groups.advance(head.group);
                            it.skipped += 1;
                        }
                        agree(&groups, &naive);
                    }
                    if groups.head_of(GroupId(other)).is_some() {
                        groups.advance(GroupId(other));
                        naive.groups[usize::from(other)].skipped += 1;
                        agree(&groups, &naive);
                    }
                    groups.rewind();
                    for it in &mut naive.groups {
                        (it.skipped, it.closed) = (0, false);
                    }
                }
            }
            agree(&groups, &naive);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

        #[test]
        fn one_group_agrees_with_a_naive_search(acts in acts(1)) {
            lock_step(1, &acts);
        }

        #[test]
        fn a_lopsided_tournament_agrees_with_a_naive_search(acts in acts(5)) {
            lock_step(5, &acts);
        }

        #[test]
        fn a_full_tournament_agrees_with_a_naive_search(acts in acts(16)) {
            lock_step(16, &acts);
        }
    }

    #[test]
    fn a_pass_over_everything_reads_all_in_order_and_leaves_no_trace() {
        let mut groups = Groups::new(7, 700);
        for id in 0..700 {
            let rank = (id * 7919 % 1009) as i64;
            groups.insert(Place { group: GroupId((id % 7) as u16), rank }, RequestId(id));
        }
        groups.set(GroupId(3), -500, true, Blocks(2));
        groups.set(GroupId(4), 0, false, Blocks(0));
        let first = groups.head();
        let mut read = Vec::new();
        while let Some(head) = groups.head() {
            read.push((head.key, head.id));
            groups.advance(head.group);
        }
        assert_eq!(read.len(), 600);
        assert!(read.is_sorted());
        groups.rewind();
        assert_eq!(groups.head(), first);
    }

    #[test]
    fn all_group_ids_can_be_used() {
        let mut groups = Groups::new(u16::MAX, 10);
        let last = GroupId(u16::MAX - 1);
        groups.insert(Place { group: last, rank: i64::MAX }, RequestId(1));
        groups.set(last, i64::MAX, true, Blocks(5));
        let head = Head { group: last, key: i64::MAX, id: RequestId(1), headroom: Blocks(5) };
        assert_eq!(groups.head(), Some(head));
    }

    #[test]
    #[should_panic(expected = "rewind first")]
    fn an_insert_in_a_pass_panics() {
        let mut groups = Groups::new(2, 2);
        groups.insert(Place::default(), RequestId(1));
        groups.advance(GroupId(0));
        groups.insert(Place::default(), RequestId(2));
    }

    #[test]
    #[should_panic(expected = "does not stand at")]
    fn removing_who_is_not_there_panics() {
        Groups::new(2, 2).remove(Place::default(), RequestId(1));
    }

    #[test]
    #[should_panic(expected = "no head to go on behind")]
    fn advancing_past_the_end_panics() {
        Groups::new(2, 2).advance(GroupId(1));
    }
}
