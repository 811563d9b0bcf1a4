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
    let mut request = Request::new(now, Prompt::Length(Tokens(ask.prompt)), Tokens(1000));
    (request.client, request.user_data) = (ask.client, number);
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
        client: 0,
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
