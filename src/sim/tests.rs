//! A thousand seeded simulations with features drawn per run, and the claims that hold for all of them.
//!
//! A failure names its seed: `FLYBALL_SEED=n cargo test swarm` repeats that run alone.

use super::*;
use crate::config::{Preempt, SwapMode};
use crate::cost::Profile;
use crate::engine::Engine;
use crate::prng::Prng;
use crate::request::FinishReason;
use crate::units::Blocks;

const POLICIES: [&str; 22] = [
    "flyball:quantum=8",
    "flyball:quantum=2:limit=2:gap=0.01:c=0.1",
    "fcfs",
    "vllm",
    "sglang",
    "sjf",
    "srpt",
    "trail",
    "trail:noise=1:limit=0.3",
    "ltr:starve=5",
    "ltr:tau=0.5:quantum=3",
    "mlfq:starve=10",
    "vtc:groups=3",
    "edf:ttft=0.1:tbt=0.02",
    "andes:mark=0.5:interval=3",
    "oracle-boost",
    "oracle-srpt",
    "las:k=8",
    "uniboost:k=8:refit=4",
    "uniboost:memguard=off:signal=phase:gamma=0.1",
    "uniboost:k=8:admit=chunk:hysteresis=0:units=service-seconds:refit=4",
    "distboost:refit=4",
];

fn cost() -> CostModel {
    CostModel::new(&Profile::load("a100-llama-3-8b").unwrap())
}

/// A small machine under pressure, with features by chance.
fn swarm(seed: u64) -> (Setup, Vec<Arrival>) {
    let mut p = Prng::new(seed);
    let seqs = p.between(1, 12) as u32;
    let config = Config {
        block_size: Tokens(*pick(&mut p, &[4, 16])),
        kv_blocks: Blocks(p.between(24, 120) as u32),
        host_blocks: Blocks(*pick(&mut p, &[0, 20, 400])),
        max_num_seqs: seqs,
        max_resident: seqs + p.below(8) as u32,
        max_num_batched_tokens: Tokens(seqs.max(*pick(&mut p, &[16, 64, 512]))),
        max_model_len: Tokens(400),
        waiting_max: *pick(&mut p, &[8, 1000]),
        content_tokens_max: 1 << 20,
        prefix_cache: p.chance(1, 2),
        preempt: *pick(&mut p, &[Preempt::Swap, Preempt::Recompute, Preempt::Auto]),
        swap: *pick(&mut p, &[SwapMode::Serial, SwapMode::Overlap]),
        pipeline_depth: p.between(1, 2) as u8,
        ..Config::default()
    };
    let setup = Setup {
        config,
        policy: pick(&mut p, &POLICIES).to_string(),
        cost: cost(),
        believed: p.chance(1, 4).then(|| cost().scaled(0.3, 1.0)),
        gpus: p.between(1, 3) as u32,
        router: *pick(
            &mut p,
            &[Router::Random, Router::RoundRobin, Router::LeastWork, Router::PrefixAffinity],
        ),
        max_tokens: p.chance(1, 2).then(|| Tokens(p.between(1, 300) as u32)),
        host_step: Nanos(p.below(2) * 100_000),
        seed,
    };
    let arrivals = arrivals(&mut p);
    (setup, arrivals)
}

fn pick<'t, T>(p: &mut Prng, of: &'t [T]) -> &'t T {
    &of[p.below(of.len() as u64) as usize]
}

fn arrivals(p: &mut Prng) -> Vec<Arrival> {
    let gap = *pick(p, &[1_000_000, 20_000_000, 200_000_000]);
    let content = p.below(3);
    let mut at = 0;
    (0..p.between(1, 120))
        .map(|_| {
            at += p.below(gap);
            let length = p.between(1, 150) as u32;
            let prompt = match content {
                0 => Prompt::Length(Tokens(length)),
                1 => Prompt::Tokens((0..length).map(|i| i / 40 * p.below(2) as u32).collect()),
                _ => Prompt::Content {
                    length: Tokens(length),
                    granularity: Tokens(32),
                    ids: (0..length.div_ceil(32)).map(|i| u64::from(i) * 10 + p.below(2)).collect(),
                },
            };
            Arrival {
                at: Nanos(at),
                prompt,
                output: Tokens(p.between(1, 120) as u32),
                client: p.below(4) as u32,
                priority: p.below(2) as u8,
            }
        })
        .collect()
}

/// Checks the engine after every step, and that the decision came with its reasons.
struct Checker;

impl Observer for Checker {
    fn step(&mut self, _engine: usize, report: &StepReport<'_>, state: &Engine) {
        state.check();
        assert!(report.decision.rows() <= state.config().max_num_seqs as usize);
    }
}

fn run(setup: &Setup, arrivals: &[Arrival]) -> Outcome {
    simulate(setup, arrivals, &mut Checker).unwrap_or_else(|e| panic!("{e}"))
}

/// What must hold of any finished run.
fn verify(setup: &Setup, arrivals: &[Arrival], outcome: &Outcome) {
    let records = &outcome.metrics.records;
    assert_eq!(records.len(), arrivals.len(), "nothing is lost");
    let rejected = records.iter().filter(|r| r.reason == Some(FinishReason::Rejected)).count() as u64;
    assert_eq!(outcome.refusals.as_ref().map_or(0, |refusals| refusals.count), rejected);
    let longest = 400.min(setup.config.kv_blocks.0 * setup.config.block_size.0);
    for (record, arrival) in records.iter().zip(arrivals) {
        let room = longest.checked_sub(arrival.prompt.len().0).filter(|room| *room > 0);
        let limit = setup.max_tokens.map_or(u32::MAX, |t| t.0).min(room.unwrap_or(0));
        match record.reason.expect("every request ends with a reason") {
            FinishReason::Rejected => {
                assert!(room.is_none() || setup.config.waiting_max == 8, "refused for nothing")
            }
            FinishReason::Stop => assert_eq!(record.output, arrival.output),
            FinishReason::Length => assert!(record.output.0 == limit && limit <= arrival.output.0),
            other => panic!("nothing ends as {other:?} here"),
        }
        if record.output > Tokens::ZERO {
            assert!(arrival.at < record.first && record.first <= record.last, "{record:?}");
        }
    }
    let output: u64 = records.iter().map(|r| u64::from(r.output.0)).sum();
    let gaps: u64 = records.iter().map(|r| u64::from(r.output.0.saturating_sub(1))).sum();
    assert_eq!(outcome.metrics.tbt.total(), gaps, "one gap per token after the first");
    assert_eq!(outcome.metrics.output_tokens(), output, "no token comes twice or is lost");
}

#[test]
fn swarm_of_simulations_loses_nothing_and_keeps_every_invariant() {
    let seeds = match std::env::var("FLYBALL_SEED") {
        Ok(seed) => seed.parse().map(|s: u64| s..s + 1).expect("FLYBALL_SEED is a number"),
        Err(_) => 1..1001,
    };
    for seed in seeds {
        let (setup, arrivals) = swarm(seed);
        let result = std::panic::catch_unwind(|| verify(&setup, &arrivals, &run(&setup, &arrivals)));
        assert!(result.is_ok(), "repeat with: FLYBALL_SEED={seed} cargo test swarm");
    }
}

/// Everything that a client sees of a run.
fn tokens(setup: &Setup, arrivals: &[Arrival]) -> Vec<Vec<u32>> {
    struct Seen(Vec<Vec<u32>>);
    impl Observer for Seen {
        fn step(&mut self, _engine: usize, report: &StepReport<'_>, _state: &Engine) {
            for token in report.tokens {
                let seen = &mut self.0[token.user_data as usize];
                assert_eq!(seen.len() as u32 + 1, token.index, "tokens come in their order, each once");
                seen.push(token.token);
            }
        }
    }
    let mut seen = Seen(vec![Vec::new(); arrivals.len()]);
    simulate(setup, arrivals, &mut seen).unwrap();
    seen.0
}

#[test]
fn batching_depth_preemption_and_policy_change_no_token() {
    for seed in 1..60 {
        let (setup, arrivals) = swarm(seed);
        let config = Config { waiting_max: 1000, ..setup.config.clone() };
        let setup = Setup { config, ..setup };
        let base = tokens(&setup, &arrivals);
        for policy in POLICIES {
            for (depth, preempt) in [(1, Preempt::Swap), (2, Preempt::Recompute), (2, Preempt::Swap)] {
                let config = Config { pipeline_depth: depth, preempt, ..setup.config.clone() };
                let other = Setup { policy: policy.into(), config, gpus: 1, ..setup.clone() };
                assert_eq!(
                    tokens(&other, &arrivals),
                    base,
                    "seed {seed}, {policy}, depth {depth}, {preempt:?}"
                );
            }
        }
    }
}

/// A decision, and the requests that ended in its step.
type Step = (String, Vec<u64>);

/// Every step of a run.
fn steps(setup: &Setup, arrivals: &[Arrival]) -> Vec<Step> {
    struct Seen(Vec<Step>);
    impl Observer for Seen {
        fn step(&mut self, engine: usize, report: &StepReport<'_>, _state: &Engine) {
            let ended = report.ended.iter().map(|ended| ended.user_data).collect();
            self.0.push((format!("{engine} {} {:?}", report.now, report.decision), ended));
        }
    }
    let mut seen = Seen(Vec::new());
    simulate(setup, arrivals, &mut seen).unwrap();
    seen.0
}

/// The policies that are given no lengths, and those that are.
fn blind_and_clairvoyant() -> (Vec<&'static str>, Vec<&'static str>) {
    POLICIES.into_iter().partition(|policy| order::parse(policy, None).is_ok())
}

/// Whether a policy decides otherwise where some requests are longer, before the first of them would have ended.
/// Longer are all requests, or the half that ends last, or the very last: then the run is compared nearly to its end.
fn sees_lengths(policy: &str, seed: u64) -> bool {
    let (setup, arrivals) = swarm(seed);
    let setup = Setup { policy: policy.into(), gpus: 1, ..setup };
    let base = steps(&setup, &arrivals);
    let ends: Vec<u64> = base.iter().flat_map(|(_, ended)| ended).copied().collect();
    [0, ends.len() / 2, ends.len().saturating_sub(1)].into_iter().any(|first| {
        let changed = &ends[first..];
        let other = steps(&setup, &lengthened(&arrivals, changed, seed));
        // The step with which one of them ends was decided before.
        let ends_one = |(_, ended): &Step| ended.iter().any(|request| changed.contains(request));
        let decided = |run: &[Step]| run.iter().position(ends_one).map_or(run.len(), |at| at + 1);
        let compared = decided(&base).min(decided(&other));
        base[..compared].iter().zip(&other).any(|(a, b)| a.0 != b.0)
    })
}

/// The arrivals with longer outputs for some, each by another number of tokens, so that their order changes as well.
fn lengthened(arrivals: &[Arrival], changed: &[u64], seed: u64) -> Vec<Arrival> {
    let mut p = Prng::new(seed);
    let mut longer = arrivals.to_vec();
    changed.iter().for_each(|request| longer[*request as usize].output += Tokens(p.between(1, 90) as u32));
    longer
}

#[test]
fn a_blind_policy_decides_alike_until_a_request_of_another_length_ends() {
    let (blind, _) = blind_and_clairvoyant();
    for (seed, policy) in (1..200).zip(blind.into_iter().cycle()) {
        assert!(!sees_lengths(policy, seed), "{policy}, seed {seed}");
    }
}

#[test]
fn a_policy_that_is_told_lengths_is_seen_to_use_them() {
    let (_, clairvoyant) = blind_and_clairvoyant();
    for policy in clairvoyant {
        assert!((1..60).any(|seed| sees_lengths(policy, seed)), "{policy}");
    }
}

#[test]
fn every_policy_is_in_the_swarm() {
    let named = |name: &&str| POLICIES.iter().any(|spec| spec.split(':').next() == Some(name));
    assert!(order::NAMES.iter().all(named));
}

/// Times in the orders of policies once ran out of bits: a trace of 298 years stopped half of them.
#[test]
#[cfg(feature = "cli")]
fn every_policy_runs_a_trace_as_long_as_a_trace_may_be() {
    let arrival =
        |at| Arrival { at, prompt: Prompt::Length(Tokens(9)), output: Tokens(9), client: 0, priority: 0 };
    let last = crate::trace::SPAN_MAX;
    let arrivals = [Nanos::ZERO, last, last].map(arrival);
    for policy in POLICIES {
        let (setup, _) = swarm(1);
        let setup = Setup { policy: policy.into(), gpus: 1, max_tokens: None, ..setup };
        verify(&setup, &arrivals, &run(&setup, &arrivals));
    }
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 1..40 {
        let (setup, arrivals) = swarm(seed);
        assert_eq!(steps(&setup, &arrivals), steps(&setup, &arrivals), "seed {seed}");
    }
}

#[test]
fn first_come_first_served_admits_in_order_and_finishes_equal_jobs_in_order() {
    for seed in 1..100 {
        let (mut setup, mut arrivals) = swarm(seed);
        (setup.policy, setup.gpus) = ("fcfs".into(), 1);
        setup.config.waiting_max = 1000;
        // Beside the kernels, one that comes back loses a step to one that is new.
        setup.config.swap = SwapMode::Serial;
        arrivals.iter_mut().for_each(|a| a.prompt = Prompt::Length(Tokens(20)));
        let outcome = run(&setup, &arrivals);
        let firsts: Vec<Nanos> = outcome.metrics.records.iter().map(|r| r.first).collect();
        assert!(
            firsts.is_sorted(),
            "seed {seed}: first tokens come in order of arrival: {firsts:?} {:?}",
            setup.config
        );
    }
}

#[test]
fn more_engines_share_the_work_and_a_longer_host_step_costs_time() {
    let (mut setup, arrivals) = swarm(3);
    setup.config.waiting_max = 1000;
    (setup.policy, setup.gpus, setup.router) = ("fcfs".into(), 1, Router::LeastWork);
    let mean = |setup: &Setup| {
        let records = run(setup, &arrivals).metrics.records;
        records.iter().filter_map(|r| r.ttlt()).map(|t| t.as_secs_f64()).sum::<f64>() / records.len() as f64
    };
    let one = mean(&setup);
    assert!(mean(&Setup { gpus: 3, ..setup.clone() }) < one);
    assert!(mean(&Setup { host_step: Nanos::from_millis(5), ..setup.clone() }) > one);
}
