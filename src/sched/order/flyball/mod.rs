//! The product's own policy: an express lane for first tokens, and tail-lean boosts behind it.
//!
//! It predicts nothing. A newcomer gets its first quantum at once, as long as newcomers take no more
//! than a share of the machine and are small beside a mean job; after that, the order is by arrival,
//! less a boost that only the prompt decides, and whoever runs in his turn is not interrupted for
//! anybody who comes later. `docs/scheduling.md` explains it in full.

mod classes;
mod label;
mod lane;
mod pace;
mod shadow;
mod traffic;
mod tuner;

#[cfg(test)]
mod tests;

use super::{ALL, Params, PolicyError};
use crate::config::Preempt;
use crate::cost::BatchShape;
use crate::ids::{GroupId, Places};
use crate::request::{FinishReason, RequestId};
use crate::sched::{Budget, Candidate, Event, Job, Mode, Policy, Rank, Reason, Resident, View};
use crate::units::{Blocks, Nanos, Tokens};
use lane::Lane;
use pace::Pace;
use shadow::Model;
use traffic::Traffic;
use tuner::Tuner;

/// Priority classes with lanes of their own; all beyond share the last one's.
const CLASSES: u8 = 8;
/// Before every rank.
const FIRST: i64 = i64::MIN / 2;
/// Before the rank of whoever waits: who runs in his turn yields to the lane alone.
const IN_TURN: i64 = i64::MIN / 4;
/// The row came through the lane, before its turn.
const EXPRESS: u8 = 1;
/// Share of the pool that even the lane leaves free, in parts of ten thousand.
const LANE_HEADROOM: u32 = 20;
/// Share of the pool that admissions in turn leave free at most, with swap and with recompute.
const HEADROOM: (u32, u32) = (300, 500);
/// The same where few mean jobs fit: so much for each of them, but this much at least.
const HEADROOM_PER_JOB: (f64, f64) = (5.0, 50.0);
/// Share of the host tier that is kept for those who were evicted in their turn.
const HOST_RESERVE: u32 = 5_000;

/// See the module. Parameters: `share` (0.25) of the machine for the lane; `limit` (0.25), the largest
/// cost of a newcomer beside a mean job; `quantum` (256) tokens; `headroom` (0.03, or 0.05 if evicted means
/// recomputed, less where few jobs fit); `c`, the scale of γ, which is adapted to the traffic if it is not given; `gap` seconds per
/// token, beyond which a parked request may not be stretched: the lane shuts (no bound); `class` (30)
/// seconds that a lower priority class counts as later, and that a target or a deadline may pull forward.
pub struct Flyball {
    name: String,
    limit: f64,
    quantum: u32,
    headroom: Option<u32>,
    /// ns per token.
    gap: f64,
    /// ns.
    class: i64,
    lane: Lane,
    traffic: Traffic,
    tuner: Tuner,
    pace: Pace,
    /// Whom the lane took in this pass.
    taken: Vec<RequestId>,
    /// Whether anybody waited in this pass.
    waiting: bool,
    /// Whether somebody did not fit through a lane in this pass.
    full: bool,
    /// Priority classes whose lanes were used.
    classes: u8,
}

impl Flyball {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let share = params.number("share", 0.25, 0.0, 1.0)?;
        let headroom = params.number("headroom", -1.0, 0.0, 0.5)?;
        let c = params.number("c", -1.0, 1e-3, 1e3)?;
        Ok(Self {
            limit: params.number("limit", 0.25, 0.0, 1e9)?,
            quantum: params.number("quantum", 256.0, 1.0, 65_536.0)? as u32,
            headroom: (headroom >= 0.0).then(|| (headroom * 10_000.0).round() as u32),
            gap: 1e9 * params.number("gap", f64::INFINITY, 1e-6, 1e6)?,
            class: (1e9 * params.number("class", 30.0, 0.0, 1e6)?) as i64,
            lane: Lane::new(share),
            traffic: Traffic::new(),
            tuner: Tuner::new((c > 0.0).then_some(c)),
            pace: Pace::default(),
            taken: Vec::new(),
            waiting: false,
            full: false,
            classes: 0,
            name: params.spec(),
        })
    }

    /// Arrival less boost, later by class, and earlier for a target that would be missed: by a class at
    /// most, so that no promise to one breaks the bound for all.
    fn value(&self, job: &Job) -> i64 {
        let boost = self.tuner.boost.of(job, self.traffic.prefill_ns);
        let value = job.arrival.0 as i64 - boost + i64::from(job.priority) * self.class;
        self.due(job).map_or(value, |due| due.clamp(value - self.class, value))
    }

    /// When a job must start to keep its deadline or its target for the first token.
    fn due(&self, job: &Job) -> Option<i64> {
        let prefill = (self.traffic.prefill_ns * f64::from(job.missing().0)) as i64;
        let target = job.slo.ttft.filter(|_| job.generated == Tokens::ZERO);
        let first = target.map(|target| job.arrival.signed().saturating_add(target.signed()) - prefill);
        let last = job.deadline.map(|at| at.signed() - prefill - self.traffic.mean_span_ns() as i64);
        first.into_iter().chain(last).min()
    }

    /// What the cost model says before anything was measured.
    fn prime(&mut self, view: &View<'_>) {
        let mut full = BatchShape::default();
        (0..view.config.max_num_seqs).for_each(|_| full.add_decode(1_024));
        self.traffic.prime(view.cost.prefill_token_ns(), view.cost.compute_time(&full), full.decodes);
        self.tuner.prime(Model {
            cost: view.cost.clone(),
            stretch: 1.0,
            budget: view.config.max_num_batched_tokens.0,
            pool: u64::from(view.config.kv_blocks.0) * u64::from(view.config.block_size.0),
            seqs: view.config.max_num_seqs as usize,
            quantum: self.quantum,
            share: self.lane.share(),
            limit: self.limit,
        });
        self.taken.reserve(view.config.max_resident as usize);
        self.pace.reserve(view.config.max_resident as usize);
        self.lane.refill(self.traffic.mean_job_ns());
    }

    /// Free memory saves evictions and costs concurrency: a few per cent where dozens of jobs fit, next to
    /// nothing where a handful does.
    fn headroom(&self, view: &View<'_>) -> u32 {
        let recomputes = view.config.preempt == Preempt::Recompute || view.config.host_blocks == Blocks::ZERO;
        let most = if recomputes { HEADROOM.1 } else { HEADROOM.0 };
        let pool = f64::from(view.config.kv_blocks.0) * f64::from(view.config.block_size.0);
        let parts = HEADROOM_PER_JOB.0 * pool / self.traffic.mean_tokens();
        parts.clamp(HEADROOM_PER_JOB.1, f64::from(most)) as u32
    }

    /// Whether the head of the order has waited so long that whoever is parked now would be stretched
    /// beyond the bound.
    fn stretches(&self, view: &mut View<'_>) -> bool {
        if self.gap.is_infinite() {
            return false;
        }
        let now = view.now;
        let head = view.waiting.peek_group(ALL).map(|c| now.saturating_sub(c.job.arrival));
        head.is_some_and(|age| age.0 as f64 > self.gap * self.traffic.mean_output())
    }

    fn timed(&mut self, shape: &BatchShape, span: Nanos) {
        self.traffic.timed(shape, span, self.waiting);
        self.tuner.timed(shape, span);
        if self.waiting {
            self.lane.pass(span, self.traffic.mean_job_ns());
        } else {
            self.lane.refill(self.traffic.mean_job_ns());
        }
    }

    fn finished(&mut self, job: &Job, at: Nanos) {
        self.traffic.finished(job, self.quantum, at.saturating_sub(job.arrival));
        self.tuner.finished(&mut self.traffic, at);
    }
}

/// Where newcomers of a class stand as well, without and with a target for the first token: the shortest prompt first,
/// so that behind whoever is refused for his size nobody is smaller.
fn lanes(class: u8) -> [GroupId; 2] {
    [1, 2].map(|lane| GroupId(2 * u16::from(class) + lane))
}

impl Policy for Flyball {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(ALL, self.value(job));
        if job.generated == Tokens::ZERO {
            let class = job.priority.min(CLASSES - 1);
            self.classes = self.classes.max(class + 1);
            let prompt = i64::from((job.prompt - job.cached).0);
            let lane = lanes(class)[usize::from(job.slo.ttft.is_some())];
            places.push(lane, i64::from(job.priority) << 32 | prompt);
        }
    }

    fn rank(&mut self, job: &Job) -> Rank {
        let young = job.generated.0 < self.quantum;
        let express = job.mark == EXPRESS || self.taken.contains(&job.id);
        Rank {
            value: if express { self.value(job) } else { job.arrival.0 as i64 + IN_TURN },
            until: if young { self.quantum } else { u32::MAX },
            mark: if express { EXPRESS } else { 0 },
        }
    }

    fn epoch(&self) -> u64 {
        self.tuner.epoch
    }

    fn groups_used(&self) -> u16 {
        1 + 2 * u16::from(CLASSES)
    }

    fn groups(&mut self, view: &mut View<'_>) {
        if self.traffic.prefill_ns == 0.0 {
            self.prime(view);
        }
        self.waiting = !view.waiting.is_empty();
        self.taken.clear();
        self.full = false;
        let headroom = self.headroom.unwrap_or_else(|| self.headroom(view));
        let open = !self.stretches(view);
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(headroom));
        let headroom = view.share_of_pool(LANE_HEADROOM);
        for lane in (0..self.classes).flat_map(lanes) {
            view.waiting.set_group(lane, FIRST, open, headroom);
        }
    }

    /// Whoever asked for a first token in time may be of any size; the credit binds all.
    fn accepts(&mut self, candidate: &Candidate) -> Option<Reason> {
        if candidate.group == ALL {
            return Some(Reason::Order);
        }
        if self.full {
            return None;
        }
        let limit = if candidate.job.slo.ttft.is_some() { f64::INFINITY } else { self.limit };
        let cost = self.traffic.newcomer_ns(candidate.job.missing().0);
        self.lane.take(cost, limit * self.traffic.large_job_ns()).then(|| {
            self.taken.push(candidate.job.id);
            Reason::Lane
        })
    }

    /// Who does not fit through a lane waits for memory, which nobody behind him may take through another.
    fn holds_up(&mut self, candidate: &Candidate) -> bool {
        self.full |= candidate.group != ALL;
        false
    }

    fn protects(&self, row: &Resident) -> bool {
        row.generated() < self.quantum && (row.generated() > 0 || row.mark == EXPRESS)
    }

    /// Whoever came through the lane waits long before he comes back, and costs little to compute again.
    fn host_reserve(&self, row: &Resident) -> u32 {
        if row.mark == EXPRESS { HOST_RESERVE } else { 0 }
    }

    fn budget(&mut self, view: &View<'_>) -> Budget {
        Budget { tokens: Tokens(self.pace.tokens(view)), mode: Mode::Mixed }
    }

    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Submitted(job) => self.tuner.submitted(job, &mut self.traffic),
            Event::Admitted(job) => self.pace.admitted(job),
            Event::Evicted(job, _) => self.pace.left(job),
            Event::Finished(job, reason, at) => {
                self.pace.left(job);
                if matches!(reason, FinishReason::Stop | FinishReason::Length) {
                    self.finished(job, *at);
                }
            }
            Event::Timed(shape, span) => self.timed(shape, *span),
            _ => {}
        }
    }
}
