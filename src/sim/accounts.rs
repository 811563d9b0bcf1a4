//! What the accounts of a run say where several boards work side by side, and where requests are lost.

use super::*;
use crate::cost::Profile;
use crate::metrics::{About, Summary};

fn setup(gpus: u32) -> Setup {
    Setup {
        config: Config::default(),
        policy: "fcfs".into(),
        cost: CostModel::new(&Profile::load("a100-llama-3-8b").unwrap()),
        believed: None,
        gpus,
        router: Router::RoundRobin,
        max_tokens: None,
        host_step: Nanos::ZERO,
        seed: 1,
    }
}

/// Requests of 100 tokens that are there from the start, by their outputs.
fn at_once(outputs: &[u32]) -> Vec<Arrival> {
    let arrival = |output: &u32| Arrival {
        at: Nanos::ZERO,
        prompt: Prompt::Length(Tokens(100)),
        output: Tokens(*output),
        client: 0,
        priority: 0,
    };
    outputs.iter().map(arrival).collect()
}

fn run(gpus: u32, arrivals: &[Arrival]) -> Summary {
    let outcome = simulate(&setup(gpus), arrivals, &mut ()).unwrap();
    outcome.metrics.summary(About::default(), outcome.counters)
}

/// The run once ended with the board that was stepped last: 184,000 tokens per second of one that had two.
#[test]
fn a_run_ends_with_the_last_token_of_any_board() {
    for outputs in [[2, 2000], [2000, 2]] {
        let summary = run(2, &at_once(&outputs));
        assert_eq!(summary.makespan_s, summary.ttlt_s.max);
        assert!((summary.throughput_tok_s * summary.ttlt_s.max - 2002.0).abs() < 1e-6);
    }
}

/// Boards are stepped one after the other, so time goes back between them: the largest power of two boards
/// was once that of one.
#[test]
fn boards_that_work_side_by_side_draw_their_power_together() {
    let (one, two) = (run(1, &at_once(&[2000])), run(2, &at_once(&[2000, 2000])));
    let twice = |a: f64, b: f64| (a / b - 2.0).abs() < 1e-9;
    assert!(twice(two.energy.joules, one.energy.joules));
    assert!(twice(two.power.mean_w, one.power.mean_w));
    assert!(twice(two.power.max_1s_w, one.power.max_1s_w));
}

/// A step of 5 ms at 480 W was once a second of 2.6 W, below the mean of the run.
#[test]
fn the_largest_power_of_a_run_within_a_second_is_its_mean() {
    let summary = run(1, &at_once(&[1]));
    assert!(summary.makespan_s < 1.0 && summary.power.mean_w > 100.0);
    assert_eq!(summary.power.max_1s_w, summary.power.mean_w);
}

#[test]
fn a_node_without_work_is_charged_its_idle_power() {
    let (one, four) = (run(1, &at_once(&[2000])), run(4, &at_once(&[2000])));
    let idle_w = setup(1).cost.idle_energy(Nanos::from_secs_f64(1.0)).as_joules_f64();
    let wanted = one.energy.joules + 3.0 * idle_w * one.makespan_s;
    assert!((four.energy.joules - wanted).abs() < 1e-3, "{} J, not {wanted}", four.energy.joules);
    assert!((four.power.max_1s_w - one.power.max_1s_w - 3.0 * idle_w).abs() < 1e-3);
}

#[test]
fn a_node_that_ends_early_is_charged_until_the_run_ends() {
    let (short, long, both) =
        (run(1, &at_once(&[200])), run(1, &at_once(&[2000])), run(2, &at_once(&[200, 2000])));
    let idle_w = setup(1).cost.idle_energy(Nanos::from_secs_f64(1.0)).as_joules_f64();
    let wanted = short.energy.joules + long.energy.joules + idle_w * (long.makespan_s - short.makespan_s);
    assert!((both.energy.joules - wanted).abs() < 1e-3, "{} J, not {wanted}", both.energy.joules);
}

#[test]
fn a_request_that_was_not_served_has_infinite_latencies() {
    let mut arrivals = at_once(&[2; 50]);
    arrivals.iter_mut().for_each(|a| a.prompt = Prompt::Length(Tokens(200_000)));
    let summary = run(1, &arrivals);
    assert_eq!((summary.requests.finished, summary.requests.rejected), (0, 50));
    for stats in [summary.ttft_s, summary.tpot_s, summary.ttlt_s] {
        assert_eq!((stats.mean, stats.p50, stats.max), (f64::INFINITY, f64::INFINITY, f64::INFINITY));
    }
}

/// A single token has no gap: it is served, and its request has no TPOT.
#[test]
fn a_served_request_of_one_token_has_no_tpot() {
    let summary = run(1, &at_once(&[1, 1, 11]));
    assert_eq!(summary.requests.finished, 3);
    assert!(summary.tpot_s.p50 > 0.0 && summary.tpot_s.max.is_finite());
}

/// A capacity without completions was once infinite, and scaling to a share of it panicked.
#[test]
fn a_machine_that_refuses_everything_has_no_capacity() {
    let mut arrivals = at_once(&[2; 50]);
    arrivals[1..].iter_mut().for_each(|a| a.prompt = Prompt::Length(Tokens(200_000)));
    let error = capacity(&setup(1), &arrivals).unwrap_err().to_string();
    assert!(error.contains("9800 of 10000 requests are refused"), "{error}");
}
