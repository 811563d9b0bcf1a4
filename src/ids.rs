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
