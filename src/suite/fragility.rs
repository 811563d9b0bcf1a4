//! The fragility suite: what becomes of each arm when the main cell is disturbed.
//!
//! The load stays the load: each disturbed machine or workload has a capacity of its own.

use super::arms::{Arm, Headroom, arms, names};
use super::cells::{A100, Cell, Work};
use super::document::{Document, Section};
use super::draw;
use super::measures::{Measure, Runs, TTFT_P95, TTLT_P99};
use super::public::{spread, value};
use super::run::{Job, Results};
use super::{Suite, SuiteError};
use crate::config::Preempt;
use crate::trace::Mix;

/// The arms; the first is what others are compared with.
pub const ARMS: &[&str] = &["fcfs", "las", "srpt", "trail", "uniboost", "flyball"];

/// Log-deviations of predictions, for the arms that predict.
const NOISE: [f64; 4] = [0.2, 0.5, 1.0, 2.0];
/// The arms that take them.
const NOISY: [&str; 3] = ["sjf", "srpt", "trail"];

/// KV of the machine, tokens.
const KV: u32 = 450_000;

const MEASURES: [Measure; 2] = [TTLT_P99, TTFT_P95];

/// One row: a cell, and what is said of it.
struct Row {
    name: String,
    cell: Cell,
}

/// The suite.
pub struct Fragility {
    rows: Vec<Row>,
    arms: Vec<Arm>,
    noisy: Vec<Arm>,
    seeds: u64,
}

impl Fragility {
    /// These arms, on runs of `requests` requests.
    ///
    /// # Errors
    /// If a policy is not there.
    pub fn new<S: AsRef<str>>(
        names: &[S],
        headroom: Headroom,
        requests: usize,
        seeds: u64,
    ) -> Result<Self, SuiteError> {
        let of = |name: &&str| NOISE.map(|noise| format!("{name}:noise={noise}"));
        let noisy: Vec<String> = NOISY.iter().flat_map(of).collect();
        let mut rows = rows();
        rows.iter_mut().for_each(|row| row.cell.requests = requests);
        Ok(Self { rows, arms: arms(names, headroom)?, noisy: arms(&noisy, headroom)?, seeds })
    }

    fn entry(&self, runs: Runs<'_>, cell: &Cell, arm: &Arm, measure: Measure) -> String {
        let own = value(measure, runs.mean(cell, arm, measure));
        match runs.ratio(cell, arm, &self.arms[0], measure) {
            Some(ratio) if *arm != self.arms[0] => format!("{own}  {}", spread(ratio)),
            _ => own,
        }
    }

    fn table(&self, runs: Runs<'_>, measure: Measure) -> Vec<Vec<String>> {
        let row = |row: &Row| {
            let entries = self.arms.iter().map(|arm| self.entry(runs, &row.cell, arm, measure));
            std::iter::once(row.name.clone()).chain(entries).collect()
        };
        self.rows.iter().map(row).collect()
    }

    fn noise(&self, runs: Runs<'_>) -> Vec<Vec<String>> {
        let row = |arm: &Arm| {
            let entries = MEASURES.map(|m| self.entry(runs, &self.rows[0].cell, arm, m));
            std::iter::once(arm.name.clone()).chain(entries).collect()
        };
        self.noisy.iter().map(row).collect()
    }

    fn chart(&self, runs: Runs<'_>, measure: Measure) -> super::document::Figure {
        let places: Vec<String> = (1..=self.rows.len()).map(|i| i.to_string()).collect();
        let line = |arm: &Arm| -> Vec<(f64, f64)> {
            let at = |(i, row): (usize, &Row)| {
                let ratio = runs.ratio(&row.cell, arm, &self.arms[0], measure);
                (i as f64, ratio.map_or(f64::NAN, |r| r.mean))
            };
            self.rows.iter().enumerate().map(at).collect()
        };
        let lines: Vec<Vec<(f64, f64)>> = self.arms.iter().map(line).collect();
        let title = format!("{} relative to {}, by row", measure.name, self.arms[0].name);
        draw::profile(&title, &places, &names(&self.arms), &lines)
    }
}

impl Suite for Fragility {
    fn jobs(&self) -> Vec<Job> {
        let job = |cell: &Cell, arm: &Arm, seed| Job { cell: *cell, policy: arm.spec.clone(), seed };
        let all = |cell, arms: &[Arm]| -> Vec<Job> {
            arms.iter().flat_map(|arm| (1..=self.seeds).map(move |seed| job(cell, arm, seed))).collect()
        };
        let mut jobs: Vec<Job> = self.rows.iter().flat_map(|row| all(&row.cell, &self.arms)).collect();
        jobs.extend(all(&self.rows[0].cell, &self.noisy));
        jobs
    }

    fn document(&self, results: &Results) -> Document {
        let runs = Runs { results, seeds: self.seeds.into() };
        let header = |first| std::iter::once(first).chain(names(&self.arms));
        let text = format!(
            "Each row changes one thing of {}; the load is relative to the capacity of what is changed. Mean \
             of {} seeds, then the ratio to {}: geometric mean (smallest-largest).",
            self.rows[0].cell.name(),
            self.seeds,
            self.arms[0].name
        );
        let mut section = Section::new("What is left when the world is not as it was").text(text);
        for measure in MEASURES {
            section = section.table(header(measure.name), self.table(runs, measure));
        }
        let charts = MEASURES.map(|measure| self.chart(runs, measure)).to_vec();
        let key: Vec<String> =
            self.rows.iter().enumerate().map(|(i, row)| format!("{} {}", i + 1, row.name)).collect();
        let section = section.text(format!("Rows: {}.", key.join("; ")));
        let noise = Section::new("Wrong predictions")
            .text(
                "Lengths are guessed as the truth times a lognormal with this deviation. Arms that guess \
                 nothing have the first row above whatever the guesses are.",
            )
            .table(["arm", MEASURES[0].name, MEASURES[1].name], self.noise(runs));
        let sections = vec![section.markup(draw::legend(&names(&self.arms))).figures(charts), noise];
        Document { title: "flyball compare --suite fragility".into(), sections }
    }
}

/// The main cell, then one change at a time.
fn rows() -> Vec<Row> {
    let main = Cell::new(A100, Work::Mix(Mix::Mix2), "poisson", 0.99);
    let mut rows = vec![Row { name: "as it is".into(), cell: main }];
    let mut add = |name: String, change: &dyn Fn(&mut Cell)| {
        let mut cell = main;
        change(&mut cell);
        rows.push(Row { name, cell });
    };
    add("mix-1, then mix-2".into(), &|c| c.work = Work::Shift(Mix::Mix1, Mix::Mix2));
    for (name, arrivals) in [
        ("gaps CV 2", "gamma:2"),
        ("gaps CV 3", "gamma:3"),
        ("gaps CV 4", "gamma:4"),
        ("gaps CV 5", "gamma:5"),
        ("bursts", "onoff"),
    ] {
        add(name.into(), &|c| c.arrivals = arrivals);
    }
    for percent in [50, 25] {
        add(format!("KV {percent} %"), &|c| c.change.kv_tokens = Some(KV / 100 * percent));
    }
    for gb_s in [5.0, 10.0, 50.0] {
        add(format!("swap {gb_s} GB/s"), &|c| c.change.swap_gb_s = Some(gb_s));
    }
    add("recompute only".into(), &|c| c.change.preempt = Some(Preempt::Recompute));
    for chunk in [128, 256, 512, 2048, 4096] {
        add(format!("chunk {chunk}"), &|c| c.change.chunk = Some(chunk));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_row_changes_something_else() {
        let rows = rows();
        let cells: BTreeSet<String> = rows.iter().map(|row| row.cell.name()).collect();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!((cells.len(), names.len()), (rows.len(), rows.len()));
    }
}
