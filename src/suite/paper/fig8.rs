//! Fig. 8: which share of requests is within a limit, as the limit tightens.

use super::{LTR, Part, Scale, jobs, line};
use crate::report::seconds;
use crate::suite::SuiteError;
use crate::suite::arms::Arm;
use crate::suite::arms::names;
use crate::suite::cells::{A100, Cell, Work};
use crate::suite::document::{Figure, Section};
use crate::suite::draw;
use crate::suite::figures::{Curve, Figures};
use crate::suite::measures::Runs;
use crate::suite::run::{Job, Results};
use crate::suite::stats::mean;
use crate::trace::Mix;

/// Whose P95 is the limit at x = 1.
const BASE: &str = "fcfs";
const ARMS: [&str; 6] = [BASE, LTR, "trail", "distboost", "uniboost", "flyball"];
const MIXES: [Mix; 2] = [Mix::Mix2, Mix::S1k];
/// The paper's load, and one at which there is a queue here.
const LOADS: [f64; 2] = [0.9, 0.99];

/// A load so low, and so few requests, that nobody meets anybody.
const ALONE_LOAD: f64 = 0.01;
const ALONE_REQUESTS: usize = 600;

/// A latency and its name.
type Latency = (&'static str, fn(&Figures) -> &Curve);

const LATENCIES: [Latency; 2] = [("TTLT", |f| &f.ttlt), ("TTFT", |f| &f.ttft)];

/// Largest x with 99 % within, as read off: latency, mix, arm.
const PUBLISHED: [(&str, Mix, &str, &str); 16] = [
    ("TTLT", Mix::Mix2, LTR, "2.85"),
    ("TTLT", Mix::Mix2, "trail", "2.7"),
    ("TTLT", Mix::Mix2, "distboost", "3.55"),
    ("TTLT", Mix::Mix2, "uniboost", "3.35"),
    ("TTLT", Mix::S1k, LTR, "2.5"),
    ("TTLT", Mix::S1k, "trail", "2.15"),
    ("TTLT", Mix::S1k, "distboost", "3.45"),
    ("TTLT", Mix::S1k, "uniboost", "3.35"),
    ("TTFT", Mix::Mix2, LTR, "1.7"),
    ("TTFT", Mix::Mix2, "trail", ">5"),
    ("TTFT", Mix::Mix2, "distboost", "2.75"),
    ("TTFT", Mix::Mix2, "uniboost", ">5"),
    ("TTFT", Mix::S1k, LTR, "<1.1"),
    ("TTFT", Mix::S1k, "trail", "2.2"),
    ("TTFT", Mix::S1k, "distboost", "1.6"),
    ("TTFT", Mix::S1k, "uniboost", "3.0"),
];

pub(super) struct Fig8 {
    scale: Scale,
    arms: Vec<Arm>,
    seeds: u64,
}

/// One plot: a latency of a mix at a load.
#[derive(Clone, Copy)]
struct Plot<'a> {
    fig: &'a Fig8,
    runs: Runs<'a>,
    mix: Mix,
    load: f64,
    latency: Latency,
}

impl Fig8 {
    pub(super) fn new(scale: Scale) -> Result<Self, SuiteError> {
        Ok(Self { scale, arms: scale.arms(&ARMS)?, seeds: scale.figure_seeds() })
    }

    fn cell(&self, mix: Mix, load: f64) -> Cell {
        self.scale.cell(A100, Work::Mix(mix), load)
    }

    fn names(&self) -> Vec<&str> {
        names(&self.arms).into_iter().chain(["alone on the machine"]).collect()
    }

    /// Requests that have the machine to themselves.
    fn alone(&self, mix: Mix) -> Cell {
        Cell { requests: ALONE_REQUESTS.min(self.scale.requests), ..self.cell(mix, ALONE_LOAD) }
    }
}

impl<'a> Plot<'a> {
    /// The limit at x = 1 for each seed, in seconds.
    fn base(self) -> Vec<f64> {
        let (cell, of) = (self.fig.cell(self.mix, self.load), self.latency.1);
        self.runs.of(&cell, &self.fig.arms[0]).map(|f| of(f).at(0.95)).collect()
    }

    fn curves(self, arm: &Arm, cell: Cell) -> Vec<&'a Curve> {
        let of = self.latency.1;
        (1..=self.fig.seeds).map(|seed| of(self.runs.results.of(&cell, &arm.spec, seed))).collect()
    }

    /// The curves of an arm, or of requests alone on the machine.
    fn arm(self, arm: Option<&Arm>) -> Vec<&'a Curve> {
        match arm {
            Some(arm) => self.curves(arm, self.fig.cell(self.mix, self.load)),
            None => self.curves(&self.fig.arms[0], self.fig.alone(self.mix)),
        }
    }

    /// The share within base / x, mean over seeds.
    fn within(self, arm: Option<&Arm>, x: f64) -> f64 {
        let shares = self.arm(arm).into_iter().zip(self.base()).map(|(c, base)| c.within(base / x));
        mean(&shares.collect::<Vec<_>>())
    }

    /// The largest x with 99 % within: by what the P99 goes into the base.
    fn largest(self, arm: Option<&Arm>) -> f64 {
        let x = self.arm(arm).into_iter().zip(self.base()).map(|(c, base)| base / c.at(0.99));
        mean(&x.collect::<Vec<_>>())
    }

    fn row(self, arm: Option<&Arm>) -> Vec<String> {
        let name = arm.map_or("alone on the machine", |arm| &arm.name);
        let published = PUBLISHED
            .iter()
            .find(|p| self.load == LOADS[0] && p.0 == self.latency.0 && p.1 == self.mix && p.2 == name);
        let shares = [1.0, 2.0, 3.0, 4.0, 5.0].map(|x| format!("{:.1} %", 100.0 * self.within(arm, x)));
        let largest = format!("{:.2}", self.largest(arm));
        line(name, shares.into_iter().chain([largest, published.map_or(String::new(), |p| p.3.into())]))
    }

    fn rows(self) -> Vec<Vec<String>> {
        self.fig.arms.iter().map(Some).chain([None]).map(|arm| self.row(arm)).collect()
    }

    fn title(self) -> String {
        let base = seconds(mean(&self.base()));
        format!("{} of {}, load {}: base {base}", self.latency.0, self.mix, self.load)
    }

    fn chart(self) -> Figure {
        let line = |arm: Option<&Arm>| -> Vec<(f64, f64)> {
            let x = (0..=80).map(|i| 1.0 + f64::from(i) * 0.05);
            x.map(|x| (x, 100.0 * self.within(arm, x))).collect()
        };
        let lines: Vec<Vec<(f64, f64)>> = self.fig.arms.iter().map(Some).chain([None]).map(line).collect();
        draw::attainment(&self.title(), &self.fig.names(), &lines)
    }
}

impl Part for Fig8 {
    fn jobs(&self) -> Vec<Job> {
        let cells: Vec<Cell> = MIXES.iter().flat_map(|mix| LOADS.map(|load| self.cell(*mix, load))).collect();
        let alone: Vec<Cell> = MIXES.iter().map(|mix| self.alone(*mix)).collect();
        [jobs(&cells, &self.arms, self.seeds), jobs(&alone, &self.arms[..1], self.seeds)].concat()
    }

    fn sections(&self, results: &Results) -> Vec<Section> {
        let runs = Runs { results, seeds: self.seeds.into() };
        let text = format!(
            "Share of requests within base / x, where base is {BASE}'s P95 in the same cell ({A100}, Poisson), \
             and the largest x that 99 % of them meet. The paper takes base and shares at 0.9 of the largest \
             load; here there is hardly a queue at 0.9 and TTFT cannot be much below {BASE}'s, so 0.99 is shown \
             as well. The last row is the limit that no scheduler passes: each request alone on the machine; \
             where the paper's x is above it, its base must have held a longer wait than ours."
        );
        let header = ["arm", "x = 1", "2", "3", "4", "5", "x at 99 %", "paper"];
        let mut section = Section::new("Fig. 8: SLO attainment").text(text);
        let mut charts = Vec::new();
        for load in LOADS {
            for latency in LATENCIES {
                for mix in MIXES {
                    let plot = Plot { fig: self, runs, mix, load, latency };
                    section = section.text(plot.title()).table(header, plot.rows());
                    charts.push(plot.chart());
                }
            }
        }
        vec![section.markup(draw::legend(&self.names())).figures(charts)]
    }
}
