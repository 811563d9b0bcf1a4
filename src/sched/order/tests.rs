//! The rivals on the production engine: what sets each of them apart must show in its decisions.

use super::parse;
use crate::clock::{Clock, VirtualClock};
use crate::config::Config;
use crate::cost::{CostModel, Profile};
use crate::engine::{Engine, StepReport};
use crate::exec::sim::{EOS, Script, SimExecutor};
use crate::prng::Prng;
use crate::request::{Prompt, Request, StopTokens};
use crate::sched::Reason;
use crate::units::{Blocks, Nanos, Tokens};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One request of a test.
#[derive(Clone, Copy, Default)]
struct Ask {
    /// Before which step it is submitted.
    step: u64,
    client: u32,
    prompt: u32,
    output: u32,
    /// Milliseconds from its arrival to the target for its first token; none if zero.
    ttft: u64,
    /// 1,000 if it is zero.
    max_tokens: u32,
}

/// A machine where memory is short: four rows run, eight hold KV.
fn config() -> Config {
    Config {
        kv_blocks: Blocks(64),
        host_blocks: Blocks(256),
        max_num_seqs: 4,
        max_resident: 8,
        max_num_batched_tokens: Tokens(64),
        ..Config::default()
    }
}

/// What a test sees after each step.
struct Seen<'s> {
    report: StepReport<'s>,
    /// Whose rows the slots were before the step.
    owners: &'s BTreeMap<u32, u64>,
    /// Output tokens by request, before the step.
    generated: &'s [u32],
}

/// Serves all requests under the policy `spec`; returns when each ended.
fn serve(spec: &str, config: Config, asks: &[Ask], mut watch: impl FnMut(&Seen<'_>)) -> Vec<Nanos> {
    let clock = VirtualClock::new();
    let cost = CostModel::new(&Profile::load("a100-llama-3-8b").unwrap());
    let script = Script::new(asks.iter().map(|a| Tokens(a.output)));
    let executor = Box::new(SimExecutor::new(clock.clone(), cost.clone(), script.clone(), 1));
    let policy = parse(spec, Some(Arc::new(script))).unwrap();
    let mut engine = Engine::new(config, policy, executor, Box::new(clock.clone()), cost).unwrap();
    let (mut ends, mut generated) = (vec![Nanos::ZERO; asks.len()], vec![0; asks.len()]);
    let (mut owners, mut submitted) = (BTreeMap::new(), 0);
    for step in 0.. {
        while let Some(ask) = asks.get(submitted).filter(|a| a.step <= step || engine.is_idle()) {
            engine.submit(request(ask, submitted as u64, clock.now())).unwrap();
            submitted += 1;
        }
        if engine.is_idle() {
            return ends;
        }
        engine.step().unwrap();
        engine.check();
        let report = engine.last_report();
        report.ended.iter().for_each(|e| ends[e.user_data as usize] = e.at);
        watch(&Seen { report, owners: &owners, generated: &generated });
        let rows = engine.last_report().plan.map_or(&[][..], |plan| &plan.rows);
        for row in rows {
            owners.insert(row.slot.0, row.user_data);
            generated[row.user_data as usize] = row.generated + u32::from(row.samples);
        }
    }
    unreachable!("steps never run out")
}

fn request(ask: &Ask, number: u64, now: Nanos) -> Request {
    let limit = if ask.max_tokens > 0 { ask.max_tokens } else { 1000 };
    let mut request = Request::new(now, Prompt::Length(Tokens(ask.prompt)), Tokens(limit));
    (request.client, request.user_data) = (ask.client, number);
    request.slo.ttft = (ask.ttft > 0).then(|| Nanos::from_millis(ask.ttft));
    request.stop = StopTokens::new(&[EOS]).unwrap();
    request
}

/// Requests of mixed lengths that arrive some steps apart.
fn mixed(count: u64) -> Vec<Ask> {
    let mut p = Prng::new(count);
    let ask = |i| Ask {
        step: i * 4,
        prompt: p.between(5, 120) as u32,
        output: p.between(5, 300) as u32,
        ..Ask::default()
    };
    (0..count).map(ask).collect()
}

#[test]
fn trail_runs_out_whoever_is_past_its_limit() {
    let asks = mixed(80);
    let (mut evicted, mut late) = (0, 0);
    serve("trail", config(), &asks, |seen| {
        let decision = &seen.report.decision;
        let evicts = decision.evict.iter().map(|e| (e.slot, e.reason));
        for (slot, reason) in evicts.chain(decision.park.iter().map(|p| (p.slot, p.reason))) {
            let owner = seen.owners[&slot.0] as usize;
            let past = f64::from(seen.generated[owner]) >= 0.6 * f64::from(asks[owner].output);
            // More may run out than the batch has rows; memory alone takes from them otherwise.
            let full = reason == Reason::Slots || reason == Reason::Override;
            assert!(!past || full, "{reason:?} for one that has {} tokens", seen.generated[owner]);
            evicted += u32::from(!past);
        }
        late += decision.run.iter().filter(|r| r.reason == Reason::Protected).count();
    });
    assert!(evicted > 20 && late > 100, "{evicted} preempted before, {late} steps behind the limit");
}

#[test]
fn trail_without_a_limit_is_srpt() {
    let asks = mixed(80);
    let ends = |spec: &str| serve(spec, config(), &asks, |_| {});
    assert_eq!(ends("trail:limit=1"), ends("srpt"));
    assert_ne!(ends("trail:limit=0.1"), ends("srpt"), "whoever is nearly new runs out too");
    assert_ne!(ends("trail:noise=1"), ends("trail"), "wrong predictions give another order");
    assert_ne!(ends("trail:noise=1"), ends("trail:noise=1:seed=2"));
}

/// A first request with `output` tokens, and from `step` on newcomers with `each`, a ninth more of them
/// than `rows` rows can serve.
fn flooded(output: u32, each: u32, step: u64, rows: u64, count: u64) -> Vec<Ask> {
    let long = Ask { prompt: 8, output, ..Ask::default() };
    let short = |i| {
        let step = step + i * u64::from(each) * 9 / (10 * rows);
        Ask { step, prompt: 8, output: each, client: 1, ..Ask::default() }
    };
    std::iter::once(long).chain((0..count).map(short)).collect()
}

/// The steps in which the first request has a row.
fn steps_of_first(spec: &str, config: Config, asks: &[Ask]) -> Vec<u64> {
    let mut steps = Vec::new();
    serve(spec, config, asks, |seen| {
        let rows = seen.report.plan.map_or(&[][..], |plan| &plan.rows);
        steps.extend(rows.iter().filter(|row| row.user_data == 0).map(|_| seen.report.step));
    });
    steps
}

#[test]
fn ltr_lifts_the_starved_after_200_idle_steps_for_10() {
    let asks = flooded(300, 8, 0, 4, 600);
    let steps = steps_of_first("ltr", config(), &asks);
    let expected = (1..=5).chain(206..=215).chain(416..=425).chain(626..=630);
    assert!(steps[..30].iter().copied().eq(expected), "{:?}", &steps[..30]);
    let steps = steps_of_first("ltr:starve=1000000", config(), &asks);
    assert!(steps[5] > 1_000, "without the lift the longest waits for all others: {}", steps[5]);
}

#[test]
fn sjf_takes_the_starved_first_once_a_row_is_free() {
    let asks = flooded(40, 8, 0, 1, 600);
    let steps = steps_of_first("sjf:starve=200", one_row(), &asks);
    assert!((200..=208).contains(&steps[0]), "{}", steps[0]);
    assert!(steps.windows(2).all(|w| w[1] == w[0] + 1), "nobody preempts it: {steps:?}");
    let steps = steps_of_first("sjf", one_row(), &asks);
    assert!(steps[0] > 1_000, "without the guard the longest waits for all others: {}", steps[0]);
}

#[test]
fn wrong_lengths_change_the_order_of_sjf_and_srpt() {
    let asks = mixed(80);
    let ends = |spec: &str| serve(spec, config(), &asks, |_| {});
    for policy in ["sjf", "srpt"] {
        let noisy = format!("{policy}:noise=1");
        assert_ne!(ends(&noisy), ends(policy));
        assert_ne!(ends(&noisy), ends(&format!("{noisy}:seed=2")));
        assert_eq!(ends(&format!("{policy}:bias=2")), ends(policy), "a common factor orders nothing");
    }
}

#[test]
fn ltr_with_rank_noise_serves_in_another_order() {
    let asks = mixed(80);
    let ends = |spec: &str| serve(spec, config(), &asks, |_| {});
    assert_ne!(ends("ltr"), ends("ltr:tau=0.3"));
    assert_eq!(ends("ltr:tau=0.3"), ends("ltr:tau=0.3"));
}

fn one_row() -> Config {
    Config { max_num_seqs: 1, max_resident: 4, kv_blocks: Blocks(512), ..config() }
}

/// A request that has run for `before` steps when one with `prompt` tokens comes: how many steps it goes
/// on until it is left out.
fn steps_until_overtaken(before: u64, prompt: u32) -> u64 {
    let first = Ask { prompt: 8, output: 400, ..Ask::default() };
    let asks = [first, Ask { step: before, prompt, output: 3, client: 1, ..Ask::default() }];
    let steps = steps_of_first("mlfq", one_row(), &asks);
    steps.windows(2).take_while(|w| w[1] == w[0] + 1).count() as u64 + 1 - before
}

#[test]
fn mlfq_demotes_whoever_has_used_its_quantum() {
    assert!(steps_until_overtaken(20, 8) <= 1, "a newcomer goes before one that was demoted");
    let bed = flooded(200, 2, 30, 1, 500);
    let steps = steps_of_first("mlfq:starve=1000000", one_row(), &bed);
    let in_flood = steps.iter().filter(|step| (60..500).contains(*step)).count();
    assert!(in_flood < 5, "{in_flood} steps beside newcomers that never use up a quantum");
}

#[test]
fn mlfq_newcomers_with_long_prompts_skip_the_first_queues() {
    let (short, long) = (steps_until_overtaken(4, 8), steps_until_overtaken(4, 1500));
    assert!(short <= 1 && long >= 4, "{short} and {long} steps until the newcomer runs");
}

#[test]
fn mlfq_promotes_whoever_was_not_served_for_the_timeout() {
    let asks = flooded(200, 2, 30, 1, 4_000);
    let turns = |spec: &str| {
        let steps = steps_of_first(spec, one_row(), &asks);
        steps.iter().filter(|step| (60..7_000).contains(*step)).count()
    };
    let (promoted, starved) = (turns("mlfq:starve=10"), turns("mlfq:starve=1000000"));
    assert!(promoted > starved + 5, "{promoted} steps, {starved} without promotion");
}

/// Output tokens by client while every client still has requests to come.
fn shares(spec: &str, asks: &[Ask], until: u64) -> Vec<u32> {
    let mut served = vec![0; 3];
    serve(spec, config(), asks, |seen| {
        let ours = seen.report.tokens.iter().filter(|_| seen.report.step < until);
        ours.for_each(|token| served[asks[token.user_data as usize].client as usize] += 1);
    });
    served
}

#[test]
fn vtc_serves_equal_shares_to_a_flood_and_to_others() {
    let flood = (0..300).map(|_| Ask { prompt: 20, output: 20, ..Ask::default() });
    let others = (0..80).map(|i| Ask { prompt: 20, output: 20, client: 1 + i % 2, ..Ask::default() });
    let asks: Vec<Ask> = flood.chain(others).collect();
    let fair = shares("vtc", &asks, 500);
    let (least, most) = (fair.iter().min().unwrap(), fair.iter().max().unwrap());
    assert!(*least > 300 && most - least < 80, "{fair:?}");
    assert_eq!(shares("fcfs", &asks, 500)[1..], [0, 0], "in order of arrival the others wait");
}

#[test]
fn vtc_lifts_a_client_that_returns() {
    // Client 1 was away while client 0 was served; once both wait, it is owed nothing.
    let busy = (0..300).map(|_| Ask { prompt: 20, output: 20, ..Ask::default() });
    let back = (0..100).map(|_| Ask { prompt: 20, output: 20, client: 1, step: 600, ..Ask::default() });
    let asks: Vec<Ask> = busy.chain(back).collect();
    let late = shares("vtc", &asks, 1_000);
    let early = shares("vtc", &asks, 600);
    let (zero, one) = (late[0] - early[0], late[1] - early[1]);
    assert!(zero.abs_diff(one) < 120, "{zero} and {one} tokens since it came back");
}

#[test]
fn edf_demotes_the_infeasible() {
    // The deadlines of the first forty pass while the machine is busy with those before them.
    let lost = (0..40).map(|_| Ask { prompt: 60, output: 60, ..Ask::default() });
    let later = (0..4).map(|_| Ask { step: 500, prompt: 10, output: 5, client: 1, ..Ask::default() });
    let asks: Vec<Ask> = lost.chain(later).collect();
    let ends = serve("edf:ttft=0.5:tbt=0.1", config(), &asks, |_| {});
    let in_time = |ends: &[Nanos]| ends[40..].iter().max() < ends[..40].iter().max();
    let before = ends[..40].iter().filter(|end| **end < *ends[40..].iter().max().unwrap()).count();
    assert!(in_time(&ends) && before < 36, "{before} of those that were lost came before");
    let orders = serve("fcfs", config(), &asks, |_| {});
    assert!(!in_time(&orders));
}

#[test]
fn edf_takes_the_nearest_deadline() {
    let asks = [9_000, 9_000, 1_000].map(|ttft| Ask { prompt: 8, output: 3, ttft, ..Ask::default() });
    let [first, second, nearest] = serve("edf", one_row(), &asks, |_| {})[..] else { panic!("three ends") };
    assert!(nearest < first && first < second, "equal targets in order of arrival");
}

#[test]
fn look_ahead_packing_evicts_nobody_and_ends_the_short_first() {
    let asks = mixed(80);
    let mut evicted = 0;
    let ends = serve("oracle-srpt", config(), &asks, |seen| evicted += seen.report.decision.evict.len());
    assert_eq!(evicted, 0, "what was admitted fits at every completion to come");
    let mut srpt_evicted = 0;
    serve("srpt", config(), &asks, |seen| srpt_evicted += seen.report.decision.evict.len());
    assert!(srpt_evicted > 0);
    let mean = |short: bool| {
        let ours = asks.iter().zip(&ends).filter(|(ask, _)| (ask.output < 150) == short);
        let ends: Vec<u64> = ours.map(|(_, end)| end.0).collect();
        ends.iter().sum::<u64>() / ends.len() as u64
    };
    assert!(mean(true) * 3 < mean(false) * 2, "{} and {}", mean(true), mean(false));
}

/// Ends by request under policies that know lengths: those who may not generate what they would are as short as
/// those who would not.
#[test]
fn whoever_knows_lengths_knows_that_limits_cut_them() {
    let limit = |ask: &Ask| if ask.client == 0 { Ask { max_tokens: 20, ..*ask } } else { *ask };
    let would: Vec<Ask> =
        (0..40).map(|i| Ask { prompt: 30, output: 300, client: i % 2, ..Ask::default() }).collect();
    let cut: Vec<Ask> = would.iter().map(limit).collect();
    let short: Vec<Ask> =
        would.iter().map(|ask| if ask.client == 0 { Ask { output: 20, ..*ask } } else { *ask }).collect();
    for spec in ["sjf", "srpt", "trail", "ltr", "oracle-boost", "oracle-srpt"] {
        assert_eq!(serve(spec, config(), &cut, |_| {}), serve(spec, config(), &short, |_| {}), "{spec}");
    }
}

#[test]
fn sjf_evicts_whoever_has_the_most_left() {
    // Two grow until memory is short: the first is nearly done by then.
    let early = Ask { prompt: 100, output: 400, ..Ask::default() };
    let late = Ask { step: 330, prompt: 100, output: 395, ..Ask::default() };
    let tight = Config { kv_blocks: Blocks(40), ..config() };
    let mut evicted = Vec::new();
    serve("sjf", tight, &[early, late], |seen| {
        evicted.extend(seen.report.decision.evict.iter().map(|e| seen.owners[&e.slot.0]));
    });
    assert_eq!(evicted, [1]);
}

/// The step in which a request is admitted that memory has no room for beside small ones, which come until step 400.
fn admitted_beside_small_ones(spec: &str) -> u64 {
    let small = (0..400).map(|i| Ask { step: i, prompt: 10, output: 60, ..Ask::default() });
    let mut asks: Vec<Ask> = small.collect();
    asks.insert(20, Ask { step: 20, prompt: 600, output: 100, client: 1, ..Ask::default() });
    let mut admitted = None;
    serve(spec, Config { kv_blocks: Blocks(48), ..config() }, &asks, |seen| {
        let rows = seen.report.plan.map_or(&[][..], |plan| &plan.rows);
        let here = rows.iter().any(|row| row.user_data == 20).then_some(seen.report.step);
        admitted = admitted.or(here);
    });
    admitted.unwrap()
}

#[test]
fn whoever_is_owed_memory_is_not_passed_by_small_ones() {
    for spec in ["vtc", "sjf:starve=50"] {
        let step = admitted_beside_small_ones(spec);
        assert!(step < 600, "{spec}: {step}");
    }
    let step = admitted_beside_small_ones("sjf");
    assert!(step > 5_000, "without the guard it waits for all: {step}");
}

#[test]
fn oracle_boost_is_first_come_first_served_without_a_boost_and_shortest_first_with_much() {
    let asks: Vec<Ask> = mixed(60).into_iter().map(|ask| Ask { step: 0, ..ask }).collect();
    let mean = |spec: &str| serve(spec, config(), &asks, |_| {}).iter().map(|end| end.0 / 60).sum::<u64>();
    let (fcfs, little, much) = (mean("fcfs"), mean("oracle-boost:gamma=1000"), mean("oracle-boost"));
    assert!(much * 10 < fcfs * 9, "true sizes shorten the mean: {much}, {fcfs} in order");
    assert!(little > much, "{little} with hardly a boost");
}

#[test]
fn ltr_gets_on_where_a_quantum_is_shorter_than_what_must_be_computed_again() {
    let asks: Vec<Ask> = (0..12).map(|i| Ask { prompt: 200 + i, output: 20, ..Ask::default() }).collect();
    let few = Config { kv_blocks: Blocks(16), host_blocks: Blocks(0), ..config() };
    let few = Config { max_num_batched_tokens: Tokens(16), ..few };
    let ends = serve("ltr:starve=5:quantum=3", few, &asks, |seen| assert!(seen.report.step < 100_000));
    assert!(ends.iter().all(|end| *end > Nanos::ZERO));
}

#[test]
fn andes_preempts_whoever_is_ahead_of_its_reader_up_to_the_cap() {
    let asks: Vec<Ask> =
        (0..40).map(|i| Ask { step: i * 4, prompt: 60, output: 200, ..Ask::default() }).collect();
    let preempted = |spec: &str| {
        let mut count = 0;
        let evicts = |seen: &Seen<'_>| {
            count += seen.report.decision.evict.iter().filter(|e| e.reason == Reason::Order).count();
        };
        let ends = serve(spec, config(), &asks, evicts);
        assert!(ends.iter().all(|end| *end > Nanos::ZERO));
        count
    };
    assert_eq!(preempted("andes:cap=0"), 0);
    let (few, many) = (preempted("andes:mark=0.5:cap=0.5"), preempted("andes:mark=0.5:cap=100"));
    assert!(few > 0 && few <= 20 && many > few, "{few} and {many} preemptions of 40 requests");
}

/// No chunk of a step shorter than a block was a whole number of pages, so nobody was ever admitted.
#[test]
fn sglang_serves_though_a_step_is_shorter_than_a_block() {
    let short = Config { block_size: Tokens(32), max_num_batched_tokens: Tokens(8), ..config() };
    let asks =
        [Ask { prompt: 100, output: 5, ..Ask::default() }, Ask { prompt: 20, output: 40, ..Ask::default() }];
    let mut steps = 0;
    serve("sglang", short, &asks, |_| {
        steps += 1;
        assert!(steps < 1_000, "nobody is served");
    });
}

/// All have as many outputs: the longest prompts go first, and of these the last of the batch, one as one
/// is enough for the next step.
#[test]
fn sglang_retracts_the_fewest_outputs_then_the_longest_prompt_then_the_last() {
    let roomy = Config { kv_blocks: Blocks(96), ..config() };
    let asks = [16, 32, 32, 16].map(|prompt| Ask { prompt, output: 600, ..Ask::default() });
    let mut retracted = Vec::new();
    serve("sglang:conservativeness=0.01:latch=off", roomy, &asks, |seen| {
        let who: Vec<u64> = seen.report.decision.evict.iter().map(|e| seen.owners[&e.slot.0]).collect();
        if !who.is_empty() {
            retracted.push(who);
        }
    });
    assert_eq!(retracted[..2], [vec![2], vec![1]]);
}

/// All of an output is set aside beside a request that is admitted with it, and a share once it runs: who
/// was refused would fit at once, but a refusal holds until the batch has shrunk.
#[test]
fn sglang_admits_nobody_after_a_refusal_until_the_batch_has_shrunk() {
    let asks = [Ask { prompt: 16, output: 300, ..Ask::default() }; 4];
    let roomy = Config { kv_blocks: Blocks(128), ..config() };
    let admitted_before_any_ends = |spec: &str| {
        let (mut admitted, mut ended) = (0, 0);
        let ends = serve(spec, roomy.clone(), &asks, |seen| {
            admitted += if ended == 0 { seen.report.decision.admit.len() } else { 0 };
            ended += seen.report.ended.len();
        });
        assert!(ends.iter().all(|end| *end > Nanos::ZERO));
        admitted
    };
    assert_eq!(admitted_before_any_ends("sglang:conservativeness=0.3"), 2);
    assert_eq!(admitted_before_any_ends("sglang:conservativeness=0.3:latch=off"), 4);
}
