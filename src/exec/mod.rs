//! Executing: a plan goes in, tokens come out. An executor never sees a queue or a deadline.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod sim;

use crate::batch::BatchPlan;
use crate::error::ExecError;
use crate::units::{Microjoules, Nanos};
use serde::{Deserialize, Serialize};

/// A step that was submitted and not yet waited for. Waiting takes it, so it happens exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a submitted step must be waited for"]
pub struct InFlight {
    step: u64,
}

impl InFlight {
    /// For executors: the receipt of a submitted step.
    pub fn new(step: u64) -> Self {
        Self { step }
    }

    /// Which step it is.
    pub fn step(&self) -> u64 {
        self.step
    }
}

/// What came out of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOutcome {
    /// When its kernels started.
    pub started: Nanos,
    /// When its results were there.
    pub finished: Nanos,
    /// Energy over all boards, if the executor knows it, from `started` to `finished`.
    pub energy: Microjoules,
    /// One token per row of the plan; 0 for rows that sample none.
    pub tokens: Vec<u32>,
    /// Rows that failed, by their place in the plan; each fails its own request alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
}

/// Runs plans, in the order of their submission.
pub trait Executor: Send {
    /// Its name, for reports.
    fn name(&self) -> &'static str;

    /// Starts a step. It runs after all steps submitted before it; at most `pipeline_depth` are in
    /// flight. The plan may be reused by the caller as soon as this returns.
    ///
    /// # Errors
    /// If the device is lost, or the plan exceeds its limits.
    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError>;

    /// Waits for the oldest step in flight and fills its outcome, one token per row.
    ///
    /// # Errors
    /// If the device is lost.
    fn wait(&mut self, step: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError>;
}
