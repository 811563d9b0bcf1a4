//! The paper suite: the tables and figures of "Beyond Prediction: Tail-Aware Scheduling for LLM Inference"
//! (arXiv 2606.18431), run again, ours beside theirs.
//!
//! Published numbers are as printed where the paper has a table, and read off where it has a plot (within
//! some three points). Their TBT is taken per request: TPOT, the mean gap between a request's tokens. Their
//! testbed had eight A100 and other step times; what can be compared are signs, orders and ratios.

mod fig6;
mod fig7;
mod fig8;
mod sensitivity;
mod starvation;
mod table2;

use super::arms::{Arm, Headroom, arms};
use super::cells::{A100, Cell, REQUESTS, Work};
use super::document::{Document, Section};
use super::measures::{Measure, Runs};
use super::run::{Job, Results};
use super::stats::Spread;
use super::{Suite, SuiteError};
use crate::trace::Mix;

/// How large a run of the suite is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Requests of each run.
    pub requests: usize,
    /// Seeds of the tables; figures have two at most.
    pub seeds: u64,
    /// How rivals keep memory free; Table 2 is made for each.
    pub headrooms: &'static [Headroom],
    /// Only Table 2 and Figs. 6 and 8.
    pub quick: bool,
}

/// Seeds of a full run.
pub const SEEDS: u64 = 5;
/// Seeds of figures: a curve or a knee needs fewer than a table's spread.
const FIGURE_SEEDS: u64 = 2;

/// The paper's "SJF (LTR+)": perfect lengths, with the guard against starvation of LTR.
const LTR: &str = "sjf:starve=200";

/// What is to be said where las stands beside the paper's "LAS (MLFQ+)".
const BINS: &str = "The paper's LAS is continuous; las here serves in order of arrival within a bin.";

/// One table or figure of the paper.
trait Part {
    /// What must be run.
    fn jobs(&self) -> Vec<Job>;
    /// What came of it.
    fn sections(&self, results: &Results) -> Vec<Section>;
}

/// The suite.
pub struct Paper {
    parts: Vec<Box<dyn Part>>,
}

impl Paper {
    /// All parts, or the quick ones.
    ///
    /// # Errors
    /// If a policy is not there.
    pub fn new(scale: Scale) -> Result<Self, SuiteError> {
        let mut parts: Vec<Box<dyn Part>> = Vec::new();
        for headroom in scale.headrooms {
            parts.push(Box::new(table2::Table2::new(scale, *headroom)?));
        }
        parts.push(Box::new(fig6::Fig6::new(scale)?));
        parts.push(Box::new(fig8::Fig8::new(scale)?));
        if !scale.quick {
            parts.push(Box::new(fig7::Fig7::new(scale)?));
            parts.push(Box::new(starvation::Starvation::new(scale)?));
            parts.push(Box::new(sensitivity::Sensitivity::new(scale)?));
        }
        Ok(Self { parts })
    }
}

impl Suite for Paper {
    fn jobs(&self) -> Vec<Job> {
        self.parts.iter().flat_map(|part| part.jobs()).collect()
    }

    fn document(&self, results: &Results) -> Document {
        let sections = self.parts.iter().flat_map(|part| part.sections(results)).collect();
        Document { title: "flyball compare --suite paper".into(), sections }
    }
}

impl Scale {
    /// A cell of this size.
    fn cell(self, profile: &'static str, work: Work, load: f64) -> Cell {
        Cell { requests: self.requests.min(REQUESTS), ..Cell::new(profile, work, "poisson", load) }
    }

    /// The cell of Table 2.
    fn main_cell(self) -> Cell {
        self.cell(A100, Work::Mix(Mix::Mix2), 0.99)
    }

    /// How rivals keep memory free in figures.
    fn headroom(self) -> Headroom {
        self.headrooms[0]
    }

    fn arms(self, names: &[&str]) -> Result<Vec<Arm>, SuiteError> {
        arms(names, self.headroom())
    }

    fn figure_seeds(self) -> u64 {
        self.seeds.min(FIGURE_SEEDS)
    }
}

/// Every arm on every cell with every seed.
fn jobs(cells: &[Cell], arms: &[Arm], seeds: u64) -> Vec<Job> {
    let job = |cell: &Cell, arm: &Arm, seed| Job { cell: *cell, policy: arm.spec.clone(), seed };
    let of = |cell| arms.iter().flat_map(move |arm| (1..=seeds).map(move |seed| job(cell, arm, seed)));
    cells.iter().flat_map(of).collect()
}

/// The arm of this name.
fn named<'a>(arms: &'a [Arm], name: &str) -> &'a Arm {
    arms.iter().find(|arm| arm.name == name).expect("the arms of a part are its data")
}

/// Change against another arm in percent, better is positive: mean, worst and best of the seeds.
fn change(runs: Runs<'_>, cell: &Cell, arm: &Arm, to: &Arm, measure: Measure) -> Option<[f64; 3]> {
    runs.ratio(cell, arm, to, measure).map(|ratio| percent(ratio, measure.more))
}

fn percent(ratio: Spread, more: bool) -> [f64; 3] {
    let better = |r: f64| if more { 100.0 * (r - 1.0) } else { 100.0 * (1.0 - r) };
    let (worst, best) = if more { (ratio.low, ratio.high) } else { (ratio.high, ratio.low) };
    [ratio.mean, worst, best].map(better)
}

/// A change in percent with its sign; far below zero, only that.
fn signed(v: f64) -> String {
    match v {
        v if v < -999.5 => "≪".into(),
        v if v.abs() < 0.05 => "0.0".into(),
        v if v.abs() < 99.95 => format!("{v:+.1}").replace('-', "−"),
        v => format!("{v:+.0}").replace('-', "−"),
    }
}

/// A head and cells as one row.
fn line(head: impl Into<String>, cells: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(head.into()).chain(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three of four parts once had the paper's figures of it beside plain `sjf`, which has no guard.
    #[test]
    fn the_shortest_job_first_of_the_paper_has_its_guard_in_every_part() {
        let scale = Scale { requests: 1, seeds: 1, headrooms: &[Headroom::AsPublished], quick: false };
        let parts: [Box<dyn Part>; 4] = [
            Box::new(table2::Table2::new(scale, Headroom::AsPublished).unwrap()),
            Box::new(fig6::Fig6::new(scale).unwrap()),
            Box::new(fig8::Fig8::new(scale).unwrap()),
            Box::new(starvation::Starvation::new(scale).unwrap()),
        ];
        let runs = |part: &dyn Part, arm: &str| part.jobs().iter().any(|job| job.policy == arm);
        assert!(parts.iter().all(|part| runs(&**part, LTR)));
        assert!(parts[1..].iter().all(|part| !runs(&**part, "sjf")));
    }

    #[test]
    fn better_is_positive() {
        let ratio = Spread { mean: 0.8, low: 0.5, high: 1.25 };
        assert_eq!(percent(ratio, false).map(f64::round), [20.0, -25.0, 50.0]);
        assert_eq!(percent(ratio, true).map(f64::round), [-20.0, -50.0, 25.0]);
        assert_eq!(signed(-12.34), "−12.3");
        assert_eq!(signed(-5000.0), "≪");
        assert_eq!(signed(0.01), "0.0");
        assert_eq!(signed(123.4), "+123");
    }
}
