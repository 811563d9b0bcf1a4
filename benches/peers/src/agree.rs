//! Agreement: mean and P99 of the time to last token under the same scheduler in both simulators.

use crate::{Job, aisimulate, ours};
use std::error::Error;

/// What two clocks may differ by when they show the same moment: one counts nanoseconds, one adds floats.
const MS_APART: f64 = 1e-3;

/// Whose rules are followed.
#[derive(Clone, Copy, Debug)]
pub enum Scheduler {
    Vllm,
    Sglang,
}

/// When each request's first and last tokens came, in milliseconds.
pub struct Latencies {
    pub first: Vec<f64>,
    pub last: Vec<f64>,
    pub tokens: u64,
    pub steps: u64,
}

impl Latencies {
    pub fn new(requests: usize) -> Self {
        Self { first: vec![f64::NAN; requests], last: vec![f64::NAN; requests], tokens: 0, steps: 0 }
    }

    pub fn token(&mut self, request: usize, at_ms: f64) {
        if self.first[request].is_nan() {
            self.first[request] = at_ms;
        }
        self.last[request] = at_ms;
        self.tokens += 1;
    }

    /// Mean and P99 (nearest rank) of the times to these moments.
    fn stats(jobs: &[Job], moments: &[f64]) -> [f64; 2] {
        let mut spans: Vec<f64> = jobs.iter().zip(moments).map(|(job, at)| at - job.at_ms).collect();
        assert!(spans.iter().all(|span| span.is_finite()), "every request got its tokens");
        spans.sort_by(f64::total_cmp);
        let rank = (0.99 * spans.len() as f64).ceil() as usize;
        [spans.iter().sum::<f64>() / spans.len() as f64, spans[rank - 1]]
    }
}

/// Prints both sides and what lies between them.
pub fn compare(jobs: &[Job], step_ms: f64, kv_tokens: u32) -> Result<(), Box<dyn Error>> {
    println!("{} requests, {step_ms} ms per step, {kv_tokens} tokens of KV; latencies in ms", jobs.len());
    println!("{:28} {:>14} {:>14} {:>9}", "", "flyball", "aisimulate", "diff %");
    for scheduler in [Scheduler::Vllm, Scheduler::Sglang] {
        let a = ours::schedule(jobs, scheduler, step_ms, kv_tokens);
        let b = aisimulate::schedule(jobs, scheduler, step_ms, kv_tokens);
        let ttft = [&a, &b].map(|side| Latencies::stats(jobs, &side.first));
        let ttlt = [&a, &b].map(|side| Latencies::stats(jobs, &side.last));
        row(scheduler, "ttft mean", ttft[0][0], ttft[1][0]);
        row(scheduler, "ttft p99", ttft[0][1], ttft[1][1]);
        row(scheduler, "ttlt mean", ttlt[0][0], ttlt[1][0]);
        row(scheduler, "ttlt p99", ttlt[0][1], ttlt[1][1]);
        row(scheduler, "steps", a.steps as f64, b.steps as f64);
        row(scheduler, "output tokens", a.tokens as f64, b.tokens as f64);
        let far = |a: f64, b: f64| (a - b).abs() > MS_APART;
        let apart = |i: &usize| far(a.first[*i], b.first[*i]) || far(a.last[*i], b.last[*i]);
        let apart: Vec<usize> = (0..jobs.len()).filter(apart).collect();
        let name = format!("{scheduler:?} requests apart").to_lowercase();
        println!("{name:28} {:14}, the first: {:?}", apart.len(), apart.first());
    }
    Ok(())
}

fn row(scheduler: Scheduler, what: &str, ours: f64, theirs: f64) {
    let difference = 100.0 * (ours / theirs - 1.0);
    let name = format!("{scheduler:?} {what}").to_lowercase();
    println!("{name:28} {ours:14.3} {theirs:14.3} {difference:+9.3}");
}
