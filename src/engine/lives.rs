//! Random requests whose lives end in every way there is, on small machines, under every policy that needs no lengths:
//! each ends once, with every token that it got, and leaves nothing behind.

use super::tests::Faulty;
use super::*;
use crate::clock::VirtualClock;
use crate::config::{Preempt, SwapMode};
use crate::cost::Profile;
use crate::exec::sim::{EOS, Script, SimExecutor};
use crate::prng::Prng;
use crate::request::Slo;
use crate::sched::order;

const POLICIES: [&str; 10] = [
    "fcfs",
    "vllm",
    "sglang",
    "las:k=8",
    "mlfq",
    "vtc:groups=3",
    "edf",
    "andes",
    "uniboost:k=8:refit=4",
    "flyball:quantum=4:class=0.05",
];

/// What the client has seen of a request.
#[derive(Default)]
struct Life {
    id: RequestId,
    tokens: u32,
    limit: u32,
    deadline: Option<Nanos>,
    cancelled: bool,
    ended: Option<FinishReason>,
}

impl Life {
    fn end(&mut self, ended: &Ended) {
        assert_eq!(self.ended.replace(ended.reason), None, "it ends once");
        assert_eq!(Tokens(self.tokens), ended.generated, "it ends with what it got: {ended:?}");
        match ended.reason {
            FinishReason::Length => assert_eq!(self.tokens, self.limit),
            FinishReason::Cancelled => assert!(self.cancelled),
            FinishReason::Deadline => assert!(self.deadline.is_some_and(|at| at <= ended.at)),
            FinishReason::Stop | FinishReason::Failed => {}
            FinishReason::Rejected => panic!("nobody is refused who was accepted"),
        }
    }
}

fn machine(p: &mut Prng) -> Config {
    let seqs = p.between(1, 8) as u32;
    Config {
        kv_blocks: Blocks(p.between(24, 80) as u32),
        host_blocks: Blocks(*pick(p, &[0, 20, 400])),
        max_num_seqs: seqs,
        max_resident: seqs + p.below(8) as u32,
        max_num_batched_tokens: Tokens(*pick(p, &[16, 64, 512])),
        max_model_len: Tokens(300),
        prefix_cache: p.chance(1, 2),
        preempt: *pick(p, &[Preempt::Swap, Preempt::Recompute, Preempt::Auto]),
        swap: *pick(p, &[SwapMode::Serial, SwapMode::Overlap]),
        pipeline_depth: p.between(1, 2) as u8,
        ..Config::default()
    }
}

fn pick<'t, T>(p: &mut Prng, of: &'t [T]) -> &'t T {
    &of[p.below(of.len() as u64) as usize]
}

fn asked(p: &mut Prng, now: Nanos, number: u64) -> Request {
    let length = p.between(1, 150) as u32;
    let prompt = match p.chance(1, 3) {
        true => Prompt::Length(Tokens(length)),
        false => Prompt::Tokens((0..length).map(|i| i / 40 * p.below(2) as u32).collect()),
    };
    let later = |p: &mut Prng, share| p.chance(1, share).then(|| Nanos(p.below(2_000_000_000)));
    Request {
        priority: p.below(4) as u8,
        client: p.below(5) as u32,
        slo: Slo { ttft: later(p, 3), tbt: later(p, 6) },
        deadline: later(p, 8).map(|after| now + after),
        stop: StopTokens::new(&[EOS]).expect("one is not too many"),
        user_data: number,
        ..Request::new(now, prompt, Tokens(p.between(1, 90) as u32))
    }
}

/// Lives through one seed; how many ended for each reason.
fn live(seed: u64) -> Vec<FinishReason> {
    let mut p = Prng::new(seed);
    let (config, count) = (machine(&mut p), p.between(1, 60));
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new((0..count).map(|_| Tokens(p.between(1, 90) as u32)));
    let device = SimExecutor::new(clock.clone(), cost.clone(), script, seed);
    let mut draws = p.split(1);
    let device = Box::new(Faulty { device, fails: Box::new(move |_, _| draws.chance(1, 400)), lost: None });
    let policy = order::parse(POLICIES[seed as usize % POLICIES.len()], None).unwrap();
    let mut engine = Engine::new(config, policy, device, Box::new(clock.clone()), cost).unwrap();
    let mut lives: Vec<Life> = Vec::new();
    while (lives.len() as u64) < count || !engine.is_idle() {
        assert!(engine.counters().steps < 100_000, "it gets on");
        while (lives.len() as u64) < count && p.chance(1, 3) {
            let request = asked(&mut p, clock.now(), lives.len() as u64);
            let (limit, deadline) = (request.max_tokens.0, request.deadline);
            let id = engine.submit(request).unwrap();
            lives.push(Life { id, limit, deadline, ..Life::default() });
        }
        if !lives.is_empty() && p.chance(1, 30) {
            let life = pick(&mut p, &(0..lives.len()).collect::<Vec<_>>()).to_owned();
            assert_eq!(engine.cancel(lives[life].id), lives[life].ended.is_none() && !lives[life].cancelled);
            lives[life].cancelled = true;
        }
        let report = engine.step().unwrap();
        for token in report.tokens.iter() {
            let life = &mut lives[token.user_data as usize];
            assert!(life.ended.is_none(), "nothing comes after the end");
            life.tokens += 1;
            assert_eq!(token.index, life.tokens, "no token is lost and none comes twice");
        }
        report.ended.iter().for_each(|ended| lives[ended.user_data as usize].end(ended));
        engine.check();
    }
    assert_eq!(engine.gauges().kv_held, Blocks::ZERO, "nobody holds anything");
    lives.iter().map(|life| life.ended.expect("everybody ends")).collect()
}

/// A failure names its seed; `live(seed)` alone repeats it.
#[test]
fn every_life_ends_once_and_leaves_nothing_behind() {
    let mut ends = [0_u32; 6];
    for seed in 0..2_000 {
        let lived = std::panic::catch_unwind(|| live(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        lived.iter().for_each(|reason| ends[*reason as usize] += 1);
    }
    let reasons = [
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::Cancelled,
        FinishReason::Deadline,
        FinishReason::Failed,
    ];
    assert!(reasons.iter().all(|reason| ends[*reason as usize] > 100), "{ends:?}");
}
