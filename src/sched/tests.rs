//! Policies to come, sketched against the interface: it must carry them without change.
//!
//! An express lane with a credit (groups with gates and headroom, protected rows), fences on bins of
//! attained tokens, a counter per client (offsets of groups), and a power budget that trims another
//! policy's decision. Each sketch drives the production engine and must show its effect.

use super::*;
use crate::clock::{Clock, VirtualClock};
use crate::config::Config;
use crate::cost::{CostModel, Profile};
use crate::engine::Engine;
use crate::exec::sim::{EOS, Script, SimExecutor};
use crate::ids::GroupId;
use crate::request::{Prompt, Request, StopTokens};
use crate::units::Blocks;

const LANE: GroupId = GroupId(1);
const MAIN: GroupId = GroupId(0);

/// One request of a test: client, prompt, output.
type Ask = (u32, u32, u32);

fn config() -> Config {
    let max_num_batched_tokens = Tokens(64);
    Config {
        kv_blocks: Blocks(64),
        host_blocks: Blocks(256),
        max_num_seqs: 4,
        max_resident: 8,
        max_num_batched_tokens,
        ..Config::default()
    }
}

/// Runs requests that all wait from the start; returns when each ended, by request, and how often rows
/// were evicted.
fn run(policy: Box<dyn Policy>, config: Config, asks: &[Ask]) -> (Vec<Nanos>, u64) {
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new(asks.iter().map(|a| Tokens(a.2)));
    let executor = Box::new(SimExecutor::new(clock.clone(), cost.clone(), script, 1));
    let mut engine = Engine::new(config, policy, executor, Box::new(clock.clone()), cost).unwrap();
    for (number, (client, prompt, _)) in asks.iter().enumerate() {
        let mut request = Request::new(clock.now(), Prompt::Length(Tokens(*prompt)), Tokens(1000));
        (request.client, request.user_data) = (*client, number as u64);
        request.stop = StopTokens::new(&[EOS]).unwrap();
        engine.submit(request).unwrap();
    }
    let mut ends = vec![Nanos::ZERO; asks.len()];
    while !engine.is_idle() {
        let report = engine.step().unwrap();
        assert!(report.plan.is_some() || report.settled.is_some(), "a busy engine gets on");
        report.ended.iter().for_each(|e| ends[e.user_data as usize] = e.at);
        engine.check();
    }
    let counters = engine.counters();
    (ends, counters.swaps + counters.recomputes)
}

/// Newcomers with short prompts stand in the lane too, and are protected for their first tokens; the
/// lane is open while it has credit.
struct Lane {
    credit: i64,
    quantum: u32,
}

impl Policy for Lane {
    fn name(&self) -> &str {
        "lane-sketch"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(MAIN, job.id.number() as i64);
        if job.generated == Tokens::ZERO && job.prompt < Tokens(32) {
            places.push(LANE, i64::from(job.prompt.0));
        }
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(job.id.number() as i64)
    }

    fn groups(&mut self, view: &mut View<'_>) {
        let headroom = view.share_of_pool(200);
        view.waiting.set_group(MAIN, 0, true, headroom);
        // Far before everybody else, and shut without credit.
        view.waiting.set_group(LANE, i64::MIN / 2, self.credit > 0, Blocks::ZERO);
    }

    fn protects(&self, row: &Resident) -> bool {
        row.generated() > 0 && row.generated() < self.quantum
    }

    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Admitted(job) if job.prompt < Tokens(32) => self.credit -= i64::from(job.prompt.0),
            Event::Timed(_, span) => self.credit += (span.0 / 1_000_000) as i64,
            _ => {}
        }
    }
}

fn long_then_short() -> Vec<Ask> {
    let long = (0..8).map(|_| (0, 100, 60));
    long.chain((0..4).map(|_| (0, 10, 3))).collect()
}

fn last_short(ends: &[Nanos]) -> Nanos {
    *ends[8..].iter().max().unwrap()
}

#[test]
fn lane_gives_short_newcomers_their_first_tokens_before_those_ahead() {
    let lane = |credit| Box::new(Lane { credit, quantum: 8 });
    let (with, _) = run(lane(1000), config(), &long_then_short());
    let (without, _) = run(lane(i64::MIN / 2), config(), &long_then_short());
    assert!(last_short(&with) < with[..8].iter().copied().min().unwrap(), "all short ones end first");
    assert!(last_short(&without).0 > 2 * last_short(&with).0, "without credit they wait their turn");
}

/// Least attained service on bins, where whoever was dispatched stays until its next bin.
struct Fenced {
    fences: bool,
}

impl Policy for Fenced {
    fn name(&self) -> &str {
        "fence-sketch"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(MAIN, self.rank(job).value);
    }

    fn rank(&mut self, job: &Job) -> Rank {
        let bin = job.generated.0 / 16;
        Rank { value: i64::from(bin) << 32 | job.id.number() as i64, until: (bin + 1) * 16, mark: 0 }
    }

    /// Behind its first token and before the end of its bin.
    fn protects(&self, row: &Resident) -> bool {
        self.fences && !row.generated().is_multiple_of(16) && row.generated() + 16 > row.rerank_at
    }
}

#[test]
fn fences_protect_the_dispatched_and_memory_still_overrides_them() {
    let asks: Vec<Ask> = (0..12).map(|i| (0, 60 + i, 100)).collect();
    let tight = Config { kv_blocks: Blocks(16), ..config() };
    let (ends, evictions) = run(Box::new(Fenced { fences: true }), tight.clone(), &asks);
    let (free_ends, free_evictions) = run(Box::new(Fenced { fences: false }), tight, &asks);
    assert!(ends.iter().chain(&free_ends).all(|end| *end > Nanos::ZERO), "all are served");
    assert!(evictions > 0 && free_evictions > 0, "memory is short in both: {evictions}, {free_evictions}");
}

/// Virtual token counters: a group per client, whose offset is what the client was served.
struct Counters {
    served: [i64; 4],
}

impl Policy for Counters {
    fn name(&self) -> &str {
        "vtc-sketch"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(GroupId(job.client as u16), job.id.number() as i64);
    }

    fn groups(&mut self, view: &mut View<'_>) {
        for (client, served) in self.served.iter().enumerate() {
            view.waiting.set_group(GroupId(client as u16), *served, true, Blocks::ZERO);
        }
    }

    fn preempts(&self) -> bool {
        false
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Admitted(job) = event {
            self.served[job.client as usize] += 1000 * i64::from(job.prompt.0);
        }
    }
}

#[test]
fn counters_share_the_machine_between_a_flood_and_a_trickle() {
    let flood = (0..40).map(|_| (0, 20, 10));
    let asks: Vec<Ask> = flood.chain((0..5).map(|_| (1, 20, 10))).collect();
    let (fair, _) = run(Box::new(Counters { served: [0; 4] }), config(), &asks);
    let (fcfs, _) = run(order::parse("fcfs", None).unwrap(), config(), &asks);
    let last = |ends: &[Nanos]| *ends[40..].iter().max().unwrap();
    assert!(last(&fair).0 * 2 < last(&fcfs).0, "the trickle does not wait behind the flood");
}

/// A budget that trims whatever another policy decides.
struct Capped<P> {
    inner: P,
    tokens: u32,
    applied_max: u32,
}

impl<P: Policy> Policy for Capped<P> {
    fn name(&self) -> &str {
        "cap-sketch"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        self.inner.place(job, places);
    }

    fn decide(&mut self, view: &mut View<'_>, decision: &mut Decision) {
        self.inner.decide(view, decision);
        let mut left = self.tokens;
        for run in &mut decision.run {
            run.tokens = run.tokens.min(left);
            left -= run.tokens;
        }
        let cut = decision.run.iter().filter(|r| r.tokens == 0);
        let cut: Vec<Park> = cut.map(|r| Park { slot: r.slot, reason: Reason::PowerCap }).collect();
        decision.run.retain(|r| r.tokens > 0);
        decision.park.extend(cut);
        decision.admit.retain_mut(|admit| {
            admit.tokens = admit.tokens.min(left);
            left -= admit.tokens;
            admit.tokens > 0
        });
        decision.pause = Some(Pause { span: Nanos(500_000), reason: Reason::PowerCap });
    }

    fn on(&mut self, event: &Event<'_>) {
        if let Event::Applied(decision) = event {
            self.applied_max = self.applied_max.max(decision.tokens());
            assert!(self.applied_max <= self.tokens, "the policy hears what was left of its decision");
        }
        self.inner.on(event);
    }
}

#[test]
fn a_budget_trims_a_decision_and_everybody_is_served_later() {
    let asks: Vec<Ask> = (0..6).map(|_| (0, 80, 20)).collect();
    let capped = |tokens| {
        let inner = order::Fcfs::default();
        run(Box::new(Capped { inner, tokens, applied_max: 0 }), config(), &asks).0
    };
    let (tight, loose) = (capped(8), capped(64));
    assert!(tight.iter().all(|end| *end > Nanos::ZERO));
    assert!(tight.iter().max() > loose.iter().max(), "less per step takes longer");
}

#[test]
fn unsound_decisions_are_refused_before_anything_changes() {
    struct Unsound;
    impl Policy for Unsound {
        fn name(&self) -> &str {
            "unsound"
        }
        fn place(&mut self, _job: &Job, places: &mut Places) {
            places.push(MAIN, 0);
        }
        fn decide(&mut self, _view: &mut View<'_>, decision: &mut Decision) {
            decision.clear();
            decision.run.push(Run { slot: Slot(0), tokens: 1, reason: Reason::Decode });
        }
    }
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let executor = Box::new(SimExecutor::new(clock.clone(), cost.clone(), Script::default(), 1));
    let mut engine = Engine::new(config(), Box::new(Unsound), executor, Box::new(clock), cost).unwrap();
    let error = engine.step().unwrap_err().to_string();
    assert!(error.contains("unsound") && error.contains("row 0 cannot run 1 tokens"), "{error}");
    assert!(engine.step().unwrap_err().to_string().contains("failed"), "the engine is poisoned");
}

/// First come first served, where residents of about the same rank are equal as victims.
struct Slack(i64);

impl Policy for Slack {
    fn name(&self) -> &str {
        "slack-sketch"
    }

    fn place(&mut self, job: &Job, places: &mut Places) {
        places.push(MAIN, job.id.number() as i64);
    }

    fn rank(&mut self, job: &Job) -> Rank {
        Rank::fixed(job.id.number() as i64)
    }

    fn victim_slack(&self) -> i64 {
        self.0
    }
}

#[test]
fn of_equal_victims_the_one_cheapest_to_restore_per_block_goes() {
    let first_victim = |slack| {
        let clock = VirtualClock::new();
        let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
        let script = Script::new([Tokens(60); 3]);
        let executor = Box::new(SimExecutor::new(clock.clone(), cost.clone(), script, 1));
        let tight = Config { kv_blocks: Blocks(14), max_num_batched_tokens: Tokens(512), ..config() };
        let mut engine = Engine::new(tight, Box::new(Slack(slack)), executor, Box::new(clock), cost).unwrap();
        // When the first one needs its fourth block, the second has 113 tokens in 8, the third 47 in 3.
        for prompt in [33, 98, 32] {
            let request = Request::new(Nanos::ZERO, Prompt::Length(Tokens(prompt)), Tokens(60));
            engine.submit(request).unwrap();
        }
        loop {
            if let Some(evict) = engine.step().unwrap().decision.evict.first() {
                return evict.slot;
            }
        }
    };
    assert_eq!(first_victim(0), Slot(2), "the last one");
    assert_eq!(first_victim(1), Slot(2), "ranks one apart are not equal");
    assert_eq!(first_victim(2), Slot(1), "fewer tokens per block");
}

/// Requests under `uniboost` with bins of 16 tokens on a small machine: evictions at a threshold, and those
/// that override a fence.
fn fences(spec: &str, kv_blocks: u32) -> (usize, usize) {
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new((0..20).map(|i| Tokens(60 + 7 * i)));
    let executor = Box::new(SimExecutor::new(clock.clone(), cost.clone(), script, 1));
    let policy = order::parse(spec, None).unwrap();
    let config = Config { kv_blocks: Blocks(kv_blocks), ..config() };
    let mut engine = Engine::new(config, policy, executor, Box::new(clock.clone()), cost).unwrap();
    for number in 0..20 {
        let mut request = Request::new(clock.now(), Prompt::Length(Tokens(40)), Tokens(1000));
        (request.user_data, request.stop) = (number, StopTokens::new(&[EOS]).unwrap());
        engine.submit(request).unwrap();
    }
    let (mut generated, mut at_threshold, mut overrides) = ([0; 8], 0, 0);
    let threshold = |tokens: u32| tokens >= 32 && tokens.is_power_of_two();
    while !engine.is_idle() {
        let report = engine.step().unwrap();
        for evict in &report.decision.evict {
            match evict.reason {
                Reason::Override => overrides += 1,
                _ => {
                    at_threshold += 1;
                    assert!(
                        threshold(generated[evict.slot.index()]),
                        "whoever was dispatched stays until 2w"
                    );
                }
            }
        }
        report.tokens.iter().for_each(|t| generated[t.slot.index()] = t.index);
    }
    assert_eq!(engine.counters().overrides, overrides as u64);
    (at_threshold, overrides)
}

#[test]
fn uniboost_keeps_the_dispatched_until_their_threshold_and_overrides_when_nothing_else_can_go() {
    let (at_threshold, overrides) = fences("uniboost:k=16:gamma=0.1", 16);
    assert!(at_threshold > 0 && overrides > 0, "{at_threshold}, {overrides}");
    assert_eq!(fences("uniboost:k=16:gamma=0.1", 64).1, 0, "with memory for all nothing is overridden");
    let (_, overrides) = fences("uniboost:k=16:gamma=0.1:admit=chunk", 16);
    assert!(overrides > 0, "prefills that block each other override too");
}

#[test]
fn names_and_parameters_are_checked() {
    let error = |spec: &str| order::parse(spec, None).err().unwrap().to_string();
    assert!(error("lifo").contains("known are flyball, fcfs"));
    assert!(error("las:k=zero").contains("k=zero must be a number"));
    assert!(error("las:q=3").contains("no parameter \"q\""));
    assert!(error("srpt").contains("true output lengths"));
    assert!(error("uniboost:memguard=no").contains("memguard=no must be one of on, bins, off"));
    assert!(error("uniboost:gamma=-1").contains("gamma=-1 must be a number"));
    assert!(error("uniboost:units=service-seconds:signal=processed").contains("counts differently"));
    assert!(error("distboost:k=256").contains("no parameter \"k\""));
    assert_eq!(order::parse("las:k=64", None).unwrap().name(), "las:k=64");
}
