//! The simulator: production engines in virtual time, fed by a list of arrivals.
//!
//! Each engine has a clock of its own, which its simulated device moves to the end of each step. An
//! arrival is submitted as soon as the clock of its engine has reached it, at the latest at the end of
//! the step that runs then, as a live engine would see it.

mod capacity;
mod router;

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod overtaking;
#[cfg(test)]
mod tests;

pub use capacity::capacity;
pub use router::Router;

use crate::clock::{Clock, MonotonicClock, VirtualClock};
use crate::config::Config;
use crate::cost::CostModel;
use crate::engine::{Counters, Engine, StepReport};
use crate::error::{ConfigError, StepError, SubmitError};
use crate::exec::sim::{EOS, Script, SimExecutor};
use crate::metrics::{Histogram, HostFigures, Metrics, StepNanos};
use crate::record::Recorder;
use crate::request::{Prompt, Request, StopTokens};
use crate::sched::order::{self, PolicyError};
use crate::units::{Nanos, Tokens};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// One request to come, with its true output length.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// When.
    pub at: Nanos,
    /// Its prompt.
    pub prompt: Prompt,
    /// Its true output length: for the script alone.
    pub output: Tokens,
    /// Whose it is.
    pub client: u32,
    /// Its priority class.
    pub priority: u8,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Limits of each engine.
    pub config: Config,
    /// The policy, as [`order::parse`] reads it.
    pub policy: String,
    /// What steps cost, for the device and for the policy.
    pub cost: CostModel,
    /// What the policy believes that steps cost, if it is to be wrong.
    pub believed: Option<CostModel>,
    /// How many engines.
    pub gpus: u32,
    /// Which engine gets a request.
    pub router: Router,
    /// The most tokens that a request asks for; the model's limit if there is none.
    pub max_tokens: Option<Tokens>,
    /// Host time per step.
    pub host_step: Nanos,
    /// Seed of everything drawn.
    pub seed: u64,
}

/// Why a simulation could not be done.
#[derive(Debug, Error)]
pub enum SimError {
    /// The limits do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No such policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The policy runs nobody though the machine is free and nothing will change: a defect of it.
    #[error(
        "policy {policy} leaves {waiting} waiting and {resident} resident requests alone on an idle machine"
    )]
    Stalled {
        /// The policy.
        policy: String,
        /// Requests that wait.
        waiting: usize,
        /// Requests that hold KV.
        resident: usize,
    },
    /// A load is relative to the rate at which a machine is saturated, and it has none.
    #[error(
        "no load can be set: there is no saturated rate where {refused} of {of} requests are refused, \
         as too long for the context or the KV, and any others end at once"
    )]
    NoCapacity {
        /// Requests that never fit.
        refused: u64,
        /// All that were tried.
        of: u64,
    },
}

/// Sees everything that goes into an engine and comes out of it: recorders, progress bars, checks.
pub trait Observer {
    /// A request is about to be submitted to an engine.
    fn submit(&mut self, _engine: usize, _request: &Request) {}
    /// The request that was submitted last was refused.
    fn refuse(&mut self, _engine: usize, _why: &SubmitError) {}
    /// An engine has done a step.
    fn step(&mut self, _engine: usize, _report: &StepReport<'_>, _state: &Engine) {}
}

/// Sees nothing.
impl Observer for () {}

impl<W: Write> Observer for Recorder<W> {
    fn submit(&mut self, engine: usize, request: &Request) {
        Recorder::submit(self, engine, request);
    }

    fn refuse(&mut self, engine: usize, why: &SubmitError) {
        Recorder::refuse(self, engine, why);
    }

    fn step(&mut self, engine: usize, report: &StepReport<'_>, _: &Engine) {
        Recorder::step(self, engine, report);
    }
}

/// One engine and its clock.
struct Node {
    engine: Engine,
    clock: VirtualClock,
    /// Until when the device is known to be busy.
    busy: Nanos,
}

/// What a simulation leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its accounts.
    pub metrics: Metrics,
    /// Counts of all engines together.
    pub counters: Counters,
    /// Requests that were refused, if any were.
    pub refusals: Option<Refusals>,
    /// What it cost here.
    pub host: HostFigures,
}

/// Requests that an engine has not accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusals {
    /// How many.
    pub count: u64,
    /// Why the first of them was refused.
    pub first: SubmitError,
}

/// Runs all arrivals, which are in their order, to their end.
///
/// # Errors
/// If the setup is not sound, or a policy is not.
pub fn simulate(setup: &Setup, arrivals: &[Arrival], watch: &mut dyn Observer) -> Result<Outcome, SimError> {
    Simulation::new(setup, arrivals)?.run(arrivals, watch)
}

struct Simulation<'s> {
    setup: &'s Setup,
    nodes: Vec<Node>,
    router: router::State,
    metrics: Metrics,
    refusals: Option<Refusals>,
    wall: MonotonicClock,
    step_ns: Histogram,
    steps: u64,
}

/// One step in this many is timed, so that reading the clock does not show.
const TIMED_EVERY: u64 = 16;

impl<'s> Simulation<'s> {
    fn new(setup: &'s Setup, arrivals: &[Arrival]) -> Result<Self, SimError> {
        let script = Script::new(arrivals.iter().map(|a| a.output));
        let nodes = (0..setup.gpus).map(|_| node(setup, &script)).collect::<Result<_, _>>()?;
        Ok(Self {
            setup,
            nodes,
            router: router::State::new(setup.router, setup.gpus as usize, setup.seed),
            metrics: Metrics::new(setup.gpus as usize, arrivals.len()),
            refusals: None,
            wall: MonotonicClock::new(),
            step_ns: Histogram::default(),
            steps: 0,
        })
    }

    fn run(mut self, arrivals: &[Arrival], watch: &mut dyn Observer) -> Result<Outcome, SimError> {
        for arrival in arrivals {
            for index in 0..self.nodes.len() {
                self.run_until(index, arrival.at, watch)?;
            }
            self.arrive(arrival, watch);
        }
        for index in 0..self.nodes.len() {
            self.run_until(index, Nanos::MAX, watch)?;
        }
        let end = self.metrics.finished_at();
        for (index, node) in self.nodes.iter().enumerate() {
            charge_idle(&mut self.metrics, &self.setup.cost, index, node.busy..end);
        }
        let wall_s = self.wall.now().as_secs_f64();
        let counters = self.nodes.iter().map(|n| n.engine.counters()).fold(Counters::default(), sum);
        let host = HostFigures { wall_s, ns_per_step: StepNanos::of(&self.step_ns) };
        Ok(Outcome { metrics: self.metrics, counters, refusals: self.refusals, host })
    }

    /// Steps an engine until its clock has reached `time`, or it has nothing to do.
    fn run_until(&mut self, index: usize, time: Nanos, watch: &mut dyn Observer) -> Result<(), SimError> {
        while !self.nodes[index].engine.is_idle() && self.nodes[index].clock.now() < time {
            self.steps += 1;
            if self.steps.is_multiple_of(TIMED_EVERY) {
                let from = self.wall.now();
                self.step(index, watch)?;
                self.step_ns.add((self.wall.now() - from).0, 1);
            } else {
                self.step(index, watch)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn step(&mut self, index: usize, watch: &mut dyn Observer) -> Result<(), SimError> {
        let node = &mut self.nodes[index];
        let gauges = node.engine.gauges();
        node.engine.step()?;
        let report = node.engine.last_report();
        let stalled = report.plan.is_none() && report.settled.is_none() && report.ended.is_empty();
        if report.settled.is_some() {
            charge_idle(&mut self.metrics, &self.setup.cost, index, node.busy..report.outcome.started);
            node.busy = report.outcome.finished;
        }
        self.metrics.step(index, &report, gauges);
        watch.step(index, &report, &node.engine);
        if stalled {
            return Err(SimError::Stalled {
                policy: node.engine.policy().to_owned(),
                waiting: gauges.waiting,
                resident: gauges.resident,
            });
        }
        Ok(())
    }

    fn arrive(&mut self, arrival: &Arrival, watch: &mut dyn Observer) {
        let number = self.metrics.submitted() as u64;
        let mut request = Request::new(arrival.at, arrival.prompt.clone(), Tokens::MAX);
        request.max_tokens = self.setup.max_tokens.unwrap_or(self.setup.config.max_model_len);
        request.priority = arrival.priority;
        request.client = arrival.client;
        request.stop = StopTokens::new(&[EOS]).expect("one is not too many");
        request.user_data = number;
        let loads = self.nodes.iter().map(|n| n.engine.gauges());
        let index = self.router.route(&request, loads);
        watch.submit(index, &request);
        self.metrics.arrived(arrival.at, arrival.prompt.len());
        let node = &mut self.nodes[index];
        node.clock.advance_to(arrival.at);
        if let Err(why) = node.engine.submit(request) {
            self.metrics.refused();
            watch.refuse(index, &why);
            self.refusals.get_or_insert(Refusals { count: 0, first: why }).count += 1;
        }
    }
}

fn node(setup: &Setup, script: &Script) -> Result<Node, SimError> {
    let clock = VirtualClock::new();
    let config = setup.config.clone();
    let executor = SimExecutor::new(clock.clone(), setup.cost.clone(), script.clone(), setup.seed)
        .with_kv(config.block_size, config.swap)
        .with_host_step(setup.host_step);
    let policy = order::parse(&setup.policy, Some(Arc::new(script.clone())))?;
    let believed = setup.believed.clone().unwrap_or_else(|| setup.cost.clone());
    let engine = Engine::new(config, policy, Box::new(executor), Box::new(clock.clone()), believed)?;
    Ok(Node { engine, clock, busy: Nanos::ZERO })
}

/// Charges a board the time in which it has nothing to do.
fn charge_idle(metrics: &mut Metrics, cost: &CostModel, board: usize, gap: Range<Nanos>) {
    if gap.start < gap.end {
        metrics.idle(board, gap.start, gap.end, cost.idle_energy(gap.end - gap.start));
    }
}

fn sum(a: Counters, b: Counters) -> Counters {
    Counters {
        steps: a.steps + b.steps,
        prompt_tokens: a.prompt_tokens + b.prompt_tokens,
        cached_tokens: a.cached_tokens + b.cached_tokens,
        recomputed_tokens: a.recomputed_tokens + b.recomputed_tokens,
        swapped_tokens: a.swapped_tokens + b.swapped_tokens,
        swaps: a.swaps + b.swaps,
        recomputes: a.recomputes + b.recomputes,
        overrides: a.overrides + b.overrides,
    }
}
