//! Results for machines: one row per run.

use super::figures::{Curve, Figures};
use super::run::{Job, Results};
use serde_json::{Value, json};

/// One row per job, each once, in their order.
pub fn rows(jobs: &[Job], results: &Results) -> Vec<Value> {
    let mut seen = std::collections::BTreeSet::new();
    let fresh = |job: &&Job| seen.insert((job.cell.name(), job.cell.requests, job.policy.clone(), job.seed));
    jobs.iter().filter(fresh).map(|job| row(job, results.of(&job.cell, &job.policy, job.seed))).collect()
}

fn row(job: &Job, f: &Figures) -> Value {
    let cell = &job.cell;
    json!({
        "cell": cell.name(),
        "profile": cell.profile,
        "work": cell.work.to_string(),
        "arrivals": cell.arrivals,
        "load": cell.load,
        "change": cell.change.to_string().trim_start(),
        "policy": job.policy,
        "seed": job.seed,
        "requests": f.submitted,
        "finished": f.finished,
        "ttft_s": curve(&f.ttft),
        "tpot_s": curve(&f.tpot),
        "ttlt_s": curve(&f.ttlt),
        "tbt_p99_s": f.tbt_p99_s,
        "throughput_tok_s": f.tok_s,
        "offered_qps": f.offered_qps,
        "achieved_qps": f.achieved_qps,
        "swaps": f.swaps,
        "recomputes": f.recomputes,
        "swapped_tokens": f.swapped_tokens,
        "recomputed_tokens": f.recomputed_tokens,
        "output_tokens": f.output_tokens,
        "steps": f.steps,
        "j_per_output_token": f.j_per_token,
        "split": f.split,
    })
}

/// Null is infinite: a request did not end. It stands for the whole curve where no request has that latency.
fn curve(c: &Curve) -> Value {
    if c.is_empty() {
        return Value::Null;
    }
    json!({
        "mean": c.mean(),
        "p50": c.at(0.5),
        "p90": c.at(0.9),
        "p95": c.at(0.95),
        "p99": c.at(0.99),
        "p999": c.at(0.999),
        "max": c.at(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_that_no_request_has_is_told_from_an_infinite_one() {
        assert_eq!(curve(&Curve::of(&mut [])), Value::Null);
        let endless = curve(&Curve::of(&mut [1.0, f64::INFINITY]));
        assert_eq!((&endless["p50"], &endless["mean"]), (&json!(1.0), &Value::Null));
    }
}
