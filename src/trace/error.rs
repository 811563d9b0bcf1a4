//! Why a trace could not be read, made or written. Every message names the file, and the line if
//! there is one.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a trace could not be read, made or written.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The operating system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The gzip data ends before its end mark.
    #[error("{}: the gzip data ends early; the file is truncated", path.display())]
    GzipCut {
        /// The file.
        path: PathBuf,
    },
    /// The gzip data is damaged.
    #[error("{}: the gzip data is damaged: {source}", path.display())]
    GzipDamaged {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        source: io::Error,
    },
    /// A line cannot be used.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Why.
        reason: String,
    },
    /// A row arrives before the one above it.
    #[error(
        "{}, line {line}: arrives before the row above it; `flyball trace convert --sort` puts rows in their order",
        path.display()
    )]
    Unsorted {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
    /// The file as a whole cannot be used.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Request(String),
}

impl TraceError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn line(path: &Path, line: u64, reason: impl Into<String>) -> Self {
        Self::Line { path: path.into(), line, reason: reason.into() }
    }

    pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unusable { path: path.into(), reason: reason.into() }
    }
}
