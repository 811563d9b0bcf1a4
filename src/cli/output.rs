//! What commands leave behind: tables, JSON, rows per request, reports.

use super::CliError;
use super::workload::Workload;
use crate::metrics::{About, RequestRecord, Summary};
use crate::report::{self, RunReport};
use crate::sim::{Outcome, Refusals, Setup};
use crate::trace::TraceError;
use crate::trace::write::replace;
use clap::Args;
use serde::Serialize;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where results go.
#[derive(Args, Debug)]
pub(super) struct Outputs {
    /// Write the HTML report here.
    #[arg(long, value_name = "FILE", default_value = "flyball-report.html", help_heading = "Output")]
    report: PathBuf,
    /// Write no report.
    #[arg(long, help_heading = "Output")]
    no_report: bool,
    /// Write the summary as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Write one row per request of every run: CSV, or JSON lines if the name ends in .jsonl.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    per_request: Option<PathBuf>,
}

impl Outputs {
    /// Whether rows per request are wanted.
    pub fn wants_rows(&self) -> bool {
        self.per_request.is_some()
    }

    /// Writes the rows per request, if they are wanted.
    pub fn write_rows<'r>(&self, runs: impl IntoIterator<Item = RunReport<'r>>) -> Result<(), CliError> {
        let Some(path) = &self.per_request else { return Ok(()) };
        Ok(replace(path, |out| per_request(out, path, runs))?)
    }

    /// Writes the report of some runs, if one is wanted.
    pub fn write_report(&self, title: &str, runs: &[RunReport<'_>]) -> Result<(), CliError> {
        self.write_page(&report::html(title, runs))
    }

    /// Writes the report, if one is wanted.
    pub fn write_page(&self, html: &str) -> Result<(), CliError> {
        if !self.no_report {
            replace(&self.report, |file| file.write_all(html.as_bytes()))?;
            say!("report: {}", self.report.display());
        }
        Ok(())
    }

    /// Writes the JSON for machines.
    pub fn write_json(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.json.as_deref().map_or(Ok(()), |path| Ok(write_json(path, value)?))
    }
}

/// Writes JSON for machines.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TraceError> {
    replace(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// One row per request.
#[derive(Serialize)]
struct Row<'r> {
    policy: &'r str,
    load: Option<f64>,
    seed: u64,
    request: usize,
    arrival_s: f64,
    prompt: u32,
    cached: u32,
    output: u32,
    ttft_s: Option<f64>,
    tpot_s: Option<f64>,
    ttlt_s: Option<f64>,
    reason: Option<crate::request::FinishReason>,
}

fn row<'r>(summary: &'r Summary, request: usize, r: &RequestRecord) -> Row<'r> {
    Row {
        policy: &summary.policy,
        load: summary.load,
        seed: summary.seed,
        request,
        arrival_s: r.arrival.as_secs_f64(),
        prompt: r.prompt.0,
        cached: r.cached.0,
        output: r.output.0,
        ttft_s: r.ttft().map(|t| t.as_secs_f64()),
        tpot_s: r.tpot(),
        ttlt_s: r.ttlt().map(|t| t.as_secs_f64()),
        reason: r.reason,
    }
}

fn per_request<'r>(
    out: &mut dyn Write,
    path: &Path,
    runs: impl IntoIterator<Item = RunReport<'r>>,
) -> io::Result<()> {
    let rows = runs.into_iter().flat_map(|RunReport { summary, metrics }| {
        metrics.records.iter().enumerate().map(move |(i, record)| row(summary, i, record))
    });
    if path.extension().is_some_and(|e| e == "jsonl") {
        for row in rows {
            serde_json::to_writer(&mut *out, &row)?;
            out.write_all(b"\n")?;
        }
        return Ok(());
    }
    let mut csv = csv::Writer::from_writer(out);
    for row in rows {
        csv.serialize(row)?;
    }
    csv.flush()
}

/// The summary of a run.
pub(super) fn summarise(workload: &Workload, setup: &Setup, outcome: &Outcome) -> Summary {
    let about = About {
        policy: setup.policy.clone(),
        executor: "sim".into(),
        profile: workload.profile.clone(),
        trace: workload.trace.clone(),
        load: workload.load,
        seed: setup.seed,
        gpus: setup.gpus,
        config: setup.config.clone(),
        host: outcome.host,
    };
    outcome.metrics.summary(about, outcome.counters)
}

/// One line on what was run.
pub(super) fn headline(s: &Summary) -> String {
    let rate = match s.trace.rate.is_finite() {
        true => format!("at {:.3} requests/s", s.trace.rate),
        false => "all at once".into(),
    };
    let load = s.load.map_or_else(String::new, |load| format!(", load {load}"));
    let cached = if s.tokens.cached > 0 {
        let share = 100.0 * s.tokens.cached as f64 / s.tokens.prompt as f64;
        format!(", {share:.1} % of prompt tokens from the prefix cache")
    } else {
        String::new()
    };
    format!(
        "{} requests of {} {rate}{load}, {} x {}; {} steps in {:.2} s ({:.0} requests/s){cached}",
        s.requests.submitted,
        s.trace.name,
        s.gpus,
        s.profile,
        s.steps,
        s.host.wall_s,
        s.requests.submitted as f64 / s.host.wall_s.max(1e-9),
    )
}

/// Says how many requests were refused in these runs, and why the first was.
pub(super) fn warn_refused<'r>(refusals: impl IntoIterator<Item = &'r Refusals>) {
    let mut refusals = refusals.into_iter();
    let Some(Refusals { count, first }) = refusals.next() else { return };
    let count = count + refusals.map(|more| more.count).sum::<u64>();
    eprintln!("{count} requests were refused; the first: {first}");
}
