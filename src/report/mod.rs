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

pub use format::{joules, number, seconds};
pub use table::{summary_table, table};

use crate::metrics::{Metrics, Summary};
use std::path::Path;
use std::{fs, io};

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

/// Writes a page, whole or not at all: into a file beside `path`, which then takes its name.
///
/// # Errors
/// Of the file system; what stood at `path` is then still there.
pub fn write(path: &Path, html: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let part = path.with_file_name(name);
    let done = fs::write(&part, html).and_then(|()| fs::rename(&part, path));
    if done.is_err() {
        // The first error is the one to tell; a file that was never made cannot be removed.
        let _ = fs::remove_file(&part);
    }
    done
}
