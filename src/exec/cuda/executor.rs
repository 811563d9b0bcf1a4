//! Runs plans on a device: two steps in flight, tokens that are not known yet resolved there, decode steps replayed
//! as graphs.

use super::copies::Mover;
use super::forward::{Branches, Forward, Made};
use super::inputs::{Counts, Layout};
use super::names::Names;
use super::products::{Planned, row_counts};
use super::stage::{Host, Stage, Yield};
use super::weights::DeviceWeights;
use super::work::{self, Flags, Limits, Work};
use super::{Arena, CudaError, Device, Graph, Kernels};
use crate::batch::BatchPlan;
use crate::clock::{Clock, sleep};
use crate::config::Config;
use crate::error::ExecError;
use crate::exec::{Executor, InFlight, StepOutcome};
use crate::model::Model;
use crate::number::Dtype;
use crate::units::{Microjoules, Nanos};
use std::collections::VecDeque;

/// How to run a model on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaOptions {
    /// Which device.
    pub ordinal: usize,
    /// What the KV cache holds: the model's own type, or e4m3.
    pub kv: Dtype,
    /// A request's tokens are the same, bit for bit, alone, beside others and after a preemption: products are
    /// pinned to one algorithm and padded, and every token goes through prefill. Slower.
    pub batch_invariant: bool,
    /// Replay steps of decodes alone as graphs.
    pub graphs: bool,
}

/// A decoder on a device.
pub struct CudaExecutor {
    device: Device,
    clock: Box<dyn Clock>,
    forward: Forward,
    branches: Branches,
    mover: Mover,
    host: Host,
    graphs: Vec<Captured>,
    /// Stages that no step uses.
    spare: Vec<Stage>,
    pending: VecDeque<Stage>,
    /// Of the step that was submitted last.
    yields: Vec<Yield>,
    /// Which rows of the step that was waited for last yielded no token, and of the one before it.
    failed: [Vec<bool>; 2],
    tokens_max: usize,
    /// What broke the device, if anything did.
    broken: Option<ExecError>,
}

/// A decode step that was captured.
struct Captured {
    layout: Layout,
    graph: Graph,
}

impl CudaExecutor {
    /// Puts a model on a device, with room for an engine of these limits; takes all memory at once.
    ///
    /// # Errors
    /// Without a device, its kernels or cuBLASLt, and if the memory does not suffice.
    pub fn new(
        model: &Model,
        config: &Config,
        options: CudaOptions,
        clock: Box<dyn Clock>,
    ) -> Result<Self, CudaError> {
        let device = Device::open(options.ordinal)?;
        let kernels = Kernels::load(&device)?;
        let (description, invariant) = (model.config(), options.batch_invariant);
        let tokens_max = config.max_num_batched_tokens.0 as usize;
        if config.max_model_len.0 > description.context {
            let (asked, most) = (config.max_model_len.0, description.context);
            return Err(CudaError::Misfit(format!(
                "max_model_len is {asked}, and the model has {most} positions"
            )));
        }
        if options.kv != description.dtype && options.kv != Dtype::E4m3 {
            let (kv, own) = (options.kv.name(), description.dtype.name());
            return Err(CudaError::Misfit(format!(
                "a cache of {kv} for a model of {own}: it may be that or e4m3"
            )));
        }
        let rows_max = (config.max_num_seqs as usize).min(tokens_max);
        if !(16..=64).contains(&config.block_size.0) {
            let asked = config.block_size.0;
            return Err(CudaError::Misfit(format!("block_size is {asked}; the kernels take 16, 32 and 64")));
        }
        let names = Names::new(&kernels, description, options.kv)?;
        let shares = names.shares(device.info(), description);
        let most = |rows| *row_counts(rows, invariant).last().expect("there is always one");
        let limits = Limits::new(config, description, options.kv, most(tokens_max), most(rows_max), shares);
        let planned = Planned::new(&device, description, tokens_max, rows_max, invariant)?;
        let pool_bytes = limits.blocks * limits.block_bytes;
        let total = DeviceWeights::bytes(model)
            + Work::bytes(&limits, description)
            + Arena::bytes_of::<u8>(pool_bytes);
        let mut arena = Arena::new(&device, "weights, KV blocks and work buffers", total)?;
        let main = device.stream()?;
        let weights = DeviceWeights::upload(model, &mut arena, &main)?;
        let pool = arena.take("KV blocks", pool_bytes)?;
        let work = Work::new(&limits, description, &mut arena)?;
        work::clear(&work, &device)?;
        let branches =
            Branches { main, side: device.stream()?, parted: device.event()?, joined: device.event()? };
        let made = Made {
            names,
            model: description.clone(),
            kv: options.kv,
            limits,
            block_size: config.block_size.0,
            sms: device.info().sms,
            weights,
            planned,
            pool,
            work,
        };
        let forward = Forward::new(made)?;
        let stage = || Stage::new(&device, &limits);
        let mut executor = Self {
            clock,
            forward,
            branches,
            mover: Mover::new(&device, config.host_blocks.0 as usize, limits.block_bytes)?,
            host: Host::new(&limits, config.block_size.0, description.vocab, invariant),
            graphs: Vec::new(),
            spare: vec![stage()?, stage()?],
            pending: VecDeque::with_capacity(2),
            yields: Vec::with_capacity(limits.counts.decodes),
            failed: [(); 2].map(|()| Vec::with_capacity(limits.counts.decodes)),
            tokens_max,
            broken: None,
            device,
        };
        if options.graphs && !invariant {
            executor.capture(rows_max)?;
        }
        Ok(executor)
    }

    /// The device that it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Captures steps of decodes alone, for each row count up to `rows_max`. Each runs once before, without rows,
    /// since code is loaded when it is first used, which a capture does not allow.
    fn capture(&mut self, rows_max: usize) -> Result<(), CudaError> {
        let mut stage = self.spare.pop().expect("nothing is in flight");
        for rows in row_counts(rows_max, false) {
            let (samples, _) = self.forward.planned().logits(rows.min(rows_max));
            let layout = Layout::new(Counts { tokens: rows, decodes: rows, prefills: 0, samples });
            self.host.sort(&BatchPlan::default(), &[], &mut stage.yields);
            self.host.fill(&BatchPlan::default(), &[], &layout, &mut stage);
            self.upload(&stage, &layout)?;
            self.forward.run(&self.branches, &layout)?;
            self.branches.main.synchronize()?;
            let graph = self.branches.main.capture(|| self.forward.run(&self.branches, &layout))?;
            self.graphs.push(Captured { layout, graph });
        }
        self.spare.push(stage);
        Ok(())
    }

    fn upload(&self, stage: &Stage, layout: &Layout) -> Result<(), CudaError> {
        let (work, main) = (self.forward.work(), &self.branches.main);
        let words = layout.words + 2 * stage.changes.unwrap_or(0);
        main.upload_pinned(&stage.words, 0, &work.inputs.part(0, words))?;
        if stage.listed > 0 {
            let half = work.said.len() / 2;
            main.upload_pinned(&stage.said, 0, &work.said.part(0, stage.listed))?;
            main.upload_pinned(&stage.said, half, &work.said.part(half, stage.listed))?;
        }
        match stage.changes {
            Some(0) => Ok(()),
            Some(changes) => self.forward.change_tables(main, layout, changes),
            // As rare as many requests that share a long prefix and begin in one step: it may wait for the device.
            None => main.upload(&self.host.tables, &work.slot_tables),
        }
    }

    /// The layout of such a step, and which graph is it, if one is: then with the graph's padding. Elsewhere products
    /// alone are padded, and what is in those rows matters to nobody.
    fn layout(&self, counts: Counts) -> (Layout, Option<usize>) {
        let fits = |graph: &Captured| counts.prefills == 0 && graph.layout.counts.tokens >= counts.tokens;
        match self.graphs.iter().position(fits) {
            Some(at) => (self.graphs[at].layout.clone(), Some(at)),
            None => (Layout::new(counts), None),
        }
    }

    /// Starts a step with this stage.
    fn start(&mut self, plan: &BatchPlan, stage: &mut Stage) -> Result<(), CudaError> {
        for opened in &plan.opened {
            // Who had the slot before is gone.
            let noted = self.pending.iter_mut().map(|stage| &mut stage.noted);
            noted.for_each(|noted| noted.retain(|(slot, _)| *slot != opened.slot.index()));
        }
        self.host.open(plan);
        let counts = self.host.sort(plan, &self.yields, &mut stage.yields);
        let (layout, graph) = self.layout(counts);
        self.host.fill(plan, &self.yields, &layout, stage);
        let main = &self.branches.main;
        self.mover.begin(main, self.forward.pool(), &plan.before, &plan.beside)?;
        main.record(&stage.started)?;
        if !plan.rows.is_empty() || stage.changes != Some(0) {
            self.upload(stage, &layout)?;
        }
        if counts.tokens > 0 {
            match graph {
                Some(at) => self.graphs[at].graph.launch()?,
                None => self.forward.run(&self.branches, &layout)?,
            }
        }
        main.record(&stage.ended)?;
        main.download_pinned(&self.forward.work().results, &stage.results, 0)?;
        main.record(&stage.done)?;
        self.mover.end(main, self.forward.pool(), &plan.after)
    }

    /// Waits for the tokens of the step in flight, where this plan draws under penalties, which depend on them.
    fn await_penalized(&mut self, plan: &BatchPlan) -> Result<(), CudaError> {
        if plan.rows.iter().any(|row| self.host.penalizes(row)) {
            for at in 0..self.pending.len() {
                self.pending[at].done.synchronize()?;
                let Stage { noted, results, .. } = &mut self.pending[at];
                let results = results.as_slice();
                note(&mut self.host, noted, results);
            }
        }
        Ok(())
    }

    fn finish(&mut self, stage: &mut Stage, outcome: &mut StepOutcome) -> Result<(), CudaError> {
        stage.done.synchronize()?;
        let span = stage.started.micros_until(&stage.ended)?;
        outcome.finished = self.clock.now();
        outcome.started = outcome.finished.saturating_sub(Nanos((span * 1e3) as u64));
        // What the board drew is not known here.
        outcome.energy = Microjoules::ZERO;
        let results = stage.results.as_slice();
        let samples = (results.len() - Flags::COUNT) / 2;
        let flags = &results[2 * samples..];
        if flags[Flags::DECODE] + flags[Flags::PREFILL] > 0 {
            return Err(CudaError::Misfit("attention's work exceeds what was planned for".into()));
        }
        if flags[Flags::GATHER] > 0 {
            return Err(CudaError::Misfit("a drawn token is not in the vocabulary".into()));
        }
        note(&mut self.host, &mut stage.noted, results);
        outcome.tokens.clear();
        outcome.failed.clear();
        self.failed.swap(0, 1);
        let [failed, before] = &mut self.failed;
        failed.clear();
        for (row, yielded) in stage.yields.iter().enumerate() {
            let (token, fine) = match *yielded {
                Yield::None => (0, true),
                Yield::Failed => (0, false),
                Yield::Drawn { at, follows } => {
                    let led = follows.is_none_or(|row| !before[row as usize]);
                    (results[at as usize], led && results[samples + at as usize] == 0)
                }
            };
            outcome.tokens.push(if fine { token } else { 0 });
            failed.push(!fine);
            if !fine {
                outcome.failed.push(row as u32);
            }
        }
        Ok(())
    }

    /// Notes an error that ends everything, and on which device.
    fn broke<T>(&mut self, result: Result<T, CudaError>) -> Result<T, ExecError> {
        result.map_err(|error| {
            let error = match ExecError::from(error) {
                ExecError::DeviceLost(why) => {
                    let (ordinal, name) = (self.device.context.ordinal(), &self.device.info().name);
                    ExecError::DeviceLost(format!("CUDA device {ordinal} ({name}): {why}"))
                }
                other => other,
            };
            self.broken = Some(error.clone());
            error
        })
    }
}

/// Notes the tokens that were drawn under penalties, once.
fn note(host: &mut Host, noted: &mut Vec<(usize, u32)>, results: &[u32]) {
    for (slot, at) in noted.drain(..) {
        host.drawing[slot].said.output(results[at as usize]);
    }
}

impl Executor for CudaExecutor {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let tokens: usize = plan.rows.iter().map(|row| row.tokens as usize).sum();
        if tokens > self.tokens_max {
            let most = self.tokens_max;
            return Err(ExecError::Unsupported(format!("{tokens} tokens in a step, {most} at most")));
        }
        if plan.pause > Nanos::ZERO {
            if let Some(last) = self.pending.back() {
                let ended = last.ended.synchronize();
                self.broke(ended)?;
            }
            sleep(plan.pause);
        }
        let awaited = self.await_penalized(plan);
        self.broke(awaited)?;
        let Some(mut stage) = self.spare.pop() else {
            return Err(ExecError::Unsupported("more than two steps in flight".into()));
        };
        let started = self.start(plan, &mut stage);
        stage.step = plan.step;
        self.yields.clone_from(&stage.yields);
        self.pending.push_back(stage);
        self.broke(started)?;
        Ok(InFlight::new(plan.step))
    }

    fn wait(&mut self, step: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError> {
        let mut stage = self.pending.pop_front().expect("a step in flight was submitted");
        assert_eq!(stage.step, step.step(), "steps are waited for in their order");
        let finished = self.finish(&mut stage, outcome);
        self.spare.push(stage);
        self.broke(finished)
    }
}
