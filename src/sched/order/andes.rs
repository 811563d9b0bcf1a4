//! Andes: the quality of experience of a token stream as the objective (Liu et al., "Andes: Defining and
//! Enhancing Quality-of-Experience in LLM-Based Text Streaming Services", arXiv 2404.16283).
//!
//! A reader expects the first token after `ttft` and then `speed` tokens a second. When KV is short, the
//! policy chooses the batch that gains the most: for a few batch sizes it takes requests by gain per token
//! of KV, greedily, and keeps the size with the largest sum. The gain of a request is its quality at the
//! horizon if it is served less that if it waits; for one that must be restored first, that time is lost.
//! As in the public simplification, it looks every 10 steps, if more than 0.9 of the KV is held. Whoever is
//! left out is preempted, while there were at most `cap` preemptions per request. In between, and while KV
//! lasts, it serves first come, first served.
//!
//! Readings: quality is the share of the tokens expected by the horizon that are there, not the area under
//! the curve, which would need each request's history of deliveries; the horizon is the mean latency so
//! far. Memory evicts the last to arrive beyond the cap. Beside a choice, nobody is admitted while KV is
//! above the mark. A choice sees every waiting job: O(waiting · log waiting), and O(waiting²) words to
//! walk to those chosen; it allocates until its buffer has its size.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::cost::BatchShape;
use crate::ids::{Places, Slot};
use crate::request::RequestId;
use crate::sched::{Admission, Decision, Draft, Event, Job, Policy, Reason, Resident, View};
use crate::units::{Nanos, Tokens};

/// Batch sizes that are tried, as divisors of the largest.
const DIVISORS: [u32; 3] = [4, 2, 1];
/// The horizon in seconds before anybody has finished.
const FIRST_HORIZON: f64 = 10.0;

/// See the module. Parameters: `ttft` (1) in seconds and `speed` (4.8) in tokens per second, what a reader
/// expects; `interval` (10) in steps; `mark` (0.9), the share of KV; `cap` (1), preemptions per request;
/// `headroom` (0.01).
pub struct Andes {
    name: String,
    headroom: u32,
    ttft: f64,
    speed: f64,
    interval: u64,
    mark: f64,
    cap: f64,
    submitted: u64,
    preempted: u64,
    finished: u64,
    latency_sum: f64,
    choices: Vec<Choice>,
    /// Who was chosen last, by id.
    chosen: Vec<RequestId>,
    /// Rows that stay in this step, by arrival.
    rows: Vec<Slot>,
}

/// A request that may be served.
#[derive(Clone, Copy, Debug)]
struct Choice {
    id: RequestId,
    arrival: Nanos,
    generated: u32,
    /// Tokens of KV that it holds or would hold.
    known: u32,
    /// Seconds until it could go on.
    restore: f64,
    /// Its gain at the batch size that is looked at, and that per token of KV.
    gain: f64,
    density: f64,
    /// Whether it is in that batch.
    taken: bool,
}

impl Andes {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        Ok(Self {
            headroom,
            ttft: params.number("ttft", 1.0, 0.0, 1e6)?,
            speed: params.number("speed", 4.8, 0.01, 1e6)?,
            interval: params.number("interval", 10.0, 1.0, 1e6)? as u64,
            mark: params.number("mark", 0.9, 0.0, 1.0)?,
            cap: params.number("cap", 1.0, 0.0, 1e6)?,
            name: params.spec(),
            submitted: 0,
            preempted: 0,
            finished: 0,
            latency_sum: 0.0,
            choices: Vec::new(),
            chosen: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// The share of the expected tokens that is there, `age` seconds after arrival.
    fn quality(&self, age: f64, tokens: f64) -> f64 {
        let expected = self.speed * (age - self.ttft);
        if expected <= tokens { 1.0 } else { tokens / expected }
    }

    /// What a request gains by the horizon from being served at `rate` tokens a second.
    fn gain(&self, choice: &Choice, now: Nanos, rate: f64) -> f64 {
        let horizon = if self.finished > 0 { self.latency_sum / self.finished as f64 } else { FIRST_HORIZON };
        let age = now.saturating_sub(choice.arrival).as_secs_f64() + horizon;
        let had = f64::from(choice.generated);
        let more = rate * (horizon - choice.restore).max(0.0);
        self.quality(age, had + more) - self.quality(age, had)
    }

    /// Chooses the batch with the largest sum of gains.
    fn choose(&mut self, view: &View<'_>) {
        self.collect(view);
        self.chosen.clear();
        let mut best = f64::NEG_INFINITY;
        for divisor in DIVISORS {
            let size = view.config.max_num_seqs.div_ceil(divisor);
            let sum = self.fill(view, size);
            if sum > best {
                best = sum;
                self.chosen.clear();
                self.chosen.extend(self.choices.iter().filter(|c| c.taken).map(|c| c.id));
            }
        }
        self.chosen.sort_unstable();
    }

    /// Lists all requests that could be served now.
    fn collect(&mut self, view: &View<'_>) {
        self.choices.clear();
        let rows = view.order.iter().map(|slot| view.row(*slot)).filter(|row| row.ready());
        self.choices.extend(rows.map(Choice::resident));
        let choices = &mut self.choices;
        view.waiting.each(&mut |job| choices.push(Choice::waiting(job, view)));
    }

    /// Takes requests by gain per token of KV, up to `size` of them; returns the sum of their gains.
    fn fill(&mut self, view: &View<'_>, size: u32) -> f64 {
        let mut choices = std::mem::take(&mut self.choices);
        let rate = rate(view, size, &choices);
        for choice in &mut choices {
            choice.gain = self.gain(choice, view.now, rate);
            choice.density = choice.gain / f64::from(choice.known.max(1));
        }
        choices.sort_unstable_by(|a, b| b.density.total_cmp(&a.density).then(a.id.cmp(&b.id)));
        let (mut sum, mut taken) = (0.0, 0);
        let mut free = (view.config.kv_blocks - view.share_of_pool(self.headroom)).0;
        for choice in &mut choices {
            let blocks = view.config.blocks(Tokens(choice.known)).0;
            choice.taken = taken < size && blocks <= free;
            if choice.taken {
                (sum, taken, free) = (sum + choice.gain, taken + 1, free - blocks);
            }
        }
        self.choices = choices;
        sum
    }

    /// Preempts residents that were not chosen, up to the cap; lists the others.
    fn preempt(&mut self, view: &View<'_>, draft: &mut Draft<'_>, due: bool) {
        self.rows.clear();
        for &slot in view.order.iter().filter(|slot| view.row(**slot).ready()) {
            let stays = !due || self.chosen.binary_search(&view.row(slot).id).is_ok();
            if stays || self.preempted as f64 >= self.cap * self.submitted as f64 {
                self.rows.push(slot);
            } else {
                self.preempted += 1;
                draft.evict(view, slot, Reason::Order);
            }
        }
    }

    /// Runs the listed rows in order of arrival; the last goes when a block is missing.
    fn run(&mut self, view: &View<'_>, draft: &mut Draft<'_>) {
        let (mut at, mut end) = (0, self.rows.len());
        while at < end {
            let slot = self.rows[at];
            let row = view.row(slot);
            at += 1;
            let tokens = row.missing().min(draft.tokens);
            if tokens == 0 || draft.seqs == 0 {
                draft.park(slot, if tokens == 0 { Reason::TokenBudget } else { Reason::Slots });
                continue;
            }
            let reason = if row.decodes() { Reason::Decode } else { Reason::Prefill };
            while at <= end && !draft.run(slot, row, tokens, reason) {
                end -= 1;
                draft.evict(view, self.rows[end], Reason::Memory);
            }
        }
    }

    /// Admits those who were chosen, passing over the others.
    fn admit(&self, view: &mut View<'_>, draft: &mut Draft<'_>) {
        let mut left = self.chosen.len();
        while left > 0 && draft.tokens > 0 && draft.seqs > 0 && draft.slots > 0 {
            let Some(candidate) = view.waiting.peek() else { return };
            let chosen = self.chosen.binary_search(&candidate.job.id).is_ok();
            left -= usize::from(chosen);
            if chosen && draft.fits(view, &candidate, Admission::Known) {
                draft.admit(view, &candidate, Admission::Known, Reason::Order);
            } else {
                view.waiting.take(&candidate);
            }
        }
    }
}

impl Choice {
    fn resident(row: &Resident) -> Self {
        // Residents rank by arrival, as they wait.
        let arrival = Nanos(row.rank as u64);
        let (id, generated, known) = (row.id, row.generated(), row.known());
        Self { id, arrival, generated, known, restore: 0.0, gain: 0.0, density: 0.0, taken: false }
    }

    fn waiting(job: &Job, view: &View<'_>) -> Self {
        let returns = view.cost.swap_time(view.cost.kv_bytes(job.swapped));
        let restore = (returns + view.cost.recompute_time(job.missing())).as_secs_f64();
        let (id, arrival, generated, known) = (job.id, job.arrival, job.generated.0, job.known().0);
        Self { id, arrival, generated, known, restore, gain: 0.0, density: 0.0, taken: false }
    }
}

/// Tokens that each of `size` rows gets in a second, at the mean context of all.
fn rate(view: &View<'_>, size: u32, choices: &[Choice]) -> f64 {
    let known: u64 = choices.iter().map(|c| u64::from(c.known)).sum();
    let mut shape = BatchShape::default();
    (shape.rows, shape.tokens, shape.decodes) = (size, size, size);
    shape.decode_context = known * u64::from(size) / (choices.len() as u64).max(1);
    1.0 / view.cost.compute_time(&shape).as_secs_f64().max(1e-9)
}

impl Policy for Andes {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, job.arrival.0 as i64);
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
        let held = f64::from(view.config.kv_blocks.0 - view.free.0) / f64::from(view.config.kv_blocks.0);
        let tight = held > self.mark;
        let due = tight && view.step.is_multiple_of(self.interval);
        if due {
            self.choose(view);
        }
        let mut draft = Draft::new(view, decision);
        self.preempt(view, &mut draft, due);
        self.run(view, &mut draft);
        if due {
            self.admit(view, &mut draft);
        } else if !tight {
            fcfs::admit_in_order(view, &mut draft, Admission::Known);
        }
    }

    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Submitted(_) => self.submitted += 1,
            Event::Finished(job, _, at) => {
                self.finished += 1;
                self.latency_sum += at.saturating_sub(job.arrival).as_secs_f64();
            }
            _ => {}
        }
    }
}
