//! An executor that runs nothing: it gives the outcomes that were recorded.

use super::Settled;
use crate::batch::BatchPlan;
use crate::error::ExecError;
use crate::exec::{Executor, InFlight, StepOutcome};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the outcome of the step to settle next is laid; shared with the engine's executor.
#[derive(Clone, Default)]
pub(super) struct Tray(Arc<Mutex<Option<(u64, StepOutcome)>>>);

impl Tray {
    /// Lays an outcome down for the next wait.
    pub fn lay(&self, settled: Option<&Settled<'_>>) {
        let outcome = settled.map(|s| (s.step, s.outcome.clone().into_owned()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    fn take(&self) -> Option<(u64, StepOutcome)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Gives what lies on its tray.
pub(super) struct ReplayExecutor {
    tray: Tray,
    /// Steps in flight and their rows.
    pending: VecDeque<(u64, usize)>,
}

impl ReplayExecutor {
    pub fn new(tray: Tray) -> Self {
        Self { tray, pending: VecDeque::with_capacity(2) }
    }
}

impl Executor for ReplayExecutor {
    fn name(&self) -> &'static str {
        "record"
    }

    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError> {
        self.pending.push_back((plan.step, plan.rows.len()));
        Ok(InFlight::new(plan.step))
    }

    fn wait(&mut self, _: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError> {
        let misfit = |what: String| Err(ExecError::Record(what));
        let (step, rows) = self.pending.pop_front().expect("a step in flight was submitted");
        let Some((recorded, laid)) = self.tray.take() else {
            return misfit(format!("step {step} settles, and no outcome was recorded"));
        };
        if recorded != step {
            return misfit(format!("step {step} settles, and the outcome is that of step {recorded}"));
        }
        if laid.tokens.len() != rows || laid.failed.iter().any(|row| *row as usize >= rows) {
            let (tokens, failed) = (laid.tokens.len(), &laid.failed);
            return misfit(format!(
                "step {step} has {rows} rows, and {tokens} tokens, failed rows {failed:?}"
            ));
        }
        *outcome = laid;
        Ok(())
    }
}
