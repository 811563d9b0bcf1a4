//! A simulated device: steps take the time that the cost model says, on a virtual clock. It alone knows
//! the true output lengths, from a script that only it and clairvoyant policies read.

use super::{Executor, InFlight, StepOutcome};
use crate::batch::BatchPlan;
use crate::clock::{Clock, VirtualClock};
use crate::config::SwapMode;
use crate::cost::{BatchShape, CostModel};
use crate::error::ExecError;
use crate::prng::mix;
use crate::request::Oracle;
use crate::units::{Microjoules, Nanos, Tokens};
use std::collections::VecDeque;
use std::sync::Arc;

/// The token that ends a simulated request.
pub const EOS: u32 = 0;

/// True output lengths, by the requests' `user_data`, which counts them from zero.
#[derive(Clone, Debug, Default)]
pub struct Script {
    lengths: Arc<[u32]>,
}

impl Script {
    /// The script of these lengths.
    pub fn new(lengths: impl IntoIterator<Item = Tokens>) -> Self {
        Self { lengths: lengths.into_iter().map(|n| n.0).collect() }
    }

    fn length(&self, user_data: u64) -> u32 {
        self.lengths[user_data as usize]
    }
}

impl Oracle for Script {
    fn output(&self, user_data: u64) -> Tokens {
        Tokens(self.length(user_data))
    }

    fn requests(&self) -> u64 {
        self.lengths.len() as u64
    }
}

/// The simulated device.
pub struct SimExecutor {
    clock: VirtualClock,
    cost: CostModel,
    script: Script,
    swap: SwapMode,
    block_tokens: Tokens,
    host_step: Nanos,
    seed: u64,
    /// When the device has done everything that was submitted.
    free_at: Nanos,
    pending: VecDeque<Pending>,
    spare: Vec<Vec<u32>>,
}

struct Pending {
    step: u64,
    started: Nanos,
    finished: Nanos,
    energy: Microjoules,
    tokens: Vec<u32>,
}

impl SimExecutor {
    /// A device on `clock` whose steps cost what `cost` says and whose requests end as `script` says.
    pub fn new(clock: VirtualClock, cost: CostModel, script: Script, seed: u64) -> Self {
        Self {
            clock,
            cost,
            script,
            swap: SwapMode::Serial,
            block_tokens: Tokens(16),
            host_step: Nanos::ZERO,
            seed: mix(seed),
            free_at: Nanos::ZERO,
            pending: VecDeque::with_capacity(2),
            spare: vec![Vec::new(), Vec::new(), Vec::new()],
        }
    }

    /// With the block size and swap mode of the engine.
    pub fn with_kv(mut self, block_tokens: Tokens, swap: SwapMode) -> Self {
        self.block_tokens = block_tokens;
        self.swap = swap;
        self
    }

    /// With host time between the decision of a step and its submission.
    pub fn with_host_step(mut self, host_step: Nanos) -> Self {
        self.host_step = host_step;
        self
    }

    fn shape(&self, plan: &BatchPlan) -> BatchShape {
        let bytes = |blocks: usize| self.cost.kv_bytes(Tokens(blocks as u32 * self.block_tokens.0));
        BatchShape {
            swap_out: bytes(plan.before.swap_out.len() + plan.beside.swap_out.len()),
            swap_in: bytes(plan.before.swap_in.len() + plan.beside.swap_in.len()),
            ..plan.shape
        }
    }

    fn span(&self, shape: &BatchShape) -> Nanos {
        let compute = self.cost.compute_time(shape);
        if shape.swap_out.0 + shape.swap_in.0 == 0 {
            return compute;
        }
        let (out, back) = (self.cost.swap_time(shape.swap_out), self.cost.swap_time(shape.swap_in));
        match self.swap {
            SwapMode::Serial => out + back + compute,
            SwapMode::Overlap => out + compute.max(back),
        }
    }
}

/// A token that is not [`EOS`], the same for one request and place in every run of a seed.
fn drawn(seed: u64, user_data: u64, generated: u32) -> u32 {
    let key = (user_data << 32 | u64::from(generated)) ^ seed;
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32 | 1
}

impl Executor for SimExecutor {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError> {
        let shape = self.shape(plan);
        let span = self.span(&shape);
        let started = (self.clock.now() + self.host_step + plan.pause).max(self.free_at);
        let finished = started + span;
        let mut tokens = self.spare.pop().unwrap_or_default();
        tokens.clear();
        // Of rows that sample nothing, nobody reads the token.
        tokens.extend(plan.rows.iter().map(|row| {
            let ends = row.generated + 1 >= self.script.length(row.user_data);
            if ends { EOS } else { drawn(self.seed, row.user_data, row.generated) }
        }));
        self.free_at = finished;
        let energy = self.cost.step_energy(&shape, span);
        self.pending.push_back(Pending { step: plan.step, started, finished, energy, tokens });
        Ok(InFlight::new(plan.step))
    }

    fn wait(&mut self, step: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError> {
        let mut done = self.pending.pop_front().expect("a step in flight was submitted");
        assert_eq!(done.step, step.step(), "steps are waited for in their order");
        self.clock.advance_to(done.finished);
        outcome.started = done.started;
        outcome.finished = done.finished;
        outcome.energy = done.energy;
        outcome.failed.clear();
        std::mem::swap(&mut outcome.tokens, &mut done.tokens);
        self.spare.push(done.tokens);
        Ok(())
    }
}
