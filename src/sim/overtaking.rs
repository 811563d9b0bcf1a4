//! How much of the machine later arrivals took while a request had nothing: the promise of `flyball`,
//! measured for every request on every step.

use super::*;
use crate::cost::Profile;
use crate::prng::Prng;
use crate::units::Blocks;

/// Share of the machine of the lane, as configured.
const SHARE: f64 = 0.25;
/// Mean jobs that the lane's credit holds.
const BURST: f64 = 10.0;

/// What one request went through, in ns.
#[derive(Clone, Copy, Debug, Default)]
struct Ordeal {
    /// Time without a token of its own.
    wait: f64,
    /// Machine time that later arrivals got in that time.
    overtaken: f64,
}

/// Splits each step's time over its rows, and charges what later arrivals got to whoever had nothing.
struct Watch {
    arrivals: Vec<Nanos>,
    ordeals: Vec<Ordeal>,
    ended: Vec<bool>,
    /// Machine time of each request in the last step.
    served: Vec<f64>,
    last: Nanos,
}

impl Watch {
    fn new(arrivals: &[Arrival]) -> Self {
        let n = arrivals.len();
        Self {
            arrivals: arrivals.iter().map(|a| a.at).collect(),
            ordeals: vec![Ordeal::default(); n],
            ended: vec![false; n],
            served: vec![0.0; n],
            last: Nanos::ZERO,
        }
    }

    fn charge(&mut self, start: Nanos, span: f64) {
        let mut later = 0.0;
        for request in (0..self.arrivals.len()).rev() {
            if self.ended[request] || self.arrivals[request] > start {
                continue;
            }
            if self.served[request] == 0.0 {
                self.ordeals[request].wait += span;
                self.ordeals[request].overtaken += later;
            }
            later += self.served[request];
        }
    }
}

impl Observer for Watch {
    fn step(&mut self, _engine: usize, report: &StepReport<'_>, _state: &Engine) {
        let Some(plan) = report.plan else { return };
        let span = report.outcome.finished.saturating_sub(report.now).0 as f64;
        let weight = |tokens: u32| if tokens > 1 { 0.1 * f64::from(tokens) } else { 1.0 };
        let total: f64 = plan.rows.iter().map(|row| weight(row.tokens)).sum();
        self.served.fill(0.0);
        for row in &plan.rows {
            self.served[row.user_data as usize] += span * weight(row.tokens) / total;
        }
        self.charge(report.now, span);
        self.last = report.outcome.finished;
        report.ended.iter().for_each(|ended| self.ended[ended.user_data as usize] = true);
    }
}

/// A stream of requests that asks for more than the machine has.
struct Stream {
    /// Mean time between arrivals, in seconds.
    gap: f64,
    /// How many of ten requests are short.
    short: u64,
    /// Bounds of prompts, of short outputs and of long ones.
    prompt: (u64, u64),
    chat: (u64, u64),
    long: (u64, u64),
}

/// Chats alone ask for more than the lane's share.
const FLOOD: Stream = Stream { gap: 0.14, short: 9, prompt: (30, 400), chat: (10, 250), long: (900, 6_000) };
/// Nearly all are long, and the lane's first quanta are a small part of them.
const REASONING: Stream =
    Stream { gap: 1.6, short: 3, prompt: (30, 400), chat: (10, 250), long: (900, 6_000) };
/// The prompt is the work, and the boost sees it.
const CODE: Stream = Stream { gap: 0.05, short: 5, prompt: (50, 7_000), chat: (2, 20), long: (20, 80) };

fn arrivals(stream: &Stream, n: usize) -> Vec<Arrival> {
    let mut p = Prng::new(7);
    let mut at = 0.0;
    let request = |_| {
        at += p.exponential() * stream.gap;
        let (low, high) = if p.chance(stream.short, 10) { stream.chat } else { stream.long };
        Arrival {
            at: Nanos::from_secs_f64(at),
            prompt: Prompt::Length(Tokens(p.between(stream.prompt.0, stream.prompt.1) as u32)),
            output: Tokens(p.between(low, high) as u32),
            client: 0,
            priority: 0,
        }
    };
    (0..n).map(request).collect()
}

/// The largest excess of what anybody was overtaken by over the lane's share of his wait and its burst,
/// in mean jobs.
fn excess(policy: &str, stream: &Stream) -> f64 {
    let arrivals = arrivals(stream, 1_200);
    let config = Config {
        kv_blocks: Blocks(4_000),
        host_blocks: Blocks(100_000),
        max_num_seqs: 32,
        max_resident: 64,
        waiting_max: 2_000,
        ..Config::default()
    };
    let setup = Setup {
        config,
        policy: policy.into(),
        cost: CostModel::new(&Profile::load("a100-llama-3-8b").unwrap()),
        believed: None,
        gpus: 1,
        router: Router::RoundRobin,
        max_tokens: None,
        host_step: Nanos::ZERO,
        seed: 1,
    };
    let mut watch = Watch::new(&arrivals);
    simulate(&setup, &arrivals, &mut watch).unwrap();
    let job = watch.last.0 as f64 / arrivals.len() as f64;
    let beyond = |o: &Ordeal| (o.overtaken - SHARE * o.wait) / job - BURST;
    watch.ordeals.iter().map(beyond).fold(f64::MIN, f64::max)
}

/// The bound of `docs/scheduling.md` without its last term: here even the boost stays within the burst.
#[test]
fn nobody_is_overtaken_beyond_the_share_and_the_burst() {
    for stream in [FLOOD, REASONING, CODE] {
        for policy in ["flyball", "flyball:c=0.3", "flyball:c=1000", "fcfs"] {
            let excess = excess(policy, &stream);
            assert!(excess <= 0.0, "{policy}: {excess} mean jobs beyond the bound");
        }
    }
}

#[test]
fn without_a_share_and_a_limit_the_lane_breaks_the_bound() {
    for stream in [FLOOD, CODE] {
        let excess = excess("flyball:share=1:limit=1000", &stream);
        assert!(excess > 50.0, "the mutant is caught: {excess} mean jobs");
    }
    assert!(excess("las", &REASONING) > 50.0, "so is a policy that promises nothing");
}
