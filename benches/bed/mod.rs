//! An engine in a steady state, on a device that takes no time: what one scheduling step costs by itself.
//!
//! As many requests wait as were asked for, about as many run, and each that ends is replaced, so that
//! the mean step has one end, one submit and one admission per 256 rows. Prompts are token ids and shared, so
//! prefixes are found, blocks are hashed and stop tokens are checked as in a live engine.

use flyball::batch::BatchPlan;
use flyball::clock::VirtualClock;
use flyball::config::Config;
use flyball::cost::{CostModel, Profile};
use flyball::engine::Engine;
use flyball::error::ExecError;
use flyball::exec::{Executor, InFlight, StepOutcome};
use flyball::prng::{Prng, mix};
use flyball::request::{Prompt, Request, RequestId, StopTokens};
use flyball::sched::{Policy, order};
use flyball::units::{Blocks, Nanos, Tokens};
use std::collections::VecDeque;
use std::sync::Arc;

/// Output lengths are uniform in `1..=OUTPUT_MAX`: 256 on average.
const OUTPUT_MAX: u64 = 511;
/// Different prompts, of 120 to 136 tokens.
const PROMPTS: u64 = 64;
/// No step yields it.
const STOP: u32 = u32::MAX - 1;

/// A device that yields the number of its step for each row, at once.
struct Instantly {
    rows: VecDeque<usize>,
}

impl Executor for Instantly {
    fn name(&self) -> &'static str {
        "instantly"
    }

    fn submit(&mut self, plan: &BatchPlan) -> Result<InFlight, ExecError> {
        self.rows.push_back(plan.rows.len());
        Ok(InFlight::new(plan.step))
    }

    fn wait(&mut self, step: InFlight, outcome: &mut StepOutcome) -> Result<(), ExecError> {
        let rows = self.rows.pop_front().expect("a step in flight was submitted");
        outcome.tokens.clear();
        outcome.tokens.resize(rows, step.step() as u32 & 0xFFFF);
        Ok(())
    }
}

/// How large the bed is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub running: u32,
    pub waiting: u32,
    pub depth: u8,
}

/// The engine and what feeds it.
pub struct Bed {
    pub engine: Engine,
    prompts: Vec<Arc<[u32]>>,
    prng: Prng,
    submitted: u64,
    /// Requests that ended and were not replaced yet.
    owed: usize,
}

impl Bed {
    /// A bed under the policy of this name, filled but cold.
    pub fn named(policy: &str, size: Size) -> Self {
        Self::new(order::parse(policy, None).expect("the policy exists"), size)
    }

    /// A bed, filled but cold.
    pub fn new(policy: Box<dyn Policy>, size: Size) -> Self {
        let executor = Box::new(Instantly { rows: VecDeque::with_capacity(2) });
        let clock = Box::new(VirtualClock::new());
        let profile = Profile::load("h200-llama-3-8b").expect("a shipped profile is there");
        let cost = CostModel::new(&profile);
        let engine =
            Engine::new(config(size), policy, executor, clock, cost).expect("the limits fit together");
        let mut bed = Self { engine, prompts: prompts(), prng: Prng::new(1), submitted: 0, owed: 0 };
        bed.replace((size.running + size.waiting) as usize);
        bed
    }

    /// Runs until the first batch has been replaced and the ages of the running ones are spread.
    pub fn warm(mut self, turns: u32) -> Self {
        (0..turns).for_each(|_| self.turn());
        self.engine.check();
        self
    }

    /// One step, and a submit for each request that ended in it.
    #[inline]
    pub fn turn(&mut self) {
        self.step();
        self.refill();
    }

    /// One step.
    #[inline]
    pub fn step(&mut self) {
        self.owed += self.engine.step().expect("the step is sound").ended.len();
    }

    /// Submits a request for each that has ended since the last refill.
    pub fn refill(&mut self) {
        for _ in 0..std::mem::take(&mut self.owed) {
            self.submit();
        }
    }

    /// Submits a request for each of `count` that ended.
    pub fn replace(&mut self, count: usize) {
        self.owed += count;
        self.refill();
    }

    fn submit(&mut self) -> RequestId {
        let prompt = &self.prompts[self.prng.below(PROMPTS) as usize];
        let output = Tokens(1 + self.prng.below(OUTPUT_MAX) as u32);
        let mut request = Request::new(Nanos(self.submitted), Prompt::Tokens(prompt.clone()), output);
        request.stop = StopTokens::new(&[STOP]).expect("one is not too many");
        self.submitted += 1;
        self.engine.submit(request).expect("there is room for it")
    }

    /// Submits `count` requests beyond the steady state.
    #[allow(dead_code, reason = "one of several users needs it")]
    pub fn surge(&mut self, count: u32) -> Vec<RequestId> {
        (0..count).map(|_| self.submit()).collect()
    }

    /// Cancels requests; the next steps report them, but nobody replaces them.
    #[allow(dead_code, reason = "one of several users needs it")]
    pub fn cancel(&mut self, ids: &[RequestId]) {
        let cancelled = ids.iter().filter(|id| self.engine.cancel(**id)).count();
        assert_eq!(cancelled, ids.len(), "all of them were alive");
    }
}

/// Everything fits, with a quarter of the memory left to the prefix cache.
fn config(size: Size) -> Config {
    let longest = Tokens(1024);
    let alive = size.waiting + 4 * size.running + 2048;
    Config {
        kv_blocks: Blocks(size.running * longest.0 / 16),
        host_blocks: Blocks(size.running * longest.0 / 16),
        max_num_seqs: size.running,
        max_resident: 2 * size.running,
        max_num_batched_tokens: Tokens(size.running + 1024),
        max_model_len: longest,
        waiting_max: alive,
        content_tokens_max: u32::MAX,
        prefix_cache: true,
        pipeline_depth: size.depth,
        ..Config::default()
    }
}

fn prompts() -> Vec<Arc<[u32]>> {
    let prompt = |p: u64| (0..120 + p % 17).map(|i| mix(p << 32 | i) as u32 >> 8).collect();
    (0..PROMPTS).map(prompt).collect()
}
