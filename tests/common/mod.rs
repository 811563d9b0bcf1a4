//! Requests driven through the engine on a device, as the tests of the executors do.

use flyball::clock::Clock;
use flyball::config::Config;
use flyball::cost::{CostModel, Profile};
use flyball::engine::{Counters, Engine};
use flyball::exec::Executor;
use flyball::prng::Prng;
use flyball::request::{FinishReason, Prompt, Request, SamplingParams};
use flyball::sched::order;
use flyball::units::{Blocks, Nanos, Tokens};

/// Plenty of everything: nobody is evicted.
pub fn ample() -> Config {
    Config {
        block_size: Tokens(16),
        kv_blocks: Blocks(128),
        host_blocks: Blocks(128),
        max_num_seqs: 8,
        max_resident: 12,
        max_num_batched_tokens: Tokens(64),
        max_model_len: Tokens(320),
        waiting_max: 64,
        ..Config::default()
    }
}

/// What came of each request, by its `user_data`.
#[derive(Debug)]
pub struct Outcome {
    pub tokens: Vec<Vec<u32>>,
    pub reasons: Vec<Option<FinishReason>>,
    pub counters: Counters,
}

/// A request, and the step before which it is submitted, and the one before which it is cancelled.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub request: Request,
    pub at: u32,
    pub cancel: Option<u32>,
}

impl Outcome {
    /// Of one request: its tokens and why it ended.
    pub fn of(&self, at: usize) -> (Vec<u32>, Option<FinishReason>) {
        (self.tokens[at].clone(), self.reasons[at])
    }
}

/// An engine on a device.
pub fn engine(device: Box<dyn Executor>, clock: Box<dyn Clock>, policy: &str, config: &Config) -> Engine {
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let policy = order::parse(policy, None).unwrap();
    Engine::new(config.clone(), policy, device, clock, cost).unwrap()
}

/// Runs them to their ends.
pub fn run(
    device: Box<dyn Executor>,
    clock: Box<dyn Clock>,
    policy: &str,
    config: &Config,
    arrivals: &[Arrival],
) -> Outcome {
    let mut engine = engine(device, clock, policy, config);
    let mut outcome = Outcome {
        tokens: vec![Vec::new(); arrivals.len()],
        reasons: vec![None; arrivals.len()],
        counters: Counters::default(),
    };
    let mut ids = vec![None; arrivals.len()];
    for step in 0..10_000 {
        for (at, arrival) in arrivals.iter().enumerate() {
            if arrival.at == step {
                let request = Request { user_data: at as u64, ..arrival.request.clone() };
                ids[at] = Some(engine.submit(request).unwrap());
            }
            if arrival.cancel == Some(step) && outcome.reasons[at].is_none() {
                ids[at].map(|id| engine.cancel(id));
            }
        }
        let report = engine.step().unwrap();
        for token in report.tokens {
            let tokens = &mut outcome.tokens[token.user_data as usize];
            tokens.push(token.token);
            assert_eq!(tokens.len(), token.index as usize, "every token comes once and in its order");
        }
        for ended in report.ended {
            let place = &mut outcome.reasons[ended.user_data as usize];
            assert_eq!(place.replace(ended.reason), None, "a request ends once");
        }
        engine.check();
        if engine.is_idle() && arrivals.iter().all(|a| a.at <= step) {
            outcome.counters = engine.counters();
            return outcome;
        }
    }
    panic!("10,000 steps do not end {config:?}");
}

/// Greedy, and each rule of sampling, some with penalties.
fn sampling(p: &mut Prng) -> SamplingParams {
    let plain = SamplingParams { temperature: 1.0, seed: p.bits(), ..SamplingParams::default() };
    match p.below(6) {
        0 | 1 => SamplingParams::default(),
        2 => plain,
        3 => SamplingParams { top_k: 20, top_p: 0.9, ..plain },
        4 => SamplingParams { temperature: 0.7, min_p: 0.05, presence_penalty: 0.5, ..plain },
        _ => SamplingParams { repetition_penalty: 1.3, frequency_penalty: 0.2, ..SamplingParams::default() },
    }
}

/// Requests of which half share their first 40 tokens.
pub fn arrivals(seed: u64, count: u32) -> Vec<Arrival> {
    let mut p = Prng::new(seed);
    let shared: Vec<u32> = (0..40).map(|_| p.below(256) as u32).collect();
    (0..count)
        .map(|_| {
            let own = (0..p.between(1, 60)).map(|_| p.below(256) as u32).collect::<Vec<_>>();
            let prompt = if p.chance(1, 2) { [shared.clone(), own].concat() } else { own };
            let max_tokens = Tokens(p.between(1, 50) as u32);
            let mut request = Request::new(Nanos::ZERO, Prompt::Tokens(prompt.into()), max_tokens);
            request.sampling = sampling(&mut p);
            request.priority = p.below(2) as u8;
            request.client = p.below(3) as u32;
            Arrival { request, at: p.below(30) as u32, cancel: None }
        })
        .collect()
}
