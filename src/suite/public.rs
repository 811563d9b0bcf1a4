//! The public suite: every arm on every cell, the bars that the product must clear, and where it loses.

use super::arms::{Arm, Headroom, OWN, arms};
use super::bars::scoreboards;
use super::cells::Cell;
use super::document::{Document, Section};
use super::measures::{Measure, PUBLIC, Runs, Seeds};
use super::run::{Job, Results};
use super::stats::Spread;
use super::{Suite, SuiteError};
use crate::report::{number, seconds};

/// Which cells and arms, and how often.
#[derive(Clone, Debug)]
pub struct Public {
    /// The cells; their files are there.
    pub cells: Vec<Cell>,
    /// The arms under each treatment of headroom.
    pub tables: Vec<(Headroom, Vec<Arm>)>,
    /// The seeds.
    pub seeds: Seeds,
}

impl Public {
    /// The arms `names` on `cells`.
    ///
    /// # Errors
    /// If there is no such policy.
    pub fn new<S: AsRef<str>>(
        cells: Vec<Cell>,
        names: &[S],
        headrooms: &[Headroom],
        seeds: impl Into<Seeds>,
    ) -> Result<Self, SuiteError> {
        let table = |headroom: &Headroom| Ok((*headroom, arms(names, *headroom)?));
        let tables = headrooms.iter().map(table).collect::<Result<_, SuiteError>>()?;
        Ok(Self { cells, tables, seeds: seeds.into() })
    }
}

impl Suite for Public {
    fn jobs(&self) -> Vec<Job> {
        let of = |cell: &Cell, arm: &Arm, seed| Job { cell: *cell, policy: arm.spec.clone(), seed };
        let arms = || self.tables.iter().flat_map(|(_, arms)| arms);
        let cell = |cell| arms().flat_map(move |arm| self.seeds.iter().map(move |seed| of(cell, arm, seed)));
        self.cells.iter().flat_map(cell).collect()
    }

    fn document(&self, results: &Results) -> Document {
        let runs = Runs { results, seeds: self.seeds };
        let mut sections = Vec::new();
        for (headroom, arms) in &self.tables {
            let table = Table { cells: &self.cells, arms, runs };
            sections.extend(scoreboards(table, *headroom));
            sections.push(table.losses(*headroom));
            if Some(*headroom) == self.tables.first().map(|t| t.0) {
                sections.extend(table.gallery());
            }
            sections.extend(self.cells.iter().map(|cell| table.cell(cell, *headroom)));
        }
        Document { title: "flyball compare --suite public".into(), sections }
    }
}

/// The arms on the cells, under one treatment of headroom.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    /// The cells.
    pub cells: &'a [Cell],
    /// The arms; the first is what others are compared with.
    pub arms: &'a [Arm],
    /// Their runs.
    pub runs: Runs<'a>,
}

impl<'a> Table<'a> {
    /// The arm on trial: the product's own, or the last that was asked for.
    pub fn subject(self) -> Option<&'a Arm> {
        let own = self.arms.iter().find(|arm| arm.name.split(':').next() == Some(OWN));
        own.or(self.arms.last())
    }

    fn cell(self, cell: &Cell, headroom: Headroom) -> Section {
        let base = &self.arms[0];
        let header = std::iter::once("policy").chain(PUBLIC.iter().map(|m| m.name));
        let entry = |arm: &Arm, measure: &Measure| {
            let value = value(*measure, self.runs.mean(cell, arm, *measure));
            if arm == base {
                return value;
            }
            match self.runs.ratio(cell, arm, base, *measure) {
                Some(ratio) => format!("{value}  {}", spread(ratio)),
                None => value,
            }
        };
        let row = |arm: &Arm| {
            std::iter::once(arm.name.clone()).chain(PUBLIC.iter().map(|m| entry(arm, m))).collect()
        };
        let title = format!("{}, {}", cell.name(), headroom.title());
        let text = format!(
            "Mean of {} seeds, then the ratio to {}: geometric mean (smallest-largest).",
            self.runs.seeds.count, base.name
        );
        Section::new(title).text(text).table(header, self.arms.iter().map(row).collect())
    }
}

/// A value with its unit.
pub fn value(measure: Measure, v: f64) -> String {
    if measure.more { number(v) } else { seconds(v) }
}

/// A ratio and its range over seeds, if it has one.
pub fn spread(s: Spread) -> String {
    let (mean, low, high) = (ratio(s.mean), ratio(s.low), ratio(s.high));
    if low == high { mean } else { format!("{mean} ({low}-{high})") }
}

/// A ratio to two digits behind the point, or fewer if it is large.
pub fn ratio(v: f64) -> String {
    match v {
        f64::INFINITY => number(v),
        v if v < 0.005 => "<.005".into(),
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

impl<'a> Table<'a> {
    /// The arm of a name, or else of a policy.
    pub fn arm(self, name: &str) -> Option<&'a Arm> {
        let named = |arm: &&Arm| arm.name == name;
        self.arms
            .iter()
            .find(named)
            .or_else(|| self.arms.iter().find(|a| a.name.split(':').next() == Some(name)))
    }
}

/// A cell and measure in which a rival is better.
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// Where.
    pub cell: &'a Cell,
    /// In what.
    pub measure: Measure,
    /// To whom, the best there.
    pub rival: &'a Arm,
    /// Above one: how many times as long, or how many times less.
    pub factor: Spread,
    /// The subject's value and the rival's, means over seeds.
    pub values: (f64, f64),
}

/// Differences below one percent are not told.
const LOSS: f64 = 1.01;

impl<'a> Table<'a> {
    /// Where a rival is better, the largest factors first.
    pub fn lost(self) -> Vec<Loss<'a>> {
        let Some(subject) = self.subject() else { return Vec::new() };
        let mut all: Vec<Loss<'a>> = self.pairs().filter_map(|(c, m)| self.loss(subject, c, m)).collect();
        all.sort_by(|a, b| b.factor.mean.total_cmp(&a.factor.mean));
        all
    }

    fn pairs(self) -> impl Iterator<Item = (&'a Cell, Measure)> {
        self.cells.iter().flat_map(|cell| PUBLIC.map(|measure| (cell, measure)))
    }

    fn loss(self, subject: &'a Arm, cell: &'a Cell, measure: Measure) -> Option<Loss<'a>> {
        let (factor, rival) = self.best_rival(subject, cell, measure)?;
        let values = (self.runs.mean(cell, subject, measure), self.runs.mean(cell, rival, measure));
        (factor.mean > LOSS).then_some(Loss { cell, measure, rival, factor, values })
    }

    /// Whoever is furthest ahead of the subject, and by which factor; `None` if no rival can be judged.
    fn best_rival(self, subject: &Arm, cell: &Cell, measure: Measure) -> Option<(Spread, &'a Arm)> {
        let rivals = self.arms.iter().filter(|arm| *arm != subject);
        let factor = |rival: &'a Arm| {
            let (a, b) = if measure.more { (rival, subject) } else { (subject, rival) };
            Some((self.runs.ratio(cell, a, b, measure)?, rival))
        };
        rivals.filter_map(factor).max_by(|a, b| a.0.mean.total_cmp(&b.0.mean))
    }

    fn judged(self) -> usize {
        let Some(subject) = self.subject() else { return 0 };
        self.pairs().filter(|(cell, measure)| self.best_rival(subject, cell, *measure).is_some()).count()
    }

    fn losses(self, headroom: Headroom) -> Section {
        let name = self.subject().map_or("", |arm| &arm.name);
        let section = Section::new(format!("Where {name} loses, {}", headroom.title()));
        let row = |loss: &Loss<'_>| {
            vec![
                loss.cell.name(),
                loss.measure.name.into(),
                loss.rival.name.clone(),
                spread(loss.factor),
                value(loss.measure, loss.values.0),
                value(loss.measure, loss.values.1),
            ]
        };
        let rows: Vec<Vec<String>> = self.lost().iter().map(row).collect();
        let judged = self.judged();
        let unjudged = match self.pairs().count() - judged {
            0 => String::new(),
            count => {
                format!("; {count} more are not judged: both values are infinite, or no request has one")
            }
        };
        let text = format!(
            "{} of {judged} pairs of cell and measure in which the best rival is ahead by more than 1 %{unjudged}. \
             sjf, srpt, trail, ltr and the oracle-* know true output lengths.",
            rows.len(),
        );
        section.text(text).table(["cell", "measure", "to", "factor", "own", "theirs"], rows)
    }
}
