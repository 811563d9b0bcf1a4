//! The protocol: cold inputs, a captured graph, events around its replays, the median.
//!
//! Where the executor lets a kernel begin before the one ahead has ended, launches do so here, each behind its own like: what
//! a launch takes is hidden as far as it can be. In a step a matrix product may be ahead, which lets nothing begin before
//! its own end; what that costs, the steps of the executor tell (`benches/executor.rs`).

use crate::data::Data;
use crate::gpu::Gpu;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// Three times the L2 of the largest chip that this is for.
const COLD_BYTES: u64 = 180_000_000;
/// A graph shorter than this would time its own launch.
const GRAPH_US: f64 = 600.0;
const MOST_LAUNCHES: usize = 64;

/// What the command line asks for.
#[derive(Default)]
pub struct Options {
    pub quick: bool,
    pub sweep: bool,
    pub power: bool,
    out: Option<String>,
    families: Option<Vec<String>>,
    /// The row that broke the process before this one.
    after: Option<String>,
}

impl Options {
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().cloned().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => options.quick = true,
                "--sweep" => options.sweep = true,
                "--power" => options.power = true,
                "--out" => options.out = Some(value()?),
                "--families" => options.families = Some(value()?.split(',').map(str::to_owned).collect()),
                "--after" => options.after = Some(value()?),
                // Cargo's own.
                "--bench" => {}
                other => return Err(format!("{other} is no option")),
            }
        }
        Ok(options)
    }

    pub fn wants(&self, family: &str) -> bool {
        self.families.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == family))
    }
}

/// What a row is about.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub family: &'a str,
    pub shape: &'a str,
    /// Which way of ours, or the ceiling.
    pub name: &'a str,
    /// Moved at least once.
    pub bytes: u64,
    /// 0 where bytes are what counts.
    pub flops: u64,
    /// Microseconds of a launch, roughly: how many fill a graph.
    pub guess_us: f64,
}

impl Work<'_> {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.family, self.shape, self.name)
    }
}

/// Why a run ends early.
#[derive(Debug)]
pub enum Stop {
    /// This row broke the context: only a new process can go on.
    Broken(String),
    /// Anything else.
    Failed(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// A GPU, its random data, and where the rows go.
pub struct Bench {
    pub options: Options,
    pub gpu: Gpu,
    pub data: Data,
    pub failed: usize,
    out: Box<dyn Write>,
}

impl Bench {
    pub fn new(options: Options) -> Result<Self, String> {
        let mut gpu = Gpu::open()?;
        let data = Data::new(&mut gpu)?;
        let out: Box<dyn Write> = match &options.out {
            Some(path) => Box::new(append(path).map_err(|e| format!("{path}: {e}"))?),
            None => Box::new(std::io::stdout()),
        };
        Ok(Self { options, gpu, data, failed: 0, out })
    }

    /// How many sets of inputs of so many bytes are cold when it is their turn.
    pub fn sets(bytes: u64) -> usize {
        COLD_BYTES.div_ceil(bytes.max(1)) as usize
    }

    /// Times `launch(gpu, set)` for `sets` sets in turn and writes the row, or why there is none. An error of the
    /// row's alone is not returned.
    pub fn time(
        &mut self,
        work: Work<'_>,
        sets: usize,
        launch: impl FnMut(&Gpu, usize) -> Result<(), String>,
    ) -> Result<Option<f64>, Stop> {
        if self.skips(work) {
            return Ok(None);
        }
        let timed = self.graphed(work.guess_us, sets, launch);
        self.row(work, timed)
    }

    /// The same for one launch, long enough to hide what starting it takes, outside of a graph.
    pub fn time_ungraphed(
        &mut self,
        work: Work<'_>,
        launch: impl Fn(&Gpu) -> Result<(), String>,
    ) -> Result<Option<f64>, Stop> {
        if self.skips(work) {
            return Ok(None);
        }
        let timed = self.median(|gpu| gpu.timed(|| launch(gpu)));
        self.row(work, timed)
    }

    /// Whether the row was tried by the process before this one.
    fn skips(&mut self, work: Work<'_>) -> bool {
        let skipped = self.options.after.is_some();
        if self.options.after.as_ref().is_some_and(|last| *last == work.key()) {
            self.options.after = None;
        }
        skipped
    }

    /// The row of what could not even be prepared.
    pub fn fail(&mut self, work: Work<'_>, why: String) -> Result<(), Stop> {
        if !self.skips(work) {
            self.row(work, Err(why))?;
        }
        Ok(())
    }

    fn row(&mut self, work: Work<'_>, timed: Result<(f64, f64), String>) -> Result<Option<f64>, Stop> {
        let Work { family, shape, name, bytes, flops, .. } = work;
        match timed {
            Ok((us, spread)) => {
                self.write(json!({
                    "family": family, "shape": shape, "impl": name,
                    "us": us, "spread": spread, "bytes": bytes, "flops": flops,
                }))?;
                Ok(Some(us))
            }
            Err(why) => {
                self.failed += 1;
                self.write(json!({"family": family, "shape": shape, "impl": name, "error": why}))?;
                // What broke the context would break every row after it.
                self.gpu.healthy().map_err(|_| Stop::Broken(work.key()))?;
                Ok(None)
            }
        }
    }

    /// Writes a line.
    pub fn write(&mut self, row: serde_json::Value) -> Result<(), String> {
        writeln!(self.out, "{row}").and_then(|()| self.out.flush()).map_err(|e| e.to_string())
    }

    /// Microseconds per launch, and their spread.
    fn graphed(
        &self,
        guess_us: f64,
        sets: usize,
        mut launch: impl FnMut(&Gpu, usize) -> Result<(), String>,
    ) -> Result<(f64, f64), String> {
        let launches = sets.max(((GRAPH_US / guess_us).ceil() as usize).clamp(1, MOST_LAUNCHES));
        // Once outside of a graph: modules load, and what fails says so by itself.
        launch(&self.gpu, 0)?;
        self.gpu.wait()?;
        let graph = self.gpu.record(|gpu| (0..launches).try_for_each(|at| launch(gpu, at % sets)))?;
        let (us, spread) = self.median(|gpu| gpu.replay(&graph))?;
        Ok((us / launches as f64, spread))
    }

    /// The median of what `sample` returns, and (p90 - p10) / median.
    fn median(&self, sample: impl Fn(&Gpu) -> Result<f64, String>) -> Result<(f64, f64), String> {
        // The first two warm up.
        (0..2).try_for_each(|_| sample(&self.gpu).map(|_| ()))?;
        let count = if self.options.quick { 30 } else { 50 };
        let mut times = (0..count).map(|_| sample(&self.gpu)).collect::<Result<Vec<_>, _>>()?;
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times[times.len() * part / 10];
        Ok((at(5), (at(9) - at(1)) / at(5)))
    }
}

fn append(path: &str) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
