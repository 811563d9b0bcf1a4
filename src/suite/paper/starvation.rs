//! A.3: whether long requests starve among short ones.

use super::{LTR, Part, Scale, jobs, line};
use crate::suite::SuiteError;
use crate::suite::arms::Arm;
use crate::suite::cells::{Cell, Work};
use crate::suite::document::Section;
use crate::suite::figures::Split;
use crate::suite::measures::Runs;
use crate::suite::run::{Job, Results};
use crate::suite::stats::mean;

/// The paper's machine had eight of these, with requests sent to one at random.
const MACHINE: &str = "h100-llama-3-8b";

/// Seconds as printed: short mean, P50, P90, P95, P99; long mean, P90, P95, P99, max.
type Row = (&'static str, Option<[f64; 10]>);

const ROWS: [Row; 5] = [
    ("uniboost", Some([2.80, 2.85, 3.28, 3.41, 3.62, 88.5, 185.5, 190.2, 200.5, 245.9])),
    ("fcfs", Some([2.83, 2.87, 3.35, 3.50, 3.84, 88.5, 184.8, 190.0, 199.7, 205.5])),
    (LTR, Some([2.80, 2.86, 3.27, 3.39, 3.62, 88.4, 182.8, 188.0, 206.9, 253.9])),
    ("trail", Some([2.80, 2.86, 3.27, 3.39, 3.69, 88.3, 183.9, 188.6, 196.5, 246.3])),
    ("flyball", None),
];

pub(super) struct Starvation {
    cell: Cell,
    arms: Vec<Arm>,
    seeds: u64,
}

impl Starvation {
    pub(super) fn new(scale: Scale) -> Result<Self, SuiteError> {
        let cell = scale.cell(MACHINE, Work::LongAndShort, 0.99);
        Ok(Self { cell, arms: scale.arms(&ROWS.map(|row| row.0))?, seeds: scale.figure_seeds() })
    }

    fn figures(&self, runs: Runs<'_>, arm: &Arm) -> [f64; 11] {
        let of = |split: &Split| {
            let (s, l) = (&split.short, &split.long);
            let short = [s.mean(), s.at(0.5), s.at(0.9), s.at(0.95), s.at(0.99)];
            let long = [l.mean(), l.at(0.9), l.at(0.95), l.at(0.99), l.at(1.0), split.long_slope_s];
            [&short[..], &long].concat()
        };
        let splits = runs.of(&self.cell, arm).filter_map(|f| f.split.as_ref());
        let all: Vec<Vec<f64>> = splits.map(of).collect();
        std::array::from_fn(|i| mean(&all.iter().map(|values| values[i]).collect::<Vec<_>>()))
    }
}

impl Part for Starvation {
    fn jobs(&self) -> Vec<Job> {
        jobs(&[self.cell], &self.arms, self.seeds)
    }

    fn sections(&self, results: &Results) -> Vec<Section> {
        let runs = Runs { results, seeds: self.seeds.into() };
        let header = [
            "arm",
            "short mean",
            "P50",
            "P90",
            "P95",
            "P99",
            "long mean",
            "P90",
            "P95",
            "P99",
            "max",
            "slope",
        ];
        let plain = |v: f64| if v.abs() < 0.1 { format!("{v:.5}") } else { format!("{v:.2}") };
        let row = |(arm, (_, published)): (&Arm, &Row)| {
            let theirs = published.map(|p| {
                line(format!("{}, paper", arm.name), p.map(plain).into_iter().chain(["≈0.0003".into()]))
            });
            let ours = line(arm.name.clone(), self.figures(runs, arm).map(plain));
            theirs.into_iter().chain([ours])
        };
        let rows = self.arms.iter().zip(&ROWS).flat_map(row).collect();
        let text = format!(
            "{}: TTLT in seconds of nine short requests in ten (125 tokens in, 100 out) and one long (2,000 in, \
             6,000 out), each within a fifth. The slope is of a long request's TTLT over its place in the order \
             of arrival, s per request: above zero, long ones wait ever longer. In the paper all arms tie within 6.1 %, \
             but for the longest wait, which is 20 to 24 % above fcfs's; here 0.99 is of one machine's saturated \
             rate, at which its memory is full, and they need not.",
            self.cell.name()
        );
        vec![Section::new("A.3: starvation").text(text).table(header, rows)]
    }
}
