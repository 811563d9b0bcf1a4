//! Skip-join multi-level feedback queue: FastServe (Wu et al., "Fast Distributed Inference Serving for Large
//! Language Models", arXiv 2305.05920).
//!
//! Queue i has the quantum q·2^i, q being the time of the smallest iteration. A new job skips the queues
//! whose quantum its first iteration, the prefill, would exceed, and joins the first that covers it. Whoever
//! has used up its quantum joins the end of the next queue with a fresh one; inside a queue the order is
//! that of joining. A job that was not served for the starvation timeout is promoted to the first queue.
//! Preemptive in every step.
//!
//! Service is the time of the steps that a job ran in. The queue is looked up again when its quantum should
//! be over at the pace of the last step, so a demotion may be late by a token or two. Promotions come from
//! a periodic scan, every eighth of the timeout, which a new epoch of ranks spreads over the next steps.
//! FastServe gives no value for the timeout (it trades the tail for the mean): 300 s here. Its proactive
//! swapping, by the estimated time of the next turn, is not modelled: memory is taken when it is needed.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::cost::{BatchShape, CostModel};
use crate::ids::Places;
use crate::request::RequestId;
use crate::sched::{Event, Job, Policy, Rank, Resident, View};
use crate::units::Nanos;

/// Queues: a job would have to run 2^24 first quanta to leave the last one.
const QUEUES: usize = 24;
/// Times stay below this for 36 years; queues come above.
const QUEUE_SHIFT: u32 = 56;

/// See the module. Parameters: `q` (0), the first quantum in ms, 0 for the time of the smallest iteration;
/// `starve` (300), the starvation timeout in seconds; `headroom` (0.01).
pub struct Mlfq {
    name: String,
    headroom: u32,
    /// The first quantum; zero until the cost model has been seen.
    q: Nanos,
    starve: Nanos,
    /// The longest first prefill, in tokens, that each queue's quantum covers.
    covers: [u32; QUEUES],
    priced: bool,
    now: Nanos,
    /// The time of the last step that settled.
    span: Nanos,
    scans: u64,
    scanned: Nanos,
    /// By [`RequestId::index`].
    states: Vec<State>,
}

/// What is kept of a job.
#[derive(Clone, Copy, Debug)]
struct State {
    id: RequestId,
    queue: u8,
    /// Service used in its queue.
    used: Nanos,
    /// When it joined its queue.
    joined: Nanos,
    /// When it was served last; when it arrived, at first.
    served: Nanos,
}

impl Mlfq {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let q = params.number("q", 0.0, 0.0, 1e6)?;
        let starve = params.number("starve", 300.0, 10.0, 1e6)?;
        Ok(Self {
            name: params.spec(),
            headroom,
            q: Nanos((q * 1e6) as u64),
            starve: Nanos((starve * 1e9) as u64),
            covers: [u32::MAX; QUEUES],
            priced: false,
            now: Nanos::ZERO,
            span: Nanos::ZERO,
            scans: 0,
            scanned: Nanos::ZERO,
            states: Vec::new(),
        })
    }

    fn quantum(&self, queue: u8) -> Nanos {
        Nanos(self.q.0 << queue)
    }

    /// Learns the quantum and what each queue covers; whoever came before joins anew.
    fn price(&mut self, cost: &CostModel) {
        if self.q == Nanos::ZERO {
            let mut smallest = BatchShape::default();
            smallest.add_decode(1);
            self.q = cost.compute_time(&smallest);
        }
        for queue in 0..QUEUES {
            self.covers[queue] = covered(cost, self.quantum(queue as u8));
        }
        self.states.clear();
        self.scans += 1;
        self.priced = true;
    }

    /// What is kept of a job: as it joins, if it is new.
    fn state(&mut self, job: &Job) -> &mut State {
        let index = job.id.index();
        if self.states.get(index).is_none_or(|state| state.id != job.id) {
            let queue = self.covers.partition_point(|covers| *covers < job.missing().0).min(QUEUES - 1);
            let at = job.arrival;
            let new = State { id: job.id, queue: queue as u8, used: Nanos::ZERO, joined: at, served: at };
            self.states.resize(self.states.len().max(index + 1), new);
            self.states[index] = new;
        }
        &mut self.states[index]
    }

    /// Moves a job to the queue where it belongs by now.
    fn requeue(&mut self, job: &Job) -> State {
        let (now, starve, q) = (self.now, self.starve, self.q);
        let state = self.state(job);
        if state.queue > 0 && now.saturating_sub(state.served) >= starve {
            (state.queue, state.used, state.joined, state.served) = (0, Nanos::ZERO, now, now);
        }
        while q > Nanos::ZERO && state.used.0 >= q.0 << state.queue && usize::from(state.queue) + 1 < QUEUES {
            state.used -= Nanos(q.0 << state.queue);
            (state.queue, state.joined) = (state.queue + 1, now);
        }
        *state
    }

    fn charge(&mut self, row: &Resident, parked: bool) {
        let state = &mut self.states[row.id.index()];
        if !parked && state.id == row.id {
            state.used += self.span;
            state.served = self.now;
        }
    }
}

/// The longest prefill that takes `quantum` at most.
fn covered(cost: &CostModel, quantum: Nanos) -> u32 {
    let fits = |tokens: u32| {
        let mut shape = BatchShape::default();
        shape.add_chunk(tokens, 0);
        cost.compute_time(&shape) <= quantum
    };
    let (mut low, mut high) = (0u32, 1 << 24);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(middle) { low = middle } else { high = middle - 1 }
    }
    low
}

fn value(state: &State) -> i64 {
    i64::from(state.queue) << QUEUE_SHIFT | state.joined.0.min((1 << QUEUE_SHIFT) - 1) as i64
}

impl Policy for Mlfq {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        place_in_one(places, value(&self.requeue(job)));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        let state = self.requeue(job);
        let left = self.quantum(state.queue).saturating_sub(state.used);
        let tokens = left.0.div_ceil(self.span.0.max(self.q.0)).clamp(1, 1 << 24) as u32;
        Rank { value: value(&state), until: job.generated.0 + tokens, mark: 0 }
    }

    fn epoch(&self) -> u64 {
        self.scans
    }

    fn groups(&mut self, view: &mut View<'_>) {
        view.order.iter().for_each(|slot| self.charge(view.row(*slot), view.parked.contains(*slot)));
        self.now = view.now;
        if !self.priced {
            self.price(view.cost);
        }
        if self.now.saturating_sub(self.scanned).0 >= self.starve.0 / 8 {
            self.scanned = self.now;
            self.scans += 1;
        }
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Timed(_, span) = event {
            self.span = *span;
        }
    }
}
