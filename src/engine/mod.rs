//! The loop: **observe, view, decide, check, apply, plan, execute, settle.** The only place where state
//! changes, and the same code on a GPU and in a simulation; only the clock and the executor differ.
//!
//! One call of [`Engine::step`] decides one step and submits it. At depth 1 it also waits for it and
//! settles it. At depth 2 it settles the step before instead, so that the next one is decided while the
//! device works; a row is then planned as if it yielded a token, and discarded when it did not need to.

mod apply;
#[cfg(test)]
mod lives;
mod outputs;
mod plan;
mod rowset;
mod settle;
#[cfg(test)]
mod tests;
mod waiting;
mod yields;

use crate::batch::BatchPlan;
use crate::budget::PowerBudget;
use crate::clock::Clock;
use crate::config::Config;
use crate::cost::{BatchShape, CostModel};
use crate::error::{ConfigError, StepError, SubmitError};
use crate::exec::{Executor, InFlight, StepOutcome};
use crate::ids::{GroupId, Place, Places, Slot, SlotSet};
use crate::kv::{BlockHash, HostSpan, Kv};
use crate::queue::Groups;
use crate::request::{FinishReason, Prompt, Request, RequestId, StopSieve, StopTokens};
use crate::sched::decision::Left;
use crate::sched::{Decision, Event, Phase, Policy, Resident, Scratch, View};
use crate::sequence::{Sequence, State};
use crate::units::{Blocks, Nanos, Tokens};
use outputs::Outputs;
use rowset::RowSet;
use std::collections::VecDeque;
use waiting::{Hashes, PoolView, QueueView, job};
pub use yields::{Yields, YieldsIter};

/// The name of no request: whose a vacant slot is.
const NOBODY: RequestId = RequestId(u64::MAX);

/// What is published of a resident: its leading blocks, and the hash of the last of them.
#[derive(Clone, Copy, Debug)]
struct Published {
    blocks: u32,
    chain: BlockHash,
}

impl Published {
    const NOTHING: Self = Self { blocks: 0, chain: BlockHash::ROOT };
}

/// A request that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub id: RequestId,
    /// Its own word for itself.
    pub user_data: u64,
    /// Why.
    pub reason: FinishReason,
    /// Output tokens that it got.
    pub generated: Tokens,
    /// Prompt tokens that came from the prefix cache when it was last admitted.
    pub cached: Tokens,
    /// When.
    pub at: Nanos,
}

/// What one step did. Borrowed from the engine until the next step.
#[derive(Debug)]
pub struct StepReport<'e> {
    /// Which step was decided.
    pub step: u64,
    /// When it was decided.
    pub now: Nanos,
    /// The decision; empty if there was nothing to do.
    pub decision: &'e Decision,
    /// The plan, if one was submitted.
    pub plan: Option<&'e BatchPlan>,
    /// The step that settled, if one did: its number and shape.
    pub settled: Option<(u64, BatchShape)>,
    /// What came out of it; old if none settled.
    pub outcome: &'e StepOutcome,
    /// The tokens that came out of it, without those of discarded rows.
    pub tokens: Yields<'e>,
    /// Requests that ended, cancels since the last step included.
    pub ended: &'e [Ended],
}

/// Counts of a moment, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests that wait, swapped ones included.
    pub waiting: usize,
    /// Rows that hold KV.
    pub resident: usize,
    /// Blocks that are held.
    pub kv_held: Blocks,
    /// Blocks of the pool.
    pub kv_total: Blocks,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Steps, idle ones included.
    pub steps: u64,
    /// Prompt tokens of admitted requests, first admissions only.
    pub prompt_tokens: u64,
    /// Of these, those found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens computed again after evictions.
    pub recomputed_tokens: u64,
    /// Tokens moved to the host.
    pub swapped_tokens: u64,
    /// Evictions by swap.
    pub swaps: u64,
    /// Evictions by recompute.
    pub recomputes: u64,
    /// Evictions of rows that the policy protects.
    pub overrides: u64,
}

/// One engine: one executor, one policy, one pool.
pub struct Engine {
    config: Config,
    clock: Box<dyn Clock>,
    executor: Box<dyn Executor>,
    policy: Box<dyn Policy>,
    cost: CostModel,
    power: PowerBudget,

    live: Vec<Option<Sequence>>,
    vacant: Vec<u32>,
    submitted: u64,
    waiting: usize,
    groups: Groups,
    deadlines: usize,
    content_held: u64,
    /// Content tokens of live requests with penalties, for whose histories every plan has room.
    penalized_held: u64,
    buffers: Vec<Vec<u32>>,

    kv: Kv,
    /// The prompts that were submitted last, and those that stood first when a policy looked last.
    newcomers: Hashes,
    heads: Hashes,
    rows: Vec<Resident>,
    /// The rows that decode in the next step, if nothing happens to them.
    steady: SlotSet,
    /// What ends the residents, and what may end them at a first glance, by slot.
    stops: Vec<StopTokens>,
    sieves: Vec<StopSieve>,
    outputs: Outputs,
    published: Vec<Published>,
    /// Who had no tokens in the last step.
    parked: SlotSet,
    order: Vec<Slot>,
    free_slots: Vec<Slot>,

    step: u64,
    rank_epoch: u64,
    /// Where the next jobs are ranked anew, and how many places are left to visit: a new epoch goes on
    /// where the last one was, so that all have their turn however often epochs come.
    sweep: usize,
    stale: usize,
    plans: [BatchPlan; 2],
    in_flight: VecDeque<InFlight>,
    decision: Decision,
    outcome: StepOutcome,
    scratch: Scratch,
    left: Left,
    taken: Vec<RequestId>,
    /// The rows of each plan that come to a turn with it; once it is planned, those to attend to when it settles.
    turns: [RowSet; 2],
    returning: Vec<(Slot, HostSpan)>,
    /// The rows of the plan that settles for whom a token is more than one more.
    noted: RowSet,
    /// How many rows of the plan that settled yielded a token.
    yielded: usize,
    ending: Vec<(RequestId, FinishReason)>,
    ended: Vec<Ended>,
    ended_early: Vec<Ended>,
    counters: Counters,
    last: Last,
    poisoned: Option<String>,
}

/// What a step did, beside what lies in the engine's buffers.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    now: Nanos,
    planned: bool,
    settled: Option<(u64, BatchShape)>,
}

impl Engine {
    /// An engine with nothing to do.
    ///
    /// # Errors
    /// If the limits do not fit together.
    pub fn new(
        config: Config,
        policy: Box<dyn Policy>,
        executor: Box<dyn Executor>,
        clock: Box<dyn Clock>,
        cost: CostModel,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        config.check_groups(policy.groups_used())?;
        let rows = config.max_resident as usize;
        let tokens = config.max_num_batched_tokens.0 as usize;
        let (blocks, host_blocks) = (config.kv_blocks.0 as usize, config.host_blocks.0 as usize);
        let swapped = blocks.min(host_blocks);
        // One more group, always closed, orders the deadlines.
        let entries = config.alive_max() * (Places::MAX + 1);
        let mut groups = Groups::new(config.groups_max + 1, entries);
        groups.set(GroupId(config.groups_max), 0, false, Blocks::ZERO);
        Ok(Self {
            live: Vec::with_capacity(config.alive_max()),
            vacant: Vec::with_capacity(config.alive_max()),
            submitted: 0,
            waiting: 0,
            groups,
            deadlines: 0,
            content_held: 0,
            penalized_held: 0,
            buffers: Vec::with_capacity(config.alive_max()),
            kv: Kv::new(&config),
            newcomers: Hashes::new(config.blocks_per_seq_max()),
            heads: Hashes::new(config.blocks_per_seq_max()),
            rows: vec![Resident { id: NOBODY, ..Resident::default() }; rows],
            steady: SlotSet::new(rows),
            stops: vec![StopTokens::NONE; rows],
            sieves: vec![StopTokens::NONE.sieve(); rows],
            outputs: Outputs::new(rows),
            published: vec![Published::NOTHING; rows],
            parked: SlotSet::new(rows),
            order: Vec::with_capacity(rows),
            free_slots: (0..config.max_resident).rev().map(Slot).collect(),
            step: 0,
            rank_epoch: policy.epoch(),
            sweep: 0,
            stale: 0,
            plans: std::array::from_fn(|_| BatchPlan::with_capacity(rows, tokens, blocks, swapped)),
            in_flight: VecDeque::with_capacity(2),
            decision: Decision::with_capacity(rows),
            outcome: StepOutcome::default(),
            scratch: Scratch::new(rows),
            left: Left::new(rows),
            taken: Vec::with_capacity(rows),
            turns: std::array::from_fn(|_| RowSet::new(rows)),
            returning: Vec::with_capacity(rows),
            noted: RowSet::new(rows),
            yielded: 0,
            ending: Vec::with_capacity(rows),
            ended: Vec::with_capacity(config.alive_max()),
            ended_early: Vec::with_capacity(config.alive_max()),
            counters: Counters::default(),
            last: Last::default(),
            poisoned: None,
            power: PowerBudget::default(),
            config,
            clock,
            executor,
            policy,
            cost,
        })
    }

    /// Accepts a request: it waits from now on. Never blocks.
    ///
    /// # Errors
    /// If it can never fit, or a bound is reached; the engine is unchanged.
    pub fn submit(&mut self, mut request: Request) -> Result<RequestId, SubmitError> {
        self.check_possible(&request)?;
        request.max_tokens = request.max_tokens.min(self.longest() - request.prompt.len());
        self.check_room(&request)?;
        let index = self.vacant.pop().unwrap_or(self.live.len() as u32);
        let id = RequestId::new(self.submitted, index);
        self.submitted += 1;
        self.content_held += content_tokens(&request);
        self.make_room_for_history(&request);
        if let Some(deadline) = request.deadline {
            self.groups.insert(self.deadline_place(deadline), id);
            self.deadlines += 1;
        }
        let output = self.buffer(&request);
        let mut sequence = Sequence::new(id, request, output);
        waiting::look_up(&mut sequence, &self.kv, &self.config, &mut self.newcomers);
        self.enqueue(&mut sequence);
        self.policy.on(&Event::Submitted(&job(&sequence)));
        let place = index as usize;
        if place == self.live.len() {
            self.live.push(Some(sequence));
            // Whoever is being ranked anew in turn: the round has become longer by one.
            self.stale += usize::from(self.stale > 0);
        } else {
            self.live[place] = Some(sequence);
        }
        Ok(id)
    }

    /// Whether a request can ever be served.
    fn check_possible(&self, request: &Request) -> Result<(), SubmitError> {
        if let Some(reason) = &self.poisoned {
            return Err(SubmitError::Poisoned(reason.clone()));
        }
        let (prompt, max_tokens, limit) = (request.prompt.len(), request.max_tokens, self.longest());
        if prompt == Tokens::ZERO || max_tokens == Tokens::ZERO {
            return Err(SubmitError::Empty);
        }
        request.sampling.check()?;
        // A request whose limit alone is too large is cut at the model's; one whose prompt is, is not.
        if prompt >= limit {
            return Err(SubmitError::NeverFits { prompt, max_tokens, limit });
        }
        if let Prompt::Content { granularity, ids, .. } = &request.prompt {
            let whole = granularity.0 > 0 && granularity.0.is_multiple_of(self.config.block_size.0);
            if !whole || prompt.0.div_ceil(granularity.0) as usize != ids.len() {
                return Err(SubmitError::BadContent { ids: ids.len(), granularity: *granularity, prompt });
            }
        }
        Ok(())
    }

    /// Whether there is room for it now.
    fn check_room(&self, request: &Request) -> Result<(), SubmitError> {
        let free = u64::from(self.config.content_tokens_max) - self.content_held;
        let needed = content_tokens(request);
        if needed > free {
            return Err(SubmitError::ContentFull { needed, free });
        }
        if self.waiting >= self.config.waiting_max as usize {
            return Err(SubmitError::QueueFull { limit: self.config.waiting_max });
        }
        Ok(())
    }

    /// The most tokens that one sequence may come to hold.
    fn longest(&self) -> Tokens {
        Tokens(self.config.blocks_per_seq_max().0 * self.config.block_size.0).min(self.config.max_model_len)
    }

    /// A buffer for the output of a request whose tokens are stored. It gets its memory here, and so do the
    /// slots, so that no step allocates.
    fn buffer(&mut self, request: &Request) -> Vec<u32> {
        if content_tokens(request) == 0 {
            return Vec::new();
        }
        let tokens = request.max_tokens.0 as usize;
        self.outputs.make_room(tokens);
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.reserve(tokens);
        buffer
    }

    /// Gives the plans room for the tokens of every live request with penalties, so that no step allocates.
    fn make_room_for_history(&mut self, request: &Request) {
        self.penalized_held += penalized_tokens(request);
        for plan in &mut self.plans {
            plan.history.reserve((self.penalized_held as usize).saturating_sub(plan.history.len()));
        }
    }

    /// Ends a request now, with the tokens that it got. False if it has ended already.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let alive = self.sequence(id).is_some();
        if alive {
            let ended = self.end(id, FinishReason::Cancelled, self.clock.now());
            self.ended_early.push(ended);
        }
        alive
    }

    /// What the governor allows from the next step on.
    pub fn set_power_budget(&mut self, budget: PowerBudget) {
        self.power = budget;
    }

    /// Decides one step and submits it; settles the oldest one in flight if the pipeline is full, or
    /// if there was nothing to submit.
    ///
    /// # Errors
    /// If the executor failed or the policy broke its contract. The engine is poisoned from then on, and every
    /// request has ended as failed: [`Engine::last_report`] lists them.
    pub fn step(&mut self) -> Result<StepReport<'_>, StepError> {
        if let Some(reason) = &self.poisoned {
            self.ended.clear();
            return Err(StepError::Poisoned(reason.clone()));
        }
        match self.try_step() {
            Ok(()) => Ok(self.last_report()),
            Err(error) => {
                self.poison(error.to_string());
                Err(error)
            }
        }
    }

    /// Ends all requests as failed, since nothing will come of them.
    fn poison(&mut self, reason: String) {
        self.poisoned = Some(reason);
        let now = self.clock.now();
        for index in 0..self.live.len() {
            if let Some(id) = self.live[index].as_ref().map(|sequence| sequence.id) {
                let ended = self.end(id, FinishReason::Failed, now);
                self.ended.push(ended);
            }
        }
        self.in_flight.clear();
        self.decision.clear();
        self.last = Last { now, planned: false, settled: None };
    }

    fn try_step(&mut self) -> Result<(), StepError> {
        self.step += 1;
        self.counters.steps += 1;
        self.ended.clear();
        self.ended.append(&mut self.ended_early);
        let now = self.observe();
        self.decide(now)?;
        let planned = !self.decision.is_empty();
        if planned {
            self.apply();
            self.plan(now);
            self.execute()?;
        }
        let full = self.in_flight.len() >= usize::from(self.config.pipeline_depth);
        let settled = if full || !planned { self.settle_oldest()? } else { None };
        self.last = Last { now, planned, settled };
        Ok(())
    }

    /// Reads the clock, ends what is past its deadline, and ranks anew what a new epoch calls for.
    fn observe(&mut self) -> Nanos {
        let now = self.clock.now();
        if self.deadlines > 0 {
            self.expire(now);
        }
        let epoch = self.policy.epoch();
        if epoch != self.rank_epoch {
            self.rank_epoch = epoch;
            self.stale = self.live.len();
        }
        if self.stale > 0 {
            self.rerank_some();
        }
        now
    }

    /// Views, decides and checks.
    fn decide(&mut self, now: Nanos) -> Result<(), StepError> {
        let mut queue = QueueView {
            groups: &mut self.groups,
            live: &mut self.live,
            taken: &mut self.taken,
            kv: &self.kv,
            hashes: &mut self.heads,
            config: &self.config,
            len: self.waiting,
        };
        let mut view = View {
            now,
            step: self.step,
            config: &self.config,
            free: self.kv.free(),
            host_free: self.kv.host_free(),
            residents: &self.rows,
            order: &self.order,
            steady: &self.steady,
            parked: &self.parked,
            waiting: &mut queue,
            pool: &PoolView(&self.kv),
            power: self.power,
            cost: &self.cost,
            scratch: &mut self.scratch,
        };
        self.decision.clear();
        self.policy.decide(&mut view, &mut self.decision);
        let sound = self.decision.check(&view, &mut self.left);
        self.taken.clear();
        self.groups.rewind();
        sound.map_err(|rule| StepError::Unsound {
            policy: self.policy.name().to_owned(),
            step: self.step,
            rule: rule.0,
        })?;
        self.policy.on(&Event::Applied(&self.decision));
        Ok(())
    }

    fn execute(&mut self) -> Result<(), StepError> {
        let plan = &self.plans[self.plan_of(self.step)];
        let in_flight = self.executor.submit(plan)?;
        self.in_flight.push_back(in_flight);
        Ok(())
    }

    /// What the last step did.
    pub fn last_report(&self) -> StepReport<'_> {
        let Last { now, planned, settled } = self.last;
        StepReport {
            step: self.step,
            now,
            decision: &self.decision,
            plan: planned.then_some(&self.plans[self.plan_of(self.step)]),
            settled,
            outcome: &self.outcome,
            tokens: settled.map_or(Yields::default(), |(step, _)| self.yields(step)),
            ended: &self.ended,
        }
    }

    /// Whether nothing waits, nothing is resident, nothing is in flight, and every end was reported.
    pub fn is_idle(&self) -> bool {
        let reported = self.ended_early.is_empty();
        self.waiting == 0 && self.order.is_empty() && self.in_flight.is_empty() && reported
    }

    /// Counts of this moment.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            waiting: self.waiting,
            resident: self.order.len(),
            kv_held: self.kv.total() - self.kv.free(),
            kv_total: self.kv.total(),
        }
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The policy's name.
    pub fn policy(&self) -> &str {
        self.policy.name()
    }

    /// The executor's name.
    pub fn executor(&self) -> &'static str {
        self.executor.name()
    }

    /// The output tokens of a live request whose content is known.
    pub fn output(&self, id: RequestId) -> Option<&[u32]> {
        self.sequence(id).map(|s| s.slot().map_or(&s.output[..], |slot| self.output_of(slot)))
    }

    /// The output tokens of a resident; none if its tokens are not stored.
    fn output_of(&self, slot: Slot) -> &[u32] {
        let row = &self.rows[slot.index()];
        self.outputs.of(slot, if row.stores { row.delivered() } else { 0 })
    }

    /// Where the plan of a step is: without a pipeline always in the same place, which stays warm.
    fn plan_of(&self, step: u64) -> usize {
        // The depth is 1 or 2: a mask does, and a step asks too often for a division.
        step as usize & usize::from(self.config.pipeline_depth > 1)
    }

    /// What came out of the step that settled last.
    fn yields(&self, step: u64) -> Yields<'_> {
        Yields::new(&self.plans[self.plan_of(step)].rows, &self.outcome.tokens, self.yielded)
    }

    fn sequence(&self, id: RequestId) -> Option<&Sequence> {
        self.live.get(id.index())?.as_ref().filter(|s| s.id == id)
    }

    fn sequence_mut(&mut self, id: RequestId) -> &mut Sequence {
        let sequence = self.live[id.index()].as_mut().expect("whoever is named here is alive");
        debug_assert_eq!(sequence.id, id);
        sequence
    }

    /// Puts a waiting sequence into its groups.
    fn enqueue(&mut self, sequence: &mut Sequence) {
        sequence.places = Default::default();
        sequence.rank_epoch = self.rank_epoch;
        self.policy.place(&job(sequence), &mut sequence.places);
        for place in sequence.places.as_slice() {
            self.groups.insert(*place, sequence.id);
        }
        self.waiting += 1;
    }

    /// Takes a waiting sequence out of its groups.
    fn dequeue(&mut self, id: RequestId) {
        let places = self.sequence_mut(id).places;
        for place in places.as_slice() {
            self.groups.remove(*place, id);
        }
        self.waiting -= 1;
    }

    fn deadline_place(&self, deadline: Nanos) -> Place {
        Place { group: GroupId(self.config.groups_max), rank: deadline.signed() }
    }

    fn expire(&mut self, now: Nanos) {
        let group = GroupId(self.config.groups_max);
        while let Some(head) = self.groups.head_of(group) {
            let late = self.sequence(head.id).and_then(|s| s.request.deadline).is_some_and(|d| d <= now);
            if !late {
                return;
            }
            let ended = self.end(head.id, FinishReason::Deadline, now);
            self.ended.push(ended);
        }
    }

    /// Ranks some jobs and residents anew after the policy has started a new epoch.
    fn rerank_some(&mut self) {
        let places = self.stale.min(self.config.rerank_per_step as usize);
        self.stale -= places;
        for _ in 0..places {
            let index = self.sweep;
            self.sweep = (index + 1) % self.live.len();
            let Some(sequence) = &self.live[index] else { continue };
            if let Some(slot) = sequence.slot() {
                self.rerank_resident(slot);
            } else if sequence.rank_epoch != self.rank_epoch {
                self.place_again(index);
            }
        }
    }

    /// Ranks a waiting sequence anew, and moves it in the groups where its rank is another.
    fn place_again(&mut self, index: usize) {
        let sequence = self.live[index].as_mut().expect("whoever waits is alive");
        let mut new = Places::default();
        self.policy.place(&job(sequence), &mut new);
        sequence.rank_epoch = self.rank_epoch;
        let (id, old) = (sequence.id, std::mem::replace(&mut sequence.places, new));
        let moved = |from: &[Place], place: &Place| !from.contains(place);
        for place in old.as_slice().iter().filter(|place| moved(new.as_slice(), place)) {
            self.groups.remove(*place, id);
        }
        for place in new.as_slice().iter().filter(|place| moved(old.as_slice(), place)) {
            self.groups.insert(*place, id);
        }
    }

    /// Ends a live request wherever it is, and forgets it.
    fn end(&mut self, id: RequestId, reason: FinishReason, at: Nanos) -> Ended {
        let sequence = self.remove(id);
        self.bury(sequence, reason, at)
    }

    /// Takes a live request from wherever it is.
    fn remove(&mut self, id: RequestId) -> Sequence {
        let fence = self.in_flight.back().map(InFlight::step);
        let slot = self.sequence(id).and_then(Sequence::slot);
        match slot {
            Some(slot) => self.vacate(slot, fence),
            None => self.dequeue(id),
        }
        let mut sequence = self.live[id.index()].take().expect("whoever ends was alive");
        self.vacant.push(id.index() as u32);
        if let Some(deadline) = sequence.request.deadline {
            self.groups.remove(self.deadline_place(deadline), id);
            self.deadlines -= 1;
        }
        if let State::Swapped(span) = std::mem::take(&mut sequence.state) {
            self.kv.free_host(span, fence);
        }
        self.content_held -= content_tokens(&sequence.request);
        self.penalized_held -= penalized_tokens(&sequence.request);
        sequence
    }

    /// Says how a request ended that is in no place any more.
    fn bury(&mut self, mut sequence: Sequence, reason: FinishReason, at: Nanos) -> Ended {
        // A token in flight is not its own any more.
        sequence.generated = sequence.delivered;
        self.policy.on(&Event::Finished(&job(&sequence), reason, at));
        let mut buffer = std::mem::take(&mut sequence.output);
        if buffer.capacity() > 0 {
            buffer.clear();
            self.buffers.push(buffer);
        }
        Ended {
            id: sequence.id,
            user_data: sequence.request.user_data,
            reason,
            generated: Tokens(sequence.delivered),
            cached: sequence.cached,
            at,
        }
    }

    /// Frees a slot and its blocks; what the slot kept of its sequence goes back there.
    fn vacate(&mut self, slot: Slot, fence: Option<u64>) {
        self.kv.release(slot, fence);
        self.unorder(slot);
        self.steady.set(slot, false);
        let row = std::mem::take(&mut self.rows[slot.index()]);
        self.rows[slot.index()].id = NOBODY;
        let sequence = self.sequence_mut(row.id);
        sequence.generated = row.generated();
        sequence.delivered = row.delivered();
        // A token that is still awaited is credited to the sequence itself.
        if row.awaits() == 0 {
            sequence.last_token = row.feed.word();
        }
        self.free_slots.push(slot);
    }

    /// Finds out again when a row's next turn comes, and whether it is steady until then.
    #[inline(always)]
    fn turn_again(&mut self, slot: Slot) {
        let steady = self.rows[slot.index()].turn_again(self.config.block_shift());
        self.steady.set(slot, steady);
    }

    fn key(&self, slot: Slot) -> (i64, RequestId) {
        let row = &self.rows[slot.index()];
        (row.rank, row.id)
    }

    /// Puts a resident where its rank belongs.
    fn reorder(&mut self, slot: Slot) {
        let key = self.key(slot);
        let at = self.order.partition_point(|other| self.key(*other) < key);
        self.order.insert(at, slot);
    }

    fn unorder(&mut self, slot: Slot) {
        let key = self.key(slot);
        let at = self.order.partition_point(|other| self.key(*other) < key);
        assert_eq!(self.order[at], slot, "the order holds every resident at its rank");
        self.order.remove(at);
    }

    /// Proves what must hold between steps: every sequence is in exactly one place, every count agrees,
    /// and the order is sorted.
    ///
    /// # Panics
    /// If something does not hold: a defect of the engine.
    pub fn check(&self) {
        self.kv.check();
        let live = || self.live.iter().flatten();
        assert_eq!(live().filter(|s| s.waits()).count(), self.waiting, "all that wait are counted");
        assert_eq!(live().filter_map(Sequence::slot).count(), self.order.len(), "all residents are ordered");
        assert_eq!(self.order.len() + self.free_slots.len(), self.rows.len(), "every slot is used or free");
        assert_eq!(self.order.iter().filter(|s| self.steady.contains(**s)).count(), self.steady.len());
        assert!(self.order.windows(2).all(|w| self.key(w[0]) < self.key(w[1])), "the order is sorted");
        for slot in &self.order {
            let row = &self.rows[slot.index()];
            assert!(row.phase != Phase::Vacant && row.computed <= row.known(), "{row:?}");
            assert_eq!(row.blocks, self.kv.blocks(*slot).0, "a row knows its blocks");
            assert!(row.computed <= row.blocks * self.config.block_size.0, "what is computed has its place");
            let steady = row.ready() && row.decodes() && row.has_room(1, self.config.block_shift());
            assert_eq!(self.steady.contains(*slot), steady, "it is known whether a row is steady");
            assert!(row.turn_at == 0 || steady, "only a steady row has a turn: {row:?}");
            assert_eq!(
                self.sequence(row.id).and_then(Sequence::slot),
                Some(*slot),
                "rows and sequences agree"
            );
        }
    }
}

/// Tokens of content that a request may come to hold.
fn content_tokens(request: &Request) -> u64 {
    match &request.prompt {
        Prompt::Tokens(ids) => ids.len() as u64 + u64::from(request.max_tokens.0),
        _ => 0,
    }
}

/// Those of a request whose sampling depends on them.
fn penalized_tokens(request: &Request) -> u64 {
    if request.sampling.penalizes() { content_tokens(request) } else { 0 }
}
