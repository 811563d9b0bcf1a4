//! Writing a record while a run goes on.

use super::{Digest, End, Header, Input, Line, Settled, Step};
use crate::budget::PowerBudget;
use crate::engine::{Ended, StepReport};
use crate::error::SubmitError;
use crate::request::{Request, RequestId};
use crate::units::Nanos;
use std::borrow::Cow;
use std::io::{self, Write};

/// Writes a record. Whoever drives the engines tells it everything that goes into them, in order, and
/// what each step did.
///
/// What cannot be written stops no run: the first error is kept, and [`Recorder::finish`] returns it.
#[derive(Debug)]
pub struct Recorder<W: Write> {
    out: W,
    decisions: bool,
    /// What came to each engine since its last step.
    inputs: Vec<Vec<Input>>,
    steps: u64,
    buffer: Vec<u8>,
    error: Option<io::Error>,
}

impl<W: Write> Recorder<W> {
    /// Starts a record with its header.
    pub fn new(out: W, header: &Header) -> Self {
        let inputs = vec![Vec::new(); header.gpus as usize];
        let mut recorder = Self { out, decisions: false, inputs, steps: 0, buffer: Vec::new(), error: None };
        recorder.line(header);
        recorder
    }

    /// With every decision whole, not only its digest: larger, and a difference can be read.
    pub fn with_decisions(mut self, decisions: bool) -> Self {
        self.decisions = decisions;
        self
    }

    /// A request is submitted.
    pub fn submit(&mut self, engine: usize, request: &Request) {
        self.inputs[engine].push(Input::Submit(request.clone()));
    }

    /// The request submitted last to this engine was refused. What an engine refuses because it has failed is
    /// in no record: a replay fails no device, and would accept it.
    ///
    /// # Panics
    /// If none was submitted since its last step.
    pub fn refuse(&mut self, engine: usize, why: &SubmitError) {
        let last = self.inputs[engine].pop();
        let Some(Input::Submit(request)) = last else { panic!("only what was submitted is refused") };
        if !matches!(why, SubmitError::Poisoned(_)) {
            self.inputs[engine].push(Input::Refuse(request));
        }
    }

    /// A live request is cancelled.
    pub fn cancel(&mut self, engine: usize, id: RequestId, at: Nanos) {
        self.inputs[engine].push(Input::Cancel { id, at });
    }

    /// The governor allows something else from the next step on.
    pub fn power(&mut self, engine: usize, budget: PowerBudget) {
        self.inputs[engine].push(Input::Power(budget));
    }

    /// An engine has done a step.
    pub fn step(&mut self, engine: usize, report: &StepReport<'_>) {
        self.steps += 1;
        let inputs = std::mem::take(&mut self.inputs[engine]);
        let settled = report.settled.map(|(step, _)| Settled {
            step,
            outcome: Cow::Borrowed(report.outcome),
            digest: Digest::of_outcome(report.outcome, report.tokens),
        });
        self.line(&Line::Step(Step {
            engine: engine as u32,
            step: report.step,
            now: report.now,
            inputs: Cow::Borrowed(&inputs),
            settled,
            ended: ends(report.ended),
            digest: Digest::of_decision(report.decision),
            decision: self.decisions.then_some(Cow::Borrowed(report.decision)),
        }));
        self.inputs[engine] = inputs;
        self.inputs[engine].clear();
    }

    /// Writes what is left and the last line.
    ///
    /// # Errors
    /// The first thing that could not be written.
    pub fn finish(mut self) -> io::Result<W> {
        for (engine, inputs) in std::mem::take(&mut self.inputs).into_iter().enumerate() {
            if !inputs.is_empty() {
                self.line(&Line::Rest { engine: engine as u32, inputs: Cow::Owned(inputs) });
            }
        }
        self.line(&Line::End { steps: self.steps });
        match self.error {
            None => self.out.flush().map(|()| self.out),
            Some(error) => Err(error),
        }
    }

    fn line(&mut self, line: &impl serde::Serialize) {
        if self.error.is_some() {
            return;
        }
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, line).expect("a record is plain data");
        self.buffer.push(b'\n');
        self.error = self.out.write_all(&self.buffer).err();
    }
}

/// The ends of a step, as they stand in a record.
pub(super) fn ends(ended: &[Ended]) -> Vec<End> {
    ended.iter().map(|e| End { id: e.id, reason: e.reason, generated: e.generated }).collect()
}
