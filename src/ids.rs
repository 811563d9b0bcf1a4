//! Index newtypes that several layers share: a row of the batch, a group of the queue.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A place in the batch: the row of the block tables, and of everything else that is kept per
/// resident sequence on host and device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

impl Slot {
    /// As an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of slots: one byte each, which a loop over hundreds of rows tests and clears without shifting bits.
#[derive(Clone, Debug, Default)]
pub struct SlotSet {
    inside: Vec<bool>,
    /// No slot from here on is in it.
    reach: usize,
}

impl SlotSet {
    /// The empty set of slots below `slots`.
    pub fn new(slots: usize) -> Self {
        Self { inside: vec![false; slots], reach: 0 }
    }

    /// Whether a slot is in it.
    #[inline]
    pub fn contains(&self, slot: Slot) -> bool {
        self.inside[slot.index()]
    }

    /// Puts a slot in or takes it out.
    #[inline]
    pub fn set(&mut self, slot: Slot, inside: bool) {
        self.inside[slot.index()] = inside;
        self.reach = self.reach.max(slot.index() + 1);
    }

    /// Takes a slot out; whether it was in.
    #[inline]
    pub fn take(&mut self, slot: Slot) -> bool {
        std::mem::take(&mut self.inside[slot.index()])
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        self.inside[..self.reach].fill(false);
        self.reach = 0;
    }

    /// Makes it equal to another set of as many slots.
    pub fn copy_from(&mut self, other: &Self) {
        // The slots in use are the lowest, and seldom all of them.
        let reach = self.reach.max(other.reach);
        self.inside[..reach].copy_from_slice(&other.inside[..reach]);
        self.reach = reach;
    }

    /// How many slots are in it. O(slots).
    pub fn len(&self) -> usize {
        self.inside.iter().map(|inside| usize::from(*inside)).sum()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        !self.inside.contains(&true)
    }
}

/// Where the next token of a row's input is: one word, since a decode writes two of them and a step hundreds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Feed(u64);

impl Feed {
    /// It is this token.
    pub(crate) const fn token(token: u32) -> Self {
        Self(token as u64)
    }

    /// A mark, which is not zero, says what the word is.
    pub(crate) const fn marked(mark: u8, word: u32) -> Self {
        Self((mark as u64) << 32 | word as u64)
    }

    /// The same with the next word.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its mark; zero if the word is a token.
    pub(crate) const fn mark(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// Its word.
    pub(crate) const fn word(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.mark(), self.word())
    }
}

/// A group of waiting jobs: a lane, a bin, a class, a client; the policy says which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u16);

/// Where a waiting job stands: its group, and its rank there (smallest first), which stays as it is
/// while the job waits in that group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The group.
    pub group: GroupId,
    /// The rank in it.
    pub rank: i64,
}

/// All places of one waiting job: one, or [`Places::MAX`] at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    places: [Place; Places::MAX],
    len: u8,
}

impl Places {
    /// The most groups that one job stands in.
    pub const MAX: usize = 2;

    /// Adds a place.
    ///
    /// # Panics
    /// If there are [`Places::MAX`] already: a defect of the policy.
    pub fn push(&mut self, group: GroupId, rank: i64) {
        self.places[usize::from(self.len)] = Place { group, rank };
        self.len += 1;
    }

    /// The places.
    pub fn as_slice(&self) -> &[Place] {
        &self.places[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_taken_out_once() {
        let mut set = SlotSet::new(3);
        assert!(set.is_empty());
        set.set(Slot(1), true);
        set.set(Slot(2), true);
        set.set(Slot(2), false);
        let mut left = SlotSet::new(3);
        left.copy_from(&set);
        set.clear();
        assert!(set.is_empty());
        set.copy_from(&left);
        assert_eq!((left.take(Slot(1)), left.take(Slot(1)), left.take(Slot(2))), (true, false, false));
        assert!(left.is_empty() && set.contains(Slot(1)) && set.len() == 1);
    }
}
