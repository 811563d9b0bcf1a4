//! Fig. 7: latency against achieved rate where few requests fit, and where it turns vertical.

use super::{BINS, Part, Scale, jobs, line};
use crate::report::seconds;
use crate::suite::SuiteError;
use crate::suite::arms::Arm;
use crate::suite::arms::names;
use crate::suite::cells::{CL34, Cell, Work};
use crate::suite::document::Section;
use crate::suite::draw;
use crate::suite::measures::{Measure, Runs, TTLT_MEAN, TTLT_P99};
use crate::suite::run::{Job, Results};
use crate::trace::Mix;

/// Rungs of the ladder.
const LOADS: [f64; 9] = [0.85, 0.875, 0.9, 0.925, 0.95, 0.975, 1.0, 1.025, 1.05];

/// Half of what other parts have: long queues on a small machine take the longest to simulate.
const REQUESTS: usize = 5_000;

/// Our arm, the paper's name, and as labelled there: the last rate before the knee (requests/s), the
/// P90, P99 and mean latency there (ms), and the rate at which the line is vertical.
type Row = (&'static str, &'static str, Option<([f64; 4], f64)>);

const ROWS: [Row; 7] = [
    ("las", "MLFQ+", Some(([0.2425, 1180.0, 1600.0, 590.0], 0.248))),
    ("distboost", "DistBoost", Some(([0.2395, 560.0, 1250.0, 240.0], 0.2525))),
    ("uniboost:memguard=off:ada=off", "Phase 2", Some(([0.2465, 520.0, 1150.0, 220.0], 0.259))),
    ("uniboost:ada=off", "Phase 3", Some(([0.250, 440.0, 1100.0, 185.0], 0.261))),
    ("uniboost", "UniBoost", Some(([0.251, 450.0, 680.0, 210.0], 0.265))),
    ("fcfs", "", None),
    ("flyball", "", None),
];

const P90: Measure = Measure { name: "TTLT P90", of: |f| f.ttlt.at(0.9), more: false };
const QPS: Measure = Measure { name: "achieved", of: |f| f.achieved_qps, more: true };

/// A knee is passed when the mean is this many times that of the lowest rung.
const KNEE: f64 = 2.0;

pub(super) struct Fig7 {
    cells: Vec<Cell>,
    arms: Vec<Arm>,
    seeds: u64,
}

impl Fig7 {
    pub(super) fn new(scale: Scale) -> Result<Self, SuiteError> {
        let cell = |load| Cell {
            requests: scale.requests.min(REQUESTS),
            ..scale.cell(CL34, Work::Mix(Mix::Mix2), load)
        };
        let cells = LOADS.map(cell).to_vec();
        Ok(Self { cells, arms: scale.arms(&ROWS.map(|row| row.0))?, seeds: scale.figure_seeds() })
    }

    /// The last rung before the knee.
    fn knee(&self, runs: Runs<'_>, arm: &Arm) -> &Cell {
        let mean = |cell: &Cell| runs.mean(cell, arm, TTLT_MEAN);
        let limit = KNEE * mean(&self.cells[0]);
        let before = self.cells.iter().take_while(|cell| mean(cell) <= limit).count();
        &self.cells[before.max(1) - 1]
    }

    fn knees(&self, runs: Runs<'_>) -> Vec<Vec<String>> {
        let first = runs.mean(self.knee(runs, &self.arms[0]), &self.arms[0], QPS);
        let theirs_first = ROWS[0].2.map_or(f64::NAN, |p| p.0[0]);
        let row = |(arm, (_, paper, published)): (&Arm, &Row)| {
            let cell = self.knee(runs, arm);
            let qps = runs.mean(cell, arm, QPS);
            let ours = [P90, TTLT_P99, TTLT_MEAN].map(|m| seconds(runs.mean(cell, arm, m)));
            let theirs = published.map_or(Default::default(), |([qps, p90, p99, mean], _)| {
                let relative = format!("{:.3}", qps / theirs_first);
                [format!("{paper} {qps}"), relative, format!("{p90} / {p99} / {mean}")]
            });
            let place = [cell.load.to_string(), format!("{qps:.5}"), format!("{:.3}", qps / first)];
            line(arm.name.clone(), place.into_iter().chain(ours).chain(theirs))
        };
        self.arms.iter().zip(&ROWS).map(row).collect()
    }

    fn ladder(&self, runs: Runs<'_>, measure: Measure) -> Vec<Vec<String>> {
        let row = |arm: &Arm| {
            line(arm.name.clone(), self.cells.iter().map(|c| seconds(runs.mean(c, arm, measure))))
        };
        self.arms.iter().map(row).collect()
    }

    fn chart(&self, runs: Runs<'_>, measure: Measure) -> crate::suite::document::Figure {
        let point = |arm: &Arm, cell: &Cell| (runs.mean(cell, arm, QPS), runs.mean(cell, arm, measure));
        let line = |arm: &Arm| self.cells.iter().map(|cell| point(arm, cell)).collect();
        let lines: Vec<Vec<(f64, f64)>> = self.arms.iter().map(line).collect();
        draw::knee(&format!("{} over achieved requests/s", measure.name), &names(&self.arms), &lines)
    }
}

impl Part for Fig7 {
    fn jobs(&self) -> Vec<Job> {
        jobs(&self.cells, &self.arms, self.seeds)
    }

    fn sections(&self, results: &Results) -> Vec<Section> {
        let runs = Runs { results, seeds: self.seeds.into() };
        let text = format!(
            "{}, loads {} to {}, {} requests. The knee is the last rung at which the mean TTLT is at most {KNEE} times that \
             of the first. Relative rates are to las. The paper's labels are kept as they stand; its rates are \
             13 times ours, so its requests or its lengths must be others, and only relative rates compare. {BINS}",
            self.cells[0].pair(),
            LOADS[0],
            LOADS[LOADS.len() - 1],
            self.cells[0].requests
        );
        let header = [
            "arm",
            "load",
            "req/s",
            "relative",
            "P90",
            "P99",
            "mean",
            "paper, req/s",
            "relative",
            "P90 / P99 / mean, ms",
        ];
        let loads = || line("TTLT P99 at load", LOADS.iter().map(f64::to_string));
        let charts = [TTLT_MEAN, P90, TTLT_P99].map(|m| self.chart(runs, m)).to_vec();
        vec![
            Section::new("Fig. 7: the knee where memory is scarce")
                .text(text)
                .table(header, self.knees(runs))
                .table(loads(), self.ladder(runs, TTLT_P99))
                .markup(draw::legend(&names(&self.arms)))
                .figures(charts),
        ]
    }
}
