//! The drawings of the public suite.

use super::arms::{Arm, names};
use super::cells::Cell;
use super::document::{Figure, Section};
use super::draw;
use super::figures::{Curve, Figures, shares};
use super::measures::{PUBLIC, TTLT_MEAN, TTLT_P99};
use super::public::Table;
use super::stats::{Spread, mean};

/// A latency and its name.
type Latency = (&'static str, fn(&Figures) -> &Curve);

const LATENCIES: [Latency; 2] = [("TTLT", |f| &f.ttlt), ("TTFT", |f| &f.ttft)];

/// Cells whose curves are drawn, at most.
const DRAWN_MAX: usize = 6;

impl<'a> Table<'a> {
    /// A map of wins and losses against the first arm and against the best that knows no lengths, Pareto
    /// plots, and curves of a few cells.
    pub fn gallery(self) -> Vec<Section> {
        let Some(subject) = self.subject() else { return Vec::new() };
        let base = self.arms[0].name.as_str();
        let rivals: Vec<&str> = names(self.arms).into_iter().filter(|n| *n != subject.name).collect();
        let blind: Vec<&str> = rivals.iter().copied().filter(|name| !knows_lengths(name)).collect();
        let map = |title: String, rivals: &[&str]| {
            let text = "Below one is better, and blue; above one is worse, and orange; for tok/s the other way \
                        round. Ratios are geometric means of paired seeds; the range is shown when a pointer \
                        rests on one.";
            Section::new(title).text(text).markup(self.heat(rivals, &PUBLIC))
        };
        vec![
            map(format!("{} against {base}", subject.name), &[base]),
            map(format!("{} against the best arm that knows no lengths", subject.name), &blind),
            self.pareto(),
            self.curves(),
        ]
    }

    fn pareto(self) -> Section {
        let base = &self.arms[0];
        let plot = |cell: &Cell| {
            let at = |arm: &Arm| {
                let ratio = |m| self.runs.ratio(cell, arm, base, m).map_or(f64::NAN, |r: Spread| r.mean);
                (ratio(TTLT_MEAN), ratio(TTLT_P99))
            };
            let points: Vec<(f64, f64)> = self.arms.iter().map(at).collect();
            let axes = ["mean TTLT, ratio", "P99 TTLT"];
            draw::pareto(&cell.name(), axes, &names(self.arms), &points)
        };
        let text = format!(
            "Mean and P99 TTLT of each arm, as ratios to {}: nearer to the lower left is better.",
            base.name
        );
        Section::new("Mean against tail").text(text).figures(self.drawn().map(plot).collect())
    }

    /// The cells that are drawn: those at 0.99 first, where arms differ and nothing is overloaded.
    fn drawn(self) -> impl Iterator<Item = &'a Cell> {
        let near = |cell: &&Cell| (cell.load - 0.99).abs() < 1e-9;
        let first = self.cells.iter().filter(near);
        first.chain(self.cells.iter().filter(move |cell| !near(cell))).take(DRAWN_MAX)
    }

    fn curves(self) -> Section {
        let base = &self.arms[0];
        let rivals: Vec<Arm> = self.arms[1..].to_vec();
        let slowdown = |cell: &Cell, (name, of): Latency| {
            let line = |arm: &Arm| {
                let at = |share| Some((share, self.runs.slowdown(cell, arm, base, of, share)?));
                shares().filter_map(at).collect::<Vec<_>>()
            };
            let lines: Vec<Vec<(f64, f64)>> = rivals.iter().map(line).collect();
            let title = format!("{}: {name}, slower than {}, %", cell.name(), base.name);
            draw::slowdown(&title, &names(&rivals), &lines)
        };
        let charts: Vec<Figure> =
            self.drawn().flat_map(|cell| LATENCIES.map(|latency| slowdown(cell, latency))).collect();
        let attained: Vec<Figure> =
            self.drawn().flat_map(|cell| LATENCIES.map(|latency| self.attainment(cell, latency))).collect();
        Section::new("Every percentile")
            .text(format!("By how much each arm is slower than {} at each percentile.", base.name))
            .markup(draw::legend(&names(&rivals)))
            .figures(charts)
            .text(format!("The share of requests within {}'s P95 divided by x.", base.name))
            .markup(draw::legend(&names(self.arms)))
            .figures(attained)
    }

    fn attainment(self, cell: &Cell, (name, of): Latency) -> Figure {
        let base: Vec<f64> = self.runs.of(cell, &self.arms[0]).map(|f| of(f).at(0.95)).collect();
        let at = |arm: &Arm, x: f64| {
            let runs = self.runs.of(cell, arm).zip(&base);
            100.0 * mean(&runs.map(|(f, base)| of(f).within(base / x)).collect::<Vec<_>>())
        };
        let line = |arm: &Arm| (0..=80).map(|i| 1.0 + f64::from(i) * 0.05).map(|x| (x, at(arm, x))).collect();
        let lines: Vec<Vec<(f64, f64)>> = self.arms.iter().map(line).collect();
        draw::attainment(&format!("{}: {name}", cell.name()), &names(self.arms), &lines)
    }
}

/// Whether a policy knows true output lengths, or guesses that are made of them.
fn knows_lengths(name: &str) -> bool {
    let policy = name.split(':').next().unwrap_or(name);
    ["sjf", "srpt", "trail", "ltr"].contains(&policy) || policy.starts_with("oracle")
}
