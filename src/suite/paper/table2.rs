//! Table 2: Llama-3-8B, mix-2, change against TRAIL+ in percent.

use super::{LTR, Part, Scale, change, jobs, line, named, signed};
use crate::suite::SuiteError;
use crate::suite::arms::{Arm, Headroom, arms};
use crate::suite::cells::Cell;
use crate::suite::document::Section;
use crate::suite::measures::{Runs, TABLE_2};
use crate::suite::run::{Job, Results};

/// The arm that others are compared with: perfect lengths, as the paper runs it.
const BASE: &str = "trail";

/// Our arm, the paper's name of it, and its row of Table 2 if it has one.
type Row = (&'static str, &'static str, Option<[f64; 10]>);

/// Columns as [`TABLE_2`].
const ROWS: [Row; 7] = [
    ("sjf", "", None),
    (LTR, "SJF (LTR+)", Some([-11.1, -12.5, 11.2, -74.6, -70.5, -9.7, -5.2, -7.1, -6.3, -7.9])),
    ("fcfs", "Sarathi", Some([-12.3, -13.2, -7.6, -49.9, -40.5, -8.1, -6.8, -8.4, -7.9, -10.9])),
    ("distboost", "DistBoost", Some([-14.0, 6.0, 37.1, -22.8, -35.0, -3.4, -14.1, -10.2, 18.3, 1.1])),
    ("uniboost", "UniBoost", Some([-19.1, 1.1, 35.1, 52.1, 97.4, 34.0, -25.3, -8.1, 33.8, 1.2])),
    ("uniboost:gamma-scale=0.3", "", None),
    ("flyball", "", None),
];

/// The row of an arm, for tables that repeat it.
pub(super) fn published(arm: &str) -> Option<[f64; 10]> {
    ROWS.iter().find(|row| row.0 == arm).and_then(|row| row.2)
}

pub(super) struct Table2 {
    cell: Cell,
    headroom: Headroom,
    arms: Vec<Arm>,
    seeds: u64,
}

impl Table2 {
    pub(super) fn new(scale: Scale, headroom: Headroom) -> Result<Self, SuiteError> {
        let names: Vec<&str> = std::iter::once(BASE).chain(ROWS.map(|row| row.0)).collect();
        let arms = arms(&names, headroom)?;
        Ok(Self { cell: scale.main_cell(), headroom, arms, seeds: scale.seeds })
    }

    fn row(&self, runs: Runs<'_>, (arm, paper, published): &Row) -> Vec<Vec<String>> {
        let (arm, base) = (named(&self.arms, arm), named(&self.arms, BASE));
        let changes = TABLE_2.map(|m| change(runs, &self.cell, arm, base, m));
        let mean = changes.map(|c| c.map_or("–".into(), |c| signed(c[0])));
        let range =
            changes.map(|c| c.map_or("–".into(), |c| format!("{}..{}", signed(c[1]), signed(c[2]))));
        let theirs = published.map(|p| line(format!("{paper}, paper"), p.map(signed)));
        let ours = [line(arm.name.clone(), mean), line("  worst..best seed", range)];
        theirs.into_iter().chain(ours).collect()
    }
}

impl Part for Table2 {
    fn jobs(&self) -> Vec<Job> {
        jobs(&[self.cell], &self.arms, self.seeds)
    }

    fn sections(&self, results: &Results) -> Vec<Section> {
        let runs = Runs { results, seeds: self.seeds.into() };
        let header = std::iter::once("arm").chain(TABLE_2.iter().map(|m| m.name));
        let rows = ROWS.iter().flat_map(|row| self.row(runs, row)).collect();
        let base = named(&self.arms, BASE);
        let seconds = TABLE_2.map(|m| crate::suite::public::value(m, runs.mean(&self.cell, base, m)));
        let text = format!(
            "{}: change against {BASE} in %, positive is better; {} paired seeds. ≪ is worse than −1000. Their \
             testbed: 8 A100, real kernels; ours: one simulated A100, the load relative to its own capacity. \
             The headline row of the paper is UniBoost's; plain fcfs stands beside it here.",
            self.cell.name(),
            self.seeds
        );
        let means = vec![line(base.name.clone(), seconds)];
        vec![
            Section::new(format!("Table 2, {}", self.headroom.title()))
                .text(text)
                .table(header.clone(), rows)
                .text("What the changes are relative to, mean over seeds:")
                .table(header, means),
        ]
    }
}
