//! Speed: both simulators replay the same requests in turn, each with its own cost model.

use crate::{Job, aisimulate, ours};
use std::error::Error;

/// Prints the medians of each side's runs and their ratio.
pub fn compare(jobs: &[Job], runs: usize) -> Result<(), Box<dyn Error>> {
    let tokens: u64 = jobs.iter().map(|job| u64::from(job.output)).sum();
    let policies = ["fcfs", "vllm"];
    let mut walls = [const { Vec::new() }; 3];
    let mut steps = [0, 0];
    let mut their_tokens = 0;
    for _ in 0..runs {
        for (side, policy) in policies.iter().enumerate() {
            let (wall, outcome) = ours::replay(jobs, policy);
            walls[side].push(wall);
            steps[side] = outcome.counters.steps;
        }
        let (wall, tokens) = aisimulate::replay(jobs);
        walls[2].push(wall);
        their_tokens = tokens;
    }
    assert_eq!(their_tokens, tokens, "both yield the trace's tokens");
    // Their report does not count steps.
    let [fcfs, vllm, theirs] = walls.map(median);
    println!("{} requests, {tokens} output tokens, medians of {runs} runs in turn", jobs.len());
    println!("{:20} {:>12} {:>12} {:>10} {:>8}", "", "requests/s", "ns/token", "steps", "ratio");
    let row = |name: &str, wall: f64, steps: Option<u64>| {
        let (rate, ns) = (jobs.len() as f64 / wall, wall * 1e9 / tokens as f64);
        let steps = steps.map_or("-".into(), |n| n.to_string());
        println!("{name:20} {rate:12.0} {ns:12.1} {steps:>10} {:8.2}", theirs / wall);
    };
    row("flyball fcfs", fcfs, Some(steps[0]));
    row("flyball vllm", vllm, Some(steps[1]));
    row("aisimulate vllm", theirs, None);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
