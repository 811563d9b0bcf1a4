//! LTR: shortest first by a learned *ranking* of output lengths, with a guard against starvation (Fu et
//! al., "Efficient LLM Scheduling by Learning to Rank", arXiv 2408.15792, and its released scheduler).
//!
//! Each request has one score for good; the batch is taken from the top of the order in every step, and the
//! worst are swapped out when memory is short. Whoever was not scheduled in 200 iterations goes to the top
//! for a quantum of 10 iterations that it is scheduled in, prefills and recomputation included; then it is
//! ranked by its score again.
//!
//! Where the source is silent: of several starved ones, the one that was idle first goes first, and those
//! that hold KV go before those that do not. Idle iterations of waiting jobs are not counted one by one: a
//! second group keeps them by the step in which they last ran, so that a step looks at its head alone.
//!
//! One departure: a quantum goes on until a token has come out of it. The released code swaps, and so keeps
//! what a quantum has computed; where sequences are dropped and computed again, lifted ones with more to
//! compute than fits into the quantum would evict each other for good.

use super::{ALL, Params, PolicyError, fcfs};
use crate::ids::{GroupId, Places};
use crate::request::RequestId;
use crate::sched::predict::Ranking;
use crate::sched::{Candidate, Event, Job, Oracle, Policy, Rank, Reason, Resident, View};
use std::sync::Arc;

/// All waiting jobs once more, by the step in which they last ran.
const IDLE: GroupId = GroupId(1);
/// Before every score.
const TOP: i64 = i64::MIN / 2;

/// See the module. Parameters: `tau` (1), Kendall's tau between the scores and the true lengths, after
/// [`Ranking`], with `seed` (1); `starve` (200), idle iterations until the lift; `quantum` (10), iterations
/// that it lasts; `headroom` (0.01).
pub struct Ltr {
    name: String,
    headroom: u32,
    ranking: Ranking,
    starve: u64,
    quantum: u32,
    step: u64,
    /// By [`RequestId::index`].
    states: Vec<State>,
}

/// What is kept of a request.
#[derive(Clone, Copy, Debug)]
struct State {
    id: RequestId,
    /// The last step in which it ran, or was lifted; that of its submission at first.
    ran: u64,
    /// Iterations left at the top.
    quantum: u32,
    /// Tokens that it had when it was admitted last.
    generated: u32,
}

impl Ltr {
    pub(super) fn new(params: &mut Params, oracle: Arc<dyn Oracle>) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let tau = params.number("tau", 1.0, 0.01, 1.0)?;
        let seed = params.number("seed", 1.0, 0.0, f64::from(u32::MAX))? as u64;
        let starve = params.number("starve", 200.0, 1.0, f64::from(u32::MAX))? as u64;
        let quantum = params.number("quantum", 10.0, 1.0, f64::from(u32::MAX))? as u32;
        let ranking = Ranking::new(oracle, tau, seed);
        Ok(Self { name: params.spec(), headroom, ranking, starve, quantum, step: 0, states: Vec::new() })
    }

    /// What is kept of a job, from now on if it is new.
    fn state(&mut self, id: RequestId) -> &mut State {
        let new = State { id, ran: self.step, quantum: 0, generated: 0 };
        if id.index() >= self.states.len() {
            self.states.resize(id.index() + 1, new);
        }
        let state = &mut self.states[id.index()];
        if state.id != id {
            *state = new;
        }
        state
    }

    /// Counts the last iteration of a resident: as one of its quantum if it ran, as idle if not.
    fn count(&mut self, row: &Resident, parked: bool) {
        let (last, starve, quantum) = (self.step - 1, self.starve, self.quantum);
        let state = self.state(row.id);
        if !parked {
            let prefills = state.quantum > 0 && row.generated() == state.generated;
            state.quantum = state.quantum.saturating_sub(1).max(u32::from(prefills));
            state.ran = last;
        } else if last - state.ran >= starve {
            (state.quantum, state.ran) = (quantum, last);
        }
    }
}

impl Policy for Ltr {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(ALL, self.ranking.score(job));
        let starve = self.starve;
        let state = self.state(job.id);
        let lifted = state.quantum > 0;
        let since = state.ran as i64 - if lifted { starve as i64 } else { 0 };
        places.push(IDLE, since);
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(self.ranking.score(job))
    }

    fn groups_used(&self) -> u16 {
        2
    }

    fn groups(&mut self, view: &mut View<'_>) {
        self.step = view.step;
        view.order.iter().for_each(|slot| self.count(view.row(*slot), view.parked.contains(*slot)));
        let headroom = view.share_of_pool(self.headroom);
        view.waiting.set_group(ALL, 0, true, headroom);
        view.waiting.set_group(IDLE, TOP, true, headroom);
    }

    fn accepts(&mut self, candidate: &Candidate) -> Option<Reason> {
        let since = candidate.key - TOP;
        let starved = since + (self.starve as i64) < self.step as i64;
        (candidate.group != IDLE || starved).then_some(Reason::Order)
    }

    fn protects(&self, row: &Resident) -> bool {
        self.states[row.id.index()].quantum > 0
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Admitted(job) = event {
            let (last, starve, quantum) = (self.step.saturating_sub(1), self.starve, self.quantum);
            let state = self.state(job.id);
            state.generated = job.generated.0;
            if last.saturating_sub(state.ran) >= starve {
                state.quantum = quantum;
            }
        }
    }
}
