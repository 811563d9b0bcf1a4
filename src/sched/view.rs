//! What a policy may know: plain numbers of this moment, and a cursor over the waiting jobs.

use crate::budget::PowerBudget;
use crate::config::Config;
use crate::cost::CostModel;
use crate::ids::{Feed, GroupId, Slot, SlotSet};
use crate::request::{RequestId, Slo};
use crate::units::{Blocks, Nanos, Tokens};

/// What a policy may know of a request that waits: new, swapped out, or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Job {
    /// Its id; ties are broken by it.
    pub id: RequestId,
    /// The request's own word for itself; an oracle's key.
    pub user_data: u64,
    /// When it arrived.
    pub arrival: Nanos,
    /// Prompt tokens.
    pub prompt: Tokens,
    /// Tokens generated so far.
    pub generated: Tokens,
    /// The most that it may generate.
    pub max_tokens: Tokens,
    /// Prompt tokens found in the prefix cache when last looked up.
    pub cached: Tokens,
    /// Tokens whose KV lies in host memory; zero unless it is swapped.
    pub swapped: Tokens,
    /// Blocks that pinning its cached prefix takes out of the free ones.
    pub cached_free: Blocks,
    /// How often it was evicted.
    pub evictions: u32,
    /// Its priority class; 0 is the highest.
    pub priority: u8,
    /// Whose it is.
    pub client: u32,
    /// Its latency targets.
    pub slo: Slo,
    /// When it gives up.
    pub deadline: Option<Nanos>,
    /// The mark that the policy gave it with its last rank; zero while it waits.
    pub mark: u8,
}

impl Job {
    /// Tokens known: prompt and generated.
    pub fn known(&self) -> Tokens {
        self.prompt + self.generated
    }

    /// Tokens whose KV is there as soon as it is admitted.
    pub fn ready(&self) -> Tokens {
        if self.swapped > Tokens::ZERO { self.swapped } else { self.cached }
    }

    /// Tokens that must be computed before its next token comes.
    pub fn missing(&self) -> Tokens {
        self.known() - self.ready()
    }
}

/// What a row of the batch is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The slot is free.
    #[default]
    Vacant,
    /// It can be scheduled, evicted or left alone.
    Ready,
    /// Its blocks are on their way back from the host; ready when the step settles.
    SwappingIn,
    /// Its last token is in flight: it will end when the step settles, whatever that token is.
    Ending,
}

/// One sequence that holds KV on the device: a cache line, updated in place. It is all that planning and
/// settling a decode touch of the sequence, so that the lines of hundreds of rows stay near.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Resident {
    /// Its id; ties are broken by it.
    pub id: RequestId,
    /// The request's own word for itself.
    pub user_data: u64,
    /// Its place in the order of residents, smallest first; given by the policy.
    pub rank: i64,
    /// The input of its next decode: a token or, marked with the [stamp](Resident::stamp) of a step in flight, the
    /// row of that step whose token it awaits.
    pub(crate) feed: Feed,
    /// Prompt tokens.
    pub prompt: u32,
    /// Tokens to compute until the next one comes: see [`missing`](Resident::missing). A decode changes nothing here,
    /// and what is generated follows from it, so that a decode moves one counter.
    pub(crate) missing: u32,
    /// The most that it may generate.
    pub max_tokens: u32,
    /// Tokens whose KV is computed, those in flight included.
    pub computed: u32,
    /// Blocks in its table.
    pub blocks: u32,
    /// The policy is asked for a new rank once it has generated so many tokens.
    pub rerank_at: u32,
    /// Its next turn: at so many `computed` tokens it ends, asks for a rank or fills a block; zero unless it is
    /// [steady](View::steady). One comparison per decode stands for all three.
    pub(crate) turn_at: u32,
    /// What it is doing.
    pub phase: Phase,
    /// Its priority class.
    pub priority: u8,
    /// Given by the policy with the rank.
    pub mark: u8,
    /// Whether its tokens are known and stored.
    pub(crate) stores: bool,
}

const _: () = assert!(size_of::<Resident>() == 64);

impl Resident {
    /// Tokens known: prompt and generated.
    #[inline]
    pub fn known(&self) -> u32 {
        self.computed + self.missing
    }

    /// Tokens generated, those in flight included.
    #[inline]
    pub fn generated(&self) -> u32 {
        self.known() - self.prompt
    }

    /// Tokens to compute until the next token comes: 1 for a decode.
    #[inline]
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Whether its next step is a decode.
    #[inline]
    pub fn decodes(&self) -> bool {
        self.missing == 1 && self.known() > self.prompt
    }

    /// Sets its next turn and returns whether it is [steady](View::steady): called whenever its phase, its
    /// table or its rank has changed, a prefill has ended, or its turn has come.
    pub(crate) fn turn_again(&mut self, block_shift: u32) -> bool {
        let steady = self.ready() && self.decodes() && self.has_room(1, block_shift);
        // A decode that has `generated` tokens behind it has computed all but the last one.
        let last = self.prompt.saturating_add(self.max_tokens.min(self.rerank_at)) - 1;
        let filled = ((self.computed >> block_shift) + 1) << block_shift;
        self.turn_at = if steady { last.min(filled) } else { 0 };
        steady
    }

    /// Tells a step from the one before and the one after: no more are in flight.
    pub(crate) const fn stamp(step: u64) -> u8 {
        1 + (step & 1) as u8
    }

    /// The stamp of the step in flight that yields its next input, or zero.
    pub(crate) fn awaits(&self) -> u8 {
        self.feed.mark()
    }

    /// Output tokens that have come out of settled steps.
    pub(crate) fn delivered(&self) -> u32 {
        self.generated() - u32::from(self.awaits() != 0)
    }

    /// Whether it can be scheduled or evicted.
    #[inline]
    pub fn ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether its table of blocks of `1 << block_shift` tokens has room for `tokens` more.
    #[inline]
    pub fn has_room(&self, tokens: u32, block_shift: u32) -> bool {
        self.computed + tokens <= self.blocks << block_shift
    }

    /// Blocks of `1 << block_shift` tokens that `tokens` more need beyond those in its table.
    #[inline]
    pub fn growth(&self, tokens: u32, block_shift: u32) -> u32 {
        let blocks = (self.computed + tokens + (1 << block_shift) - 1) >> block_shift;
        blocks.saturating_sub(self.blocks)
    }
}

/// The next waiting job in the order of the open groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The job.
    pub job: Job,
    /// The group that offers it.
    pub group: GroupId,
    /// Its rank there plus the group's offset.
    pub key: i64,
    /// KV to leave free when admitting from this group.
    pub headroom: Blocks,
}

/// The waiting jobs, as the queue lends them for one decision. What is taken or closed is so for this
/// decision only; what is set stays.
pub trait Waiting {
    /// How many wait.
    fn len(&self) -> usize;
    /// Whether none waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Sets a group's offset, gate and headroom. O(log groups).
    fn set_group(&mut self, group: GroupId, offset: i64, open: bool, headroom: Blocks);
    /// How many stand in a group.
    fn group_len(&self, group: GroupId) -> usize;
    /// The job with the smallest key over all open groups that is not taken yet.
    fn peek(&mut self) -> Option<Candidate>;
    /// The first job of one group, open or not, that is not taken yet.
    fn peek_group(&mut self, group: GroupId) -> Option<Candidate>;
    /// Takes a job that was seen: the group goes on behind it.
    fn take(&mut self, candidate: &Candidate);
    /// Gives no more jobs of this group.
    fn close(&mut self, group: GroupId);
    /// Every waiting job, in no order. O(waiting): for policies that say so.
    fn each(&self, visit: &mut dyn FnMut(&Job));
}

/// Exact answers about the block pool that are too costly to be kept for every row.
pub trait Pool {
    /// Blocks that evicting this row would free; blocks shared with other rows stay.
    fn returns(&self, slot: Slot) -> Blocks;
}

/// Everything that a policy may know at one step.
pub struct View<'a> {
    /// The time.
    pub now: Nanos,
    /// Which step is decided.
    pub step: u64,
    /// The limits.
    pub config: &'a Config,
    /// Blocks that can be taken: free, or cached and unreferenced.
    pub free: Blocks,
    /// Free blocks in host memory.
    pub host_free: Blocks,
    /// All rows by slot; vacant ones have [`Phase::Vacant`].
    pub residents: &'a [Resident],
    /// The slots of the residents by (rank, id).
    pub order: &'a [Slot],
    /// The rows that are ready, whose next step is a decode, and whose tables have room for it: nearly all in
    /// nearly every step.
    pub steady: &'a SlotSet,
    /// The rows that were left without tokens in the last step.
    pub parked: &'a SlotSet,
    /// The waiting jobs.
    pub waiting: &'a mut dyn Waiting,
    /// Exact answers about blocks.
    pub pool: &'a dyn Pool,
    /// What the governor allows.
    pub power: PowerBudget,
    /// What steps cost.
    pub cost: &'a CostModel,
    /// Buffers for the passes, so that a decision allocates nothing.
    pub scratch: &'a mut super::draft::Scratch,
}

impl View<'_> {
    /// The row of a slot.
    #[inline]
    pub fn row(&self, slot: Slot) -> &Resident {
        &self.residents[slot.index()]
    }

    /// Whether a row is ready, its next step is a decode and its table has room for that.
    #[inline]
    pub fn steady(&self, slot: Slot) -> bool {
        self.steady.contains(slot)
    }

    /// A share of the host tier in parts of ten thousand, in blocks.
    pub fn share_of_host(&self, parts: u32) -> Blocks {
        Blocks((u64::from(self.config.host_blocks.0) * u64::from(parts) / 10_000) as u32)
    }

    /// A share of the pool in parts of ten thousand, in blocks.
    pub fn share_of_pool(&self, parts: u32) -> Blocks {
        Blocks((u64::from(self.config.kv_blocks.0) * u64::from(parts) / 10_000) as u32)
    }
}
