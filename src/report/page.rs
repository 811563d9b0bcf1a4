//! The page around the charts: what was run, the figures, the tables, and what they rest on.

use super::RunReport;
use super::charts::{self, Figure};
use super::format::{escape, grouped, joules, number, seconds, tick};
use super::svg::COLOURS;
use crate::metrics::{Stats, Summary};

/// The whole page.
pub fn page(title: &str, runs: &[RunReport<'_>]) -> String {
    let all: Vec<&Summary> = runs.iter().map(|r| r.summary).collect();
    let mut out = about(&all);
    out += &cards(&all);
    out += "<h2>Latency</h2>\n<p>From arrival to the first token (TTFT) and to the last (TTLT), over all \
            submitted requests. Further left is better.</p>\n";
    out += &figures(
        "charts",
        [
            charts::cdf(runs, "Time to first token", |r| r.ttft()),
            charts::cdf(runs, "Time to last token", |r| r.ttlt()),
        ],
    );
    out += "<h2>Percentiles</h2>\n<p>TPOT is the mean gap between the tokens of one request. Lower is \
            better.</p>\n";
    out += &legend(&all);
    out += &figures(
        "charts three",
        [
            charts::percentiles(runs, "TTFT", |s| s.ttft_s),
            charts::percentiles(runs, "TPOT", |s| s.tpot_s),
            charts::percentiles(runs, "TTLT", |s| s.ttlt_s),
        ],
    );
    out += "<h2>Load</h2>\n<p>The largest value in each stretch of time.</p>\n";
    out += &legend(&all);
    out += &figures("charts", charts::load(runs));
    out += "<h2>Power and energy</h2>\n<p>Over all boards, idle gaps included.</p>\n";
    out += &legend(&all);
    out += &figures("charts", charts::power(runs));
    out += "<h2>All figures</h2>\n<p>Percentiles are nearest rank; an unfinished request counts as \
            infinite.</p>\n";
    out += &super::facts::table(&all);
    out += &super::facts::footer(&all);
    shell(title, &out)
}

/// A page that needs nothing else, around `body`, which is markup.
pub fn shell(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n\
         {body}</main>\n</body>\n</html>\n",
        include_str!("style.css")
    )
}

fn figures(class: &str, figures: impl IntoIterator<Item = Figure>) -> String {
    let one = |f: Figure| {
        let (title, svg) = (escape(&f.title), f.svg);
        let note = match f.note.is_empty() {
            true => String::new(),
            false => format!("<p>{}</p>\n", escape(&f.note)),
        };
        format!("<figure>\n<figcaption>{title}</figcaption>\n{svg}{note}</figure>\n")
    };
    let all: String = figures.into_iter().map(one).collect();
    format!("<div class=\"{class}\">\n{all}</div>\n")
}

type Fact = (&'static str, fn(&Summary) -> String);

/// What all runs share, or the several values of it.
fn about(all: &[&Summary]) -> String {
    let facts: [Fact; 8] = [
        ("Policy", |s| s.policy.clone()),
        ("Profile", |s| s.profile.clone()),
        ("Trace", |s| s.trace.name.clone()),
        ("Rate", |s| format!("{} requests/s", number(s.trace.rate))),
        ("Load", |s| s.load.map_or("as recorded".into(), |l| format!("{} % of capacity", tick(100.0 * l)))),
        ("Seed", |s| s.seed.to_string()),
        ("Executor", |s| s.executor.clone()),
        ("Boards", |s| s.gpus.to_string()),
    ];
    let one = |(name, fact): Fact| {
        let mut values: Vec<String> = Vec::new();
        all.iter().map(|s| fact(s)).for_each(|v| {
            if !values.contains(&v) {
                values.push(v);
            }
        });
        format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&values.join(", ")))
    };
    let facts: String = facts.map(one).concat();
    format!("<dl class=\"about\">\n{facts}</dl>\n")
}

fn chip(series: usize) -> String {
    format!("<span class=\"chip s{}\"></span>", series % COLOURS)
}

/// The colours of the runs; none for a single run, which needs no telling apart.
fn legend(all: &[&Summary]) -> String {
    if all.len() < 2 {
        return String::new();
    }
    let one = |(i, s): (usize, &&Summary)| format!("<li>{}{}</li>\n", chip(i), escape(&s.policy));
    let items: String = all.iter().enumerate().map(one).collect();
    format!("<ul class=\"legend\">\n{items}</ul>\n")
}

/// A figure of a run: what orders it, and how it reads.
type Value = (f64, String);
type Card<'a> = (&'static str, &'a dyn Fn(&Summary) -> Value);

fn cards(all: &[&Summary]) -> String {
    let time = |v: f64| (v, seconds(v));
    let first = |s: &Summary, f: fn(&Stats) -> f64| time(f(&s.ttft_s));
    let evictions = |s: &Summary| s.preemptions.swap + s.preemptions.recompute;
    let cards: [Card<'_>; 8] = [
        ("Requests finished", &|s| {
            let left = s.requests.submitted - s.requests.finished.min(s.requests.submitted);
            let of = format!("{} / {}", grouped(s.requests.finished), grouped(s.requests.submitted));
            (left as f64, of)
        }),
        ("TTFT P50", &|s| first(s, |t| t.p50)),
        ("TTFT P99", &|s| first(s, |t| t.p99)),
        ("TTLT P99", &|s| time(s.ttlt_s.p99)),
        ("Throughput", &|s| (-s.throughput_tok_s, format!("{} tok/s", number(s.throughput_tok_s)))),
        ("Energy per output token", &|s| (s.energy.j_per_output_token, joules(s.energy.j_per_output_token))),
        ("Mean power", &|s| (s.power.mean_w, format!("{} W", number(s.power.mean_w)))),
        ("Preemptions", &|s| (evictions(s) as f64, grouped(evictions(s)))),
    ];
    let cards: String = cards.iter().map(|(name, value)| card(name, all, value)).collect();
    let many = if all.len() > 1 { " many" } else { "" };
    format!("<div class=\"cards{many}\">\n{cards}</div>\n")
}

/// One figure: large for a single run, else a line per run with the best, if one is, in bold.
fn card(name: &str, all: &[&Summary], value: &dyn Fn(&Summary) -> Value) -> String {
    let values: Vec<Value> = all.iter().map(|s| value(s)).collect();
    if let [(_, text)] = &values[..] {
        let (figure, unit) = text.split_once(' ').unwrap_or((text, ""));
        return format!(
            "<div class=\"card\"><h3>{name}</h3><div class=\"big\">{figure} <small>{unit}</small></div></div>\n"
        );
    }
    let best = values.iter().min_by(|a, b| a.0.total_cmp(&b.0)).map(|v| v.1.as_str());
    let alone = values.iter().filter(|v| Some(v.1.as_str()) == best).count() == 1;
    let line = |(i, (s, (_, text))): (usize, (&&Summary, &Value))| {
        let class = if alone && Some(text.as_str()) == best { " class=\"best\"" } else { "" };
        format!("<tr><td>{}{}</td><td{class}>{text}</td></tr>\n", chip(i), escape(&s.policy))
    };
    let lines: String = all.iter().zip(&values).enumerate().map(line).collect();
    format!("<div class=\"card\"><h3>{name}</h3><table>\n{lines}</table></div>\n")
}
