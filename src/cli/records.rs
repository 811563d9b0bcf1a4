//! The flags of `flyball replay` that write a record of a run, and that replay one.

use super::CliError;
use super::workload::WorkloadArgs;
use crate::engine::{Engine, StepReport};
use crate::error::SubmitError;
use crate::record::{self, Header, RecordError, Recorder, SCHEMA, VERSION};
use crate::request::Request;
use crate::sched::order::{self, PolicyError};
use crate::sim::{Arrival, Observer, Outcome, Setup, SimError, simulate};
use clap::Args;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Records of runs.
#[derive(Args, Clone, Debug)]
pub(super) struct RecordArgs {
    /// Write a record: all inputs of the run, from which every decision of it follows again; gzip if
    /// the name ends in .gz.
    #[arg(long, value_name = "FILE", help_heading = "Records")]
    record: Option<PathBuf>,
    /// Let the record hold every decision whole, not only its digest.
    #[arg(long, requires = "record", help_heading = "Records")]
    record_decisions: bool,
    /// Replay this record instead of a trace, and compare every decision. It says itself what ran on
    /// what: flags for that do not count.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["record", "report", "json", "per_request"],
        help_heading = "Records"
    )]
    records: Option<PathBuf>,
    /// Print the steps of the record, with reasons.
    #[arg(long, requires = "records", help_heading = "Records")]
    inspect: bool,
    /// Print these steps of each engine only: from A on, before B.
    #[arg(long, value_name = "A..B", value_parser = steps, requires = "inspect", help_heading = "Records")]
    steps: Option<Range<u64>>,
}

fn steps(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("must be A..B, A.. or ..B")?;
    let number = |text: &str, open: u64| match text {
        "" => Ok(open),
        _ => text.parse().map_err(|_| format!("{text:?} is not a number")),
    };
    let steps = number(from, 0)?..number(to, u64::MAX)?;
    if steps.is_empty() { Err("holds no step: A must be below B".into()) } else { Ok(steps) }
}

impl RecordArgs {
    /// Whether a record is replayed, and no trace.
    pub fn replays(&self) -> bool {
        self.records.is_some()
    }

    /// Replays the record, and says what came out.
    pub fn replay(&self) -> Result<(), CliError> {
        let path = self.records.as_deref().expect("asked for only where a record is named");
        let input = open(path).map_err(CliError::io(path))?;
        let report = if self.inspect {
            let mut out = io::stdout().lock();
            record::inspect(input, &mut out, self.steps.clone().unwrap_or(0..u64::MAX))
        } else {
            record::replay(input)
        };
        match report {
            Ok(report) => {
                say!("{} steps of {} engines: all decisions equal", report.steps, report.engines);
                Ok(())
            }
            // Whoever closes the pipe has seen enough.
            Err(RecordError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(source) => Err(CliError::Record { path: path.into(), source: Box::new(source) }),
        }
    }

    /// Simulates, with a record if one was asked for. The record of a run that fails is kept too.
    pub fn simulate(
        &self,
        workload: &WorkloadArgs,
        setup: &Setup,
        arrivals: &[Arrival],
        watch: &mut dyn Observer,
    ) -> Result<Outcome, CliError> {
        let Some(path) = &self.record else { return Ok(simulate(setup, arrivals, watch)?) };
        let header = header(workload, setup, arrivals)?;
        let mut outcome = None;
        crate::trace::write::replace(path, |file| {
            let mut run = |out: &mut dyn Write| {
                let recorder = Recorder::new(out, &header).with_decisions(self.record_decisions);
                let mut both = Both { recorder, watch };
                outcome = Some(simulate(setup, arrivals, &mut both));
                both.recorder.finish().map(|_| ())
            };
            if path.extension().is_some_and(|end| end == "gz") {
                let mut gzip = GzEncoder::new(file, Compression::fast());
                run(&mut gzip)?;
                gzip.finish().map(|_| ())
            } else {
                run(file)
            }
        })?;
        let outcome: Result<Outcome, SimError> = outcome.expect("what was written was run");
        Ok(outcome?)
    }
}

/// Records for one who watches.
struct Both<'a, W: Write> {
    recorder: Recorder<W>,
    watch: &'a mut dyn Observer,
}

impl<W: Write> Observer for Both<'_, W> {
    fn submit(&mut self, engine: usize, request: &Request) {
        self.recorder.submit(engine, request);
        self.watch.submit(engine, request);
    }

    fn refuse(&mut self, engine: usize, why: &SubmitError) {
        self.recorder.refuse(engine, why);
        self.watch.refuse(engine, why);
    }

    fn step(&mut self, engine: usize, report: &StepReport<'_>, state: &Engine) {
        self.recorder.step(engine, report);
        self.watch.step(engine, report, state);
    }
}

fn header(workload: &WorkloadArgs, setup: &Setup, arrivals: &[Arrival]) -> Result<Header, CliError> {
    let (profile, constant_step, believed_time) = workload.beliefs()?;
    let clairvoyant = matches!(order::parse(&setup.policy, None), Err(PolicyError::NeedsOracle(_)));
    Ok(Header {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        policy: setup.policy.clone(),
        seed: setup.seed,
        gpus: setup.gpus,
        config: setup.config.clone(),
        constant_step,
        believed_time,
        oracle: clairvoyant.then(|| arrivals.iter().map(|a| a.output).collect()),
        profile,
    })
}

/// Opens a file, plain or gzip, which its first two bytes tell.
fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut plain = BufReader::new(File::open(path)?);
    if !plain.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(plain));
    }
    Ok(Box::new(BufReader::new(MultiGzDecoder::new(plain))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_steps_may_be_open() {
        assert_eq!(steps("3..9"), Ok(3..9));
        assert_eq!(steps("..9"), Ok(0..9));
        assert_eq!(steps("3.."), Ok(3..u64::MAX));
        assert!(steps("3").is_err() && steps("a..b").is_err());
        assert!(steps("9..3").is_err() && steps("3..3").is_err());
    }
}
