//! Records are written in memory by small simulations, and replayed.

use super::*;
use crate::clock::{Clock, VirtualClock};
use crate::config::Preempt;
use crate::engine::Engine;
use crate::error::SubmitError;
use crate::exec::sim::{Script, SimExecutor};
use crate::prng::Prng;
use crate::request::Prompt;
use crate::sched::order;
use crate::sim::{Arrival, Router, Setup, simulate};
use crate::units::{Blocks, Milliwatts};

const PROFILE: &str = "h200-llama-3-8b";

fn header(setup: &Setup, arrivals: &[Arrival]) -> Header {
    let clairvoyant = order::parse(&setup.policy, None).is_err();
    Header {
        schema: SCHEMA.into(),
        version: VERSION.into(),
        policy: setup.policy.clone(),
        seed: setup.seed,
        gpus: setup.gpus,
        config: setup.config.clone(),
        constant_step: None,
        believed_time: None,
        oracle: clairvoyant.then(|| arrivals.iter().map(|a| a.output).collect()),
        profile: Profile::load(PROFILE).unwrap(),
    }
}

/// A machine that is too small for its work.
fn setup(policy: &str, preempt: Preempt, pipeline_depth: u8, gpus: u32) -> Setup {
    let config = Config {
        kv_blocks: Blocks(48),
        host_blocks: Blocks(256),
        max_num_seqs: 8,
        max_resident: 12,
        max_num_batched_tokens: Tokens(96),
        max_model_len: Tokens(512),
        waiting_max: 24,
        prefix_cache: true,
        preempt,
        pipeline_depth,
        ..Config::default()
    };
    Setup {
        config,
        policy: policy.into(),
        cost: CostModel::new(&Profile::load(PROFILE).unwrap()),
        believed: None,
        gpus,
        router: Router::LeastWork,
        max_tokens: None,
        host_step: Nanos::ZERO,
        seed: 1,
    }
}

/// Arrivals in bursts; every second one has a content that it shares with others.
fn arrivals(n: u64) -> Vec<Arrival> {
    let mut prng = Prng::new(5);
    let arrival = |i: u64| {
        let length = Tokens(prng.between(1, 200) as u32);
        let ids = (0..u64::from(length.0.div_ceil(32))).map(|at| (i % 6) << 8 | at).collect();
        let content = Prompt::Content { length, granularity: Tokens(32), ids };
        Arrival {
            at: Nanos(i / 30 * 400_000_000),
            prompt: if u32::is_multiple_of(i as u32, 2) { content } else { Prompt::Length(length) },
            output: Tokens(prng.between(1, 120) as u32),
            client: (i % 3) as u32,
            priority: 0,
        }
    };
    (0..n).map(arrival).collect()
}

fn recorded(setup: &Setup, arrivals: &[Arrival], decisions: bool) -> (String, crate::sim::Outcome) {
    let mut recorder = Recorder::new(Vec::new(), &header(setup, arrivals)).with_decisions(decisions);
    let outcome = simulate(setup, arrivals, &mut recorder).unwrap();
    (String::from_utf8(recorder.finish().unwrap()).unwrap(), outcome)
}

#[test]
fn a_replay_makes_every_decision_again() {
    let arrivals = arrivals(120);
    let (mut swaps, mut recomputes, mut cached, mut refused) = (0, 0, 0, 0);
    for policy in ["fcfs", "las", "srpt", "sglang"] {
        for preempt in [Preempt::Swap, Preempt::Recompute, Preempt::Auto] {
            for (depth, gpus) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
                let setup = setup(policy, preempt, depth, gpus);
                let (record, outcome) = recorded(&setup, &arrivals, depth == 1);
                let report = replay(record.as_bytes()).unwrap();
                assert_eq!((report.steps, report.engines), (outcome.counters.steps, gpus));
                let refusals = record.matches("{\"refuse\":").count();
                assert_eq!(
                    report.ended as usize + refusals,
                    arrivals.len(),
                    "{policy} {preempt:?} {depth} {gpus}"
                );
                refused += refusals;
                swaps += outcome.counters.swaps;
                recomputes += outcome.counters.recomputes;
                cached += outcome.counters.cached_tokens;
            }
        }
    }
    assert!(
        swaps > 0 && recomputes > 0 && cached > 0 && refused > 0,
        "{swaps} {recomputes} {cached} {refused}"
    );
}

#[test]
fn cancels_and_power_caps_are_inputs() {
    let setup = setup("las", Preempt::Auto, 2, 1);
    let script = Script::new([Tokens(60); 12]);
    let clock = VirtualClock::new();
    let executor = SimExecutor::new(clock.clone(), setup.cost.clone(), script, 1);
    let policy = order::parse(&setup.policy, None).unwrap();
    let config = setup.config.clone();
    let mut engine =
        Engine::new(config, policy, Box::new(executor), Box::new(clock.clone()), setup.cost.clone()).unwrap();
    let mut recorder = Recorder::new(Vec::new(), &header(&setup, &[]));
    for at in 0..12 {
        let ids: Vec<u32> = (0..40 + at).collect();
        let mut request = Request::new(clock.now(), Prompt::Tokens(ids.into()), Tokens(60));
        request.user_data = u64::from(at);
        request.deadline = (at == 7).then_some(Nanos(200_000_000));
        recorder.submit(0, &request);
        let id = engine.submit(request).unwrap();
        recorder.step(0, &engine.step().unwrap());
        if at % 3 == 2 {
            recorder.cancel(0, id, clock.now());
            assert!(engine.cancel(id));
            let budget = PowerBudget { cap: (at % 2 == 0).then_some(Milliwatts(300_000)) };
            recorder.power(0, budget);
            engine.set_power_budget(budget);
        }
    }
    while !engine.is_idle() {
        recorder.step(0, &engine.step().unwrap());
    }
    // An idle step counts too.
    recorder.step(0, &engine.step().unwrap());
    let record = recorder.finish().unwrap();
    let report = replay(record.as_slice()).unwrap();
    assert_eq!((report.steps, report.ended), (engine.counters().steps, 12));
}

/// NaN and the infinities are `null` in JSON, and a record that held them could not be read.
#[test]
fn requests_that_were_refused_for_a_number_that_is_none_replay() {
    let setup = setup("fcfs", Preempt::Swap, 1, 1);
    let policy = order::parse(&setup.policy, None).unwrap();
    let clock = VirtualClock::new();
    let executor = SimExecutor::new(clock.clone(), setup.cost.clone(), Script::new([Tokens(3)]), 1);
    let (config, cost) = (setup.config.clone(), setup.cost.clone());
    let mut engine = Engine::new(config, policy, Box::new(executor), Box::new(clock), cost).unwrap();
    let mut recorder = Recorder::new(Vec::new(), &header(&setup, &[]));
    for temperature in [f32::NAN, f32::INFINITY, 0.5] {
        let mut request = Request::new(Nanos::ZERO, Prompt::Length(Tokens(7)), Tokens(3));
        request.sampling.temperature = temperature;
        recorder.submit(0, &request);
        if let Err(why) = engine.submit(request) {
            recorder.refuse(0, &why);
        }
    }
    while !engine.is_idle() {
        recorder.step(0, &engine.step().unwrap());
    }
    let record = String::from_utf8(recorder.finish().unwrap()).unwrap();
    assert_eq!(record.matches(r#""temperature":null"#).count(), 2);
    assert_eq!(replay(record.as_bytes()).unwrap().ended, 1);
}

#[test]
fn what_a_failed_engine_refuses_is_in_no_record() {
    let mut recorder = Recorder::new(Vec::new(), &header(&setup("fcfs", Preempt::Swap, 1, 1), &[]));
    recorder.submit(0, &Request::new(Nanos::ZERO, Prompt::Length(Tokens(7)), Tokens(3)));
    recorder.refuse(0, &SubmitError::Poisoned("no device".into()));
    assert_eq!(replay(recorder.finish().unwrap().as_slice()).unwrap().steps, 0);
}

/// The record with one line changed.
fn changed(record: &str, line: usize, change: impl Fn(&str) -> String) -> String {
    let lines = record.lines().enumerate();
    lines.map(|(at, text)| if at + 1 == line { change(text) } else { text.into() } + "\n").collect()
}

#[test]
fn the_first_difference_is_named() {
    let setup = setup("fcfs", Preempt::Swap, 1, 1);
    let (record, _) = recorded(&setup, &arrivals(20), true);
    let step = |text: &str| match serde_json::from_str(text).unwrap() {
        Line::Step(step) => step,
        other => panic!("{other:?} is no step"),
    };
    let line = |step: Step<'_>| serde_json::to_string(&Line::Step(step)).unwrap();

    let other = changed(&record, 6, |text| {
        let mut step = step(text);
        let settled = step.settled.as_mut().unwrap();
        settled.outcome.to_mut().tokens[0] ^= 1;
        line(step)
    });
    let error = replay(other.as_bytes()).unwrap_err();
    assert!(matches!(error, RecordError::Differs { line: 6, step: 5, what: "outcome", .. }), "{error}");

    let other = changed(&record, 9, |text| {
        let mut step = step(text);
        step.digest.0 ^= 1;
        line(step)
    });
    let error = replay(other.as_bytes()).unwrap_err();
    assert!(matches!(error, RecordError::Differs { line: 9, step: 8, what: "decision", .. }), "{error}");

    let other = changed(&record, 4, |text| {
        let mut step = step(text);
        step.settled = None;
        line(step)
    });
    let error = replay(other.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("line 4: engine 0, step 3: ") && error.contains("no outcome"), "{error}");
    let old = changed(&other, 1, |text| text.replacen(VERSION, "0.0.0", 1));
    let why = replay(old.as_bytes()).unwrap_err().to_string();
    assert_eq!(why, format!("written by version 0.0.0, and this is {VERSION}; {error}"));
}

#[test]
fn what_is_cut_or_foreign_is_refused_with_its_line() {
    let setup = setup("fcfs", Preempt::Swap, 1, 1);
    let (record, outcome) = recorded(&setup, &arrivals(5), false);
    let (steps, text) =
        (outcome.counters.steps, |record: &str| replay(record.as_bytes()).unwrap_err().to_string());
    assert_eq!(record.lines().count() as u64, steps + 2);
    let whole = record.trim_end();
    let cut = text(&whole[..whole.len() - 5]);
    assert!(cut.starts_with(&format!("line {}, column ", steps + 2)) && cut.contains("EOF"), "{cut}");
    let lines = &whole[..whole.rfind('\n').unwrap() + 1];
    assert!(text(lines).starts_with(&format!("cut off after line {}:", steps + 1)), "{}", text(lines));
    let missing = changed(&record, 3, |_| r#"{"rest":{"engine":0,"inputs":[]}}"#.into());
    assert!(text(&missing).starts_with("line 4: engine 0, step 3: "), "{}", text(&missing));
    let more = format!("{record}{{}}\n");
    assert!(text(&more).starts_with(&format!("line {}: a line after", steps + 3)), "{}", text(&more));
    assert!(text("").contains("nothing"));
    assert!(text("a,b\n1,2\n").contains("\"a,b\""));
    assert!(text("{\"schema\":\"flyball.trace/1\"}").contains("flyball.trace/1"));
    let far = changed(&record, 2, |line| line.replacen("\"engine\":0", "\"engine\":7", 1));
    assert_eq!(text(&far), "line 2: engine 7 of 1");
}

#[test]
fn a_profile_in_a_header_is_read_back_to_the_last_bit() {
    let setup = setup("fcfs", Preempt::Swap, 1, 1);
    for name in Profile::NAMES {
        let profile = Profile::load(name).unwrap();
        let header = Header { profile: profile.clone(), ..header(&setup, &[]) };
        let read: Header = serde_json::from_str(&serde_json::to_string(&header).unwrap()).unwrap();
        assert_eq!(format!("{:?}", read.believed().unwrap()), format!("{:?}", CostModel::new(&profile)));
    }
}

#[test]
fn an_inspected_record_reads_like_this() {
    let mut setup = setup("fcfs", Preempt::Swap, 1, 1);
    setup.cost = setup.cost.with_constant_step(Nanos(1_000_000));
    let arrival = |at, prompt, output| Arrival {
        at: Nanos(at),
        prompt: Prompt::Length(Tokens(prompt)),
        output: Tokens(output),
        client: 0,
        priority: 0,
    };
    let arrivals = [arrival(0, 120, 3), arrival(10, 20, 1), arrival(20, 600, 1)];
    let header = Header { constant_step: Some(Nanos(1_000_000)), ..header(&setup, &arrivals) };
    let mut recorder = Recorder::new(Vec::new(), &header);
    simulate(&setup, &arrivals, &mut recorder).unwrap();
    let record = recorder.finish().unwrap();
    let mut text = Vec::new();
    inspect(record.as_slice(), &mut text, 1..4).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text, GOLDEN, "{text}");
}

const GOLDEN: &str = "\
engine 0 step 1 at 0 ns
  submit 0: prompt of 120 tokens
  decide admit #0 for 96 tokens, 8 blocks (Order)
  settle 1: 1 rows, 96 tokens, 0 new, 1000000 ns, 700000 uJ
engine 0 step 2 at 1000000 ns
  submit 1: prompt of 20 tokens
  refuse 2: prompt of 600 tokens
  decide admit #1 for 20 tokens, 2 blocks (Order) run 0 for 24 tokens (Prefill)
  settle 2: 2 rows, 44 tokens, 2 new, 1000000 ns, 700000 uJ
  end #1 after 1 tokens (Stop)
engine 0 step 3 at 2000000 ns
  decide decode 1 rows
  settle 3: 1 rows, 1 tokens, 1 new, 1000000 ns, 472065 uJ
";
