//! Index newtypes that several layers share: a row of the batch, a group of the queue.

use serde::{Deserialize, Serialize};

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

/// A set of slots: one bit each, so that hundreds of rows are looked up in a cache line or two.
#[derive(Clone, Debug, Default)]
pub struct SlotSet {
    words: Vec<u64>,
}

impl SlotSet {
    /// The empty set of slots below `slots`.
    pub fn new(slots: usize) -> Self {
        Self { words: vec![0; slots.div_ceil(64)] }
    }

    /// Whether a slot is in it.
    #[inline]
    pub fn contains(&self, slot: Slot) -> bool {
        self.words[slot.index() / 64] >> (slot.index() % 64) & 1 == 1
    }

    /// Puts a slot in or takes it out.
    #[inline]
    pub fn set(&mut self, slot: Slot, inside: bool) {
        let word = &mut self.words[slot.index() / 64];
        let bit = slot.index() % 64;
        *word = *word & !(1 << bit) | u64::from(inside) << bit;
    }

    /// Takes a slot out; whether it was in.
    #[inline]
    pub fn take(&mut self, slot: Slot) -> bool {
        let (word, bit) = (&mut self.words[slot.index() / 64], 1 << (slot.index() % 64));
        let inside = *word & bit != 0;
        *word &= !bit;
        inside
    }

    /// Makes it equal to another set of as many slots.
    pub fn copy_from(&mut self, other: &Self) {
        self.words.copy_from_slice(&other.words);
    }

    /// How many slots are in it. O(slots / 64).
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
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
