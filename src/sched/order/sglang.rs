//! SGLang's default. A prefill batch goes before decodes: waiting jobs in the order of the queue, each
//! only if its tokens and its possible output fit beside what the running ones may still need, which
//! is guessed as a shrinking share of their limits. Once one is refused, nobody is admitted before the
//! first decode after the batch has shrunk. With no prefill batch, all decode; when their next
//! tokens do not fit, those with the fewest outputs (then the longest prompts, then the last of the
//! batch) are retracted until they do, and join the end of the queue. The chunk size is the step's token
//! budget.

use super::{Params, PolicyError, place_in_one};
use crate::ids::{Places, Slot};
use crate::sched::{Admission, Candidate, Decision, Draft, Event, Job, Policy, Rank, Reason, Resident, View};
use std::cmp::Reverse;

/// Output reserved per request, at most (`SGLANG_CLIP_MAX_NEW_TOKENS_ESTIMATION`).
const CLIP: u32 = 4096;
/// Decode steps in which the guess falls to its minimum (`SGLANG_NEW_TOKEN_RATIO_DECAY_STEPS`).
const DECAY_STEPS: f64 = 600.0;
/// First guess, times conservativeness (`SGLANG_INIT_NEW_TOKEN_RATIO`).
const RATIO_INIT: f64 = 0.7;
/// Least guess as a share of the first (`SGLANG_MIN_NEW_TOKEN_RATIO_FACTOR`).
const RATIO_MIN_FACTOR: f64 = 0.14;
/// Steps added to each survivor's need in the guess after a retraction.
const RATIO_RETRACT_STEPS: u32 = 20;

/// See the module. Parameters `conservativeness` (1), `retract-steps` (1): steps that the rest must be
/// able to run after a retraction, 20 in SGLang before its pull request 9989 of September 2025; and
/// `latch` (on): whether a refusal holds until the batch has shrunk, and is of all of a prompt rather than
/// of its next chunk, as in SGLang.
pub struct Sglang {
    name: String,
    queued: i64,
    admitted: i64,
    ratio: f64,
    ratio_init: f64,
    retract_steps: u32,
    batch: Vec<Slot>,
    latch: bool,
    /// Nobody is admitted until a decode sees that the batch has shrunk (`batch_is_full`).
    full: bool,
    /// Somebody left since the last decode.
    shrunk: bool,
}

impl Sglang {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let ratio_init = RATIO_INIT * params.number("conservativeness", 1.0, 0.01, 1.0 / RATIO_INIT)?;
        let retract_steps = params.number("retract-steps", 1.0, 1.0, 1000.0)? as u32;
        let latch = params.choice("latch", &["on", "off"])? == 0;
        Ok(Self {
            name: params.spec(),
            queued: 0,
            admitted: 0,
            ratio: ratio_init,
            ratio_init,
            retract_steps,
            batch: Vec::new(),
            latch,
            full: false,
            shrunk: false,
        })
    }
}

impl Policy for Sglang {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, _job: &Job, places: &mut Places) {
        self.queued += 1;
        place_in_one(places, self.queued);
    }

    /// The order of the batch, which joins at its end whoever is admitted.
    fn rank(&mut self, _job: &Job) -> Rank {
        self.admitted += 1;
        Rank::fixed(self.admitted)
    }

    fn on(&mut self, event: &Event<'_>) {
        self.shrunk |= matches!(event, Event::Finished(..) | Event::Evicted(..));
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        let mut draft = Draft::new(view, decision);
        self.prefill(view, &mut draft);
        if draft.rows() == 0 {
            self.decode(view, &mut draft);
            if draft.rows() == 0 && draft.evicted() == 0 {
                go_on(view, &mut draft);
            }
        } else {
            park_rest(view, &mut draft);
        }
    }
}

/// What is left for a prefill batch, in tokens.
struct Room {
    total: f64,
    input: u32,
    chunk: u32,
    page: u32,
}

impl Room {
    fn pages(&self, tokens: u32) -> u32 {
        tokens.next_multiple_of(self.page)
    }

    /// The part of `missing` tokens that one chunk takes; zero if none does.
    fn part(&self, missing: u32) -> u32 {
        if self.pages(missing) <= self.chunk { missing } else { self.chunk / self.page * self.page }
    }

    /// Whether all of a job and of its output has room, whatever its first chunk.
    fn holds(&self, job: &Job) -> bool {
        let reserve = reserve(job.max_tokens.0, job.generated.0);
        f64::from(self.pages(job.missing().0) + self.pages(job.swapped.0) + reserve) < self.total
    }

    /// Charges a chunk and the output reserved with it, if there is room.
    fn charge(&mut self, part: u32, reserve: u32) -> bool {
        let charged = self.pages(part);
        let fits = part > 0
            && f64::from(charged + reserve) < self.total
            && charged <= self.input
            && charged <= self.chunk;
        if fits {
            self.total -= f64::from(charged + reserve);
            self.input -= charged;
            self.chunk -= charged;
        }
        fits
    }
}

/// The output to reserve for a request that finishes its prefill.
fn reserve(max_tokens: u32, generated: u32) -> u32 {
    (max_tokens - generated).min(CLIP)
}

impl Sglang {
    /// Fills a prefill batch: the unfinished chunk first, then the queue.
    fn prefill(&mut self, view: &mut View<'_>, draft: &mut Draft<'_>) {
        // A step may be shorter than a page; a chunk is then a whole step.
        let page = view.config.block_size.0.min(view.config.max_num_batched_tokens.0);
        let running = || view.order.iter().map(|s| view.row(*s)).filter(|r| r.decodes());
        let expected: f64 =
            running().map(|r| f64::from(reserve(r.max_tokens, r.generated())) * self.ratio).sum();
        let free = f64::from(view.free.0) * f64::from(view.config.block_size.0);
        let chunk = view.config.max_num_batched_tokens.0;
        let mut room = Room { total: free - expected, input: 2 * chunk, chunk, page };
        draft.seqs -= draft.seqs.min(running().count() as u32);
        for &slot in view.order {
            let row = view.row(slot);
            if row.ready() && !row.decodes() && !continue_chunk(&mut room, draft, slot, row) {
                return;
            }
        }
        self.full &= !view.order.is_empty();
        while !self.full && draft.tokens > 0 {
            let Some(candidate) = view.waiting.peek() else { return };
            let alone = view.order.is_empty() && draft.rows() == 0;
            let rows = draft.seqs > 0 && draft.slots > 0;
            self.full = self.latch && !(rows && (alone || room.holds(&candidate.job)));
            if self.full || !rows || !admit(&mut room, view, draft, &candidate) {
                return;
            }
        }
    }

    /// Decodes every row that can, after retractions if they do not fit.
    fn decode(&mut self, view: &mut View<'_>, draft: &mut Draft<'_>) {
        draft.seqs = view.config.max_num_seqs;
        let decodes = |slot: &&Slot| view.row(**slot).ready() && view.row(**slot).decodes();
        self.batch.clear();
        self.batch.extend(view.order.iter().filter(decodes));
        let min = self.ratio_init * RATIO_MIN_FACTOR;
        if self.needed(view, 1) > draft.free {
            self.retract(view, draft);
        } else {
            self.ratio = (self.ratio - (self.ratio_init - min) / DECAY_STEPS).max(min);
        }
        self.full &= !std::mem::take(&mut self.shrunk);
        for &slot in &self.batch {
            if draft.seqs > 0 && draft.tokens > 0 {
                draft.run(slot, view.row(slot), 1, Reason::Decode);
            }
        }
    }

    /// Blocks that the batch needs for some more steps.
    fn needed(&self, view: &View<'_>, steps: u32) -> u32 {
        self.batch.iter().map(|s| view.row(*s).growth(steps, view.config.block_shift())).sum()
    }

    fn retract(&mut self, view: &View<'_>, draft: &mut Draft<'_>) {
        self.full = false;
        while self.batch.len() > 1 && self.needed(view, self.retract_steps) > draft.free {
            let key = |(at, slot): &(usize, &Slot)| {
                let row = view.row(**slot);
                (row.generated(), Reverse(row.prompt), Reverse(*at))
            };
            let (at, &slot) = self.batch.iter().enumerate().min_by_key(key).expect("not empty");
            self.batch.remove(at);
            draft.evict(view, slot, Reason::Memory);
        }
        if self.needed(view, 1) > draft.free {
            // Only a half-done prefill is left to give way: without it the last one could never go on.
            let others = view.order.iter().filter(|s| view.row(**s).ready() && !view.row(**s).decodes());
            others.for_each(|slot| draft.evict(view, *slot, Reason::Memory));
        }
        let rows = || self.batch.iter().map(|s| view.row(*s));
        let done: u32 = rows().map(|r| r.generated() + RATIO_RETRACT_STEPS).sum();
        let limit: u64 = rows().map(|r| u64::from(r.max_tokens)).sum();
        self.ratio = (f64::from(done) / (limit + 1) as f64).min(1.0);
    }
}

fn continue_chunk(room: &mut Room, draft: &mut Draft<'_>, slot: Slot, row: &Resident) -> bool {
    let part = room.part(row.missing()).min(draft.tokens);
    let kept = if part < row.missing() { 0 } else { reserve(row.max_tokens, row.generated()) };
    draft.seqs > 0 && room.charge(part, kept) && draft.run(slot, row, part, Reason::Prefill)
}

fn admit(room: &mut Room, view: &mut View<'_>, draft: &mut Draft<'_>, candidate: &Candidate) -> bool {
    let job = &candidate.job;
    let alone = view.order.is_empty() && draft.rows() == 0;
    let (missing, swapped) = (job.missing().0, job.swapped.0);
    let part = room.part(missing).min(draft.tokens);
    let kept = if part < missing { 0 } else { reserve(job.max_tokens.0, job.generated.0) };
    // A request that may outgrow the pool is still served when it is alone: it was checked at submit.
    let charged = room.charge(part, kept + room.pages(swapped)) || (alone && part > 0);
    let part = part.min(draft.chunk(view, job));
    let fits = draft.taken(view, job, Admission::NextChunk, part).0 <= draft.free;
    if charged && fits {
        draft.admit_chunk(view, candidate, Admission::NextChunk, part, Reason::Order);
    }
    charged && fits
}

/// A half-done prefill whose reserve does not fit goes on all the same once nobody else can: its limit
/// was checked at submission, and SGLang itself would stop here.
fn go_on(view: &View<'_>, draft: &mut Draft<'_>) {
    let mut ready = view.order.iter().filter(|s| view.row(**s).ready());
    let Some(&first) = ready.next() else { return };
    let row = view.row(first);
    let part = row.missing().min(draft.tokens);
    if !draft.run(first, row, part, Reason::Override) {
        // If there is no other, what is missing comes back with the step in flight.
        ready.next_back().into_iter().for_each(|last| draft.evict(view, *last, Reason::Memory));
    }
}

fn park_rest(view: &View<'_>, draft: &mut Draft<'_>) {
    for &slot in view.order.iter().filter(|s| view.row(**s).ready() && view.row(**s).decodes()) {
        draft.park(slot, Reason::PrefillOnly);
    }
}
