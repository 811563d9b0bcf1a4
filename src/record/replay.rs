//! Replaying a record: the same inputs go into new engines, and every decision must come out again.

use super::exec::{ReplayExecutor, Tray};
use super::write::ends;
use super::{Digest, Header, Input, Line, RecordError, SCHEMA, Settled, Step, VERSION};
use crate::clock::VirtualClock;
use crate::engine::{Engine, StepReport};
use crate::exec::sim::Script;
use crate::request::{Oracle, Request, RequestId};
use crate::sched::{Decision, order};
use std::fmt::Debug;
use std::io::BufRead;
use std::sync::Arc;

/// The most engines of a record.
const ENGINES_MAX: u32 = 1024;

/// What was replayed, all of it equal to the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayReport {
    /// The version that wrote the record.
    pub version: String,
    /// The policy.
    pub policy: String,
    /// Engines.
    pub engines: u32,
    /// Steps of all engines.
    pub steps: u64,
    /// Output tokens that were credited.
    pub tokens: u64,
    /// Requests that ended.
    pub ended: u64,
}

/// Replays a record and compares every step.
///
/// # Errors
/// If it is no record, or not a whole one; or the first difference.
pub fn replay(record: impl BufRead) -> Result<ReplayReport, RecordError> {
    replay_each(record, |_, _| Ok(()))
}

/// Replays a record and shows every step that was equal, with what the engine did now.
///
/// # Errors
/// As [`replay`], and what `each` returns.
pub fn replay_each(
    record: impl BufRead,
    each: impl FnMut(&Step<'_>, &StepReport<'_>) -> Result<(), RecordError>,
) -> Result<ReplayReport, RecordError> {
    let mut lines = Lines { record, number: 0, text: String::new() };
    let header = lines.header()?;
    let version = header.version.clone();
    replay_lines(header, lines, each).map_err(|source| match source {
        RecordError::Write(_) => source,
        source if version == VERSION => source,
        source => RecordError::Version { version, source: Box::new(source) },
    })
}

fn replay_lines(
    header: Header,
    mut lines: Lines<impl BufRead>,
    mut each: impl FnMut(&Step<'_>, &StepReport<'_>) -> Result<(), RecordError>,
) -> Result<ReplayReport, RecordError> {
    let mut drives = drives(&header)?;
    let mut report = ReplayReport {
        version: header.version,
        policy: header.policy,
        engines: header.gpus,
        steps: 0,
        tokens: 0,
        ended: 0,
    };
    while lines.fill()? {
        let line = lines.number;
        match lines.parse::<Line<'_>>()? {
            Line::Step(step) => {
                let done = drive(&mut drives, step.engine, line)?.step(&step, line)?;
                report.steps += 1;
                report.tokens += done.tokens.len() as u64;
                report.ended += done.ended.len() as u64;
                each(&step, &done)?;
            }
            Line::Rest { engine, inputs } => {
                let drive = drive(&mut drives, engine, line)?;
                inputs.iter().try_for_each(|input| drive.input(input, line))?;
            }
            Line::End { steps } if steps != report.steps => {
                let what = format!("{steps} steps were recorded, but {} are here", report.steps);
                return Err(RecordError::Misfit { line, what });
            }
            Line::End { .. } if lines.fill()? => {
                return Err(RecordError::Misfit { line: lines.number, what: "a line after the last".into() });
            }
            Line::End { .. } => return Ok(report),
        }
    }
    Err(RecordError::Cut { line: lines.number })
}

/// The lines of a record, one at a time.
struct Lines<R> {
    record: R,
    number: u64,
    text: String,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line; false at the end.
    fn fill(&mut self) -> Result<bool, RecordError> {
        self.text.clear();
        self.number += 1;
        let read = self.record.read_line(&mut self.text);
        let read = read.map_err(|source| RecordError::Io { line: self.number, source })?;
        self.number -= u64::from(read == 0);
        Ok(read > 0)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, RecordError> {
        serde_json::from_str(&self.text).map_err(|error| {
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default().to_owned();
            RecordError::Syntax { line: self.number, column: error.column(), what }
        })
    }

    fn header(&mut self) -> Result<Header, RecordError> {
        if !self.fill()? {
            return Err(RecordError::Foreign { found: "nothing".into() });
        }
        let value = serde_json::from_str::<serde_json::Value>(&self.text).unwrap_or_default();
        match value.get("schema") {
            Some(schema) if schema == SCHEMA => self.parse(),
            Some(schema) => Err(RecordError::Foreign { found: schema.to_string() }),
            None => Err(RecordError::Foreign { found: format!("{:?}", head(&self.text)) }),
        }
    }
}

/// The first characters of a text, to be recognised by.
fn head(text: &str) -> String {
    text.trim_end().chars().take(40).collect()
}

/// One engine, its clock and its next outcome.
struct Drive {
    engine: Engine,
    clock: VirtualClock,
    tray: Tray,
    /// How many requests have a true length, if the policy knows them.
    lengths: Option<usize>,
}

fn drives(header: &Header) -> Result<Vec<Drive>, RecordError> {
    if !(1..=ENGINES_MAX).contains(&header.gpus) {
        let what = format!("gpus is {}, but must be in 1..={ENGINES_MAX}", header.gpus);
        return Err(RecordError::Misfit { line: 1, what });
    }
    let script = header.oracle.as_ref().map(|lengths| Arc::new(Script::new(lengths.iter().copied())));
    let believed = header.believed()?;
    let drive = |_| {
        let (clock, tray) = (VirtualClock::new(), Tray::default());
        let executor = Box::new(ReplayExecutor::new(tray.clone()));
        let oracle = script.clone().map(|script| script as Arc<dyn Oracle>);
        let policy = order::parse(&header.policy, oracle)?;
        let (config, cost) = (header.config.clone(), believed.clone());
        let engine = Engine::new(config, policy, executor, Box::new(clock.clone()), cost)?;
        Ok(Drive { engine, clock, tray, lengths: header.oracle.as_ref().map(Vec::len) })
    };
    (0..header.gpus).map(drive).collect()
}

fn drive(drives: &mut [Drive], engine: u32, line: u64) -> Result<&mut Drive, RecordError> {
    let engines = drives.len();
    let what = || format!("engine {engine} of {engines}");
    drives.get_mut(engine as usize).ok_or_else(|| RecordError::Misfit { line, what: what() })
}

impl Drive {
    fn input(&mut self, input: &Input, line: u64) -> Result<(), RecordError> {
        let misfit = |what: String| Err(RecordError::Misfit { line, what });
        match input {
            Input::Submit(request) => match self.submit(request, line)? {
                Ok(_) => Ok(()),
                Err(error) => misfit(format!("request {} is refused now: {error}", request.user_data)),
            },
            Input::Refuse(request) => match self.submit(request, line)? {
                Ok(id) => misfit(format!("request {} was refused, and is now {id}", request.user_data)),
                Err(_) => Ok(()),
            },
            Input::Cancel { id, at } => {
                self.clock.advance_to(*at);
                if self.engine.cancel(*id) {
                    Ok(())
                } else {
                    misfit(format!("{id} is cancelled, but not alive"))
                }
            }
            Input::Power(budget) => {
                self.engine.set_power_budget(*budget);
                Ok(())
            }
        }
    }

    fn submit(
        &mut self,
        request: &Request,
        line: u64,
    ) -> Result<Result<RequestId, crate::error::SubmitError>, RecordError> {
        if self.lengths.is_some_and(|known| request.user_data >= known as u64) {
            let what = format!("the oracle does not know request {}", request.user_data);
            return Err(RecordError::Misfit { line, what });
        }
        Ok(self.engine.submit(request.clone()))
    }

    /// Does one step as it was recorded, and compares.
    fn step(&mut self, step: &Step<'_>, line: u64) -> Result<StepReport<'_>, RecordError> {
        step.inputs.iter().try_for_each(|input| self.input(input, line))?;
        self.clock.advance_to(step.now);
        self.tray.lay(step.settled.as_ref());
        let failed = |source| RecordError::Step { line, engine: step.engine, step: step.step, source };
        let report = self.engine.step().map_err(failed)?;
        compare(step, &report, line)?;
        Ok(report)
    }
}

/// The first thing in which a step differs from its record.
fn compare(step: &Step<'_>, report: &StepReport<'_>, line: u64) -> Result<(), RecordError> {
    let at = At { line, engine: step.engine, step: step.step };
    at.same("step number", &step.step, &report.step)?;
    at.same("time", &step.now, &report.now)?;
    let digest = Digest::of_decision(report.decision);
    if digest != step.digest {
        let recorded = step.decision.as_deref().map_or_else(|| step.digest.to_string(), text);
        let replayed = format!("{} ({digest})", text(report.decision));
        return at.differs("decision", recorded, replayed);
    }
    if step.decision.as_deref().is_some_and(|d| d != report.decision) {
        let recorded = step.decision.as_deref().map_or_else(String::new, text);
        return at.differs("decision beside an equal digest", recorded, text(report.decision));
    }
    let settled = report.settled.map(|(settled, _)| settled);
    at.same("settled step", &step.settled.as_ref().map(|s| s.step), &settled)?;
    if let Some(Settled { digest, .. }) = &step.settled {
        let now = Digest::of_outcome(report.outcome, report.tokens);
        at.same("outcome", digest, &now)?;
    }
    at.same("set of ended requests", &step.ended, &ends(report.ended))
}

/// A decision for people; an empty one has a word too.
pub(super) fn text(decision: &Decision) -> String {
    let text = decision.to_string();
    if text.is_empty() { "nothing".into() } else { text.trim_start().into() }
}

/// Where something is compared.
struct At {
    line: u64,
    engine: u32,
    step: u64,
}

impl At {
    fn same<T: PartialEq + Debug>(
        &self,
        what: &'static str,
        recorded: &T,
        now: &T,
    ) -> Result<(), RecordError> {
        if recorded == now {
            return Ok(());
        }
        self.differs(what, format!("{recorded:?}"), format!("{now:?}"))
    }

    fn differs(&self, what: &'static str, recorded: String, replayed: String) -> Result<(), RecordError> {
        let Self { line, engine, step } = *self;
        Err(RecordError::Differs { line, engine, step, what, recorded, replayed })
    }
}
