//! Plain-text tables for terminals.

use super::format::{grouped, number, seconds};
use crate::metrics::Summary;

/// An aligned table: the first column to the left, the others to the right, a rule under the header.
///
/// A row may be shorter than the header; what it lacks stays empty.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = header.iter().map(|h| width(h)).collect();
    for row in rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(width(cell));
        }
    }
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (i, w) in widths.iter().enumerate() {
            let cell = cells.next().unwrap_or("");
            let pad = " ".repeat(w - width(cell));
            let gap = if i == 0 { "" } else { "  " };
            text += &if i == 0 { format!("{cell}{pad}") } else { format!("{gap}{pad}{cell}") };
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut header.iter().copied());
    let rules: Vec<String> = widths.iter().map(|w| "─".repeat(*w)).collect();
    line(&mut rules.iter().map(String::as_str));
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// One line per run: what ended, latencies, throughput, evictions and energy.
pub fn summary_table(runs: &[&Summary]) -> String {
    let header = [
        "policy",
        "finished",
        "TTFT mean",
        "P50",
        "P99",
        "TBT P99",
        "TPOT P99",
        "TTLT mean",
        "P50",
        "P95",
        "P99",
        "tok/s",
        "preempt",
        "J/tok",
    ];
    let row = |s: &&Summary| {
        vec![
            s.policy.clone(),
            format!("{}/{}", grouped(s.requests.finished), grouped(s.requests.submitted)),
            seconds(s.ttft_s.mean),
            seconds(s.ttft_s.p50),
            seconds(s.ttft_s.p99),
            seconds(s.tbt_s.p99),
            seconds(s.tpot_s.p99),
            seconds(s.ttlt_s.mean),
            seconds(s.ttlt_s.p50),
            seconds(s.ttlt_s.p95),
            seconds(s.ttlt_s.p99),
            number(s.throughput_tok_s),
            grouped(s.preemptions.swap + s.preemptions.recompute),
            number(s.energy.j_per_output_token),
        ]
    };
    table(&header, &runs.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1.00 s".into()], vec!["long name".into(), "∞".into()]];
        let text = table(&["policy", "P99"], &rows);
        let want = "policy        P99\n─────────  ──────\na          1.00 s\nlong name       ∞\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(table(&["a", "b"], &[]), "a  b\n─  ─\n");
        assert_eq!(summary_table(&[]).lines().count(), 2);
    }
}
