//! `flyball compare`: policies against each other.

use super::CliError;
use clap::Args;

/// Compare policies on the same arrivals.
#[derive(Args, Debug)]
pub(super) struct CompareArgs {}

pub(super) fn run(_args: CompareArgs) -> Result<(), CliError> {
    Ok(())
}
