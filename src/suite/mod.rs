//! Suites: published comparisons that anyone can run again with one command.
//!
//! ```text
//! cells x arms x seeds -> jobs -> run (cache, all cores) -> results -> tables, page, rows
//! ```
//!
//! A suite is data: which cells, which policies, which published figures stand beside ours. [`run`] does
//! not know suites, and a suite does not know how jobs are run. Nothing here prints, and nothing of the
//! host is in a result: the same build gives the same bytes.

pub mod arms;
mod bars;
pub mod cache;
pub mod cells;
pub mod document;
pub mod draw;
pub mod figures;
pub mod fragility;
mod gallery;
mod heat;
pub mod measures;
pub mod page;
pub mod paper;
pub mod public;
pub mod rows;
pub mod run;
pub mod stats;
pub mod work;

#[cfg(test)]
mod tests;

use crate::error::ProfileError;
use crate::sched::order::PolicyError;
use crate::sim::SimError;
use crate::trace::TraceError;
use document::Document;
use run::{Job, Results};
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// A comparison that is data.
pub trait Suite {
    /// What must be run.
    fn jobs(&self) -> Vec<Job>;
    /// The findings, once all jobs are done.
    fn document(&self, results: &Results) -> Document;
}

/// Why a suite could not be run.
#[derive(Debug, Error)]
pub enum SuiteError {
    /// A trace could not be read, or a result not be written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// No such machine.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No such policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A simulation failed.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// None of these files is in the folder of traces.
    #[error("no file {}", .0.join(" or "))]
    NoFile(&'static [&'static str]),
    /// A file or folder that is not a trace.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
