//! Drives one engine by hand: three requests, every token as it comes. The README shows this file.

use flyball::clock::VirtualClock;
use flyball::config::Config;
use flyball::cost::{CostModel, Profile};
use flyball::engine::Engine;
use flyball::exec::sim::{EOS, Script, SimExecutor};
use flyball::request::{Prompt, Request, StopTokens};
use flyball::sched::order;
use flyball::units::{Nanos, Tokens};
use std::error::Error;
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    drive(&mut stdout())
}

pub(crate) fn drive(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let cost = CostModel::new(&Profile::load("h200-llama-3-8b")?);
    let clock = VirtualClock::new();
    // True output lengths, which the device knows and the policy does not.
    let script = Script::new([3, 5, 2].map(Tokens));
    let device = SimExecutor::new(clock.clone(), cost.clone(), script, 1);
    let policy = order::parse("fcfs", None)?;
    let mut engine = Engine::new(Config::default(), policy, Box::new(device), Box::new(clock), cost)?;

    for (user_data, prompt) in [(0, 700), (1, 40), (2, 2_000)] {
        let mut request = Request::new(Nanos::ZERO, Prompt::Length(Tokens(prompt)), Tokens(100));
        request.stop = StopTokens::new(&[EOS]).expect("one is not too many");
        request.user_data = user_data;
        engine.submit(request)?;
    }
    while !engine.is_idle() {
        let report = engine.step()?;
        let got: Vec<_> = report.tokens.iter().map(|t| format!("{}#{}", t.user_data, t.index)).collect();
        let ended: Vec<_> = report.ended.iter().map(|e| (e.user_data, e.reason)).collect();
        let ms = report.outcome.finished.as_secs_f64() * 1e3;
        writeln!(out, "{ms:8.3} ms  tokens {got:?}  ended {ended:?}")?;
    }
    Ok(())
}
