use super::*;
use crate::engine::Counters;
use crate::metrics::{About, Point, TraceInfo};
use crate::prng::mix;
use crate::request::FinishReason;
use crate::units::{Nanos, Tokens};
use std::fs;
use std::path::Path;

/// A made-up run of `requests`, which queue more the larger `slow` is; `lost` of them never end.
fn run(policy: &str, requests: usize, slow: f64, lost: usize, evictions: u32) -> (Summary, Metrics) {
    let mut metrics = Metrics::new(1, requests);
    let unit = |n: u64| (mix(n) >> 11) as f64 / (1u64 << 53) as f64;
    for i in 0..requests {
        let arrival = Nanos::from_secs_f64(i as f64 * 0.05);
        metrics.arrived(arrival, Tokens(500));
        let u = unit(i as u64 + 7);
        let wait = 0.08 + slow * 0.2 * (-(1.0 - u).ln()).powf(1.0 + slow);
        let tokens = 20 + (unit(i as u64 * 3 + 1) * 400.0) as u32;
        let record = metrics.records.last_mut().unwrap();
        if i + lost < requests {
            record.first = arrival + Nanos::from_secs_f64(wait);
            record.last = record.first + Nanos::from_secs_f64(f64::from(tokens) * (0.02 + 0.01 * u));
            record.output = Tokens(tokens);
            record.reason = Some(FinishReason::Stop);
        }
    }
    let points = 300;
    for i in 0..points {
        let t = i as f64 / points as f64;
        let wave = (t * 9.0).sin().abs() * (1.0 - t * 0.4);
        let noise = unit(i as u64 * 31 + (slow * 100.0) as u64);
        metrics.timeline.points.push(Point {
            running: (180.0 * wave + 20.0 * noise) as u32,
            waiting: (slow * 60.0 * wave * wave + 3.0 * noise) as u32,
            kv_held: (46_000.0 * wave + 4000.0 * noise) as u32,
            preemptions: if wave > 0.8 { evictions } else { 0 },
            tokens: 100,
            joules: (0.1 + 0.3 * wave + 0.02 * noise) * 62.5,
        });
    }
    let trace =
        TraceInfo { name: "azure-conv".into(), digest: "9f3c".into(), rate: 20.0, ..TraceInfo::default() };
    let about = About {
        policy: policy.into(),
        executor: "sim".into(),
        profile: "h200-llama-8b".into(),
        trace,
        load: Some(0.9),
        seed: 7,
        gpus: 1,
        ..About::default()
    };
    let mut summary =
        metrics.summary(about, Counters { steps: 12_345, swaps: evictions.into(), ..Counters::default() });
    summary.makespan_s = 18.75;
    summary.throughput_tok_s = 11_800.0 / (1.0 + slow * 0.1);
    summary.energy.joules = metrics.timeline.points.iter().map(|p| p.joules).sum();
    summary.energy.j_per_output_token = 0.31 + slow * 0.02;
    summary.power.mean_w = summary.energy.joules / 18.75;
    (summary, metrics)
}

fn page(title: &str, runs: &[(Summary, Metrics)]) -> String {
    let runs: Vec<_> = runs.iter().map(|(summary, metrics)| RunReport { summary, metrics }).collect();
    html(title, &runs)
}

fn six() -> Vec<(Summary, Metrics)> {
    let names = ["vllm", "fcfs", "sglang", "sjf", "srpt", "las"];
    let slow = [0.9, 1.1, 0.7, 0.5, 0.3, 0.4];
    names.iter().zip(slow).enumerate().map(|(i, (n, s))| run(n, 2000, s, 30 * (i / 5), i as u32)).collect()
}

#[test]
fn a_page_needs_no_network_and_no_script() {
    let mut runs = six();
    runs[0].0.trace.name = "https://example.org/trace".into();
    let page = page("six policies at http://x", &runs);
    for word in ["http://", "https://", "<script", "url(", "@import", "NaN", "inf\""] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(page.matches("<svg").count(), 11);
}

#[test]
fn text_of_a_trace_cannot_become_markup() {
    let mut runs = vec![run("<b>&\"'", 10, 0.5, 0, 0)];
    runs[0].0.trace.name = "<script>alert(1)</script>".into();
    let page = page("a < b", &runs);
    assert!(!page.contains("<b>") && !page.contains("<script"));
    assert!(page.contains("<h1>a &lt; b</h1>"));
}

#[test]
fn the_same_runs_give_the_same_bytes() {
    assert_eq!(page("p", &six()), page("p", &six()));
}

#[test]
fn small_and_broken_runs_still_make_a_page() {
    for (requests, lost) in [(0, 0), (1, 0), (1, 1), (50, 1)] {
        let page = page("small", &[run("fcfs", requests, 0.5, lost, 0)]);
        assert!(page.ends_with("</html>\n") && !page.contains("NaN"), "{requests} {lost}");
        assert_eq!(page.contains("∞"), lost > 0);
        assert_eq!(page.contains("The gap to 100 % is unfinished"), lost > 0);
        assert!(page.contains("Zero throughout."), "no preemptions");
    }
    assert!(page("none", &[]).ends_with("</html>\n"));
}

/// An axis once began at 0.1 ms, with all that is faster at its left end and called 0.
#[test]
fn fast_runs_have_an_axis_of_their_own() {
    let mut run = run("fcfs", 50, 0.5, 0, 0);
    for record in &mut run.1.records {
        let wait = 1 + mix(record.arrival.0) % 9_000; // ns
        record.first = record.arrival + Nanos(wait);
        record.last = record.first + Nanos(wait);
    }
    let page = page("fast", &[run]);
    let chart = page.split("<svg").nth(1).unwrap();
    for tick in ["0.0000002", "0.000001", "0.00001"] {
        assert!(chart.contains(&format!(">{tick}</text>")), "{tick}: {chart}");
    }
}

#[test]
fn a_distribution_has_few_points() {
    let page = page("many", &[run("fcfs", 50_000, 0.5, 0, 0)]);
    let longest = page.lines().filter(|l| l.contains("class=\"line")).map(|l| l.matches('L').count()).max();
    assert!((200..=402).contains(&longest.unwrap()), "{longest:?}");
}

/// Writes pages to look at: `FLYBALL_LOOK=folder cargo test look -- --ignored`.
#[test]
#[ignore = "writes pages for people to look at"]
fn look() {
    let dir = std::env::var("FLYBALL_LOOK").expect("a folder");
    let dir = Path::new(&dir);
    fs::write(dir.join("six.html"), page("Six policies on the Azure conversation trace", &six())).unwrap();
    let one = [run("srpt", 2000, 0.6, 0, 2)];
    fs::write(dir.join("one.html"), page("SRPT at 90 % load", &one)).unwrap();
    let summaries: Vec<_> = six().into_iter().map(|r| r.0).collect();
    println!("{}", summary_table(&summaries.iter().collect::<Vec<_>>()));
}
