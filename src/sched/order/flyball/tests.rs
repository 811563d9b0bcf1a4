//! What classes, targets and deadlines do, and within which bounds.

use super::super::gamma::tests::job;
use super::*;
use crate::clock::{Clock, VirtualClock};
use crate::config::Config;
use crate::cost::{CostModel, Profile};
use crate::engine::Engine;
use crate::exec::sim::{Script, SimExecutor};
use crate::request::{Prompt, Request, Slo};
use crate::sched::order;

const SECOND: i64 = 1_000_000_000;

fn flyball(parameters: &str) -> Flyball {
    let mut params = Params::new(&format!("flyball{parameters}")).unwrap();
    let mut flyball = Flyball::new(&mut params).unwrap();
    flyball.traffic.prime(50_000.0, Nanos(50_000_000), 100);
    flyball
}

#[test]
fn a_lower_class_counts_as_later() {
    let flyball = flyball(":class=20");
    let first = flyball.value(&job(100, 0));
    assert_eq!(flyball.value(&Job { priority: 2, ..job(100, 0) }) - first, 40 * SECOND);
}

#[test]
fn a_deadline_pulls_forward_by_a_class_at_most() {
    let flyball = flyball("");
    let arrival = Nanos(100 * SECOND as u64);
    let with = |deadline: i64| {
        let due = Some(Nanos(deadline as u64));
        flyball.value(&Job { arrival, deadline: due, ..job(100, 0) }) - arrival.0 as i64
    };
    // A mean job takes 512 steps of 50 ms: 25.6 s, and its prompt 5 ms.
    assert_eq!(with(1_000 * SECOND), 0, "a deadline far away changes nothing");
    assert_eq!(with(115 * SECOND), 15 * SECOND - 25_605_000_000, "due when it must start");
    assert_eq!(with(91 * SECOND), -30 * SECOND, "and never further than a class");
}

#[test]
fn a_first_token_target_counts_until_the_first_token() {
    let flyball = flyball("");
    let slo = Slo { ttft: Some(Nanos(1)), tbt: None };
    assert!(flyball.value(&Job { slo, ..job(10_000, 0) }) < 0);
    assert_eq!(flyball.value(&Job { slo, ..job(10_000, 1) }), 0);
}

#[test]
fn a_first_token_target_lifts_the_limit_and_not_the_credit() {
    let candidate = |ttft| Candidate {
        job: Job { slo: Slo { ttft, tbt: None }, ..job(100_000, 0) },
        group: lanes(0)[usize::from(ttft.is_some())],
        key: FIRST,
        headroom: crate::units::Blocks::ZERO,
    };
    let mut flyball = flyball("");
    flyball.lane.refill(flyball.traffic.mean_job_ns());
    assert_eq!(flyball.accepts(&candidate(None)), None, "ten seconds of prefill are not small");
    let asked = candidate(Some(Nanos(SECOND as u64)));
    assert_eq!(flyball.accepts(&asked), Some(Reason::Lane));
    assert_eq!(flyball.accepts(&asked), None, "the first one has spent the credit");
}

/// Steps to the first token of a request that comes with one that is too large for the lane, which is before it, and
/// finds residents that fill the batch.
fn steps_to_first_token(large: Request, other: Request) -> u64 {
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new([400, 400, 400, 40, 40].map(Tokens));
    let device = Box::new(SimExecutor::new(clock.clone(), cost.clone(), script, 1));
    let policy = order::parse("flyball:quantum=16", None).unwrap();
    let two = Config { max_num_seqs: 2, ..Config::default() };
    let mut engine = Engine::new(two, policy, device, Box::new(clock.clone()), cost).unwrap();
    // The first one ends and is the mean job; the residents are past their quantum when the two come.
    for (user_data, request) in [asked(10), asked(10), asked(10), large, other].into_iter().enumerate() {
        let steps = [0, 401, 0, 100, 0][user_data];
        (0..steps).for_each(|_| assert!(engine.step().is_ok()));
        engine.submit(Request { arrival: clock.now(), user_data: user_data as u64, ..request }).unwrap();
    }
    let begun = engine.counters().steps;
    loop {
        let report = engine.step().unwrap();
        if report.tokens.iter().any(|token| token.user_data == 4) {
            return report.step - begun;
        }
    }
}

fn asked(prompt: u32) -> Request {
    Request::new(Nanos::ZERO, Prompt::Length(Tokens(prompt)), Tokens(400))
}

#[test]
fn who_is_too_large_for_the_lane_shuts_it_for_no_lower_class() {
    let chat = || Request { priority: 1, ..asked(20) };
    assert_eq!(steps_to_first_token(asked(60_000), chat()), 1);
    assert!(steps_to_first_token(asked(60_000), asked(60_000)) > 50, "the lane takes nobody of this size");
}

#[test]
fn who_is_too_large_for_the_lane_shuts_it_for_nobody_with_a_target() {
    let slo = Slo { ttft: Some(Nanos(SECOND as u64)), tbt: None };
    let longer = Request { slo, ..asked(60_001) };
    let steps = steps_to_first_token(asked(60_000), longer);
    assert!(steps <= 60, "its chunks come at once: {steps}");
    assert!(steps_to_first_token(asked(60_000), asked(60_001)) > 100, "without a target it waits");
}

#[test]
fn who_does_not_fit_through_the_lane_shuts_it_for_all() {
    let mut flyball = flyball("");
    flyball.lane.refill(flyball.traffic.mean_job_ns());
    let candidate = |class: u8, group| Candidate {
        job: Job { priority: class, slo: Slo { ttft: Some(Nanos(1)), tbt: None }, ..job(20, 0) },
        group,
        key: FIRST,
        headroom: Blocks::ZERO,
    };
    let (first, second) = (candidate(0, lanes(0)[1]), candidate(1, lanes(1)[1]));
    assert!(!flyball.holds_up(&candidate(0, ALL)) && flyball.accepts(&second).is_some());
    assert!(!flyball.holds_up(&first), "who stands in the order still may");
    assert_eq!(flyball.accepts(&second), None);
}

#[test]
fn latencies_that_are_all_alike_say_nothing_of_the_boost() {
    let mut flyball = flyball("");
    let finish = |flyball: &mut Flyball, i: u64, latency: u64| {
        let long = job(10 + 20 * (i as u32 * 37 % 1_000), 100);
        flyball.finished(&long, Nanos(latency));
    };
    (0..1_000).for_each(|i| finish(&mut flyball, i, SECOND as u64));
    assert_eq!(flyball.epoch(), 0, "nobody passes anybody");
    (0..1_000).for_each(|i| finish(&mut flyball, i, i * SECOND as u64));
    let lead = flyball.value(&job(10_000, 0)) - flyball.value(&job(100, 0));
    assert!(lead > SECOND, "what came before is no burden: {lead}");
}

/// By how much a prompt of 100 tokens counts as earlier than one of 10,000, after these prompts and outputs.
fn lead_of_the_short(job_of: impl Fn(u32) -> (u32, u32)) -> i64 {
    let mut flyball = flyball("");
    for i in 0..2_000 {
        let (prompt, output) = job_of(i * 37 % 1_000);
        flyball.finished(&job(prompt, output), Nanos(u64::from(i) * SECOND as u64));
    }
    flyball.value(&job(10_000, 0)) - flyball.value(&job(100, 0))
}

#[test]
fn prompts_that_tell_nothing_pass_nobody() {
    assert_eq!(lead_of_the_short(|i| (100 + i % 50, 1_000 + 7 * i)), 0, "outputs are all the work");
    assert!(lead_of_the_short(|i| (10 + 20 * i, 100)) > SECOND, "prompts are all the work");
}

/// Steps of a long prompt beside a decode, with or without a bound on the gaps; the longest that the
/// decode saw.
fn longest_gap(tbt: Option<Nanos>) -> Nanos {
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new([400, 2].map(Tokens));
    let device = Box::new(SimExecutor::new(clock.clone(), cost.clone(), script, 1));
    let policy = order::parse("flyball", None).unwrap();
    let mut engine = Engine::new(Config::default(), policy, device, Box::new(clock.clone()), cost).unwrap();
    let mut ask = |user_data, prompt, slo| {
        let mut request = Request::new(clock.now(), Prompt::Length(Tokens(prompt)), Tokens(400));
        (request.user_data, request.slo) = (user_data, slo);
        engine.submit(request).unwrap();
        engine.step().unwrap();
    };
    ask(0, 10, Slo { ttft: None, tbt });
    ask(1, 6_000, Slo::default());
    let mut longest = Nanos::ZERO;
    for _ in 0..300 {
        let before = clock.now();
        engine.step().unwrap();
        longest = longest.max(clock.now().saturating_sub(before));
    }
    longest
}

#[test]
fn a_gap_target_bounds_the_steps_beside_it() {
    let target = Nanos(25_000_000);
    assert!(longest_gap(None) > Nanos(60_000_000), "1,024 tokens take longer than 60 ms");
    let bounded = longest_gap(Some(target));
    assert!(bounded <= target, "{bounded:?}");
}
