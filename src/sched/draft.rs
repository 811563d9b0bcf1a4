//! A decision in the making, with its accounts: what is left of tokens, rows and blocks.
//!
//! Policies say whom to run, admit and evict; the draft knows whether it fits, lists the growth of
//! the tables, and chooses between swap and recompute. A draft never promises more than there is.

use super::decision::{Admit, Decision, Evict, Grow, Park, Reason, Restore, Run};
use super::view::{Candidate, Job, Resident, View};
use crate::config::{Preempt, SwapMode};
use crate::ids::Slot;
use crate::units::{Blocks, Bytes, Nanos, Tokens};

/// How much KV a job must get before it becomes resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// What its first chunk needs.
    NextChunk,
    /// What its first chunk takes, but only if all that is known of it would fit: vLLM V1.
    KnownFits,
    /// All that is known of it: Sarathi-Serve, and the default.
    Known,
}

/// Buffers of the passes.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Rows set aside, in order.
    pub(super) chosen: Vec<Slot>,
    /// One mark per slot; all zero between decisions.
    pub(super) marks: Vec<u8>,
}

impl Scratch {
    /// Room for `resident_max` rows.
    pub fn new(resident_max: usize) -> Self {
        Self { chosen: Vec::with_capacity(resident_max), marks: vec![0; resident_max] }
    }
}

/// A decision in the making.
pub struct Draft<'d> {
    decision: &'d mut Decision,
    block_shift: u32,
    /// Tokens left in this step.
    pub tokens: u32,
    /// Of these, tokens that no admission may take: the walk keeps them for decodes.
    pub held: u32,
    /// Rows left in this step.
    pub seqs: u32,
    /// Residents that may still be added.
    pub slots: u32,
    /// Free blocks left.
    pub free: u32,
    host_free: u32,
    /// Blocks that admitted jobs pin though others hold them: evicting those others does not free them.
    pinned: u32,
}

impl<'d> Draft<'d> {
    /// A draft of an empty decision, with all that the view has to give.
    pub fn new(view: &View<'_>, decision: &'d mut Decision) -> Self {
        Self {
            decision,
            block_shift: view.config.block_shift(),
            tokens: view.config.max_num_batched_tokens.0,
            held: 0,
            seqs: view.config.max_num_seqs,
            slots: view.config.max_resident - view.order.len() as u32,
            free: view.free.0,
            host_free: view.host_free.0,
            pinned: 0,
        }
    }

    /// Runs a row for `tokens` if its blocks fit: true if it runs.
    #[inline]
    pub fn run(&mut self, slot: Slot, row: &Resident, tokens: u32, reason: Reason) -> bool {
        debug_assert!(tokens > 0 && tokens <= self.tokens && self.seqs > 0);
        if !row.has_room(tokens, self.block_shift) && !self.grow(slot, row, tokens) {
            return false;
        }
        self.tokens -= tokens;
        self.seqs -= 1;
        self.decision.run.push(Run { slot, tokens, reason });
        true
    }

    /// Decodes a steady row.
    #[inline]
    pub fn decode(&mut self, slot: Slot, reason: Reason) {
        debug_assert!(self.tokens > 0 && self.seqs > 0);
        self.tokens -= 1;
        self.seqs -= 1;
        self.decision.run.push(Run { slot, tokens: 1, reason });
    }

    /// Gives a row the blocks that it lacks for `tokens`, if they are there.
    fn grow(&mut self, slot: Slot, row: &Resident, tokens: u32) -> bool {
        let growth = row.growth(tokens, self.block_shift);
        let fits = growth <= self.free;
        if fits {
            self.free -= growth;
            self.decision.grow.push(Grow { slot, blocks: Blocks(growth) });
        }
        fits
    }

    /// Decodes the steady rows from `at` on, up to the first that is not, to `end`, or to the end of the
    /// step's tokens: returns where it stopped.
    ///
    /// The hottest loop of `fcfs` and `vllm`: most steps decode most rows, and one in sixteen lacks a block.
    #[inline]
    pub fn decode_steady(&mut self, view: &View<'_>, at: usize, end: usize) -> usize {
        let rest = &view.order[at..end.min(at + self.tokens as usize)];
        // One loop, which finds the end as it goes: how far it goes nothing foretells, and two loops would be
        // surprised twice.
        let before = self.decision.run.len();
        for &slot in rest.iter().take_while(|&&slot| view.steady(slot)) {
            self.decision.run.push(Run { slot, tokens: 1, reason: Reason::Decode });
        }
        let count = self.decision.run.len() - before;
        self.tokens -= count as u32;
        self.seqs -= count as u32;
        at + count
    }

    /// Blocks that a job's table must have when it is admitted for `chunk` tokens.
    fn table(&self, view: &View<'_>, job: &Job, admission: Admission, chunk: u32) -> Blocks {
        let tokens = match admission {
            Admission::NextChunk | Admission::KnownFits => job.ready() + Tokens(chunk),
            Admission::Known => job.known(),
        };
        // What comes back from the host needs its place whatever the chunk.
        view.config.blocks(tokens.max(job.swapped))
    }

    /// Blocks that admitting a job takes out of the free ones.
    pub fn taken(&self, view: &View<'_>, job: &Job, admission: Admission, chunk: u32) -> Blocks {
        self.taken_after(view, job, admission, chunk, !self.decision.evict.is_empty())
    }

    /// The same, if somebody has been `evicted` by then: it may be the victim's blocks, counted as free since, that
    /// the job pins.
    fn taken_after(
        &self,
        view: &View<'_>,
        job: &Job,
        admission: Admission,
        chunk: u32,
        evicted: bool,
    ) -> Blocks {
        let cached = if job.swapped > Tokens::ZERO { Tokens::ZERO } else { job.cached };
        let pinned = match cached {
            Tokens::ZERO => Blocks::ZERO,
            _ if evicted => view.config.blocks(cached),
            _ => job.cached_free,
        };
        self.table(view, job, admission, chunk).saturating_sub(view.config.blocks(cached)) + pinned
    }

    /// The tokens that a job gets in this step if it is admitted now.
    pub fn chunk(&self, view: &View<'_>, job: &Job) -> u32 {
        let returns = job.swapped > Tokens::ZERO;
        if returns && view.config.swap == SwapMode::Overlap {
            0
        } else {
            job.missing().0.min(self.tokens - self.held)
        }
    }

    /// Whether a job can be admitted now, from a group with its headroom left free.
    pub fn fits(&self, view: &View<'_>, candidate: &Candidate, admission: Admission) -> bool {
        let evicted = !self.decision.evict.is_empty();
        self.slots > 0 && self.shortage(view, candidate, admission, evicted) == Some(0)
    }

    /// Blocks that are missing for admitting a job, in a slot of its own, if somebody has been `evicted` by then;
    /// `None` if tokens or rows are.
    pub fn shortage(
        &self,
        view: &View<'_>,
        candidate: &Candidate,
        admission: Admission,
        evicted: bool,
    ) -> Option<u32> {
        if self.tokens <= self.held || self.seqs == 0 {
            return None;
        }
        let job = &candidate.job;
        let chunk = self.chunk(view, job);
        let whole = if admission == Admission::KnownFits { Admission::Known } else { admission };
        let needed = self.taken_after(view, job, whole, chunk, evicted);
        // On an empty machine headroom would only keep a large job waiting for nothing.
        let alone = view.order.len() == self.decision.evict.len() && self.decision.admit.is_empty();
        let headroom = if alone { Blocks::ZERO } else { candidate.headroom };
        Some((needed + headroom).0.saturating_sub(self.free))
    }

    /// Blocks that evicting a row frees for whoever is admitted.
    pub fn freed(&self, view: &View<'_>, slot: Slot) -> Blocks {
        view.pool.returns(slot).saturating_sub(Blocks(self.pinned))
    }

    /// Admits a job that fits, for its next chunk.
    pub fn admit(
        &mut self,
        view: &mut View<'_>,
        candidate: &Candidate,
        admission: Admission,
        reason: Reason,
    ) {
        debug_assert!(self.fits(view, candidate, admission));
        let chunk = self.chunk(view, &candidate.job);
        self.admit_chunk(view, candidate, admission, chunk, reason);
    }

    /// Admits a job for a chunk of the caller's choice.
    pub fn admit_chunk(
        &mut self,
        view: &mut View<'_>,
        candidate: &Candidate,
        admission: Admission,
        tokens: u32,
        reason: Reason,
    ) {
        let blocks = self.table(view, &candidate.job, admission, tokens);
        let taken = self.taken(view, &candidate.job, admission, tokens);
        view.waiting.take(candidate);
        if candidate.job.swapped == Tokens::ZERO {
            self.pinned +=
                view.config.blocks(candidate.job.cached).saturating_sub(candidate.job.cached_free).0;
        }
        self.free -= taken.0;
        self.tokens -= tokens;
        self.seqs -= 1;
        self.slots -= 1;
        self.decision.admit.push(Admit { id: candidate.job.id, tokens, blocks, taken, reason });
    }

    /// Evicts a ready row, by swap or by recompute after the configuration and the cost model.
    pub fn evict(&mut self, view: &View<'_>, slot: Slot, reason: Reason) {
        self.evict_leaving(view, slot, reason, Blocks::ZERO);
    }

    /// The same, but by recompute if a swap left less than `reserve` of the host tier.
    pub fn evict_leaving(&mut self, view: &View<'_>, slot: Slot, reason: Reason, reserve: Blocks) {
        let row = view.row(slot);
        let restore = self.restore(view, row, reserve);
        let freed = self.freed(view, slot);
        if restore == Restore::Swap {
            self.host_free -= row.blocks;
        }
        self.free += freed.0;
        self.slots += 1;
        self.decision.evict.push(Evict { slot, restore, freed, reason });
    }

    /// Leaves a row that could run without tokens.
    pub fn park(&mut self, slot: Slot, reason: Reason) {
        self.decision.park.push(Park { slot, reason });
    }

    /// How many rows were evicted.
    pub fn evicted(&self) -> usize {
        self.decision.evict.len()
    }

    /// How many residents run so far.
    pub fn chosen(&self) -> usize {
        self.decision.run.len()
    }

    /// How many rows and jobs run so far.
    pub fn rows(&self) -> usize {
        self.decision.rows()
    }

    /// The time that evicting a row and bringing it back takes.
    pub fn restore_time(&self, view: &View<'_>, row: &Resident) -> Nanos {
        match self.restore(view, row, Blocks::ZERO) {
            Restore::Swap => swap_time(view, row),
            Restore::Recompute => view.cost.recompute_time(Tokens(row.computed)),
        }
    }

    fn restore(&self, view: &View<'_>, row: &Resident, reserve: Blocks) -> Restore {
        let swaps = match view.config.preempt {
            Preempt::Swap => true,
            Preempt::Recompute => false,
            Preempt::Auto => swap_time(view, row) < view.cost.recompute_time(Tokens(row.computed)),
        };
        let fits = row.blocks + reserve.0 <= self.host_free;
        if swaps && fits && row.computed > 0 { Restore::Swap } else { Restore::Recompute }
    }
}

/// The time of moving a row's KV to the host and back.
fn swap_time(view: &View<'_>, row: &Resident) -> Nanos {
    let Bytes(bytes) = view.cost.kv_bytes(Tokens(row.computed));
    view.cost.swap_time(Bytes(2 * bytes))
}
