//! Tables 6 to 8: what UniBoost's parameters and the chunk are worth.

use super::table2::published;
use super::{Part, Scale, change, jobs, line, signed};
use crate::report::{number, seconds};
use crate::suite::SuiteError;
use crate::suite::arms::Arm;
use crate::suite::cells::Cell;
use crate::suite::document::Section;
use crate::suite::measures::{Measure, Runs, TABLE_2, TPOT_MEAN, TPOT_P99, TTFT_P99, TTLT_P99};
use crate::suite::run::{Job, Results};

const QPS: Measure = Measure { name: "req/s", of: |f| f.achieved_qps, more: true };

/// The columns of Tables 6 and 7: milliseconds, and requests per second.
const COLUMNS: [Measure; 5] = [TTLT_P99, TTFT_P99, TPOT_P99, TPOT_MEAN, QPS];

/// A parameter of UniBoost, and its values with the paper's row of each.
struct Sweep {
    table: &'static str,
    arms: [&'static str; 4],
    published: [[f64; 5]; 4],
    /// The place of the default.
    default: usize,
}

const SWEEPS: [Sweep; 2] = [
    Sweep {
        table: "Table 6, k",
        arms: ["uniboost:k=64", "uniboost:k=256", "uniboost:k=512", "uniboost:k=1024"],
        published: [
            [8530.0, 392.0, 112.0, 55.0, 3.94],
            [8512.0, 390.0, 115.0, 54.0, 3.95],
            [8681.0, 403.0, 128.0, 54.0, 3.93],
            [8465.0, 450.0, 137.0, 53.0, 3.90],
        ],
        default: 1,
    },
    Sweep {
        table: "Table 7, hysteresis",
        arms: [
            "uniboost:hysteresis=0",
            "uniboost:hysteresis=0.1",
            "uniboost:hysteresis=0.3",
            "uniboost:hysteresis=0.5",
        ],
        published: [
            [9500.0, 385.0, 105.0, 72.0, 3.80],
            [8512.0, 390.0, 115.0, 54.0, 3.95],
            [8561.0, 392.0, 122.0, 55.0, 3.94],
            [8575.0, 394.0, 121.0, 54.0, 3.94],
        ],
        default: 1,
    },
];

/// Table 8: the chunk, and UniBoost's change against "FCFS" in percent; columns as Table 2. The paper says
/// that 1024 is as in Table 2, which is against TRAIL+.
const CHUNKS: [(u32, Option<[f64; 10]>); 4] = [
    (128, Some([-17.8, 2.4, 38.6, 12.3, 18.5, 8.2, -22.1, -5.9, 36.4, 0.6])),
    (512, Some([-18.7, 1.5, 36.0, 35.8, 58.1, 22.3, -24.5, -7.5, 34.8, 1.0])),
    (1024, None),
    (2048, Some([-19.4, 0.8, 34.5, 68.4, 93.6, 45.1, -26.0, -8.6, 33.2, 1.3])),
];

pub(super) struct Sensitivity {
    cell: Cell,
    sweeps: Vec<Vec<Arm>>,
    /// UniBoost, then what it is compared with.
    pair: Vec<Arm>,
    seeds: u64,
}

impl Sensitivity {
    pub(super) fn new(scale: Scale) -> Result<Self, SuiteError> {
        let sweeps = SWEEPS.iter().map(|sweep| scale.arms(&sweep.arms)).collect::<Result<_, _>>()?;
        let pair = scale.arms(&["uniboost", "fcfs", "trail"])?;
        Ok(Self { cell: scale.main_cell(), sweeps, pair, seeds: scale.figure_seeds() })
    }

    fn chunked(&self, chunk: u32) -> Cell {
        let mut cell = self.cell;
        cell.change.chunk = Some(chunk);
        cell
    }

    fn sweep(&self, runs: Runs<'_>, sweep: &Sweep, arms: &[Arm]) -> Section {
        let header = ["value", "TTLT P99", "TTFT P99", "TPOT P99", "TPOT mean", "req/s", "paper"];
        let row = |(at, arm): (usize, &Arm)| {
            let cell = |m: &Measure| {
                let (v, of) =
                    (runs.mean(&self.cell, arm, *m), runs.mean(&self.cell, &arms[sweep.default], *m));
                let value = if m.more { number(v) } else { seconds(v) };
                format!("{value} {}%", signed(100.0 * (v / of - 1.0)))
            };
            let relative = |i: usize| {
                let (v, of) = (sweep.published[at][i], sweep.published[sweep.default][i]);
                format!("{v} {}%", signed(100.0 * (v / of - 1.0)))
            };
            let theirs = (0..5).map(relative).collect::<Vec<_>>().join(", ");
            line(arm.name.clone(), COLUMNS.iter().map(cell).chain([theirs]))
        };
        let text = "Ours, then the change against the default in %; the paper's five columns (ms and req/s) in \
                    the same order with theirs. Its latencies are of another testbed; sizes of changes compare.";
        let rows = arms.iter().enumerate().map(row).collect();
        Section::new(sweep.table).text(text).table(header, rows)
    }

    fn chunks(&self, runs: Runs<'_>) -> Section {
        let row = |(chunk, theirs): &(u32, Option<[f64; 10]>)| {
            let cell = self.chunked(*chunk);
            let against = |to: usize| {
                let changes = TABLE_2.map(|m| change(runs, &cell, &self.pair[0], &self.pair[to], m));
                changes.map(|c| c.map_or("–".into(), |c| signed(c[0])))
            };
            let theirs =
                theirs.or(published("uniboost")).map(|p| line(format!("{chunk}, paper"), p.map(signed)));
            let ours = [1, 2].map(|to| line(format!("{chunk}, against {}", self.pair[to].name), against(to)));
            theirs.into_iter().chain(ours)
        };
        let header = std::iter::once("chunk").chain(TABLE_2.iter().map(|m| m.name));
        let text = "UniBoost's change in %, positive is better. The paper says \"against FCFS\", yet gives for \
                    1024 the row of Table 2, which is against TRAIL+: both are shown.";
        Section::new("Table 8, chunk").text(text).table(header, CHUNKS.iter().flat_map(row).collect())
    }
}

impl Part for Sensitivity {
    fn jobs(&self) -> Vec<Job> {
        let sweeps = self.sweeps.iter().flat_map(|arms| jobs(&[self.cell], arms, self.seeds));
        let cells = CHUNKS.map(|(chunk, _)| self.chunked(chunk));
        sweeps.chain(jobs(&cells, &self.pair, self.seeds)).collect()
    }

    fn sections(&self, results: &Results) -> Vec<Section> {
        let runs = Runs { results, seeds: self.seeds.into() };
        let sweeps = SWEEPS.iter().zip(&self.sweeps).map(|(sweep, arms)| self.sweep(runs, sweep, arms));
        sweeps.chain([self.chunks(runs)]).collect()
    }
}
