//! Fig. 6: slowdown at each percentile against UniBoost, on reasoning alone.

use super::{BINS, LTR, Part, Scale, jobs, line, named, signed};
use crate::suite::SuiteError;
use crate::suite::arms::Arm;
use crate::suite::cells::{A100, Cell, Work};
use crate::suite::document::Section;
use crate::suite::draw;
use crate::suite::figures::{Curve, Figures};
use crate::suite::measures::Runs;
use crate::suite::run::{Job, Results};
use crate::trace::Mix;

const BASE: &str = "uniboost";
const ARMS: [&str; 7] = [BASE, "trail", "las", LTR, "distboost", "fcfs", "flyball"];

/// A latency, its name, and the percentiles that the paper's plot was read at.
type Latency = (&'static str, fn(&Figures) -> &Curve, [f64; 6]);

const LATENCIES: [Latency; 3] = [
    ("TTLT", |f| &f.ttlt, [0.5, 0.68, 0.85, 0.9, 0.95, 0.99]),
    ("TTFT", |f| &f.ttft, [0.5, 0.6, 0.7, 0.75, 0.9, 0.99]),
    ("TPOT", |f| &f.tpot, [0.5, 0.7, 0.8, 0.9, 0.95, 0.99]),
];

/// Slowdown in percent as read off the plot.
const PUBLISHED: [(&str, &str, &str); 11] = [
    ("TTLT", "trail", "+30 P50, +48 P68, +52 P85, +44 P88, +60..70 P95, >150 P99"),
    ("TTLT", "las", "+33 P50, +60 P86, >150 by P91"),
    ("TTLT", LTR, "+47 P50, +75 P84, +67 P89, +90 P95, >150 P99"),
    ("TTLT", "distboost", "+58 P50, +47 P90, +52 P95, >150 P98.5"),
    ("TTFT", "trail", "+45 P50, +55 P60, +112 P70, >150 P75"),
    ("TTFT", "las", "+36 P50, +42 P70, >150 P78"),
    ("TTFT", "distboost", ">150 throughout"),
    ("TTFT", LTR, ">150 throughout"),
    ("TPOT", "trail", "+15 P50, +41 P70, +56 P80, +97 P90"),
    ("TPOT", LTR, "+12 until P69, +105 P80"),
    ("TPOT", "distboost", "+60 P50, +98 P70, >150 P81"),
];

pub(super) struct Fig6 {
    cell: Cell,
    arms: Vec<Arm>,
    seeds: u64,
}

impl Fig6 {
    pub(super) fn new(scale: Scale) -> Result<Self, SuiteError> {
        let cell = scale.cell(A100, Work::Mix(Mix::S1k), 0.99);
        Ok(Self { cell, arms: scale.arms(&ARMS)?, seeds: scale.figure_seeds() })
    }

    /// Slowdown of an arm at a share, in percent.
    fn slowdown(&self, runs: Runs<'_>, arm: &Arm, of: fn(&Figures) -> &Curve, share: f64) -> Option<f64> {
        runs.slowdown(&self.cell, arm, named(&self.arms, BASE), of, share)
    }

    fn table(&self, runs: Runs<'_>, (name, of, shares): &Latency) -> (Vec<String>, Vec<Vec<String>>) {
        let heads = shares.iter().map(|share| format!("P{}", share * 100.0));
        let header = line(*name, heads.chain(["paper".to_owned()]));
        let row = |arm: &Arm| {
            let at = |share: &f64| self.slowdown(runs, arm, *of, *share).map_or("–".into(), signed);
            let published = PUBLISHED.iter().find(|p| p.0 == *name && p.1 == arm.name);
            let published = published.map_or(String::new(), |p| p.2.into());
            line(arm.name.clone(), shares.iter().map(at).chain([published]))
        };
        (header, self.arms.iter().filter(|arm| arm.name != BASE).map(row).collect())
    }
}

impl Part for Fig6 {
    fn jobs(&self) -> Vec<Job> {
        jobs(&[self.cell], &self.arms, self.seeds)
    }

    fn sections(&self, results: &Results) -> Vec<Section> {
        let runs = Runs { results, seeds: self.seeds.into() };
        let text = format!(
            "{}: by how many percent each arm is slower than {BASE} at each percentile; negative is faster. \
             The paper ran Qwen-72B on four A100, of which there is no profile here: its 59k tokens of KV are \
             scarcer than ours. Readings off the plot are within three points. {BINS}",
            self.cell.name()
        );
        let mut section = Section::new("Fig. 6: slowdown per percentile").text(text);
        for latency in &LATENCIES {
            let (header, rows) = self.table(runs, latency);
            section = section.table(header, rows);
        }
        let rivals = || self.arms.iter().filter(|arm| arm.name != BASE);
        let names: Vec<&str> = rivals().map(|arm| arm.name.as_str()).collect();
        let chart = |(name, of, _): &Latency| {
            let line = |arm: &Arm| -> Vec<(f64, f64)> {
                let at = |(share, _)| Some((share, self.slowdown(runs, arm, *of, share)?));
                of(results.of(&self.cell, &arm.spec, 1)).points().filter_map(at).collect()
            };
            let lines: Vec<Vec<(f64, f64)>> = rivals().map(line).collect();
            draw::slowdown(&format!("{name}: slower than {BASE}, %"), &names, &lines)
        };
        vec![section.markup(draw::legend(&names)).figures(LATENCIES.iter().map(chart).collect())]
    }
}
