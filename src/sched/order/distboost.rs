//! DistBoost, phase 1 of arXiv 2606.18431 and an arm of its ablation: decodes first, in the order in which
//! they entered decode; then prefills by a − b_γ(s_pre). Nobody goes but for memory, prefills first and
//! then whoever entered decode last; a decode that was evicted keeps its place.

use super::gamma::Booster;
use super::{ALL, Params, PolicyError, fcfs, place_in_one};
use crate::ids::Places;
use crate::sched::{Event, Job, Policy, Rank, View};
use crate::units::{Nanos, Tokens};

/// Decodes stand this far before their entry, and so before every prefill.
const DECODES: i64 = 1 << 60;

/// See the module. Parameters: `headroom` (0.01), and those of γ in `gamma.rs`.
pub struct DistBoost {
    name: String,
    booster: Booster,
    headroom: u32,
    now: Nanos,
    /// When each live request entered decode, by its place in the engine's table.
    entered: Vec<Option<Nanos>>,
}

impl DistBoost {
    pub(super) fn new(params: &mut Params) -> Result<Self, PolicyError> {
        let (booster, headroom) = (Booster::new(params)?, fcfs::headroom(params)?);
        Ok(Self { name: params.spec(), booster, headroom, now: Nanos::ZERO, entered: Vec::new() })
    }

    fn value(&mut self, job: &Job) -> i64 {
        if job.generated == Tokens::ZERO {
            return self.booster.phi(job, job.prompt.0, 0);
        }
        let entered = *self.entered[job.id.index()].get_or_insert(self.now);
        entered.0 as i64 - DECODES
    }

    fn expect(&mut self, job: &Job) {
        let index = job.id.index();
        if self.entered.len() <= index {
            self.entered.resize(index + 1, None);
        }
        self.entered[index] = None;
    }
}

impl Policy for DistBoost {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        let value = self.value(job);
        place_in_one(places, value);
    }

    fn rank(&mut self, job: &Job) -> Rank {
        let decodes = job.generated > Tokens::ZERO;
        Rank { value: self.value(job), until: if decodes { u32::MAX } else { 1 }, mark: 0 }
    }

    fn epoch(&self) -> u64 {
        self.booster.epoch()
    }

    fn groups(&mut self, view: &mut View<'_>) {
        self.now = view.now;
        view.waiting.set_group(ALL, 0, true, view.share_of_pool(self.headroom));
    }

    fn preempts(&self) -> bool {
        false
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Submitted(job) = event {
            self.expect(job);
        }
        self.booster.on(event);
    }
}
