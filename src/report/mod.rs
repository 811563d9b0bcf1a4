//! Reports of runs: one page of HTML that needs nothing else, and tables for terminals.
//!
//! A page is a function of its runs: the same input gives the same bytes. It knows nothing of how a run
//! came about, and it neither loads nor runs anything: drawings and style are inline.

mod charts;
mod facts;
pub(crate) mod format;
pub(crate) mod page;
pub(crate) mod svg;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use format::grouped;
pub use format::{joules, number, seconds};
pub use table::{summary_table, table};

use crate::metrics::{Metrics, Summary};

/// One run: its figures, and the accounts they came from.
#[derive(Clone, Copy, Debug)]
pub struct RunReport<'a> {
    /// The figures.
    pub summary: &'a Summary,
    /// Latencies of each request, and the run over time.
    pub metrics: &'a Metrics,
}

/// One page about one or several runs, such as several policies on one trace.
pub fn html(title: &str, runs: &[RunReport<'_>]) -> String {
    page::page(title, runs)
}
