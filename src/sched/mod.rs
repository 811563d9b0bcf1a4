//! Deciding: who runs in the next step, who is admitted, parked or evicted.
//!
//! A [`Policy`] sees a [`View`] of plain numbers and fills a [`Decision`]; it never sees a pool, a
//! stream or a meter, nor the true length of an unfinished request unless it was given an [`Oracle`].
//! The same policy state and the same view give the same decision.
//!
//! A policy answers four questions. *Order*: [`Policy::place`] ranks a waiting job in one or more
//! groups, [`Policy::rank`] a resident; [`Policy::groups`] moves whole groups against each other.
//! *Admission*: [`Policy::admission`]. *Victim*: [`Policy::protects`], and the walk's rule that a set
//! of victims must suffice before the first goes. *Budget*: [`Policy::budget`]. The default
//! [`Policy::decide`] composes the answers in one [`walk`]; a policy with passes of its own writes
//! them with a [`Draft`].

pub mod decision;
pub mod draft;
pub mod order;
pub mod predict;
pub mod view;
pub mod walk;

#[cfg(test)]
mod tests;

pub use decision::{Admit, Decision, Evict, Grow, Park, Pause, Reason, Restore, Run, Unsound};
pub use draft::{Admission, Draft, Scratch};
pub use view::{Candidate, Job, Phase, Pool, Resident, View, Waiting};

use crate::cost::BatchShape;
use crate::ids::{Places, Slot};
pub use crate::request::Oracle;
use crate::request::{FinishReason, RequestId};
use crate::units::{Nanos, Tokens};
use std::fmt;

/// A resident's place in the order, and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Smallest first; ties by id.
    pub value: i64,
    /// Ask again once this many tokens are generated; `u32::MAX` for never.
    pub until: u32,
    /// The row's [`Resident::mark`] while the rank holds: free for the policy's own use.
    pub mark: u8,
}

impl Rank {
    /// A rank that holds as long as the sequence is resident.
    pub const fn fixed(value: i64) -> Self {
        Self { value, until: u32::MAX, mark: 0 }
    }
}

/// What a step is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Decodes and prefill chunks together.
    #[default]
    Mixed,
    /// Prefill chunks alone.
    PrefillOnly,
    /// Decodes alone.
    DecodeOnly,
}

/// What a step may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Tokens, at most `max_num_batched_tokens`.
    pub tokens: Tokens,
    /// What it is for.
    pub mode: Mode,
}

/// One token that a step yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenEvent {
    /// Whose it is.
    pub id: RequestId,
    /// The request's own word for itself.
    pub user_data: u64,
    /// The row that yielded it; it may be another's by now.
    pub slot: Slot,
    /// Which output token it is, from 1.
    pub index: u32,
    /// The token.
    pub token: u32,
}

/// The tokens that a step yielded.
pub trait Yielded: fmt::Debug {
    /// Visits each of them, in the order of the step's rows.
    fn each(&self, visit: &mut dyn FnMut(&TokenEvent));
}

/// What a policy learns, it learns here.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A job joined the queue.
    Submitted(&'a Job),
    /// A job became resident.
    Admitted(&'a Job),
    /// Tokens came out of a step.
    Tokens(&'a dyn Yielded),
    /// A resident was evicted and waits again.
    Evicted(&'a Job, Restore),
    /// A request ended.
    Finished(&'a Job, FinishReason, Nanos),
    /// A decision was applied as it stands here, which may be less than the policy asked for.
    Applied(&'a Decision),
    /// A step settled: its shape and its time.
    Timed(&'a BatchShape, Nanos),
}

/// Decides every step. See the module for the contract.
pub trait Policy: Send {
    /// Its name, with the parameters that differ from the defaults.
    fn name(&self) -> &str;

    /// Ranks a waiting job: when it is submitted, when it comes back after an eviction, and once more
    /// in each new [`Policy::epoch`].
    fn place(&mut self, job: &Job, places: &mut Places);

    /// Ranks a job that becomes resident, a resident whose last rank has run out, and every resident
    /// once more in each new [`Policy::epoch`].
    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(job.arrival.0 as i64)
    }

    /// The epoch of the ranks. When it changes, all waiting jobs are placed and all residents ranked
    /// anew, some each step.
    fn epoch(&self) -> u64 {
        0
    }

    /// How many groups it uses: their ids are below this. An engine with fewer refuses it.
    fn groups_used(&self) -> u16 {
        1
    }

    /// Sets offsets, gates and headroom of the groups for this step.
    fn groups(&mut self, _view: &mut View<'_>) {}

    /// How much KV a job must get before it becomes resident.
    fn admission(&self) -> Admission {
        Admission::Known
    }

    /// Whether a resident may be neither parked nor evicted while another can go.
    fn protects(&self, _row: &Resident) -> bool {
        false
    }

    /// Residents whose ranks are less than this apart are equal as victims: of the last ones, the one that
    /// is cheapest to restore per block freed goes first. With zero, the last by rank and id goes.
    fn victim_slack(&self) -> i64 {
        0
    }

    /// Host memory that evicting this row must leave free, in parts of ten thousand: for those that come
    /// back sooner.
    fn host_reserve(&self, _row: &Resident) -> u32 {
        0
    }

    /// Why a job that fits may be admitted now; `None` shuts its group for this step.
    fn accepts(&mut self, _candidate: &Candidate) -> Option<Reason> {
        Some(Reason::Order)
    }

    /// A job did not fit: whether nobody else is admitted in this step. Otherwise its group alone is shut.
    fn holds_up(&mut self, _candidate: &Candidate) -> bool {
        false
    }

    /// Whether a waiting job may evict residents that come after it in the order.
    fn preempts(&self) -> bool {
        true
    }

    /// What this step may hold.
    fn budget(&mut self, view: &View<'_>) -> Budget {
        Budget { tokens: view.config.max_num_batched_tokens, mode: Mode::Mixed }
    }

    /// Fills the decision for this step, which comes empty.
    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        walk::walk(self, view, decision);
    }

    /// Hears what happened.
    fn on(&mut self, _event: &Event<'_>) {}
}
