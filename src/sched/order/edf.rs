//! Earliest deadline first, by the latency targets of the requests (Liu and Layland, 1973, for deadlines).
//!
//! Until its first token a request is due at arrival + TTFT target. After that its next token is due: token
//! k + 1 at arrival + TTFT target + k · TBT target; with `ttlt` set, all of it at arrival + TTLT target
//! instead. The earliest goes first, and preempts. Whoever has missed its deadline goes behind all who have
//! not, still by deadline: otherwise EDF spends an overload on those that are lost.
//!
//! Where the source is silent: infeasible is read as missed, without a guess at the service that is left.
//! Residents are looked at every 4 tokens. Waiting jobs that miss their deadline stand at the head, and
//! start a new epoch of ranks, which demotes the queue over the next steps, 64 of it per step; the next one
//! begins when that is done. Requests without targets get those of the parameters, by default the ones of
//! MLPerf Inference v4.0's Llama-2-70B server scenario.

use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::{Job, Policy, Rank, View};
use crate::units::Nanos;

/// Tokens after which a resident's deadline is looked at again.
const REFRESH: u32 = 4;
/// Behind every deadline that can still be met.
const MISSED: i64 = 1 << 61;

/// See the module. Parameters, in seconds: `ttft` (2) and `tbt` (0.2), targets of requests without;
/// `ttlt` (0), target for the whole, 0 for none; `headroom` (0.01).
pub struct Edf {
    name: String,
    headroom: u32,
    ttft: Nanos,
    tbt: Nanos,
    ttlt: Nanos,
    now: Nanos,
    epoch: u64,
    /// The step in which the last epoch will have reached everybody.
    settled: u64,
    /// The most requests that were alive at once: what an epoch has to go through.
    alive: usize,
}

impl Edf {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let headroom = fcfs::headroom(params)?;
        let mut seconds =
            |key: &str, default| params.number(key, default, 0.0, 1e6).map(Nanos::from_secs_f64);
        let (ttft, tbt, ttlt) = (seconds("ttft", 2.0)?, seconds("tbt", 0.2)?, seconds("ttlt", 0.0)?);
        let (now, epoch, settled, alive) = (Nanos::ZERO, 0, 0, 0);
        Ok(Self { name: params.spec(), headroom, ttft, tbt, ttlt, now, epoch, settled, alive })
    }

    /// When the next token, or all of them, should be there.
    fn deadline(&self, job: &Job) -> Nanos {
        if job.generated.0 > 0 && self.ttlt > Nanos::ZERO {
            return job.arrival + self.ttlt;
        }
        let first = job.arrival + job.slo.ttft.unwrap_or(self.ttft);
        first + Nanos(u64::from(job.generated.0) * job.slo.tbt.unwrap_or(self.tbt).0)
    }

    fn value(&self, job: &Job) -> i64 {
        let deadline = self.deadline(job);
        let missed = deadline < self.now;
        deadline.0.min(1 << 60) as i64 + if missed { MISSED } else { 0 }
    }
}

impl Policy for Edf {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        self.alive = self.alive.max(job.id.index() + 1);
        place_in_one(places, self.value(job));
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank { value: self.value(job), until: job.generated.0 + REFRESH, mark: 0 }
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn groups(&mut self, view: &mut View<'_>) {
        self.now = view.now;
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
        let late = view.waiting.peek().is_some_and(|first| first.key < view.now.0 as i64);
        if late && view.step > self.settled {
            self.epoch += 1;
            self.settled = view.step + 1 + (self.alive as u64).div_ceil(view.config.rerank_per_step.into());
        }
    }
}
