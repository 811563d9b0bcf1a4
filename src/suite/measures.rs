//! What runs are judged by, and how one arm's runs compare with another's.

use super::arms::Arm;
use super::cells::Cell;
use super::figures::{Curve, Figures};
use super::run::Results;
use super::stats::{Spread, mean};

/// A figure of a run that a table shows.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name.
    pub name: &'static str,
    /// Its value; seconds, unless it is throughput.
    pub of: fn(&Figures) -> f64,
    /// Whether more is better.
    pub more: bool,
}

const fn seconds(name: &'static str, of: fn(&Figures) -> f64) -> Measure {
    Measure { name, of, more: false }
}

/// Mean time to last token.
pub const TTLT_MEAN: Measure = seconds("TTLT mean", |f| f.ttlt.mean());
/// Its 95th percentile.
pub const TTLT_P95: Measure = seconds("TTLT P95", |f| f.ttlt.at(0.95));
/// Its 99th percentile.
pub const TTLT_P99: Measure = seconds("TTLT P99", |f| f.ttlt.at(0.99));
/// Mean time to first token.
pub const TTFT_MEAN: Measure = seconds("TTFT mean", |f| f.ttft.mean());
/// Its 95th percentile.
pub const TTFT_P95: Measure = seconds("TTFT P95", |f| f.ttft.at(0.95));
/// Its 99th percentile.
pub const TTFT_P99: Measure = seconds("TTFT P99", |f| f.ttft.at(0.99));
/// Mean over requests of the mean gap between their tokens.
pub const TPOT_MEAN: Measure = seconds("TPOT mean", |f| f.tpot.mean());
/// Its 95th percentile over requests.
pub const TPOT_P95: Measure = seconds("TPOT P95", |f| f.tpot.at(0.95));
/// Its 99th percentile over requests.
pub const TPOT_P99: Measure = seconds("TPOT P99", |f| f.tpot.at(0.99));
/// Output tokens per second.
pub const TOK_S: Measure = Measure { name: "tok/s", of: |f| f.tok_s, more: true };

/// The measures of the public tables.
pub const PUBLIC: [Measure; 7] = [TTLT_MEAN, TTLT_P95, TTLT_P99, TTFT_P95, TTFT_P99, TPOT_P99, TOK_S];

/// The measures of the paper's Table 2, in its order. Its TBT is per request here: TPOT.
pub const TABLE_2: [Measure; 10] =
    [TTLT_MEAN, TTLT_P95, TTLT_P99, TTFT_MEAN, TTFT_P95, TTFT_P99, TPOT_MEAN, TPOT_P95, TPOT_P99, TOK_S];

/// Consecutive seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Seeds {
    /// Each of them.
    pub fn iter(self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// Seeds 1 to this.
impl From<u64> for Seeds {
    fn from(count: u64) -> Self {
        Self { first: 1, count }
    }
}

/// Results with the seeds that all arms have run.
#[derive(Clone, Copy, Debug)]
pub struct Runs<'r> {
    /// All of them.
    pub results: &'r Results,
    /// Their seeds.
    pub seeds: Seeds,
}

impl<'r> Runs<'r> {
    /// The runs of an arm, one per seed.
    pub fn of(self, cell: &Cell, arm: &Arm) -> impl Iterator<Item = &'r Figures> {
        self.seeds.iter().map(move |seed| self.results.of(cell, &arm.spec, seed))
    }

    /// A measure of an arm, one value per seed.
    pub fn values(self, cell: &Cell, arm: &Arm, measure: Measure) -> Vec<f64> {
        self.of(cell, arm).map(measure.of).collect()
    }

    /// Mean over seeds.
    pub fn mean(self, cell: &Cell, arm: &Arm, measure: Measure) -> f64 {
        mean(&self.values(cell, arm, measure))
    }

    /// By how many percent an arm is slower than another at a share of a curve: geometric mean over seeds.
    pub fn slowdown(
        self,
        cell: &Cell,
        arm: &Arm,
        to: &Arm,
        of: fn(&Figures) -> &Curve,
        share: f64,
    ) -> Option<f64> {
        let pairs = self.of(cell, arm).zip(self.of(cell, to));
        let ratios: Vec<f64> = pairs.map(|(a, b)| of(a).at(share) / of(b).at(share)).collect();
        Spread::of(&ratios).map(|ratio| 100.0 * (ratio.mean - 1.0))
    }

    /// Paired ratios of an arm to another on the same arrivals; `None` where they cannot be judged.
    pub fn ratio(self, cell: &Cell, arm: &Arm, to: &Arm, measure: Measure) -> Option<Spread> {
        let pairs = self.of(cell, arm).zip(self.of(cell, to));
        Spread::of(&pairs.map(|(a, b)| (measure.of)(a) / (measure.of)(b)).collect::<Vec<_>>())
    }
}
