//! Printing a record for people. The decisions come from the replay, so that every record can be read,
//! with or without whole decisions in it.

use super::replay::text;
use super::{Input, RecordError, ReplayReport, Step, replay_each};
use crate::engine::StepReport;
use std::io::{self, BufRead, Write};
use std::ops::Range;

/// Replays a record and prints each engine's steps of these numbers: what came, what was decided and
/// why, what settled, who ended.
///
/// # Errors
/// As [`super::replay`], after the steps before the difference; or if `out` cannot be written.
pub fn inspect(
    record: impl BufRead,
    out: &mut dyn Write,
    steps: Range<u64>,
) -> Result<ReplayReport, RecordError> {
    replay_each(record, |step, report| {
        if !steps.contains(&step.step) {
            return Ok(());
        }
        print(out, step, report).map_err(RecordError::Write)
    })
}

fn print(out: &mut dyn Write, step: &Step<'_>, report: &StepReport<'_>) -> io::Result<()> {
    writeln!(out, "engine {} step {} at {}", step.engine, step.step, step.now)?;
    for input in step.inputs.iter() {
        match input {
            Input::Submit(r) => writeln!(out, "  submit {}: prompt of {}", r.user_data, r.prompt.len())?,
            Input::Refuse(r) => writeln!(out, "  refuse {}: prompt of {}", r.user_data, r.prompt.len())?,
            Input::Cancel { id, at } => writeln!(out, "  cancel {id} at {at}")?,
            Input::Power(budget) => match budget.cap {
                Some(cap) => writeln!(out, "  power cap {cap}")?,
                None => writeln!(out, "  no power cap")?,
            },
        }
    }
    writeln!(out, "  decide {}", text(report.decision))?;
    if let Some((settled, shape)) = report.settled {
        let (rows, tokens, credited) = (shape.rows, shape.tokens, report.tokens.len());
        let (span, energy) =
            (report.outcome.finished.saturating_sub(report.outcome.started), report.outcome.energy);
        writeln!(out, "  settle {settled}: {rows} rows, {tokens} tokens, {credited} new, {span}, {energy}")?;
    }
    for end in report.ended {
        writeln!(out, "  end {} after {} ({:?})", end.id, end.generated, end.reason)?;
    }
    Ok(())
}
