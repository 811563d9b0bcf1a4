//! The whole summary as a table, and the small print.

use super::format::{escape, grouped, joules, number, seconds};
use crate::metrics::{Stats, Summary};

type Named<T> = (&'static str, T);
type Cell = fn(&Summary) -> String;
type Kind = Named<fn(&Summary) -> Stats>;
type Figure = Named<fn(&Stats) -> f64>;
type Row = (String, Box<dyn Fn(&Summary) -> String>);
type Part = (&'static str, Vec<Row>);

/// Every figure of every run: one row each, one column per run.
pub fn table(all: &[&Summary]) -> String {
    let head: String = all.iter().map(|s| format!("<th>{}</th>", escape(&s.policy))).collect();
    let mut out = format!("<div class=\"wide\"><table>\n<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n");
    for (part, rows) in parts() {
        let span = all.len() + 1;
        out += &format!("<tr><th class=\"part\" colspan=\"{span}\">{part}</th></tr>\n");
        for (name, cell) in rows {
            let cells: String = all.iter().map(|s| format!("<td>{}</td>", escape(&cell(s)))).collect();
            out += &format!("<tr><th>{name}</th>{cells}</tr>\n");
        }
    }
    out + "</tbody></table></div>\n"
}

fn parts() -> Vec<Part> {
    vec![
        ("Run", plain(&RUN)),
        ("Requests", plain(&REQUESTS)),
        ("Latency", latency()),
        ("Tokens and steps", plain(&TOKENS)),
        ("Energy and power", plain(&ENERGY)),
    ]
}

fn plain(rows: &'static [Named<Cell>]) -> Vec<Row> {
    rows.iter().map(|(name, cell)| (name.to_string(), Box::new(*cell) as Box<_>)).collect()
}

fn latency() -> Vec<Row> {
    let kinds: [Kind; 4] =
        [("TTFT", |s| s.ttft_s), ("TBT", |s| s.tbt_s), ("TPOT", |s| s.tpot_s), ("TTLT", |s| s.ttlt_s)];
    let figures: [Figure; 6] = [
        ("mean", |t| t.mean),
        ("P50", |t| t.p50),
        ("P90", |t| t.p90),
        ("P95", |t| t.p95),
        ("P99", |t| t.p99),
        ("max", |t| t.max),
    ];
    let mut rows = Vec::new();
    for (kind, stats) in kinds {
        for (figure, value) in figures {
            let cell = move |s: &Summary| seconds(value(&stats(s)));
            rows.push((format!("{kind} {figure}"), Box::new(cell) as Box<_>));
        }
    }
    rows
}

const RUN: [Named<Cell>; 9] = [
    ("Executor", |s| s.executor.clone()),
    ("Profile", |s| s.profile.clone()),
    ("Trace", |s| s.trace.name.clone()),
    ("Trace digest", |s| s.trace.digest.chars().take(16).collect()),
    ("Rows skipped", |s| grouped(s.trace.skipped)),
    ("Rate, requests/s", |s| number(s.trace.rate)),
    ("Rate scale", |s| number(s.trace.rate_scale)),
    ("Load, of capacity", |s| s.load.map_or("–".into(), number)),
    ("Seed", |s| s.seed.to_string()),
];

const REQUESTS: [Named<Cell>; 6] = [
    ("Submitted", |s| grouped(s.requests.submitted)),
    ("Finished", |s| grouped(s.requests.finished)),
    ("Rejected", |s| grouped(s.requests.rejected)),
    ("Cancelled", |s| grouped(s.requests.cancelled)),
    ("Past their deadline", |s| grouped(s.requests.deadline)),
    ("Failed", |s| grouped(s.requests.failed)),
];

const TOKENS: [Named<Cell>; 11] = [
    ("Prompt tokens", |s| grouped(s.tokens.prompt)),
    ("From the prefix cache", |s| grouped(s.tokens.cached)),
    ("Output tokens", |s| grouped(s.tokens.output)),
    ("Recomputed tokens", |s| grouped(s.tokens.recomputed)),
    ("Swapped tokens", |s| grouped(s.tokens.swapped)),
    ("Preemptions by swap", |s| grouped(s.preemptions.swap)),
    ("Preemptions by recompute", |s| grouped(s.preemptions.recompute)),
    ("Preemptions of protected rows", |s| grouped(s.preemptions.overrides)),
    ("Steps", |s| grouped(s.steps)),
    ("Throughput, tok/s", |s| number(s.throughput_tok_s)),
    ("Makespan", |s| seconds(s.makespan_s)),
];

const ENERGY: [Named<Cell>; 9] = [
    ("Energy", |s| joules(s.energy.joules)),
    ("Energy per output token", |s| joules(s.energy.j_per_output_token)),
    ("Source of energy", |s| s.energy.source.clone()),
    ("Mean power, W", |s| number(s.power.mean_w)),
    ("Largest power over 1 s, W", |s| number(s.power.max_1s_w)),
    ("Power cap, W", |s| s.power.cap_w.map_or("none".into(), number)),
    ("Overshoot over 1 s, %", |s| s.power.overshoot_pct_1s.map_or("–".into(), number)),
    ("Time above the cap", |s| s.power.violation_s.map_or("–".into(), seconds)),
    ("Settling time", |s| s.power.settling_s.map_or("–".into(), seconds)),
];

/// What the figures rest on: the exact limits, what is modelled, and what the run cost here.
pub fn footer(all: &[&Summary]) -> String {
    let mut out = String::from("<footer>\n");
    let mut seen: Vec<&crate::config::Config> = Vec::new();
    for s in all {
        if seen.contains(&&s.config) {
            continue;
        }
        seen.push(&s.config);
        let of: Vec<&str> = all.iter().filter(|o| o.config == s.config).map(|o| &o.policy[..]).collect();
        out += &format!("<p>Limits of each engine ({}):</p>\n<dl>\n", escape(&of.join(", ")));
        let value = serde_json::to_value(&s.config).expect("limits are plain values");
        for (name, value) in value.as_object().expect("limits are a struct") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            out += &format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(&value));
        }
        out += "</dl>\n";
    }
    out += &format!("<p>{}</p>\n", basis(all));
    let host = |s: &&Summary| {
        let (wall, step) = (seconds(s.host.wall_s), seconds(s.host.ns_per_step.p50 as f64 * 1e-9));
        format!("{} {wall}, {step} per step", escape(&s.policy))
    };
    let host: Vec<String> = all.iter().map(host).collect();
    out + &format!(
        "<p>On this host, the only figures that differ between equal runs: {}.</p>\n</footer>\n",
        host.join("; ")
    )
}

fn basis(all: &[&Summary]) -> String {
    let modelled = |s: &&&Summary| s.energy.source == "modelled";
    match all.iter().filter(modelled).count() {
        n if n == all.len() => {
            "Energy and step times are modelled from the profile; nothing was measured.".into()
        }
        _ => {
            let of: Vec<String> =
                all.iter().map(|s| format!("{}: {}", escape(&s.policy), escape(&s.energy.source))).collect();
            format!("Source of the energy ({}). What is modelled comes from the profile.", of.join("; "))
        }
    }
}
