//! The charts of a report, each from all runs at once.

use super::RunReport;
use super::format::{joule_unit, seconds, tick, time_unit};
use super::svg::{Axis, Chart, class};
use crate::metrics::{RequestRecord, Stats, Summary, nearest_rank};
use crate::units::Nanos;

const TALL: f64 = 320.0;
const LOW: f64 = 210.0;

/// The most points of one distribution's line.
const CDF_POINTS_MAX: usize = 400;
/// The most columns of one time line; more stretches are drawn together.
const COLUMNS_MAX: usize = 240;

/// A caption and its drawing.
pub struct Figure {
    /// What it shows, with the unit.
    pub title: String,
    /// What to know about it; may be empty.
    pub note: String,
    /// The drawing.
    pub svg: String,
}

/// A latency of a request that has one.
pub type Latency = fn(&RequestRecord) -> Option<Nanos>;

/// The distribution of a latency over all submitted requests.
pub fn cdf(runs: &[RunReport<'_>], title: &str, latency: Latency) -> Figure {
    let sorted = |run: &RunReport<'_>| {
        let mut values: Vec<f64> =
            run.metrics.records.iter().filter_map(latency).map(Nanos::as_secs_f64).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let values: Vec<Vec<f64>> = runs.iter().map(sorted).collect();
    let low = values.iter().flatten().filter(|v| **v > 0.0).fold(f64::INFINITY, |a, b| a.min(*b));
    let high = values.iter().filter_map(|v| v.last()).fold(0.0_f64, |a, b| a.max(*b));
    let x = Axis::log(low, high, "seconds, log scale", tick);
    let y = Axis::linear(100.0, "", |v| format!("{} %", tick(v)));
    let mut chart = Chart::new(TALL, x, y);
    let (mut notes, mut lines) = (Vec::new(), Vec::new());
    for (i, (run, values)) in runs.iter().zip(&values).enumerate() {
        let submitted = run.metrics.submitted();
        if values.len() < submitted {
            let missing = submitted - values.len();
            notes.push(format!("{missing} of {submitted} ({})", run.summary.policy));
        }
        let share = |rank: usize| 100.0 * rank as f64 / submitted as f64;
        // The line keeps its height to the right edge: what is missing to 100 % did not end.
        let ends = values.last().map(|_| (f64::MAX, share(values.len())));
        let starts = values.first().map(|v| (*v, 0.0));
        let inner = thin(values.len()).map(|rank| (values[rank], share(rank + 1)));
        lines.push(starts.into_iter().chain(inner).collect::<Vec<_>>());
        chart.line(i, lines[i].iter().copied().chain(ends));
        for (q, name) in [(0.5, "P50"), (0.95, "P95"), (0.99, "P99")] {
            if let Some(v) = values.get(nearest_rank(submitted.max(1), q)) {
                let says = format!("{} {name} {}", run.summary.policy, seconds(*v));
                chart.dot(i, *v, 100.0 * q, &says);
            }
        }
    }
    let key = runs.iter().zip(&values).enumerate().filter(|(_, (run, _))| run.metrics.submitted() > 0);
    let key = key.map(|(i, (run, values))| {
        let n = run.metrics.submitted();
        let at = |q| seconds(values.get(nearest_rank(n, q)).copied().unwrap_or(f64::INFINITY));
        (i, format!("{}  P50 {}, P99 {}", name(run.summary), at(0.5), at(0.99)))
    });
    labels(&mut chart, key.collect(), &lines);
    let note = match notes.is_empty() {
        true => "Dots at P50, P95 and P99.".into(),
        false => format!("Dots at P50, P95 and P99. The gap to 100 % is unfinished: {}.", notes.join(", ")),
    };
    let svg = chart.finish(&format!("{title}: share of requests over seconds"));
    Figure { title: format!("{title}, share of requests"), note, svg }
}

/// Ranks of at most [`CDF_POINTS_MAX`] of `len` sorted values; the upper tail, which people read, is kept
/// twice as dense as the rest.
fn thin(len: usize) -> impl Iterator<Item = usize> {
    let body = len * 9 / 10;
    let step = |n: usize, points: usize| n.div_ceil(points).max(1);
    let low = (0..body).step_by(step(body, CDF_POINTS_MAX / 2));
    let high = (body..len).step_by(step(len - body, CDF_POINTS_MAX / 2 - 3));
    low.chain(high).chain(len.checked_sub(1)).take(CDF_POINTS_MAX)
}

/// Names of lines, in their colours: below on the right, or above on the left if the lines pass there.
fn labels(chart: &mut Chart, names: Vec<(usize, String)>, lines: &[Vec<(f64, f64)>]) {
    let longest = names.iter().map(|n| n.1.chars().count()).max().unwrap_or(0);
    let (width, height) = (longest as f64 * 7.6, names.len() as f64 * 17.0);
    let (right, bottom) = (chart.right() - 4.0, chart.bottom() - 10.0);
    let points = lines.iter().flatten().map(|(x, y)| (chart.px(*x), chart.py(*y)));
    let (mut below, mut above) = (0, 0);
    for (x, y) in points {
        below += usize::from(x > right - width && y > bottom - height);
        above += usize::from(x < chart.left() + width + 8.0 && y < chart.top() + height + 6.0);
    }
    let (x, first, anchor) = match above < below {
        true => (chart.left() + 8.0, chart.top() + 16.0, "start"),
        false => (right, bottom - height + 17.0, "end"),
    };
    for (n, (i, text)) in names.iter().enumerate() {
        let class = format!("key t{}", i % super::svg::COLOURS);
        chart.text(x, first + 17.0 * n as f64, anchor, &class, text);
    }
}

fn name(summary: &Summary) -> String {
    let short: String = summary.policy.chars().take(24).collect();
    if short.len() < summary.policy.len() { short + "…" } else { short }
}

type Named = (&'static str, fn(&Stats) -> f64);

/// Mean and percentiles of one latency, a group each, a bar per run.
pub fn percentiles(runs: &[RunReport<'_>], title: &str, stats: fn(&Summary) -> Stats) -> Figure {
    let groups: [Named; 4] =
        [("mean", |s| s.mean), ("P50", |s| s.p50), ("P95", |s| s.p95), ("P99", |s| s.p99)];
    let all = runs.iter().flat_map(|r| groups.map(|(_, f)| f(&stats(r.summary))));
    let finite: Vec<f64> = all.filter(|v| v.is_finite() && *v > 0.0).collect();
    let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
    let high = finite.iter().copied().fold(0.0, f64::max);
    let log = high > 30.0 * low;
    let (scale, unit) = if log { (1.0, "s") } else { time_unit(high * 4.0) };
    let y = match log {
        true => Axis::log(low * 0.8, high, "", tick),
        false => Axis::linear(high / scale, "", tick),
    };
    let mut chart = Chart::new(TALL + 20.0, Axis::groups(groups.len()), y);
    let slot = 0.76 / runs.len().max(1) as f64;
    let infinite = runs.iter().any(|r| groups.iter().any(|(_, f)| f(&stats(r.summary)).is_infinite()));
    for (g, (group, f)) in groups.iter().enumerate() {
        for (i, run) in runs.iter().enumerate() {
            let v = f(&stats(run.summary));
            let says = format!("{} {group} {}", run.summary.policy, seconds(v));
            let at = g as f64 + 0.12 + slot * i as f64;
            bar(&mut chart, i, (at + slot * 0.06, at + slot * 0.94), v / scale, log, &says);
        }
        let x = chart.px(g as f64 + 0.5);
        let y = chart.bottom() + 24.0;
        chart.text(x, y, "middle", "tick", group);
    }
    let mut note = String::new();
    if log {
        note += "Log scale: a dot on a stem, since a bar's length would mean nothing. ";
    }
    if infinite {
        note += "∞: a request did not end.";
    }
    let svg = chart.finish(&format!("{title}: mean, P50, P95, P99 in {unit}"));
    Figure { title: format!("{title}, {unit}"), note: note.trim_end().into(), svg }
}

/// One bar between two places; a dot on a stem where the axis has no zero; a sign where it has no end.
fn bar(chart: &mut Chart, series: usize, (from, to): (f64, f64), v: f64, log: bool, says: &str) {
    let (a, b, bottom) = (chart.px(from), chart.px(to), chart.bottom());
    let width = (b - a).min(44.0);
    let (a, middle) = ((a + b - width) / 2.0, (a + b) / 2.0);
    let (y, class) = (chart.py(v), class(series));
    let says = super::format::escape(says);
    if v.is_infinite() {
        let class = format!("key end t{}", series % super::svg::COLOURS);
        chart.text(middle, y + 14.0, "middle", &class, "∞");
    } else if log {
        chart.raw(&format!(r#"<path class="stem {class}" d="M{middle:.1} {bottom}V{y:.1}"/>"#));
        chart.raw(&format!(
            r#"<circle class="dot {class}" cx="{middle:.1}" cy="{y:.1}" r="4.5"><title>{says}</title></circle>"#
        ));
    } else {
        let height = bottom - y;
        chart.raw(&format!(
            r#"<rect class="bar {class}" x="{a:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"><title>{says}</title></rect>"#
        ));
    }
}

/// What a time line shows of one run: a value per column, and where each column begins.
type Series = Vec<(f64, f64)>;

fn over_time(runs: &[RunReport<'_>], title: &str, values: &[Series], label: fn(f64) -> String) -> Figure {
    let end = runs.iter().map(|r| r.summary.makespan_s).fold(0.0, f64::max);
    let (scale, unit) = time_unit(end);
    let high = values.iter().flatten().map(|p| p.1).fold(0.0, f64::max);
    let x = Axis::until(end / scale, &format!("time, {unit}"), tick);
    let mut chart = Chart::new(LOW, x, Axis::linear(high, "", label));
    for (i, (run, series)) in runs.iter().zip(values).enumerate() {
        let last = series.last().map(|p| (run.summary.makespan_s, p.1));
        chart.steps(i, series.iter().copied().chain(last).map(|(t, v)| (t / scale, v)));
    }
    let note = if high == 0.0 { "Zero throughout.".into() } else { String::new() };
    let svg = chart.finish(&format!("{title} over time"));
    Figure { title: title.into(), note, svg }
}

/// Running, waiting, KV and evictions over time.
pub fn load(runs: &[RunReport<'_>]) -> Vec<Figure> {
    let largest = |value: fn(&crate::metrics::Point, &Summary) -> f64| -> Vec<Series> {
        let series = |run: &RunReport<'_>| {
            columns(run, |points| points.iter().map(|p| value(p, run.summary)).fold(0.0, f64::max))
        };
        runs.iter().map(series).collect()
    };
    let running = largest(|p, _| f64::from(p.running));
    let waiting = largest(|p, _| f64::from(p.waiting));
    let kv = largest(|p, s| 100.0 * f64::from(p.kv_held) / f64::from(s.config.kv_blocks.0.max(1)));
    let evicted = |run: &RunReport<'_>| {
        let mut total = 0.0;
        columns(run, |points| {
            total += points.iter().map(|p| f64::from(p.preemptions)).sum::<f64>();
            total
        })
    };
    let evicted: Vec<Series> = runs.iter().map(evicted).collect();
    vec![
        over_time(runs, "Running, rows in a step", &running, tick),
        over_time(runs, "Waiting, requests", &waiting, tick),
        over_time(runs, "KV blocks held, % of the pool", &kv, tick),
        over_time(runs, "Preemptions so far", &evicted, tick),
    ]
}

/// One value per column of at most [`COLUMNS_MAX`].
fn columns(run: &RunReport<'_>, mut value: impl FnMut(&[crate::metrics::Point]) -> f64) -> Series {
    let line = &run.metrics.timeline;
    let (chunk, span) = (chunk(line.points.len()), line.span.as_secs_f64());
    let column = |(i, points)| ((i * chunk) as f64 * span, value(points));
    line.points.chunks(chunk).enumerate().map(column).collect()
}

fn chunk(points: usize) -> usize {
    points.div_ceil(COLUMNS_MAX).max(1)
}

/// Power per column and energy so far.
pub fn power(runs: &[RunReport<'_>]) -> Vec<Figure> {
    let watts: Vec<Series> = runs.iter().map(watts).collect();
    let top = runs.iter().map(|r| r.summary.energy.joules).fold(0.0, f64::max);
    let (scale, unit) = joule_unit(top);
    let energy = |run: &RunReport<'_>| {
        let mut total = 0.0;
        columns(run, |points| {
            total += points.iter().map(|p| p.joules).sum::<f64>() / scale;
            total
        })
    };
    let energy: Vec<Series> = runs.iter().map(energy).collect();
    vec![
        over_time(runs, "Power, W (mean of each stretch)", &watts, tick),
        over_time(runs, &format!("Energy so far, {unit}"), &energy, tick),
    ]
}

/// Mean power of each column. An idle gap is booked where it begins, so a stretch without energy shares
/// that of the last one that has some; the last column ends where the run does.
fn watts(run: &RunReport<'_>) -> Series {
    let line = &run.metrics.timeline;
    let (chunk, span) = (chunk(line.points.len()), line.span.as_secs_f64());
    let mut joules: Vec<f64> = line.points.iter().map(|p| p.joules).collect();
    let mut at = 0;
    while at < joules.len() {
        let empty = joules[at + 1..].iter().take_while(|j| **j == 0.0).count();
        let each = joules[at] / (empty + 1) as f64;
        joules[at..=at + empty].fill(each);
        at += empty + 1;
    }
    let column = |(i, points): (usize, &[f64])| {
        let from = (i * chunk) as f64 * span;
        let full = points.len() as f64 * span;
        let long = (run.summary.makespan_s - from).clamp(full * 0.05, full);
        (from, points.iter().sum::<f64>() / long)
    };
    joules.chunks(chunk).enumerate().map(column).collect()
}
