//! A heat map of wins and losses: cells by measures, coloured by the ratio, which is written in each.

use super::measures::Measure;
use super::public::{Table, ratio};
use super::stats::Spread;
use crate::report::format::escape;

/// A ratio of this or its inverse has the full colour.
const FULL: f64 = 2.0;

impl Table<'_> {
    /// The subject over the best of `rivals` in each cell and measure; below one it wins.
    pub fn heat(self, rivals: &[&str], measures: &[Measure]) -> String {
        let head: String = measures.iter().map(|m| format!("<th>{}</th>", m.name)).collect();
        let row = |cell| {
            let cells = measures.iter().map(|m| entry(self.best_of(cell, rivals, *m), m.more));
            format!("<tr><th>{}</th>{}</tr>\n", escape(&cell_name(cell)), cells.collect::<String>())
        };
        let rows: String = self.cells.iter().map(row).collect();
        format!(
            "<div class=\"wide heat\"><table>\n<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{rows}\
             </tbody></table></div>\n"
        )
    }

    /// The ratio of the subject to whichever of `rivals` is best there.
    fn best_of(
        self,
        cell: &super::cells::Cell,
        rivals: &[&str],
        measure: Measure,
    ) -> Option<(Spread, String)> {
        let subject = self.subject()?;
        let arms = self.arms.iter().filter(|arm| rivals.contains(&arm.name.as_str()));
        let against =
            arms.filter_map(|arm| Some((self.runs.ratio(cell, subject, arm, measure)?, arm.name.clone())));
        let worst = |r: &(Spread, String)| if measure.more { -r.0.mean } else { r.0.mean };
        against.max_by(|a, b| worst(a).total_cmp(&worst(b)))
    }
}

fn cell_name(cell: &super::cells::Cell) -> String {
    cell.name().replace("-llama-3-8b", "").replace("a100-codellama-34b", "a100 34B")
}

fn entry(ratio_to: Option<(Spread, String)>, more: bool) -> String {
    let Some((spread, rival)) = ratio_to else { return "<td>–</td>".into() };
    let better = if more { spread.mean } else { 1.0 / spread.mean };
    let strength = (better.ln().abs() / FULL.ln()).min(1.0) * 100.0;
    // Ties to one percent have no colour: the eye should not see what is not there.
    let strength = if better.ln().abs() < 0.01 { 0.0 } else { 12.0 + strength * 0.68 };
    let class = if better >= 1.0 { "win" } else { "loss" };
    let says = escape(&format!("against {rival}: {}", super::public::spread(spread)));
    let text = escape(&ratio(spread.mean));
    format!("<td class=\"{class}\" style=\"--part:{strength:.0}%\" title=\"{says}\">{text}</td>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_ratio() {
        let cell =
            |mean: f64, more| entry(Some((Spread { mean, low: mean, high: mean }, "fcfs".into())), more);
        assert!(cell(0.5, false).contains("class=\"win\" style=\"--part:80%\""));
        assert!(cell(2.0, false).contains("class=\"loss\" style=\"--part:80%\""));
        assert!(cell(1.005, false).contains("--part:0%") && cell(1.005, false).contains(">1.00<"));
        assert!(cell(0.9, true).contains("loss"));
        assert_eq!(entry(None, false), "<td>–</td>");
    }
}
