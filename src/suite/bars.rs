//! The bars that the product must clear, and by how much it does in each cell.

use super::arms::{Arm, Headroom};
use super::cells::Cell;
use super::document::Section;
use super::measures::{Measure, TOK_S, TPOT_P99, TTFT_P95, TTLT_MEAN, TTLT_P95, TTLT_P99};
use super::public::Table;
use crate::report::number;

/// The subject's measure over a rival's may be at most, or at least, so much.
struct Bar {
    measure: Measure,
    rival: &'static str,
    limit: f64,
    /// Up to this load.
    load_max: f64,
}

const fn bar(measure: Measure, rival: &'static str, limit: f64) -> Bar {
    Bar { measure, rival, limit, load_max: f64::INFINITY }
}

/// On the cells that it was made with.
const LAB: [Bar; 6] = [
    bar(TTLT_P99, "fcfs", 1.01),
    bar(TTLT_P95, "fcfs", 1.01),
    bar(TTLT_MEAN, "fcfs", 1.0),
    bar(TTFT_P95, "las", 1.02),
    bar(TPOT_P99, "uniboost", 1.05),
    bar(TOK_S, "fcfs", 0.995),
];

/// The same where rivals are given as much headroom: the rest was not asked for there.
const LAB_EQUAL: [Bar; 3] =
    [bar(TTLT_P99, "fcfs", 1.02), bar(TTFT_P95, "las", 1.02), bar(TPOT_P99, "uniboost", 1.05)];

/// On all others.
const BEYOND: [Bar; 3] = [
    bar(TTLT_P99, "fcfs", 1.02),
    bar(TTFT_P95, "fcfs", 1.1),
    Bar { load_max: 0.9, ..bar(TTFT_P95, "las", 2.0) },
];

impl Bar {
    /// What is divided by what.
    fn ratio(&self) -> String {
        format!("{} / {}", self.measure.name, self.rival)
    }

    fn title(&self, subject: &str) -> String {
        let sign = if self.measure.more { "≥" } else { "≤" };
        let name = self.measure.name;
        let load =
            if self.load_max.is_finite() { format!(" up to {}", self.load_max) } else { String::new() };
        format!("{subject} {name} {sign} {} × {}{load}", self.limit, self.rival)
    }

    fn covers(&self, cell: &Cell) -> bool {
        cell.load <= self.load_max
    }

    /// How far above the bar a ratio is: above one if it is not met. Ratios count to three digits.
    fn excess(&self, ratio: f64) -> f64 {
        let ratio = (ratio * 1e3).round() / 1e3;
        if self.measure.more { self.limit / ratio } else { ratio / self.limit }
    }
}

/// Which bars the arm on trial clears in how many cells, and by how much in each: first the cells that it was made
/// with, then the others.
pub fn scoreboards(table: Table<'_>, headroom: Headroom) -> Vec<Section> {
    let Some(subject) = table.subject() else { return Vec::new() };
    let (lab, beyond): (Vec<&Cell>, Vec<&Cell>) = table.cells.iter().partition(|cell| cell.is_of_the_lab());
    let of_the_lab = if headroom == Headroom::Equal { &LAB_EQUAL[..] } else { &LAB };
    let boards = [("Scoreboard", &lab, of_the_lab), ("Scoreboard of the cells beyond", &beyond, &BEYOND)];
    let board = |(title, cells, bars): (&str, &Vec<&Cell>, &'static [Bar])| {
        let board = Board { table, subject, cells, bars };
        [board.summary(title, headroom), board.margins(title, headroom)]
    };
    boards.into_iter().filter(|(_, cells, _)| !cells.is_empty()).flat_map(board).collect()
}

/// Some bars on some cells.
#[derive(Clone, Copy)]
struct Board<'a> {
    table: Table<'a>,
    subject: &'a Arm,
    cells: &'a [&'a Cell],
    bars: &'static [Bar],
}

impl<'a> Board<'a> {
    fn summary(self, title: &str, headroom: Headroom) -> Section {
        let header = ["bar", "met", "of", "not judged", "median ratio", "worst ratio", "worst cell"];
        let rows = self.bars.iter().map(|bar| self.counts(bar)).collect();
        let text = "Cells in which the geometric mean of paired ratios clears the bar; ratios count to three \
                    digits. Not judged are cells in which both values are infinite, since requests were not \
                    served, or no request has one.";
        Section::new(format!("{title}, {}", headroom.title())).text(text).table(header, rows)
    }

    fn counts(self, bar: &Bar) -> Vec<String> {
        let title = bar.title(&self.subject.name);
        if self.table.arm(bar.rival).is_none() {
            return vec![title, "–".into(), "–".into(), "–".into(), format!("no arm {}", bar.rival)];
        }
        let ratio_in = |cell: &&'a Cell| {
            let ratio = self.ratio(bar, cell)?;
            Some((bar.excess(ratio), ratio, *cell))
        };
        let covered: Vec<&&Cell> = self.cells.iter().filter(|cell| bar.covers(cell)).collect();
        let mut all: Vec<(f64, f64, &Cell)> = covered.iter().copied().filter_map(ratio_in).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let met = all.iter().filter(|(excess, ..)| *excess <= 1.0).count();
        let counts = [met, all.len(), covered.len() - all.len()].map(|count| count.to_string());
        let ratios = all.last().map_or(Vec::new(), |(_, worst, cell)| {
            vec![thousandths(all[all.len() / 2].1), thousandths(*worst), cell.name()]
        });
        std::iter::once(title).chain(counts).chain(ratios).collect()
    }

    /// The ratio that a bar limits, if it can be judged.
    fn ratio(self, bar: &Bar, cell: &Cell) -> Option<f64> {
        let rival = self.table.arm(bar.rival)?;
        Some(self.table.runs.ratio(cell, self.subject, rival, bar.measure)?.mean)
    }

    fn margins(self, title: &str, headroom: Headroom) -> Section {
        let header = std::iter::once("cell".into()).chain(self.bars.iter().map(Bar::ratio));
        let entry = |bar: &Bar, cell: &Cell| match self.ratio(bar, cell) {
            _ if !bar.covers(cell) || self.table.arm(bar.rival).is_none() => "–".into(),
            Some(ratio) if bar.excess(ratio) > 1.0 => format!("{} !", thousandths(ratio)),
            Some(ratio) => thousandths(ratio),
            None => "not judged".into(),
        };
        let row = |cell: &&Cell| {
            let ratios = self.bars.iter().map(|bar| entry(bar, cell));
            std::iter::once(cell.name()).chain(ratios).collect()
        };
        let rows = self.cells.iter().map(row).collect();
        let text = "Geometric means over seeds; a ! where the bar is not cleared.";
        Section::new(format!("{title}, cell by cell, {}", headroom.title())).text(text).table(header, rows)
    }
}

/// A ratio to three digits behind the point.
fn thousandths(ratio: f64) -> String {
    if ratio.is_infinite() { number(ratio) } else { format!("{ratio:.3}") }
}
